"""Boxes of one size, and how those that hold a point are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fields.core._check import check_shape
from fields.core.neighbours import morton_encode
from fields.errors import ShapeError


@dataclass(frozen=True, eq=False)
class BoxIndex:
    """Boxes of one size, and how those that hold a point are found. Made by `on_lattice` or `free`."""

    centres: Tensor
    """(B, 3) floating point; float64 on a lattice, so that each precision has its best centres."""
    half: float
    """Half the edge of a box."""
    low: tuple[float, float, float]
    """Corner of the first cell."""
    spacing: float
    """Edge of a cell."""
    lattice: Tensor
    """(nx, ny, nz) int32: the box of each cell, or −1. Empty for free centres."""
    keys: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    begins: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int32))
    members: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int32))

    @classmethod
    def on_lattice(cls, cells: Tensor, low: Sequence[float], spacing: float, half: float) -> BoxIndex:
        """Boxes around the centres low + (cell + ½)·spacing of distinct, non-negative cells (B, 3) int64.

        Raises:
            ShapeError: boxes so large that more than three would hold a point along one axis, or cells that repeat.
        """
        check_shape("cells", cells, None, 3)
        if not 0 < half <= 1.5 * spacing:
            raise ShapeError(f"half is {half}: it must be positive and at most 1.5 times the spacing {spacing}.")
        if cells.numel() and int(cells.min()) < 0:
            raise ShapeError("Cells of a lattice count from 0.")
        size = (cells.amax(0) + 1).tolist() if len(cells) else [1, 1, 1]
        lattice = torch.full(size, -1, dtype=torch.int32, device=cells.device)
        lattice[tuple(cells.unbind(1))] = torch.arange(len(cells), dtype=torch.int32, device=cells.device)
        if int((lattice >= 0).sum()) != len(cells):
            raise ShapeError("A cell of the lattice holds more than one box.")
        corner = torch.tensor(list(low), dtype=torch.float64, device=cells.device)
        centres = corner + (cells.double() + 0.5) * spacing
        return cls(centres, half, tuple(map(float, low)), spacing, lattice, *_nothing(cells.device))  # type: ignore[arg-type]

    @classmethod
    def free(cls, centres: Tensor, half: float) -> BoxIndex:
        """Boxes anywhere, found by a hash of cells as large as a box."""
        check_shape("centres", centres, None, 3)
        if not half > 0:
            raise ShapeError(f"half is {half}: it must be positive.")
        edge = 2 * half
        low = (centres.amin(0) - half).tolist() if len(centres) else [0.0] * 3
        cells = ((centres - centres.new_tensor(low)) / edge).floor().long()
        keys, order = torch.sort(morton_encode(cells), stable=True)
        keys, counts = torch.unique_consecutive(keys, return_counts=True)
        begins = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
        lattice = torch.empty(0, 0, 0, dtype=torch.int32, device=centres.device)
        return cls(centres, half, tuple(low), edge, lattice, keys, begins, order.int())  # type: ignore[arg-type]

    @property
    def tensors(self) -> list[Tensor]:
        return [self.centres, self.lattice, self.keys, self.begins, self.members]

    @property
    def frame(self) -> list[float]:
        return [*self.low, self.spacing, self.half]


def _nothing(device: torch.device) -> list[Tensor]:
    return [torch.empty(0, dtype=d, device=device) for d in (torch.int64, torch.int32, torch.int32)]
