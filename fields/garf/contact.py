"""What speaks for and against two fragments belonging together as they are posed.

All lengths are in sizes of the object. Poses are (4, 4) and go from a fragment's frame to another's, or to the world.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fields.core import VoxelHash
from fields.geometry.rigid import inverse, move

REACH = 0.012
"""Surfaces this near have to do with each other: the width of a crack's rim."""
_INSIDE = 0.02
"""What lies this far behind a surface is inside it."""
_RIM = 0.02
"""Original surface this near to break is its rim."""
_MOST_CELLS = 256
"""Of a table of nearest points along an axis: a fragment as large as the object has a third of it."""
_FAR = 0.1
"""How far the nearest surface is looked for."""

EVIDENCE = (
    "touching",  # break that faces break
    "close",  # of it, with a gap below a third of the reach
    "fitting",  # of it, with a gap below an eighth, and all but parallel
    "gap",  # of it, times the mean square gap, in reaches
    "tilt",  # of it, times the mean of 1 + m·n
    "continued",  # original surface that goes on across the crack
    "stepped",  # original surface that does not
    "covered",  # break that faces original surface, or original surface that faces another
    "doubled",  # original surface where the other's already is
    "inside",  # surface deep inside the other
)
"""Areas, of both sides together, in squared sizes of the object."""


