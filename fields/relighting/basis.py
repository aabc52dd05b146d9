"""What light is measured in: spherical Gaussians all over the sphere, mixed by a learned matrix without negative entries."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def fibonacci_sphere(count: int) -> Tensor:
    """(count, 3) unit directions, evenly spread: a golden spiral about +Y."""
    i = torch.arange(count, dtype=torch.float64)
    y = 1 - (2 * i + 1) / count
    angle = i * math.pi * (3 - math.sqrt(5))
    return torch.stack([(1 - y * y).sqrt() * angle.sin(), y, (1 - y * y).sqrt() * angle.cos()], -1).float()


class LightBasis(nn.Module):
    """R soft lights, of which any light is a non-negative mixture as far as scattering is concerned.

    Lobe k is b_k(w) = exp(sharpness · (w·μ_k − 1)) around a fixed axis μ_k. Soft light r is h_r = Σ_k H_rk b_k with a learned H ≥ 0
    whose rows integrate to one over the sphere: under a uniform light of radiance 1 every soft light has strength 1.

    Args:
        rank: R.
        lobes: K.
        sharpness: of the lobes; a quarter of their number leaves no gaps between them.
    """

    axes: Tensor

    def __init__(self, rank: int, lobes: int, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.integral = 2 * math.pi / sharpness * -math.expm1(-2 * sharpness)
        self.register_buffer("axes", fibonacci_sphere(lobes), persistent=False)
        # Every soft light starts as a plausible one: a lobe four times as wide.
        start = torch.exp(sharpness / 4 * (fibonacci_sphere(rank) @ self.axes.T - 1))
        self.logits = nn.Parameter(start.clamp(min=1e-4).expm1().log())

    def matrix(self) -> Tensor:
        """H (R, K)."""
        weights = nn.functional.softplus(self.logits)
        return weights / (weights.sum(-1, keepdim=True) * self.integral)

    def lobes(self, directions: Tensor) -> Tensor:
        """b (…, K) of unit directions (…, 3) towards the light: what a light from there has of every lobe."""
        return torch.exp(self.sharpness * (directions @ self.axes.T - 1))
