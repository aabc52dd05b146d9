"""Analytic reflectances to make materials of: a diffuse base, two glossy lobes and a sheen, of many materials at once.

Glossy lobes are GGX with Smith's height-correlated shadowing and Schlick's Fresnel term (Walter et al., EGSR 2007; Heitz, JCGT 2014); base and
sheen are Burley's (Physically-Based Shading at Disney, SIGGRAPH course 2012). Everything is reciprocal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from fields.neumadiff.angles import cosines

_GRAZING = 1e-4
"""Cosine below which directions count as this far above the surface."""


@dataclass
class Principled:
    """M materials, called with angles (N, 3): reflectances (M, N, 3), 1/sr; zero below the surface."""

    base: Tensor
    """(M, 3) albedo of the diffuse base."""
    roughness: Tensor
    """(M,) of the base: 0.5 is close to Lambert's law, 1 throws light back."""
    specular: Tensor
    """(M, 2, 3) what each lobe reflects along the normal."""
    width: Tensor
    """(M, 2) α of each lobe."""
    sheen: Tensor
    """(M, 3) what is added at grazing angles."""

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, which: Any) -> Principled:
        """Some of them."""
        return Principled(*(getattr(self, f.name)[which] for f in fields(self)))

    def __call__(self, angles: Tensor) -> Tensor:
        light, eye = cosines(angles)
        above = (light > 0) & (eye > 0)
        light, eye = light.clamp(min=_GRAZING), eye.clamp(min=_GRAZING)
        theta_h, theta_d = angles[:, 0], angles[:, 1]
        rise = (1 - theta_d.cos()).clamp(min=0) ** 5
        back = 0.5 + 2 * theta_d.cos().square() * self.roughness[:, None]
        diffuse = (1 + (back - 1) * (1 - light) ** 5) * (1 + (back - 1) * (1 - eye) ** 5) / math.pi
        # Together the lobes reflect all there is along the surface, unless they hardly reflect at all; what they do does not reach the base.
        both = self.specular.sum(1, keepdim=True)
        most = (50 * both).clamp(max=1)
        reached = (1 - (1 - light) ** 5) * (1 - (1 - eye) ** 5)
        under = 1 - most.amax(-1) * (1 - reached)
        total = (diffuse * under)[..., None] * self.base[:, None] + rise[:, None] / math.pi * self.sheen[:, None]
        shares = self.specular / both.clamp(min=1e-6) * most
        for specular, grazing, width in zip(
            self.specular.unbind(1), shares.unbind(1), self.width.unbind(1), strict=True
        ):
            square = width.square()[:, None]
            # As 1 + (α² − 1) cos² cancels in the highlight of a mirror, this is written in the sine.
            spread = (theta_h.cos().square() * square + theta_h.sin().square()).square().clamp(min=1e-12)
            shadowed = light * torch.sqrt(eye.square() * (1 - square) + square) + eye * torch.sqrt(
                light.square() * (1 - square) + square
            )
            fresnel = specular[:, None] + (grazing - specular)[:, None] * rise[:, None]
            total = total + (square / math.pi / spread * 0.5 / shadowed)[..., None] * fresnel
        return total * above[:, None]
