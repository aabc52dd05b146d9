"""Neural reflectances: 6 → 21 → 21 → 3 perceptrons of 675 weights, one for each material (Sztrajman et al., EGSR 2021).

They come in dialects. All put out exp(z) − 1, nothing below zero:

sztrajman    what the light's half-vector directions are, ReLU; reflectance in physical units, 1/sr
m3ashy       the same with LeakyReLU; reflectance as MERL's files store it, some 1500 times larger, by a factor that differs between channels
reciprocal   ours: only what does not change when light and eye change places, or left and right, LeakyReLU, physical units. Exactly
             reciprocal, and the input that is always zero in the others says how near the highlight is: 20 to 35 % closer to the same materials.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fields.core import parameter_count, small_networks
from fields.errors import DataError

WIDTHS = (6, 21, 21, 3)
WEIGHTS = parameter_count(WIDTHS)
"""675, layer by layer: the matrix (out, in) row by row, then the bias."""
PARTS = ((0, 126), (126, 147), (147, 588), (588, 609), (609, 672), (672, 675))
"""Where each layer's matrix and bias are among them."""
MERL_UNITS = (1 / 1500, 1.15 / 1500, 1.66 / 1500)
"""What the red, green and blue numbers of a MERL file are multiplied by, to be in 1/sr."""
_MOST = 80.0
"""Of the last layer: beyond it, exp is no number."""


@dataclass(frozen=True)
class Dialect:
    """How weights are to be read."""

    name: str
    slope: float
    """Of the hidden layers where they are negative."""
    reciprocal: bool
    """Whether it sees only what is the same for light and eye."""
    units: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """What its three numbers are multiplied by, to be in 1/sr."""

    def inputs(self, angles: Tensor) -> Tensor:
        """(…, 6) of angles (…, 3), see `fields.neumadiff.angles`."""
        theta_h, theta_d, phi_d = angles.unbind(-1)
        across, dz = theta_d.sin(), theta_d.cos()
        dx, dy = across * phi_d.cos(), across * phi_d.sin()
        if self.reciprocal:
            near = (theta_h.clamp(min=0) * (2 / torch.pi)).sqrt()
            return torch.stack([theta_h.sin(), near, theta_h.cos(), dx * dx - dy * dy, dx * dx + dy * dy, dz], -1)
        return torch.stack([theta_h.sin(), torch.zeros_like(dz), theta_h.cos(), dx, dy, dz], -1)


DIALECTS = {
    d.name: d
    for d in (
        Dialect("reciprocal", 0.01, True),
        Dialect("sztrajman", 0.0, False),
        Dialect("m3ashy", 0.01, False, MERL_UNITS),
    )
}


def dialect(name: str) -> Dialect:
    if name not in DIALECTS:
        raise DataError(f"There is no dialect {name!r} of neural reflectances; there are {', '.join(DIALECTS)}.")
    return DIALECTS[name]


@dataclass
class Networks:
    """Materials as networks: called with angles, they say how much light they reflect."""

    weights: Tensor
    """(M, 675)."""
    dialect: Dialect = DIALECTS["reciprocal"]

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, which: Any) -> Networks:
        """Some of them; of a single index, one."""
        return Networks(self.weights[[which]] if isinstance(which, int) else self.weights[which], self.dialect)

    def __call__(self, angles: Tensor) -> Tensor:
        """(M, N, 3) reflectances, 1/sr, at angles (N, 3), or (M, N, 3) of each material. None is negative."""
        return self.logarithm(angles).clamp(0, _MOST).expm1() * torch.tensor(self.dialect.units).to(angles)

    def logarithm(self, angles: Tensor) -> Tensor:
        """(M, N, 3) of one and the reflectance in the dialect's own units, before what is negative is made zero: what is learned."""
        return small_networks(self.dialect.inputs(angles), self.weights, WIDTHS, self.dialect.slope)


ORDERS = tuple(itertools.permutations(range(3)))
"""Of colour channels: each makes another material, whose weights are known without fitting."""


def mixed(weights: Tensor, matrix: Tensor) -> Tensor:
    """(…, 675) of networks whose last layer puts out `matrix` (3, 3) times what it did. Only that layer has channels."""
    last, bias = weights[..., 609:672].unflatten(-1, (3, 21)), weights[..., 672:]
    return torch.cat([weights[..., :609], (matrix @ last).flatten(-2), bias @ matrix.T], -1)


def sorted_channels(weights: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 675) of materials with their channels in an order that is the same for all that differ in it alone; and (N, 3) which of these channels
    their red, green and blue are."""
    last, bias = weights[:, 609:672].unflatten(1, (3, 21)), weights[:, 672:]
    sort = last[..., 0].argsort(1)
    moved = last.gather(1, sort[..., None].expand_as(last)).flatten(1)
    return torch.cat([weights[:, :609], moved, bias.gather(1, sort)], 1), sort.argsort(1)


def permuted(weights: Tensor, order: Sequence[int]) -> Tensor:
    """(…, 675) of materials whose colour channels are those of `order`: red becomes what channel order[0] was. Exact."""
    return mixed(weights, torch.eye(3, dtype=weights.dtype, device=weights.device)[list(order)])
