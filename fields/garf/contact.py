"""How well fragments touch: the area of break that meets break, and what runs into each other.

All lengths are in sizes of the object. Poses are (4, 4) and go from a fragment's frame to another's, or to the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fields.core import VoxelHash

TOUCH = 0.012
"""Breaks this near, and opposed, touch."""
_SAME = 0.006
"""Original surfaces this near that face the same way are in one place: sheets that overlap. Less than the width of a crack's rim counts."""
_DEEP = 0.02
"""What lies this far behind a surface is inside it."""
_REACH = 0.1
"""How far the nearest surface is looked for."""


@dataclass
class Surface:
    """A fragment's surface, densely, with what is believed to be break."""

    points: Tensor
    """(P, 3) in the fragment's frame, uniform by area."""
    normals: Tensor
    """(P, 3)."""
    broken: Tensor
    """(P,) bool."""
    patch: float
    """Area that each point stands for."""

    def __post_init__(self) -> None:
        self.break_points, self.break_normals = self.points[self.broken], self.normals[self.broken]
        self.breaks, self.everything = VoxelHash(self.break_points, TOUCH), VoxelHash(self.points, 2 * TOUCH)
        self.whole_points, self.whole_normals = self.points[~self.broken], self.normals[~self.broken]
        self.whole = VoxelHash(self.whole_points, _SAME)
        self.low, self.high = self.points.amin(0), self.points.amax(0)
        few = torch.linspace(0, len(self.points) - 1, min(len(self.points), 600)).long().unique()
        self.few_points, self.few_normals, self.few_broken = self.points[few], self.normals[few], self.broken[few]

    @property
    def break_area(self) -> float:
        return len(self.break_points) * self.patch


class Contact(NamedTuple):
    """How two fragments, or groups of them, meet."""

    area: float
    """Break that touches break, the mean of both sides."""
    overlap: float
    """Surface that lies inside the other, or where the other's is."""
    gap: float
    """Root mean square distance of touching breaks, along their normals."""

    @property
    def score(self) -> float:
        """Area that speaks for the joint minus what speaks against it."""
        return self.area - 2 * self.overlap


def contact(a: Surface, b: Surface, pose: Tensor) -> Contact:
    """Of b, moved by `pose` (4, 4) into the frame of a."""
    if not _boxes_meet(a, b, pose):
        return Contact(0.0, 0.0, 0.0)
    back = inverse(pose)
    ab, gaps = _touching(a, b, pose)
    ba, more = _touching(b, a, back)
    overlap = _overlapping(a, b, pose) + _overlapping(b, a, back)
    both = torch.cat([gaps, more])
    return Contact((ab * b.patch + ba * a.patch) / 2, overlap, float(both.square().mean().sqrt()) if len(both) else 0.0)


def inverse(pose: Tensor) -> Tensor:
    """Of rigid motions (…, 4, 4)."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    result = pose.clone()
    result[..., :3, :3] = rotation
    result[..., :3, 3:] = -rotation @ pose[..., :3, 3:]
    return result


def moved(points: Tensor, pose: Tensor) -> Tensor:
    """Points (N, 3) after a rigid motion."""
    return points @ pose[:3, :3].T + pose[:3, 3]


def _boxes_meet(a: Surface, b: Surface, pose: Tensor) -> bool:
    corners = torch.cartesian_prod(*torch.stack([b.low, b.high], 1).unbind(0))
    seen = moved(corners, pose)
    return bool(((seen.amin(0) <= a.high + TOUCH) & (seen.amax(0) >= a.low - TOUCH)).all())


def _within(a: Surface, points: Tensor, margin: float) -> Tensor:
    return ((points >= a.low - margin) & (points <= a.high + margin)).all(-1)


def _touching(a: Surface, b: Surface, pose: Tensor) -> tuple[int, Tensor]:
    """How many break points of b meet break of a, and how far apart the two are along a's normal."""
    points, normals = moved(b.break_points, pose), b.break_normals @ pose[:3, :3].T
    near = _within(a, points, TOUCH)
    points, normals = points[near], normals[near]
    index, _ = a.breaks.knn(points, 1, TOUCH)
    index = index[:, 0]
    found = index >= 0
    index, points, normals = index[found], points[found], normals[found]
    target = a.break_normals[index]
    opposed = (target * normals).sum(-1) < -0.5
    gap = ((points - a.break_points[index]) * target).sum(-1)
    return int(opposed.sum()), gap[opposed]


def _overlapping(a: Surface, b: Surface, pose: Tensor) -> float:
    """Area of b that lies inside a, or on it where both are original surface."""
    points, normals = moved(b.few_points, pose), b.few_normals @ pose[:3, :3].T
    share = b.patch * len(b.points) / len(b.few_points)
    near = _within(a, points, 0.0)
    if not near.any():
        return 0.0
    points, normals, whole = points[near], normals[near], ~b.few_broken[near]
    index, _ = a.everything.knn(points, 1, _REACH)
    index = index[:, 0]
    depth = ((a.points[index.clamp(min=0)] - points) * a.normals[index.clamp(min=0)]).sum(-1)
    inside = (index >= 0) & (depth > _DEEP)
    same, _ = a.whole.knn(points, 1, _SAME)
    same = same[:, 0]
    twice = whole & (same >= 0) & ((a.whole_normals[same.clamp(min=0)] * normals).sum(-1) > 0.5) if len(a.whole_points) else inside
    return float((inside | twice).sum()) * share
