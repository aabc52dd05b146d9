"""Bytes that may be more than fit into memory: beyond a bound they lie in a file, of which a part at a time is in memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from fields.errors import DataError

IN_MEMORY = 1 << 30
"""Bytes up to which a block lies in memory. Beyond, the system caches its file in whatever memory nobody needs."""
_RESIDENT = 1 << 28  # bytes of a file's block that count as this process's memory, at most
_AROUND = (
    1 << 21
)  # bytes that may come into memory with one that is read: Linux caches files in pieces of up to a huge page
_PART = 1 << 20  # rows of a set looked at together


class Block:
    """Rows of numbers, (P, …) as a tensor. Where it lies makes no difference to what is read.

    The file has no name, or loses it at once: it goes with its process, however that ends. It is made where temporary files
    go that need not fit into memory, $TMPDIR or /var/tmp.

    Args:
        shape: of the tensor.
        dtype: of its numbers.
        of_what: for the error.

    Raises:
        DataError: there is no room for the file.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8, of_what: str = "images") -> None:
        size = int(np.prod(shape)) * dtype.itemsize
        self._pages: mmap.mmap | None = None
        self._read = 0
        if size <= IN_MEMORY:
            self.data = torch.empty(shape, dtype=dtype)
        else:
            self._pages = _mapped(size, of_what)
            self.data = torch.frombuffer(self._pages, dtype=dtype).view(shape)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """A copy of these rows (N,) int64, from all over the block."""
        if self._pages is None:
            return self.data[rows]
        copy = self.data.new_empty(len(rows), *self.data.shape[1:])
        some = max(1, _RESIDENT // _AROUND)
        for which, place in zip(rows.split(some), copy.split(some), strict=True):
            self.will_read(len(which) * _AROUND)
            torch.index_select(self.data, 0, which, out=place)
        return copy

    def layer(self, i: int) -> Tensor:
        """A view of (…,) number i of the first dimension."""
        self.will_read(self.data.stride(0) * self.data.itemsize)
        return self.data[i]

    def will_read(self, size: int) -> None:
        """Makes room for so many bytes of the file, where there is one, by letting go of those that were read before.

        Views of the block stay what they were: what is let go of is read again when it is looked at."""
        if self._pages is None:
            return
        self._read += size
        if self._read > _RESIDENT:
            self._pages.madvise(mmap.MADV_DONTNEED)
            self._read = size

    def first_columns(self, count: int) -> None:
        """Leaves of a block (P, C) of bytes the first `count` columns, in place."""
        rows, columns = self.data.shape
        flat = self.data.view(-1)
        for start in range(0, rows, _PART):
            part = self.data[start : start + _PART, :count].reshape(-1)  # a copy, for the two may overlap
            flat[start * count : start * count + len(part)] = part
            self.will_read(2 * columns * _PART)
        kept = flat[: rows * count].view(rows, count)
        self.data = kept if self._pages is not None else kept.clone()


def _mapped(size: int, of_what: str) -> mmap.mmap:
    folder = os.environ.get("TMPDIR") or ("/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # All of it now: a disk that fills up later would end the process where it writes.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise DataError(
            f"{folder}: no room for {size / 1e9:.1f} GB of {of_what} ({error.strerror}). Free some space, name a folder on another "
            "disk in TMPDIR, or ask for less: images with --downscale, a grid with --resolution."
        ) from error


class Rows:
    """A set of rows, in order, as runs of neighbours: of silhouettes a few bytes per row of an image.

    `rows[which]` is what indexing all of them in one tensor would be.

    Args:
        parts: tensors (…,) int64 of rows, all in rising order.
        device: of the result.
    """

    def __init__(self, parts: Iterable[Tensor], device: torch.device) -> None:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        starts, counts = [none], [none]
        for part in parts:
            first = torch.cat([torch.ones_like(part[:1], dtype=torch.bool), part.diff() != 1]).nonzero()[:, 0]
            starts.append(part[first])
            counts.append(torch.cat([first, first.new_tensor([len(part)])]).diff())
        counted = torch.cat(counts)
        self._after = counted.cumsum(0)
        self._shift = torch.cat(starts) - (self._after - counted)
        self._length = int(counted.sum())

    @staticmethod
    def all(count: int, device: torch.device) -> Rows:
        """All of `count` rows."""
        some = Rows([], device)
        some._after, some._shift = torch.tensor([count], device=device), torch.tensor([0], device=device)
        some._length = count
        return some

    def __len__(self) -> int:
        return self._length

    @property
    def device(self) -> torch.device:
        return self._after.device

    def __getitem__(self, which: Tensor) -> Tensor:
        return self._shift[torch.searchsorted(self._after, which, right=True)] + which

    def parts(self, most: int = _PART) -> Iterator[Tensor]:
        """All rows in order, at most so many at a time."""
        for start in range(0, len(self), most):
            yield self[torch.arange(start, min(start + most, len(self)), device=self.device)]

    def where(self, wanted: Callable[[Tensor], Tensor], most: int = _PART) -> Rows:
        """Those of which `wanted` (N,) -> (N,) bool is True; it is asked about `most` at a time."""
        return Rows((part[wanted(part)] for part in self.parts(most)), self.device)
