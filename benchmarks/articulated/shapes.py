"""Solids by their distance, negative inside: boxes with rounded edges, cylinders and rings, and unions of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Vector = tuple[float, float, float]
Solid = Callable[[Tensor], Tensor]
"""Signed distance (N,) at points (N, 3), metres. That of a union is a lower bound inside."""


@dataclass(frozen=True)
class Box:
    """Whole edges `size` around `middle`, turned by `turn` degrees about z; edges are rounded by `bevel`."""

    middle: Vector
    size: Vector
    bevel: float = 0.001
    turn: float = 0.0

    def __call__(self, p: Tensor) -> Tensor:
        p = turned(p - p.new_tensor(self.middle), -self.turn)
        q = p.abs() - p.new_tensor(self.size) / 2 + self.bevel
        return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0) - self.bevel


@dataclass(frozen=True)
class Cylinder:
    """Along axis 0, 1 or 2."""

    middle: Vector
    radius: float
    length: float
    axis: int = 2

    def __call__(self, p: Tensor) -> Tensor:
        p = p - p.new_tensor(self.middle)
        across = p[..., [a for a in range(3) if a != self.axis]].norm(dim=-1) - self.radius
        q = torch.stack([across, p[..., self.axis].abs() - self.length / 2], -1)
        return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0)


@dataclass(frozen=True)
class Ring:
    """A torus in the xy plane, stretched along y by `stretch` metres."""

    middle: Vector
    radius: float
    thickness: float
    stretch: float = 0.0

    def __call__(self, p: Tensor) -> Tensor:
        p = p - p.new_tensor(self.middle)
        y = p[..., 1].abs() - self.stretch / 2
        around = torch.stack([p[..., 0], y.clamp(min=0)], -1).norm(dim=-1) - self.radius
        return torch.stack([around, p[..., 2]], -1).norm(dim=-1) - self.thickness / 2


@dataclass(frozen=True)
class Union:
    solids: Sequence[Solid]

    def __call__(self, p: Tensor) -> Tensor:
        return torch.stack([solid(p) for solid in self.solids]).amin(0)


def turned(p: Tensor, degrees: float) -> Tensor:
    """Points (…, 3) turned about z."""
    if degrees == 0:
        return p
    angle = torch.deg2rad(torch.tensor(degrees, dtype=p.dtype))
    x, y = p[..., 0], p[..., 1]
    return torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y, p[..., 2]], -1)