class Patch:
    """Points that have counterparts on another fragment.

    Args:
        points, normals: (P, 3).
        facing: −1 where a counterpart faces them, as break does; 1 where it goes on as they do, as original surface beside a crack.
    """

    def __init__(self, points: Tensor, normals: Tensor, facing: int) -> None:
        self.points, self.normals, self.facing = points, normals, facing
        self.cells = VoxelHash(points, REACH)
        self.near = NearestGrid(self.cells, 2 * REACH)

    def met_by(self, points: Tensor, normals: Tensor, pose: Tensor) -> Tensor:
        """(N,) bool: which of the points, moved by `pose`, have a counterpart within reach."""
        index, _ = self.cells.knn(move(pose, points), 1, REACH)
        index = index[:, 0]
        if not len(self.points):
            return index >= 0
        agree = self.facing * (self.normals[index.clamp(min=0)] * (normals @ pose[:3, :3].T)).sum(-1)
        return (index >= 0) & (agree > 0.5)

    def some(self, count: int) -> tuple[Tensor, Tensor]:
        """About so many of the points, and their normals."""
        step = max(1, len(self.points) // count)
        return self.points[::step], self.normals[::step]


class NearestGrid:
    """About the nearest of the points of a hash, by cells: looked up, not searched."""

    def __init__(self, points: VoxelHash, reach: float) -> None:
        self.cell = REACH
        if not len(points.points):
            self.low, self.table = torch.zeros(3), torch.full((1, 1, 1), -1)
            return
        # Crumbs of a scan, far from the rest, make cells coarser, not the table larger.
        self.cell = max(REACH, float((points.points.amax(0) - points.points.amin(0)).max()) / _MOST_CELLS)
        self.low = points.points.amin(0) - reach - self.cell
        span = int(reach / self.cell) + 1
        shape = ((points.points.amax(0) - self.low) / self.cell).long() + span + 2
        near = torch.zeros(1, 1, *shape.tolist())
        cells = ((points.points - self.low) / self.cell).long()
        near[0, 0, cells[:, 0], cells[:, 1], cells[:, 2]] = 1
        near = torch.nn.functional.max_pool3d(near, 2 * span + 1, 1, span)
        around = torch.nonzero(near[0, 0])
        self.table = torch.full(shape.tolist(), -1, dtype=torch.int64)
        index, _ = points.knn(self.low + (around + 0.5) * self.cell, 1, reach)
        self.table[around[:, 0], around[:, 1], around[:, 2]] = index[:, 0]

    def __call__(self, x: Tensor) -> Tensor:
        """Indices (…,), −1 where none is within reach."""
        cell = ((x - self.low) / self.cell).long()
        shape = torch.tensor(self.table.shape)
        inside = ((x >= self.low) & (cell < shape)).all(-1)
        cell = torch.where(inside[..., None], cell, 0)
        found = self.table.view(-1)[(cell[..., 0] * shape[1] + cell[..., 1]) * shape[2] + cell[..., 2]]
        return torch.where(inside, found, -1)


@dataclass
class Surface:
    """A fragment's surface, densely, with what is believed to be break."""

    points: Tensor
    """(P, 3) in the fragment's frame, denser where there is break."""
    normals: Tensor
    """(P, 3)."""
    broken: Tensor
    """(P,) bool."""
    area: Tensor
    """(P,) that each point stands for."""

    def __post_init__(self) -> None:
        self.breaks, whole = Patch(self.points[self.broken], self.normals[self.broken], -1), ~self.broken
        near, _ = self.breaks.cells.knn(self.points[whole], 1, _RIM)
        rim = near[:, 0] >= 0
        self.rim = Patch(self.points[whole][rim], self.normals[whole][rim], 1)
        self.everything = VoxelHash(self.points, REACH)
        self.low, self.high = self.points.amin(0), self.points.amax(0)
        self.break_area = float(self.area[self.broken].sum())
        # A few points, each for as much of the surface as any other.
        ends = self.area.cumsum(0)
        self.few = torch.searchsorted(ends, ends[-1] * (torch.arange(400) + 0.5) / 400).clamp(max=len(ends) - 1)
        self.coarse = VoxelHash(self.points, 0.05)


def evidence(a: Surface, b: Surface, pose: Tensor) -> Tensor:
    """(len(EVIDENCE),) of b, moved by `pose` (4, 4) into the frame of a. Of groups of fragments it adds up."""
    return _seen_from(a, b, pose) + _seen_from(b, a, inverse(pose))


def _seen_from(a: Surface, b: Surface, pose: Tensor) -> Tensor:
    corners = torch.cartesian_prod(*torch.stack([b.low, b.high], 1).unbind(0))
    seen = move(pose, corners)
    total = torch.zeros(len(EVIDENCE))
    if ((seen.amin(0) > a.high + REACH) | (seen.amax(0) < a.low - REACH)).any():
        return total
    points, normals = move(pose, b.points), b.normals @ pose[:3, :3].T
    near = ((points >= a.low - REACH) & (points <= a.high + REACH)).all(-1)
    index, distance = a.everything.knn(points[near], 1, REACH)
    found = index[:, 0] >= 0
    index, distance = index[found, 0], distance[found, 0]
    close_by = torch.nonzero(near)[found, 0]
    area, broken, target, facing = b.area[close_by], b.broken[close_by], a.normals[index], a.broken[index]
    gap = ((points[close_by] - a.points[index]) * target).sum(-1) / REACH
    dot = (target * normals[close_by]).sum(-1)
    both, neither = broken & facing, ~broken & ~facing
    touching, level = both & (dot < -0.5), (dot > 0.9) & (gap.abs() < 0.2)
    rows = [
        touching, touching & (gap.abs() < 1 / 3), touching & (gap.abs() < 1 / 8) & (dot < -0.9), touching * gap**2, touching * (1 + dot),
        neither & level, neither & ~level & (dot > -0.5), (both & (dot > 0.5)) | (((broken != facing) | neither) & (dot < -0.5)),
        neither & (dot > 0.5) & (distance < REACH / 3),
    ]  # fmt: skip
    total[:-1] = torch.stack([row * area for row in rows]).sum(1)
    few = b.few[near[b.few]]
    if len(few):
        index, _ = a.coarse.knn(points[few], 1, _FAR)
        index = index[:, 0]
        depth = ((a.points[index.clamp(min=0)] - points[few]) * a.normals[index.clamp(min=0)]).sum(-1)
        total[-1] = ((index >= 0) & (depth > _INSIDE)).sum() * b.area.sum() / len(b.few)
    return total
