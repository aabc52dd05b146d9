"""Weights as a diffusion model has them: without what they have in common, and as wide in one direction as in any other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fields.neumadiff.network import WEIGHTS, mixed

_OPPONENTS = torch.tensor([[2.0, 2, 2], [6**0.5, -(6**0.5), 0], [2**0.5, 2**0.5, -(2**1.5)]]) / 12**0.5
"""Of red, green and blue: their mean, and what sets them apart. Channels differ by a tenth of what they have in common; colour would drown in it."""
_FLOOR = 1e-6
"""Of a deviation: what never varies stays what it is."""
_LEAST = 1e-7
"""Share of the variance below which a direction is rounding."""


class Whitening(nn.Module):
    """By directions that weights (R, 675) vary in, or each by itself.

    Args:
        directions: how many; none takes each weight by itself.
    """

    mean: Tensor
    deviation: Tensor
    basis: Tensor

    def __init__(self, directions: int = 0) -> None:
        super().__init__()
        self.directions = directions
        self.width = directions or WEIGHTS
        self.register_buffer("mean", torch.zeros(WEIGHTS))
        self.register_buffer("deviation", torch.ones(self.width))
        self.register_buffer("basis", torch.zeros(directions, WEIGHTS))

    @classmethod
    def by_directions(cls, weights: Tensor) -> Whitening:
        """By all directions in which there is any variance to speak of."""
        apart = mixed(weights, _OPPONENTS).double()
        centred = apart - apart.mean(0)
        variance, vectors = torch.linalg.eigh(centred.T @ centred / len(weights))
        used = variance > _LEAST * variance.sum()
        whitening = cls(int(used.sum()))
        whitening.mean.copy_(apart.mean(0))
        whitening.basis.copy_(vectors[:, used].flip(1).T)
        whitening.deviation.copy_(variance[used].flip(0).sqrt())
        return whitening

    @classmethod
    def of_each(cls, weights: Tensor) -> Whitening:
        """Of each weight by itself."""
        apart, whitening = mixed(weights, _OPPONENTS), cls()
        whitening.mean.copy_(apart.mean(0))
        whitening.deviation.copy_(apart.std(0))
        return whitening

    @property
    def varies(self) -> Tensor:
        """(width,) which numbers do."""
        return self.deviation > _FLOOR

    def forward(self, weights: Tensor) -> Tensor:
        """(R, width) of unit variance."""
        apart = mixed(weights, _OPPONENTS) - self.mean
        if self.directions:
            apart = apart @ self.basis.T
        return apart / self.deviation.clamp(min=_FLOOR) * self.varies

    def back(self, x: Tensor) -> Tensor:
        """Weights (R, 675) again."""
        apart = x * self.deviation * self.varies
        if self.directions:
            apart = apart @ self.basis
        return mixed(apart + self.mean, _OPPONENTS.T)
