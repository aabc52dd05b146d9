"""Meshes and point clouds as PLY, meshes as binary glTF and OBJ."""

from __future__ import annotations

import json
import struct
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


def write_glb(path: Path, mesh: Mesh, facts: dict[str, str]) -> None:
    """Binary glTF 2.0; `facts` become extras of the asset and of the mesh.

    The colours are light that leaves the surface, so the material is unlit. glTF wants vertex colours linear: in 16 bits,
    because 8 would leave dark tones in steps. A texture is sRGB.
    """
    positions = mesh.positions.astype("<f4")
    attributes: dict[str, tuple[np.ndarray, int, str]] = {  # array, component type, kind
        "POSITION": (positions, 5126, "VEC3"),
        "NORMAL": (mesh.normals.astype("<f4"), 5126, "VEC3"),
    }
    # Readers without the extension see a matt surface.
    matt: dict = {"metallicFactor": 0, "roughnessFactor": 1}
    image = b""
    if isinstance(mesh, TexturedMesh):
        attributes["TEXCOORD_0"] = mesh.uv.astype("<f4"), 5126, "VEC2"
        matt["baseColorTexture"] = {"index": 0}
        image = png_of_bytes(mesh.texture)
    else:
        opaque = np.full((len(mesh.colours), 1), 65535)
        colours = np.concatenate([np.round(linear(mesh.colours / 255) * 65535), opaque], 1).astype("<u2")
        attributes["COLOR_0"] = colours, 5123, "VEC4"
    parts = [*attributes.values(), (mesh.faces.astype("<u4").reshape(-1), 5125, "SCALAR")]
    accessors: list[dict] = [
        {"bufferView": i, "componentType": component, "type": kind, "count": len(array)}
        for i, (array, component, kind) in enumerate(parts)
    ]
    accessors[0] |= {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
    if not image:
        accessors[2] |= {"normalized": True}
    blobs = [array.tobytes() for array, _, _ in parts]  # each a multiple of four bytes, as glTF demands
    starts = np.cumsum([0, *map(len, blobs)]).tolist()
    vertices, indices = 34962, 34963  # what the GPU is to use a buffer for
    targets = [*[vertices] * len(attributes), indices]
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(blob), "target": target}
        for start, blob, target in zip(starts, blobs, targets, strict=False)
    ]
    triangles = {"attributes": {n: i for i, n in enumerate(attributes)}, "indices": len(attributes), "material": 0}
    tree = {
        "asset": {"version": "2.0", "generator": "fields", "extras": facts},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [triangles], "extras": facts}],
        "materials": [{"pbrMetallicRoughness": matt, "extensions": {"KHR_materials_unlit": {}}}],
        "extensionsUsed": ["KHR_materials_unlit"],
        "accessors": accessors,
        "bufferViews": views,
    }
    if image:
        views.append({"buffer": 0, "byteOffset": starts[-1], "byteLength": len(image)})
        blobs.append(image + b"\0" * (-len(image) % 4))
        linear_filter, clamp = 9729, 33071
        sampler = {"magFilter": linear_filter, "minFilter": linear_filter, "wrapS": clamp, "wrapT": clamp}
        tree |= {
            "images": [{"bufferView": len(views) - 1, "mimeType": "image/png"}],
            "samplers": [sampler],
            "textures": [{"source": 0, "sampler": 0}],
        }
    size = sum(map(len, blobs))
    tree["buffers"] = [{"byteLength": size}]
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = [struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", size, b"BIN\0"), *blobs]
    data = b"".join([struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, chunks))), *chunks])
    write_atomically(path, lambda file: file.write_bytes(data))


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
