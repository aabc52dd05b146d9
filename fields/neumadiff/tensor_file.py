"""Files of named arrays, as the RGL database keeps its measurements in (Dupuy and Jakob, SIGGRAPH Asia 2018).

    "tensor_file" 0 | version u8 u8 | number of arrays u32 | of each: length of its name u16, name, dimensions u16, type u8, where it begins u64, shape u64 …

Little-endian; an array begins at a multiple of its elements' size.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fields.errors import DataError
from fields.io.atomic import write_atomically

_MAGIC, _VERSION = b"tensor_file\0", b"\1\0"
_TYPES = dict(enumerate(("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"), start=1))
_CODES = {np.dtype(name): code for code, name in _TYPES.items()}


def read_tensor_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Raises:
        DataError: no such file, another kind of file, or a damaged one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Give a .bsdf file of the RGL database.") from None
    if data[:12] != _MAGIC:
        raise DataError(f"{path}: does not begin as a tensor file. Give a .bsdf file of the RGL database.")
    if data[12:14] != _VERSION:
        raise DataError(f"{path}: version {'.'.join(map(str, data[12:14]))} of the format; this reads 1.0. Convert it.")
    try:
        (count,), at, arrays = struct.unpack_from("<I", data, 14), 18, {}
        for _ in range(count):
            (length,) = struct.unpack_from("<H", data, at)
            name = data[at + 2 : at + 2 + length].decode()
            at += 2 + length
            dimensions, kind, begin = struct.unpack_from("<HBQ", data, at)
            shape = struct.unpack_from(f"<{dimensions}Q", data, at + 11)
            at += 11 + 8 * dimensions
            # A view of what was read: an array that the file has not room for cannot be.
            arrays[name] = np.frombuffer(data, _TYPES[kind], math.prod(shape), begin).reshape(shape)
    except (struct.error, KeyError, ValueError, OverflowError, TypeError) as error:
        raise DataError(f"{path}: truncated or damaged ({error}). Fetch it again.") from None
    return arrays


def write_tensor_file(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays of numbers, of 8 to 64 bits each."""
    stored = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    end = 18 + sum(13 + len(name.encode()) + 8 * array.ndim for name, array in stored.items())
    table, body = b"", b""
    for name, array in stored.items():
        body += b"\0" * (-(end + len(body)) % array.itemsize)
        label = name.encode()
        table += struct.pack("<H", len(label)) + label
        table += struct.pack(f"<HBQ{array.ndim}Q", array.ndim, _CODES[array.dtype], end + len(body), *array.shape)
        body += array.tobytes()
    whole = _MAGIC + _VERSION + struct.pack("<I", len(stored)) + table + body
    write_atomically(path, lambda file: file.write_bytes(whole))
