"""Writing files so that a reader, or a crash, only ever meets the old file or the new one."""

from __future__ import annotations

import json
import math
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fields.errors import CheckpointError, FieldsError
from fields.io.reading import parse_json


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Has `write` fill a temporary file beside `path`, makes sure it is on the disk, and renames it to `path`.

    Raises:
        FieldsError: the disk is full or the folder cannot be written; what was at `path` is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise FieldsError(
            f"{path}: cannot be written ({error.strerror}). Free some space or choose another place."
        ) from error
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FieldsError(
            f"{path}: could not be saved ({reason}). Free some space or choose another place; the previous file is intact."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    write_atomically(path, lambda file: file.write_text(json.dumps(data, indent=2) + "\n"))


def write_tensors(path: Path, tensors: dict[str, Tensor], plain: Any) -> None:
    """Tensors as safetensors, with plain data as JSON in the header: nothing that could run when loaded.

    Occupancy grids and other bool tensors are stored as deflated bits, their shapes in the header.
    """
    stored = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    shapes = {k: list(v.shape) for k, v in stored.items() if v.dtype is torch.bool}
    stored |= {k: _pack(stored[k]) for k in shapes}
    metadata = {"fields": json.dumps(plain), "bits": json.dumps(shapes)}
    write_atomically(path, lambda file: safetensors.torch.save_file(stored, file, metadata))


def _pack(mask: Tensor) -> Tensor:
    deflated = zlib.compress(np.packbits(mask.numpy()).tobytes())
    return torch.frombuffer(bytearray(deflated), dtype=torch.uint8)


def _unpack(stored: Tensor, shape: list[int]) -> Tensor:
    """Raises ValueError for anything but the deflated bits of such a shape; never inflates more than it may hold."""
    n = math.prod(shape)
    size = -(-n // 8)
    inflate = zlib.decompressobj()
    bits = inflate.decompress(stored.numpy().tobytes(), size + 1)
    if stored.dtype is not torch.uint8 or len(bits) != size or not inflate.eof:
        raise ValueError(f"a mask of shape {tuple(shape)} does not have {len(bits)} bytes")
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=n).astype(bool)
    return torch.from_numpy(mask).view(shape)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Raises CheckpointError for a file that is missing, damaged or not ours."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 — not a mapping
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file. Give the run folder that `fields train` wrote.") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: damaged or not a safetensors file ({error}). Train again or restore a copy."
        ) from None
    try:
        shapes = parse_json(metadata.get("bits", "{}"))
        tensors |= {name: _unpack(tensors[name], shape) for name, shape in shapes.items()}
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, zlib.error) as error:
        raise CheckpointError(f"{path}: its masks are damaged ({error}). Train again or restore a copy.") from None
    try:
        return tensors, parse_json(metadata["fields"])
    except (KeyError, ValueError):
        raise CheckpointError(
            f"{path}: a safetensors file of another program. Give one that `fields train` wrote."
        ) from None


def read_json(path: Path) -> Any:
    """Raises CheckpointError for a file that is missing or not JSON."""
    try:
        return parse_json(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file. Give the run folder that `fields train` wrote.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}). Restore it from a copy, or train again.") from None
