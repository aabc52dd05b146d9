"""Meshes and point clouds as PLY, meshes as binary glTF."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from fields.geometry.shapes import Mesh, PointCloud
from fields.io.atomic import write_atomically


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
    because 8 would leave dark tones in steps.
    """
    positions = mesh.positions.astype("<f4")
    opaque = np.full((len(mesh.colours), 1), 65535)
    colours = np.concatenate([np.round(linear(mesh.colours / 255) * 65535), opaque], 1).astype("<u2")
    arrays = [positions, mesh.normals.astype("<f4"), colours, mesh.faces.astype("<u4").reshape(-1)]
    blobs = [a.tobytes() for a in arrays]  # each a multiple of four bytes, as glTF demands
    starts = np.cumsum([0, *map(len, blobs)]).tolist()
    kinds = [(5126, "VEC3"), (5126, "VEC3"), (5123, "VEC4"), (5125, "SCALAR")]  # float, float, ushort, uint
    accessors: list[dict] = [
        {"bufferView": i, "componentType": component, "type": kind, "count": len(array)}
        for i, ((component, kind), array) in enumerate(zip(kinds, arrays, strict=True))
    ]
    accessors[0] |= {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
    accessors[2] |= {"normalized": True}
    vertices, indices = 34962, 34963  # what the GPU is to use a buffer for
    triangles = {"attributes": {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}, "indices": 3, "material": 0}
    # Readers without the extension see a matt surface.
    matt = {"metallicFactor": 0, "roughnessFactor": 1}
    unlit = {"pbrMetallicRoughness": matt, "extensions": {"KHR_materials_unlit": {}}}
    tree = {
        "asset": {"version": "2.0", "generator": "fields", "extras": facts},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [triangles], "extras": facts}],
        "materials": [unlit],
        "extensionsUsed": ["KHR_materials_unlit"],
        "accessors": accessors,
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(blob), "target": indices if i == 3 else vertices}
            for i, (start, blob) in enumerate(zip(starts, blobs, strict=False))
        ],
        "buffers": [{"byteLength": starts[-1]}],
    }
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = [struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", starts[-1], b"BIN\0"), *blobs]
    data = b"".join([struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, chunks))), *chunks])
    write_atomically(path, lambda file: file.write_bytes(data))


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
