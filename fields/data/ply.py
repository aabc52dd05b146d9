"""The vertex positions of a PLY file: sparse points that come with a nerfstudio scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fields.errors import DataError

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", 
    "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", 
    "float32": "f4", "float64": "f8",
}  # fmt: skip


def read_ply_points(path: Path) -> np.ndarray:
    """(P, 3) float64 positions from an ASCII or binary PLY whose first element is `vertex`."""
    try:
        return _read(path)
    except (ValueError, KeyError, IndexError, OSError, UnicodeDecodeError) as e:
        raise DataError(
            f"{path}: not a readable PLY point cloud ({e}).\nWrite it again, or remove ply_file_path."
        ) from e


def _read(path: Path) -> np.ndarray:
    raw = path.read_bytes()
    end = raw.index(b"end_header")
    header = raw[:end].decode("ascii").split("\n")
    body = raw[raw.index(b"\n", end) + 1 :]
    kind, count, properties, in_vertex = "", 0, [], False
    for line in (x.split() for x in header):
        if not line:
            continue
        if line[0] == "format":
            kind = line[1]
        elif line[0] == "element":
            in_vertex = line[1] == "vertex"
            count = int(line[2]) if in_vertex else count
        elif line[0] == "property" and in_vertex:
            properties.append((line[-1], _TYPES[line[1]]))
    names = [n for n, _ in properties]
    if kind == "ascii":
        columns = [names.index(a) for a in "xyz"]
        rows = [x.split() for x in body.decode("ascii").split("\n")[:count]]
        return np.array([[float(r[c]) for c in columns] for r in rows]).reshape(-1, 3)
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}[kind]
    table = np.frombuffer(body, np.dtype([(n, order + t) for n, t in properties]), count)
    return np.stack([table[a].astype(np.float64) for a in "xyz"], -1)
