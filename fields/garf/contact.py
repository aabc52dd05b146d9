"""What speaks for and against two fragments belonging together as they are posed.

All lengths are in sizes of the object. Poses are (4, 4) and go from a fragment's frame to another's, or to the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fields.core import CONTACTS, NearestTable, VoxelHash, contacts
from fields.geometry.rigid import inverse, move, move_by_each

REACH = 0.012
"""Surfaces this near have to do with each other: the width of a crack's rim."""
_INSIDE = 0.02
"""What lies this far behind a surface is inside it."""
_RIM = 0.02
"""Original surface this near to break is its rim."""
_FAR = 0.1
"""How far the nearest surface is looked for."""

EVIDENCE = (*CONTACTS, "inside")
"""Areas, of both sides together, in squared sizes of the object: what `fields.core.contacts` tells, labels being breaks; and surface deep inside
the other."""


class Patch:
    """Points that have counterparts on another fragment.

    Args:
        points, normals: (P, 3).
        facing: −1 where a counterpart faces them, as break does; 1 where it goes on as they do, as original surface beside a crack.
    """

    def __init__(self, points: Tensor, normals: Tensor, facing: int) -> None:
        self.points, self.normals, self.facing = points, normals, facing
        self.cells = VoxelHash(points, REACH)

    @cached_property
    def near(self) -> NearestTable:
        return NearestTable(self.cells, self.normals, REACH, 2 * REACH, self.facing)

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

    @cached_property
    def breaks(self) -> Patch:
        return Patch(self.points[self.broken], self.normals[self.broken], -1)

    @cached_property
    def rim(self) -> Patch:
        """Original surface beside break."""
        whole = ~self.broken
        near, _ = self.breaks.cells.knn(self.points[whole], 1, _RIM)
        rim = near[:, 0] >= 0
        return Patch(self.points[whole][rim], self.normals[whole][rim], 1)

    @cached_property
    def everything(self) -> NearestTable:
        return NearestTable(VoxelHash(self.points, REACH), self.normals, REACH, 2 * REACH, 1)

    @cached_property
    def coarse(self) -> VoxelHash:
        return VoxelHash(self.points, 0.05)

    @cached_property
    def box(self) -> tuple[Tensor, Tensor]:
        """Least and largest coordinates, (3,) each."""
        return self.points.amin(0), self.points.amax(0)

    @cached_property
    def ball(self) -> tuple[Tensor, float]:
        """Middle of the box, and how far the points are from it at most."""
        middle = (self.points.amin(0) + self.points.amax(0)) / 2
        return middle, float((self.points - middle).norm(dim=-1).max())

    @cached_property
    def break_area(self) -> float:
        return float(self.area[self.broken].sum())

    @cached_property
    def whole_area(self) -> float:
        return float(self.area.sum())

    @cached_property
    def few(self) -> Tensor:
        """Indices of a few points, each for as much of the surface as any other."""
        ends = self.area.cumsum(0)
        return torch.searchsorted(ends, ends[-1] * (torch.arange(400) + 0.5) / 400).clamp(max=len(ends) - 1)


def beside(a: Surface, a_pose: Tensor, b: Surface, b_pose: Tensor, reach: float = REACH) -> bool:
    """Whether surfaces at these poses (4, 4) can be within reach of each other, by the balls they fit in: told quickly."""
    (p, r), (q, s) = a.ball, b.ball
    return bool((move(a_pose, p) - move(b_pose, q)).norm() <= r + s + reach)


def evidence(a: Surface, b: Surface, pose: Tensor) -> Tensor:
    """(…, len(EVIDENCE)) of b, moved by `pose` (…, 4, 4) into the frame of a. Of groups of fragments it adds up."""
    poses = pose.reshape(-1, 4, 4)
    return (_seen_from(a, b, poses) + _seen_from(b, a, inverse(poses))).reshape(*pose.shape[:-2], -1)


def _seen_from(a: Surface, b: Surface, poses: Tensor) -> Tensor:
    low, high = a.box
    corners = torch.cartesian_prod(*torch.stack(b.box, 1).unbind(0))
    seen = move_by_each(poses, corners)
    meet = ((seen.amin(1) <= high + REACH) & (seen.amax(1) >= low - REACH)).all(-1)
    total = torch.zeros(len(poses), len(EVIDENCE))
    if not meet.any():
        return total
    total[:, :-1] = contacts(a.everything, a.broken, b.points, b.normals, b.broken, b.area, poses, REACH)
    few = move_by_each(poses, b.points[b.few])
    of, which = torch.nonzero(((few >= low) & (few <= high)).all(-1), as_tuple=True)
    index, _ = a.coarse.knn(few[of, which], 1, _FAR)
    index = index[:, 0]
    depth = ((a.points[index.clamp(min=0)] - few[of, which]) * a.normals[index.clamp(min=0)]).sum(-1)
    deep = ((index >= 0) & (depth > _INSIDE)).float()
    total[:, -1].index_add_(0, of, deep * (b.whole_area / len(b.few)))
    return total
