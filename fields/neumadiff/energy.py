"""How much of the light a reflectance sends back, and reflectances that never send back more than they get.

The directional albedo A(θ) is the share of the light from θ that is reflected at all: the integral of f cos over directions, per channel. It is summed in the half
vector h, whose highlight stays where it is: with ω = 2 (v·h) h − v of a fixed direction v, dω is 4 (v·h) dh. In the direction φ about the normal, all that reflects above
the horizon has θh below π/4 + atan2(sin θ cos φ, cos θ)/2, and so the integrand is smooth, and periodic in φ: Lambert is exact to the last digits.

Tables are linear in θ. In its cosine, steps would be seven degrees wide near the normal, and what is mirrored there can change much within them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fields.neumadiff.angles import Reflectance, cosines, half_difference

NODES = 64
"""Of an albedo."""
_BOUND_NODES = 128
SHARPNESS = 7.0
"""Of the steps in θh: so many powers of e from the first, 0.04°, to the last. Half of all look at the innermost 2.5°."""


class _Rule(NamedTuple):
    """How finely a hemisphere is summed over."""

    rings: int
    """θh, Gauss–Legendre in its `stretched` coordinate."""
    spokes: int
    """φ, evenly."""


_ALBEDO, _BOUND = _Rule(40, 32), _Rule(64, 64)


def stretched(x: Tensor) -> Tensor:
    """From [0, 1] to itself, with steps that grow exponentially: of θh, so that a highlight is seen however narrow."""
    return torch.expm1(SHARPNESS * x) / math.expm1(SHARPNESS)


def unstretched(x: Tensor) -> Tensor:
    return torch.log1p(math.expm1(SHARPNESS) * x) / SHARPNESS


def node_angles(nodes: int = NODES) -> Tensor:
    """(nodes,) float64 radians from 0 to π/2: where a table of so many rows has its values."""
    return torch.linspace(0, torch.pi / 2, nodes, dtype=torch.float64)


def albedo(reflectance: Reflectance, device: torch.device | str = "cpu") -> Tensor:
    """(M, 64, 3): share of the light from each of `node_angles` that is reflected.

    The second direction of the pair is held, the one to the eye; reciprocal reflectances do not care. Lambert is right to
    single precision, lobes of a half width of 0.1° to 10⁻⁴, and neural reflectances, which have kinks, to 0.3 %.
    """
    return _estimates(reflectance, NODES, _ALBEDO, device).mean(0)


def look_up(table: Tensor, cosine: Tensor) -> Tensor:
    """(M, N, C) of a table (M, rows, C) at `node_angles`, interpolated, where θ has the cosine (N,), or (M, N) of each material."""
    rows = table.shape[1]
    at = cosine.clamp(0, 1).acos() * ((rows - 1) * 2 / torch.pi)
    above = at.long().clamp(max=rows - 2)
    if cosine.ndim == 1:
        low, high = table[:, above], table[:, above + 1]
    else:
        each = torch.arange(len(table), device=table.device)[:, None]
        low, high = table[each, above], table[each, above + 1]
    return torch.lerp(low, high, (at - above)[..., None])


@dataclass
class Conserving:
    """A reflectance held to the law of energy: f / max(1, A(θi), A(θo)), in every channel.

    That is symmetric, so what is reciprocal stays so; and from no direction is more reflected than comes, for the albedo is at most A/A. Of what is not, A is the larger
    of the two albedos, with the light held and with the eye.
    To 10⁻³, that is, between the rows of the table too, of random networks that would reflect 10¹⁰ times what they get; to 2 % of those that would 10³⁰ times.
    """

    reflectance: Reflectance
    bound: Tensor
    """(M, 128, 3), max(1, A) at `node_angles`, and a little more where its sum or interpolation could be too low."""

    @staticmethod
    def of(reflectance: Reflectance, device: torch.device | str = "cpu") -> Conserving:
        """Measures a reflectance. One of several materials must be indexable by masks, as `Networks` are: those that break the law are looked at more closely."""
        breaks = (_bound(reflectance, NODES, _ALBEDO, device) > 1).flatten(1).any(1)
        bound = torch.ones(len(breaks), _BOUND_NODES, 3, device=device)
        if breaks.any():
            some: Any = reflectance if breaks.all() else reflectance[breaks]  # type: ignore[index]
            bound[breaks] = _bound(some, _BOUND_NODES, _BOUND, device)
        return Conserving(reflectance, bound)

    def __call__(self, angles: Tensor) -> Tensor:
        """(M, N, 3), 1/sr, at angles (N, 3), or (M, N, 3) of each material."""
        toward, away = (look_up(self.bound, cosine) for cosine in cosines(angles))
        return self.reflectance(angles) / torch.maximum(toward, away)


def _bound(reflectance: Reflectance, nodes: int, rule: _Rule, device: torch.device | str) -> Tensor:
    """(M, nodes, 3) ≥ 1 that the albedo does not exceed, between the rows neither, whether it is the eye that is held or the light."""
    return torch.maximum(
        _above(_estimates(reflectance, nodes, rule, device)),
        _above(_estimates(lambda angles: reflectance(changed_places(angles)), nodes, rule, device)),
    ).clamp(min=1)


def changed_places(angles: Tensor) -> Tensor:
    """(N, 3) of light and eye, where the one was the other."""
    return angles + angles.new_tensor([0, 0, torch.pi])


def _above(estimates: Tensor) -> Tensor:
    """(M, rows, 3) that is above the albedo, from two estimates of it.

    Their difference is some four times the error of their mean. Where a table bends down, the chord through its rows is too low by an eighth of the second difference.
    Both are taken twice, and from the neighbours too, for each may be small by chance.
    """
    mean, doubt = estimates.mean(0), 2 * (estimates[0] - estimates[1]).abs()
    doubt[:, 1:-1] += (2 * mean[:, 1:-1] - mean[:, :-2] - mean[:, 2:]).clamp(min=0) / 4
    return mean + torch.nn.functional.max_pool1d(doubt.transpose(1, 2), 3, 1, 1).transpose(1, 2)


@torch.no_grad()
def _estimates(reflectance: Reflectance, nodes: int, rule: _Rule, device: torch.device | str) -> Tensor:
    """(2, M, nodes, 3): two estimates of the albedo that share no direction; their mean is better than both."""
    theta = node_angles(nodes)
    both = []
    for odd in (0, 1):
        angles, weights = _hemisphere(theta, rule, odd)
        # One row at a time, which bounds memory.
        rows = zip(angles.float().to(device), weights.float().to(device), strict=True)
        both.append(torch.stack([torch.einsum("mnc,n->mc", reflectance(a), w) for a, w in rows], 1))
    return torch.stack(both)


def _hemisphere(of: Tensor, rule: _Rule, odd: int) -> tuple[Tensor, Tensor]:
    """Angles (A, N, 3) and weights (A, N), which include the cosine, of the even or odd half of the directions; the eye is `of` (A,) from z towards x.

    Spokes are a quarter of a step off the plane of the eye, and so no spoke is the mirror image of another, in its own half or the other.
    """
    nodes, weights = gauss_legendre(rule.rings + odd)
    phi = (torch.arange(0, rule.spokes, 2, dtype=torch.float64) + odd + 0.25) * (2 * torch.pi / rule.spokes)
    eye = torch.stack([of.sin(), torch.zeros_like(of), of.cos()], -1)[:, None, None]
    along = eye[..., 0] * phi.cos()[:, None]
    most = torch.pi / 4 + torch.atan2(along, eye[..., 2]) / 2
    theta = most * stretched(nodes)
    step = most * (stretched(nodes) + 1 / math.expm1(SHARPNESS)) * SHARPNESS * weights * (4 * torch.pi / rule.spokes)
    turn = phi[:, None].expand_as(theta)
    half = torch.stack([theta.sin() * turn.cos(), theta.sin() * turn.sin(), theta.cos()], -1)
    towards = (eye * half).sum(-1)
    light = 2 * towards[..., None] * half - eye
    weight = 4 * towards.clamp(min=0) * light[..., 2].clamp(min=0) * theta.sin() * step
    return half_difference(light, eye.expand_as(light)).flatten(1, 2), weight.flatten(1)


def gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights (n,) float64 on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(nodes + 1) / 2, torch.from_numpy(weights) / 2
