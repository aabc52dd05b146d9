"""Writing files so that a reader, or a crash, only ever meets the old file or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fields.errors import CheckpointError, FieldsError
from fields.io.lock import locked
from fields.io.reading import parse_json

_WRITING = ".writing-"
"""In the names of temporary files, before letters at random."""


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Gives a temporary file beside `path` to fill, makes sure it is on the disk, and renames it to `path`.

    What killed processes left half written in that folder goes.

    Args:
        keep: what was at `path` goes there.

    Raises:
        FieldsError: the disk is full or the folder cannot be written; what was at `path` is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left(path.parent)
        handle, temporary = _temporary(path)
    except OSError as error:
        raise FieldsError(
            f"{path}: cannot be written ({error.strerror}). Free some space or choose another place."
        ) from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        if keep is not None and path.exists():
            _keep(path, keep)
        os.replace(temporary, path)
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FieldsError(
            f"{path}: could not be saved ({reason}). Free some space or choose another place; the previous file is intact."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def write_atomically(path: Path, write: Callable[[Path], Any], keep: Path | None = None) -> None:
    """Has `write` fill the temporary file; see `replacing`."""
    with replacing(path, keep) as temporary:
        write(temporary)


def _temporary(path: Path) -> tuple[int, Path]:
    """A new file, locked for as long as the handle is open, so that nobody takes it for one that was left."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}{_WRITING}", suffix=path.suffix, dir=path.parent)
        try:
            ours = locked(handle)
        except OSError:  # without locks nobody removes any
            ours = True
        if ours and os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # somebody came between


def remove_left(folder: Path) -> None:
    """Removes temporary files that no living process has locked."""
    for name in os.listdir(folder):
        if name.startswith(".") and _WRITING in name:
            with contextlib.suppress(OSError), (folder / name).open("rb+", buffering=0) as file:
                if locked(file):
                    (folder / name).unlink()


def _keep(path: Path, where: Path) -> None:
    """A second name, so that there is a file at `path` at all times; where there are no hard links, almost."""
    where.unlink(missing_ok=True)
    try:
        os.link(path, where)
    except OSError:
        os.replace(path, where)


def write_json(path: Path, data: Any) -> None:
    write_atomically(path, lambda file: file.write_text(json.dumps(data, indent=2) + "\n"))


def write_tensors(path: Path, tensors: dict[str, Tensor], plain: Any, keep: Path | None = None) -> None:
    """Tensors as safetensors, with plain data as JSON in the header: nothing that could run when loaded.

    Occupancy grids and other bool tensors are stored as deflated bits, their shapes in the header. A checksum of all
    that is in the header, too.

    Args:
        keep: what was at `path` goes there.
    """
    stored = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    shapes = {k: list(v.shape) for k, v in stored.items() if v.dtype is torch.bool}
    stored |= {k: _pack(stored[k]) for k in shapes}
    metadata = {"fields": json.dumps(plain), "bits": json.dumps(shapes)}
    metadata["sha256"] = digest(stored, metadata["fields"], metadata["bits"]).hex()
    # Not save_file: it writes beside the file it is given, and leaves that when it is killed.
    write_atomically(path, lambda file: file.write_bytes(safetensors.torch.save(stored, metadata)), keep)


def digest(tensors: Mapping[str, Tensor], *texts: str) -> bytes:
    """SHA-256 of tensors, their names, types and shapes, and of texts."""
    sum_ = hashlib.sha256(json.dumps(texts).encode())
    for name, tensor in sorted(tensors.items()):
        sum_.update(json.dumps([name, str(tensor.dtype), *tensor.shape]).encode())
        sum_.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sum_.digest()


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
    """Raises CheckpointError for a file that is missing, damaged (be it by a bit) or not ours."""
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
    said = metadata.get("sha256")  # files of before it was written have none
    if said and said != digest(tensors, metadata.get("fields", ""), metadata.get("bits", "")).hex():
        raise CheckpointError(f"{path}: damaged (its checksum is another). Train again or restore a copy.")
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
