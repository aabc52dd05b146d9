"""What readers share: whatever they trip over in a damaged file becomes one clear error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np

from fields.errors import DataError, FieldsError

INFLATES = 1032
"""No stream of zlib says more than so many bytes with one."""
_LARGEST = 1 << 30  # bytes of one array in an archive


@contextmanager
def reading(what: object, kind: str, fix: str) -> Iterator[None]:
    """Reads `what`, a file or a place in one, that should be `kind`. Errors that say clearly what is wrong pass; all others, whatever a
    parser makes of a damaged file, become a DataError that names it and says the `fix`."""
    try:
        yield
    except FieldsError:
        raise
    except Exception as reason:
        raise DataError(f"{what}: not {kind} ({said(reason)}).\n{fix}") from reason


def said(error: Exception) -> str:
    """What an error says, in a line of bearable length; of one without words, or with nothing but a key, its kind too."""
    text = " ".join(str(error).split())[:200].rstrip(".")
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError) or not text else text


def parse_json(text: str | bytes) -> Any:
    """Plain data; numbers too large for 64 bits as floats, infinite if need be, for which whoever takes numbers looks.

    Raises:
        ValueError: not JSON, or JSON that is nested too deeply.
    """
    try:
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 19 else float(digits))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is that of none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_npy(path: Path) -> np.ndarray:
    """An array of numbers, no larger than its file; nothing is unpickled. Raises ValueError or OSError for anything else."""
    with path.open("rb") as stream:
        _, _, dtype = _header(stream)
    if dtype.kind not in "biuf":  # mapping elements of no size would end the process
        raise ValueError(f"it holds {dtype.name}s, not numbers")
    return np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a shape is checked against the file's size


def read_npz(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """The arrays of an archive, of numbers and text, whose names are `wanted`; none is larger than its bytes. Nothing is unpickled.

    Raises ValueError and the errors of `zipfile` and `zlib` for anything else.
    """
    with ZipFile(path) as archive:
        names = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        return {name: _member(archive, file) for name, file in names.items() if wanted(name)}


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _member(archive: ZipFile, name: str) -> np.ndarray:
    size = archive.getinfo(name).file_size
    with archive.open(name) as stream:
        shape, fortran, dtype = _header(stream)
        bytes_of_it = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "biufU" or size > _LARGEST or not 0 <= bytes_of_it <= size or min(shape, default=0) < 0:
            raise ValueError(f"its {name} of shape {shape} and {dtype} does not have {size} bytes")
        data = stream.read(bytes_of_it)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").copy()
