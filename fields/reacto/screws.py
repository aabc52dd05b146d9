"""Motions with one degree of freedom: turning, sliding and what is between, a screw.

A twist (ω, v) moves points by exp(θ (ω, v)): about the axis ω through the points p with v = p × ω, or along v where ω is zero. One
parametrisation holds them all, so that nothing has to guess what a joint is before its motion is known (Murray, Li, Sastry: A
Mathematical Introduction to Robotic Manipulation, 1994, eq. 2.36).
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-4  # radians, below which series are exact in float32


def cross_matrix(w: Tensor) -> Tensor:
    """(…, 3, 3) that multiplies vectors as w × does."""
    x, y, z = w.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).view(*w.shape[:-1], 3, 3)


def exponential(twist: Tensor) -> Tensor:
    """(…, 4, 4) rigid motions of twists (…, 6). Gradients: everywhere, also at zero."""
    w, v = twist[..., :3], twist[..., 3:]
    square = w.square().sum(-1)
    small = square < _SMALL**2
    safe = torch.where(small, 1.0, square)
    angle = safe.sqrt()
    a = torch.where(small, 1 - square / 6, angle.sin() / angle)[..., None, None]
    b = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / safe)[..., None, None]
    c = torch.where(small, 1 / 6 - square / 120, (1 - angle.sin() / angle) / safe)[..., None, None]
    k = cross_matrix(w)
    k2, eye = k @ k, torch.eye(3, dtype=twist.dtype, device=twist.device)
    top = torch.cat([eye + a * k + b * k2, (eye + b * k + c * k2) @ v[..., None]], -1)
    last = torch.tensor([0.0, 0, 0, 1], dtype=twist.dtype, device=twist.device).expand(*twist.shape[:-1], 1, 4)
    return torch.cat([top, last], -2)


def left_jacobian(twist: Tensor) -> Tensor:
    """(…, 6, 6): exponential(t + dt) is exponential(J dt) @ exponential(t) to first order."""
    w, v = cross_matrix(twist[..., :3]), cross_matrix(twist[..., 3:])
    adjoint = torch.cat([torch.cat([w, torch.zeros_like(w)], -1), torch.cat([v, w], -1)], -2)
    above = torch.cat([adjoint, torch.eye(6).to(twist).expand_as(adjoint)], -1)  # its exponential is the series of J
    return torch.linalg.matrix_exp(torch.cat([above, torch.zeros_like(above)], -2))[..., :6, 6:]


def revolute(axis: Tensor, point: Tensor) -> Tensor:
    """(…, 6) the twist that turns about a unit axis (…, 3) through a point (…, 3), by one radian per unit."""
    return torch.cat([axis, torch.linalg.cross(point, axis)], -1)


def prismatic(axis: Tensor) -> Tensor:
    """(…, 6) the twist that slides along a unit axis (…, 3)."""
    return torch.cat([torch.zeros_like(axis), axis], -1)


def slides(twist: Tensor) -> Tensor:
    """(…) bool: which of twists (…, 6) of unit joints do not turn."""
    return twist[..., :3].norm(dim=-1) < 0.5


def rescaled(twist: Tensor, scale: Tensor, middle: Tensor) -> Tensor:
    """(…, 6) of the same joint where points x have become scale · x + middle."""
    turn = twist[..., :3]
    return torch.cat([turn, scale * twist[..., 3:] + torch.linalg.cross(middle.expand_as(turn), turn)], -1)


def transformed(pose: Tensor, twist: Tensor) -> Tensor:
    """(…, 6) of the same joint in the frame that a rigid pose (…, 4, 4) leads to."""
    turn, along = (pose[..., :3, :3] @ part[..., None] for part in (twist[..., :3], twist[..., 3:]))
    turn, along = turn[..., 0], along[..., 0]
    return torch.cat([turn, along + torch.linalg.cross(pose[..., :3, 3], turn)], -1)
