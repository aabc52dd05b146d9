"""What a twist and its states are called: a joint as robots' descriptions know it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fields.reacto.field import ArticulatedField

_TURNS = 0.03  # radians: who turns by less, slides
_RISES = 0.05  # of the object's size, along the axis in the whole range: who rises by less, only turns


@dataclass(frozen=True)
class Joint:
    """In the scene's frame, where all joints are at zero."""

    kind: str
    """revolute, prismatic, or screw."""
    parent: int
    child: int
    axis: Tensor
    """(3,) unit."""
    pivot: Tensor
    """(3,) the point of the axis closest to the middle of the child; there is no other for what slides."""
    states: Tensor
    """(T,) radians, or scene units."""
    pitch: float
    """Scene units per radian."""

    @property
    def limits(self) -> tuple[float, float]:
        """The first and last percentile of its states: one frame may be wrong."""
        low, high = self.states.quantile(self.states.new_tensor([0.01, 0.99])).tolist()
        return low, high

    def transformed(self, similarity: Tensor) -> Joint:
        """The same joint in the frame that `similarity` (4, 4) leads to, and in its units."""
        linear, shift = similarity[:3, :3].to(self.axis), similarity[:3, 3].to(self.axis)
        scale = float(linear[:, 0].norm())
        states = self.states * scale if self.kind == "prismatic" else self.states
        return replace(
            self,
            axis=linear @ self.axis / scale,
            pivot=linear @ self.pivot + shift,
            states=states,
            pitch=scale * self.pitch,
        )

    def in_words(self) -> str:
        low, high = self.limits
        span = f"{math.degrees(high - low):.1f}°" if self.kind != "prismatic" else f"{high - low:.4g} units"
        axis = ", ".join(f"{v:.3f}" for v in self.axis.tolist())
        return f"part {self.child} on part {self.parent}: {self.kind} about ({axis}), {span} of motion"


def joints_of(field: ArticulatedField) -> list[Joint]:
    """Of all parts but those that stand still."""
    size = float((field.aabb[3:] - field.aabb[:3]).max())
    twists = field.screws().detach()
    return [
        joint_of(twists[b], field.states[b].detach(), parent, b, field.frames[b, :3, 3], size)
        for b, parent in enumerate(field.parents)
        if parent >= 0
    ]


def joint_of(twist: Tensor, states: Tensor, parent: int, child: int, middle: Tensor, size: float) -> Joint:
    """What a twist (6,) is; `middle` (3,) is that of its part, and `size` that of the object."""
    w, v = twist[:3], twist[3:]
    speed = w.norm()
    span = float(states.max() - states.min())
    if float(speed) * span < _TURNS:
        along = v + torch.linalg.cross(w, middle)  # how the part's middle moves
        return Joint("prismatic", parent, child, along / along.norm(), middle, states * along.norm(), 0.0)
    axis = w / speed
    pitch = float(axis @ v / speed)
    point = torch.linalg.cross(w, v) / speed.square()
    pivot = point + ((middle - point) @ axis) * axis
    kind = "screw" if abs(pitch) * float(speed) * span > _RISES * size else "revolute"
    return Joint(kind, parent, child, axis, pivot, states * speed, pitch)
