"""Meshes and point clouds as PLY, meshes as binary glTF and OBJ."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fields.geometry.shapes import Mesh, PointCloud, TexturedMesh
from fields.io.atomic import write_atomically
from fields.io.images import png_of_bytes


def write_ply(path: Path, shape: PointCloud, facts: dict[str, str]) -> None:
    """Binary PLY with normals and colours, with triangles if it is a mesh; `facts` become comments."""
    numbers = dict(zip(("x", "y", "z", "nx", "ny", "nz"), (*shape.positions.T, *shape.normals.T), strict=True))
    channels = dict(zip(("red", "green", "blue"), shape.colours.T, strict=True))
    vertices = np.empty(len(shape.positions), [*((n, "<f4") for n in numbers), *((n, "u1") for n in channels)])
    for name, column in (numbers | channels).items():
        vertices[name] = column
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {k}: {v}" for k, v in facts.items())]
    header += [f"element vertex {len(vertices)}"]
    header += [*(f"property float {name}" for name in numbers), *(f"property uchar {name}" for name in channels)]
    body = vertices.tobytes()
    if isinstance(shape, Mesh):
        header += [f"element face {len(shape.faces)}", "property list uchar int vertex_indices"]
        faces = np.empty(len(shape.faces), np.dtype([("n", "u1"), ("corners", "<i4", 3)]))
        faces["n"], faces["corners"] = 3, shape.faces
        body += faces.tobytes()
    data = "\n".join([*header, "end_header", ""]).encode("ascii") + body
    write_atomically(path, lambda file: file.write_bytes(data))


@dataclass(frozen=True)
class Moving:
    """A mesh that moves on another, in whose frame it stands."""

    mesh: Mesh
    name: str
    parent: int
    """Of those listed before it; −1 for none."""
    translations: np.ndarray
    """(T, 3)."""
    rotations: np.ndarray
    """(T, 4) unit quaternions x, y, z, w."""


def write_glb(path: Path, mesh: Mesh, facts: dict[str, str]) -> None:
    """Binary glTF 2.0; `facts` become extras of the asset and of the mesh.

    The colours are light that leaves the surface, so the material is unlit. glTF wants vertex colours linear: in 16 bits,
    because 8 would leave dark tones in steps. A texture is sRGB.
    """
    data = glb_of(mesh, facts)
    write_atomically(path, lambda file: file.write_bytes(data))


def glb_of(mesh: Mesh, facts: dict[str, str]) -> bytes:
    """What `write_glb` writes."""
    glb = _Glb(facts)
    glb.tree |= {"scenes": [{"nodes": [0]}], "nodes": [{"mesh": glb.mesh(mesh)}]}
    return glb.bytes()


def write_animated_glb(
    path: Path, parts: Sequence[Moving], times: np.ndarray, facts: dict[str, str], lit: bool = False
) -> None:
    """Binary glTF 2.0 of meshes, as `write_glb` writes them, that move; times (T,) are seconds.

    Args:
        lit: colours are of the surface, and light makes of them what is seen.
    """
    glb = _Glb(facts, lit)
    when = glb.accessor(times.astype("<f4"), "SCALAR", bounds=True)
    nodes: list[dict] = []
    samplers: list[dict] = []
    channels: list[dict] = []
    for i, part in enumerate(parts):
        start = {"translation": part.translations[0].tolist(), "rotation": part.rotations[0].tolist()}
        nodes.append({"name": part.name, "mesh": glb.mesh(part.mesh), **start})
        if part.parent >= 0:
            nodes[part.parent].setdefault("children", []).append(i)
        for goal, kind, values in (("translation", "VEC3", part.translations), ("rotation", "VEC4", part.rotations)):
            if np.ptp(values, 0).any():
                channels.append({"sampler": len(samplers), "target": {"node": i, "path": goal}})
                samplers.append({"input": when, "output": glb.accessor(values.astype("<f4"), kind)})
    glb.tree |= {"scenes": [{"nodes": [i for i, part in enumerate(parts) if part.parent < 0]}], "nodes": nodes}
    if channels:
        glb.tree["animations"] = [{"name": "motion", "channels": channels, "samplers": samplers}]
    write_atomically(path, lambda file: file.write_bytes(glb.bytes()))


class _Glb:
    """A binary glTF 2.0 as it is put together."""

    def __init__(self, facts: dict[str, str], lit: bool = False) -> None:
        self.facts, self.lit = facts, lit
        self.tree: dict = {
            "asset": {"version": "2.0", "generator": "fields", "extras": facts},
            "scene": 0,
            "meshes": [], "materials": [], "accessors": [], "bufferViews": [],
        }  # fmt: skip
        if not lit:
            self.tree["extensionsUsed"] = ["KHR_materials_unlit"]
        self.blobs: list[bytes] = []

    def view(self, blob: bytes, **more: int) -> int:
        start = sum(map(len, self.blobs))
        self.blobs.append(blob + b"\0" * (-len(blob) % 4))
        self.tree["bufferViews"].append({"buffer": 0, "byteOffset": start, "byteLength": len(blob), **more})
        return len(self.blobs) - 1

    def accessor(self, array: np.ndarray, kind: str, bounds: bool = False, **view: int) -> int:
        """Of float32, uint32, or uint16 that stands for [0, 1]."""
        component = {"<f4": 5126, "<u4": 5125, "<u2": 5123}[array.dtype.str]
        accessor = {"bufferView": self.view(array.tobytes(), **view), "componentType": component, "type": kind, "count": len(array)}  # fmt: skip
        if bounds:
            accessor |= {"min": array.min(0, keepdims=array.ndim == 1).tolist(), "max": array.max(0, keepdims=array.ndim == 1).tolist()}  # fmt: skip
        if component == 5123:
            accessor["normalized"] = True
        self.tree["accessors"].append(accessor)
        return len(self.tree["accessors"]) - 1

    def mesh(self, mesh: Mesh) -> int:
        vertices, indices = 34962, 34963  # what the GPU is to use a buffer for
        attributes = {
            "POSITION": self.accessor(mesh.positions.astype("<f4"), "VEC3", bounds=True, target=vertices),
            "NORMAL": self.accessor(mesh.normals.astype("<f4"), "VEC3", target=vertices),
        }
        # Readers without the extension see a matt surface.
        matt: dict = {"metallicFactor": 0, "roughnessFactor": 1}
        if isinstance(mesh, TexturedMesh):
            attributes["TEXCOORD_0"] = self.accessor(mesh.uv.astype("<f4"), "VEC2", target=vertices)
            matt["baseColorTexture"] = {"index": self.texture(mesh.texture)}
        else:
            opaque = np.full((len(mesh.colours), 1), 65535)
            colours = np.concatenate([np.round(linear(mesh.colours / 255) * 65535), opaque], 1).astype("<u2")
            attributes["COLOR_0"] = self.accessor(colours, "VEC4", target=vertices)
        faces = self.accessor(mesh.faces.astype("<u4").reshape(-1), "SCALAR", target=indices)
        materials, meshes = self.tree["materials"], self.tree["meshes"]
        materials.append(
            {"pbrMetallicRoughness": matt} | ({} if self.lit else {"extensions": {"KHR_materials_unlit": {}}})
        )
        triangles = {"attributes": attributes, "indices": faces, "material": len(materials) - 1}
        meshes.append({"primitives": [triangles], "extras": self.facts})
        return len(meshes) - 1

    def texture(self, picture: np.ndarray) -> int:
        linear_filter, clamp = 9729, 33071
        sampler = {"magFilter": linear_filter, "minFilter": linear_filter, "wrapS": clamp, "wrapT": clamp}
        textures = self.tree.setdefault("textures", [])
        self.tree.setdefault("images", []).append(
            {"bufferView": self.view(png_of_bytes(picture)), "mimeType": "image/png"}
        )
        self.tree["samplers"] = [sampler]
        textures.append({"source": len(textures), "sampler": 0})
        return len(textures) - 1

    def bytes(self) -> bytes:
        size = sum(map(len, self.blobs))
        text = json.dumps(self.tree | {"buffers": [{"byteLength": size}]}).encode()
        text += b" " * (-len(text) % 4)
        chunks = [struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", size, b"BIN\0"), *self.blobs]
        return b"".join([struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, chunks))), *chunks])


def write_obj(path: Path, mesh: Mesh, facts: dict[str, str]) -> None:
    """Wavefront OBJ; `facts` become comments. Colours follow the positions of the vertices, as MeshLab, Blender and trimesh
    read them; a texture lies beside it as a PNG, with the material that names it."""
    lines, rows, corner = [f"# {k}: {v}" for k, v in facts.items()], mesh.positions, "{0}//{0}"
    if isinstance(mesh, TexturedMesh):
        material, picture = path.with_suffix(".mtl"), path.with_suffix(".png")
        image = png_of_bytes(mesh.texture)
        write_atomically(picture, lambda file: file.write_bytes(image))
        shading = f"newmtl surface\nKa 1 1 1\nKd 1 1 1\nillum 0\nmap_Ka {picture.name}\nmap_Kd {picture.name}\n"
        write_atomically(material, lambda file: file.write_text(shading))
        lines += [f"mtllib {material.name}", "usemtl surface"]
        lines += [f"vt {u:.7g} {1 - v:.7g}" for u, v in mesh.uv.tolist()]  # upwards
        corner = "{0}/{0}/{0}"
    else:
        rows = np.concatenate([mesh.positions, mesh.colours / 255], 1)
    lines += ["v " + " ".join(f"{value:.7g}" for value in row) for row in rows.tolist()]
    lines += [f"vn {x:.5g} {y:.5g} {z:.5g}" for x, y, z in mesh.normals.tolist()]
    face = f"f {corner} {corner.replace('0', '1')} {corner.replace('0', '2')}"
    lines += [face.format(*corners) for corners in (mesh.faces + 1).tolist()]
    text = "\n".join([*lines, ""])
    write_atomically(path, lambda file: file.write_text(text))


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
