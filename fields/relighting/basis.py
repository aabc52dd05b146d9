"""What light is measured in: spherical Gaussians all over the sphere, mixed by a learned matrix without negative entries."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_UPDATES = 200


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
        sharpness: of the lobes. Up to a quarter of their number leaves no gaps between them; an eighth lets what is learned under
            one light hold for its neighbours.
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

    @torch.no_grad()
    def learn(self, seen: Tensor, known: Tensor, strength: Tensor) -> None:
        """Starts the soft lights as factors of photographs: seen ≈ S · H · strengthᵀ with S, H ≥ 0.

        A field that had to find its soft lights by descent while it finds its shape would settle for what wide ones can say.

        Args:
            seen: (P, L) radiances of some pixels under every light.
            known: (P, L) whether there is such a photograph.
            strength: (L, K) of each light in every lobe.

        Reference: multiplicative updates of Lee and Seung, 2001, weighted: what is dark counts as much as what is bright.
        """
        wide = torch.exp(self.sharpness / 2 * (fibonacci_sphere(len(self.logits)).to(self.axes) @ self.axes.T - 1))
        weight = known / (seen + 0.1 * seen[known].mean())
        wanted = weight * seen
        responses = torch.full((len(seen), len(wide)), float(seen[known].mean()) / len(wide), device=seen.device)
        for _ in range(_UPDATES):
            lights = wide @ strength.T
            responses *= (wanted @ lights.T) / (weight * (responses @ lights) @ lights.T + 1e-9)
            shown = weight * (responses @ lights)
            wide *= (responses.T @ wanted @ strength) / (responses.T @ shown @ strength + 1e-9)
        wide = wide / wide.sum(-1, keepdim=True).clamp(min=1e-9) * len(self.axes) / 4
        self.logits.copy_(wide.clamp(min=1e-4).expm1().log())

    def matrix(self) -> Tensor:
        """H (R, K)."""
        weights = nn.functional.softplus(self.logits)
        return weights / (weights.sum(-1, keepdim=True) * self.integral)

    def places(self) -> Tensor:
        """(R, 3) unit: the mean direction of each soft light."""
        return torch.nn.functional.normalize(self.matrix() @ self.axes, dim=-1)

    def lobes(self, directions: Tensor) -> Tensor:
        """b (…, K) of unit directions (…, 3) towards the light: what a light from there has of every lobe."""
        return torch.exp(self.sharpness * (directions @ self.axes.T - 1))
