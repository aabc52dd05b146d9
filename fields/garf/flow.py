"""Flow matching on rigid motions (Li et al. 2025, section 3; Lipman et al. 2023).

From data (σ = 0) to noise (σ = 1) a fragment's translation goes in a straight line, and its rotation about a fixed axis of the
world: R(σ) = Exp(σ ω) R₀, so that at σ = 1 it is a rotation drawn without preference. The network learns the constant velocity
(ε − t₀, ω) of that motion.
"""

from __future__ import annotations

from collections.abc import Callable

import roma
import torch
from torch import Tensor

STEPS = 20


def noised(
    translation: Tensor, rotation: Tensor, anchor: Tensor, sigma: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Poses on the way to noise, and the velocity there.

    Args:
        translation, rotation: (P, 3), (P, 3, 3) where fragments belong.
        anchor: (P,) bool: those stay.
        sigma: (P,) in [0, 1].
    Returns:
        translation (P, 3), rotation (P, 3, 3), velocity (P, 6).
    """
    end_t, end_r = noise(len(anchor), translation, generator)
    drift = torch.where(anchor[:, None], 0, end_t - translation)
    spin = torch.where(anchor[:, None], 0, roma.rotmat_to_rotvec(end_r))
    sigma = sigma[:, None]
    return translation + sigma * drift, roma.rotvec_to_rotmat(sigma * spin) @ rotation, torch.cat([drift, spin], -1)


def noise(count: int, like: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Translations (count, 3), normal, and rotations (count, 3, 3), without preference."""
    q = torch.randn(count, 4, generator=generator, device=like.device, dtype=like.dtype)
    translation = torch.randn(count, 3, generator=generator, device=like.device, dtype=like.dtype)
    return translation, roma.unitquat_to_rotmat(torch.nn.functional.normalize(q, dim=-1))


def stepped(translation: Tensor, rotation: Tensor, velocity: Tensor, by: float) -> tuple[Tensor, Tensor]:
    """Poses after a step in σ, negative on the way from noise."""
    return translation + by * velocity[:, :3], roma.rotvec_to_rotmat(by * velocity[:, 3:]) @ rotation


def reassembled(
    velocity: Callable[[Tensor, Tensor, float], Tensor], start: tuple[Tensor, Tensor], kept: Tensor, steps: int = STEPS,
    preassembly: bool = True,
) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
    """Follows the flow from noise to an assembly.

    One step all the way comes first, and the walk starts from where it led as if that were noise: what that first look got
    right need not be found again.

    Args:
        velocity: of translations (P, 3) and rotations (P, 3, 3) at a σ; see `Denoiser`.
        start: poses at σ = 1.
        kept: (P,) bool: anchors, which stay where they start.
    Returns:
        all poses on the way, the last of them the answer.
    """
    moving = (~kept).to(start[0])[:, None]
    translation, rotation = start
    path = [start]
    with torch.no_grad():
        if preassembly:
            translation, rotation = stepped(translation, rotation, moving * velocity(translation, rotation, 1.0), -1.0)
            path.append((translation, rotation))
        for k in range(steps):
            now = 1 - k / steps
            translation, rotation = stepped(
                translation, rotation, moving * velocity(translation, rotation, now), -1 / steps
            )
            path.append((translation, rotation))
    return path
