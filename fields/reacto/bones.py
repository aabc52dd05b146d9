"""Bones: oriented Gaussians inside the parts, that say how much of each motion a place takes part in (REACTO, section on quasi-rigid blend skinning).

Lengths are radii of the scene's box, about its middle.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fields.geometry.rigid import inverse, move
from fields.reacto.screws import exponential

_SMALLEST = 0.01  # radii: no Gaussian gets thinner
_HIDDEN = 64


class Skin(NamedTuple):
    weights: Tensor
    """(M, B), add up to 1."""
    distance: Tensor
    """(M, B) of Mahalanobis."""
    change: Tensor
    """(M, 2 B) what the network does to them: it should be little."""


class Bones(nn.Module):
    """Args:
    count: of bones.
    isotropic: balls instead of ellipsoids.
    """

    frames: Tensor

    def __init__(self, count: int, isotropic: bool = False) -> None:
        super().__init__()
        self.register_buffer("frames", torch.eye(4).repeat(count, 1, 1))
        """(B, 4, 4) rigid: from a bone's frame, along its axes, to the canonical one. As they were at first."""
        self.twists = nn.Parameter(torch.zeros(count, 6))
        """(B, 6) by how much they were moved since."""
        self.log_scale = nn.Parameter(torch.zeros(count, 1 if isotropic else 3))
        """(B, 3) logarithms of standard deviations along their axes."""
        last = nn.Linear(_HIDDEN, 2 * count)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(
            nn.Linear(4 * count, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(), last
        )

    def __len__(self) -> int:
        return len(self.frames)

    def rest(self) -> Tensor:
        """(B, 4, 4) the frames of the bones in the canonical one."""
        return exponential(self.twists) @ self.frames

    def skin(self, points: Tensor, sharpness: Tensor) -> Skin:
        """Of canonical points (M, 3); or of (M, B, 3), where each bone's own motion would take one from.

        The squared distance, scaled and shifted by what a small network makes of where a place is to all bones, over γ, goes into a softmax.

        Args:
            sharpness: γ; the less, the more is of one bone only.
        """
        there = move(inverse(self.rest()), points if points.ndim == 3 else points[:, None])
        scaled = there / self.log_scale.exp().clamp(min=_SMALLEST)
        square = scaled.square().sum(-1)
        distance = square.clamp(min=1e-12).sqrt()
        change = self.network(torch.cat([there.flatten(1), there.norm(dim=-1)], 1))
        scale, shift = change.chunk(2, 1)
        logits = -(square * (0.1 * scale).exp() + 0.1 * shift) / sharpness
        return Skin(logits.softmax(1), distance, change)
