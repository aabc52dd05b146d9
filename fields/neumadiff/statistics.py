"""Numbers that say what a material looks like, and the classes that follow from them.

All come from one call at some thousand fixed angles, for any number of materials at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fields.neumadiff.angles import cosines
from fields.neumadiff.words import hue_and_chroma

NAMES = (
    "mean red", "mean green", "mean blue", "most red", "most green", "most blue", "albedo red", "albedo green", "albedo blue", "base red", "base green",
    "base blue", "half width", "peak", "base share", "highlight's saturation",
)  # fmt: skip
"""Of the columns of `Statistics.vector`."""
_TABLE, _ALBEDO, _LOBE = 4096, 512, 512
_CLEAR = 0.05
"""Cosine from which on directions count for the most: along the surface every highlight rises without end."""
_BASE = 24
"""Angles at which the base is looked at: far from the highlight."""
LIMITS = {"mirror mean": 20.8, "medium mean": 6.0, "mirror most": 1650.0, "diffuse most": 5.0}
"""Of reflectances as MERL's files scale them, where a perfect white has an albedo of a third."""
SCALES = {"merl": 1.0, "physical": 3.0}
"""How much brighter the same material is on a scale than on MERL's (white cloth, paper and paint in both databases)."""


@dataclass
class Statistics:
    """Of M materials, in their own scale."""

    mean: Tensor
    """(M, 3) over the bins of a MERL table, 1/sr: dense in the highlight."""
    most: Tensor
    """(M, 3) where both directions are three degrees above the surface, 1/sr."""
    albedo: Tensor
    """(M, 3) share of light from straight above that is reflected."""
    base: Tensor
    """(M, 3) the same, were all of it as far from the highlight: what is diffuse."""
    half_width: Tensor
    """(M,) degrees of the half vector at which the highlight has half its height."""
    peak: Tensor
    """(M, 3) reflectance in the highlight, light and eye beside each other, 1/sr."""

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def base_share(self) -> Tensor:
        """(M,) of what is reflected."""
        return (self.base.sum(-1) / self.albedo.sum(-1).clamp(min=1e-6)).clamp(max=2)

    @property
    def highlight_saturation(self) -> Tensor:
        """(M,) of what the highlight adds: none where it is white."""
        added = (self.peak - self.base / math.pi).clamp(min=0)
        most = added.amax(-1)
        return torch.where(most > 1e-6, (most - added.amin(-1)) / most.clamp(min=1e-6), 0.0)

    @property
    def vector(self) -> Tensor:
        """(M, len(NAMES)), each of the order of one."""
        width = self.half_width.clamp(min=0.05).log10()
        peak = self.peak.mean(-1).clamp(min=1e-4).log10()
        rest = torch.stack([width, peak, self.base_share, self.highlight_saturation], -1)
        return torch.cat([self.mean.log1p(), self.most.log1p(), self.albedo, self.base, rest], -1)

    @property
    def seen(self) -> Tensor:
        """(M, 3) linear colour that a material is seen in: its base, for a white highlight makes a colour another; where that is little, all of it."""
        return seen_of(self.vector)

    def hue(self) -> tuple[Tensor, Tensor]:
        """Degrees and chroma in CIELAB (M,) of what a material is `seen` in."""
        return hue_and_chroma(self.seen)


def seen_of(vectors: Tensor) -> Tensor:
    """(…, 3) `Statistics.seen`, of their `vector`s (…, len(NAMES))."""
    albedo, base = (vectors[..., k : k + 3] for k in (NAMES.index("albedo red"), NAMES.index("base red")))
    return torch.where(vectors[..., NAMES.index("base share"), None] > 0.5, base, albedo)


def statistics(materials: Callable[[Tensor], Tensor]) -> Statistics:
    """Of reflectances at angles (N, 3): (M, N, 3)."""
    angles = _angles()
    with torch.no_grad():
        table, ring, base, lobe = materials(angles).split((_TABLE, _ALBEDO, _BASE, _LOBE), dim=1)
    # Light from straight above is reflected 2 θh away, all around alike; θh = u² π/4 lies densely in the highlight.
    theta, u = angles[_TABLE : _TABLE + _ALBEDO, 0], (torch.arange(_ALBEDO) + 0.5) / _ALBEDO
    solid = 2 * math.pi * (2 * theta).sin() * 2 * (2 * u * math.pi / 4 / _ALBEDO)
    albedo = (ring * (solid * (2 * theta).cos())[:, None]).sum(1)
    base = math.pi * base.median(1).values
    peak = lobe[:, 0]
    height = lobe.mean(-1)
    floor = base.mean(-1, keepdim=True) / math.pi
    above = height - floor > 0.5 * (height[:, :1] - floor)
    last = above.long().cumprod(1).sum(1).clamp(max=_LOBE - 1)
    width = torch.rad2deg(angles[-_LOBE:, 0])[last]
    # Where there is no highlight to speak of, it is as wide as can be.
    width = torch.where(height[:, 0] > 1.2 * floor[:, 0].clamp(min=1e-6), width, 90.0)
    clear = torch.minimum(*cosines(angles[:_TABLE])) > _CLEAR
    return Statistics(table.mean(1), table[:, clear].amax(1), albedo, base, width, peak)


def reciprocity_error(materials: Callable[[Tensor], Tensor]) -> Tensor:
    """(M,) by how much reflectances change when light and eye change places, of what they are, in the mean."""
    there = _angles()[:_TABLE]
    back = there + torch.tensor([0.0, 0.0, math.pi])
    with torch.no_grad():
        one, other = materials(there), materials(back)
    return (one - other).abs().mean((1, 2)) / one.mean((1, 2)).clamp(min=1e-9)


@functools.cache
def _angles() -> Tensor:
    """All that are looked at: as the bins of a table lie, below the surface too, where networks go on; for the albedo; far from the highlight; across it."""
    u = torch.quasirandom.SobolEngine(3).draw(_TABLE)
    table = u * torch.tensor([1.0, math.pi / 2, math.pi])
    table[:, 0] = u[:, 0].square() * (math.pi / 2)
    half = ((torch.arange(_ALBEDO) + 0.5) / _ALBEDO).square() * (math.pi / 4)
    ring = torch.stack([half, half, torch.zeros(_ALBEDO)], -1)
    far = torch.stack([torch.deg2rad(torch.linspace(45, 65, _BASE)), torch.full((_BASE,), math.radians(5)), torch.full((_BASE,), math.pi / 2)], -1)  # fmt: skip
    along = torch.linspace(0, 1, _LOBE).square() * (math.pi / 2)
    lobe = torch.stack([along, torch.full((_LOBE,), math.radians(5)), torch.full((_LOBE,), math.pi / 2)], -1)
    return torch.cat([table, ring, far, lobe])


def classes(found: Statistics, scale: str = "merl") -> dict[str, Tensor]:
    """Which of the materials are what, (M,) bool each: mirror, metallic, diffuse, plastic, and high, medium or low specular.

    A material may be of several, but of one of the last three.
    """
    times = SCALES[scale]
    mean, most = found.mean[:, 0] / times, found.most / times
    share = found.base_share
    high = mean > LIMITS["mirror mean"]
    mirror = high & (most[:, 0] > LIMITS["mirror most"]) & (found.half_width < 0.5)
    low = mean < LIMITS["medium mean"]
    return {
        "mirror": mirror, "metallic": share < 0.36, "diffuse": most.amax(-1) < LIMITS["diffuse most"],
        "plastic": (share > 0.5) & (found.highlight_saturation < 0.2), "high specular": high, "medium specular": ~high & ~low, "low specular": low,
    }  # fmt: skip
