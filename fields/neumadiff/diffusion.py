"""Diffusion on vectors: how they are noised, and how they come out of noise (Ho et al. 2020; Song et al., DDIM, 2021).

A network says what a noised vector was (x₀), or its velocity. The schedule must reach noise: where it ends with signal left, sampling starts from what training has
never seen, and draws little but copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """How much of a vector is left after each of T steps of noise."""

    left: Tensor
    """(T + 1,) ᾱ: one at 0."""

    @property
    def steps(self) -> int:
        return len(self.left) - 1

    @classmethod
    def cosine(cls, steps: int) -> Schedule:
        """Ends in noise (Nichol and Dhariwal, 2021)."""
        t = torch.arange(steps + 1).double() / steps
        left = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
        return cls((left / left[0]).clamp(min=1e-8).float())

    @classmethod
    def linear(cls, steps: int) -> Schedule:
        """β from 1e-4 to 0.02, as M3ashy was released: of 100 steps, six tenths of the amplitude are left at the end."""
        kept = torch.cat([torch.ones(1), 1 - torch.linspace(1e-4, 0.02, steps)])
        return cls(kept.double().cumprod(0).float())

    def noised(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Vectors (B, D) after t (B,) steps."""
        left = self.left.to(x.device)[t][:, None]
        return left.sqrt() * x + (1 - left).sqrt() * noise

    def was(self, x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
        """What vectors (B, D) after t (B,) steps were, of their velocity (Salimans and Ho, 2022): one that is wrong does little harm where there is little noise."""
        left = self.left.to(x.device)[t][:, None]
        return left.sqrt() * x - (1 - left).sqrt() * velocity

    def velocity(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Of vectors x (B, D) on the way to noise (B, D)."""
        left = self.left.to(x.device)[t][:, None]
        return left.sqrt() * noise - (1 - left).sqrt() * x

    def spread(self, steps: int) -> list[int]:
        """Times to go through when sampling, from T to 0."""
        return [round(self.steps * (1 - k / steps)) for k in range(steps + 1)]


Denoise = Callable[[Tensor, Tensor], Tensor]
"""What vectors (B, D), noised by t (B,) steps, were."""


@torch.no_grad()
def ddim(denoise: Denoise, schedule: Schedule, noise: Tensor, steps: int, as_released: bool = False) -> Tensor:
    """Vectors (B, D) out of noise (B, D), the same for the same noise.

    Args:
        as_released: puts the mean of the step before in place of the estimated noise, as M3ashy's sampler does: only to draw what it draws.
    """
    x = noise
    times = schedule.spread(steps)
    for now, then in zip(times[:-1], times[1:], strict=True):
        left, next_left = (schedule.left[t].to(x) for t in (now, then))
        was = denoise(x, torch.full((len(x),), now, device=x.device))
        estimated = (x - left.sqrt() * was) / (1 - left).sqrt()
        if as_released:
            kept = left / next_left
            estimated = (next_left.sqrt() * (1 - kept) * was + kept.sqrt() * (1 - next_left) * x) / (1 - left)
        x = next_left.sqrt() * was + (1 - next_left).sqrt() * estimated
    return x


def guided(with_condition: Tensor, without: Tensor, weight: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022): 0 follows the condition, more exaggerates it, −1 ignores it."""
    return (1 + weight) * with_condition - weight * without
