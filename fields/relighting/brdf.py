"""Reflection at a rough surface: one GGX lobe with Smith's shadowing and Schlick's Fresnel term.

Walter, Marschner, Li, Torrance: Microfacet Models for Refraction through Rough Surfaces. EGSR 2007. Schlick 1994.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

_TABLE = 32  # entries along either side of the table of albedos
_COSINE = 1e-3  # below it, surfaces count as seen edge-on


def reflect(view: Tensor, normal: Tensor) -> Tensor:
    """(…, 3) where light must come from to be mirrored towards `view`; all unit, pointing away from the surface."""
    return 2 * (view * normal).sum(-1, keepdim=True) * normal - view


def ggx(normal: Tensor, view: Tensor, light: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """A lobe times the cosine towards the light, and how far Fresnel's term has risen.

    Args:
        normal, view, light: (…, 3) unit, away from the surface; they broadcast.
        width: (…) of the lobe, α: the square of what artists call roughness.

    Returns:
        D·G / (4 n·v) (…), per steradian, zero where the light or the eye is behind the surface; and (1 − h·v)⁵ (…): reflection is
        at_normal + (at_grazing − at_normal) times it.
    """
    half = torch.nn.functional.normalize(view + light, dim=-1)
    n_v, n_l = (normal * view).sum(-1), (normal * light).sum(-1)
    n_h, h_v = (normal * half).sum(-1).clamp(0, 1), (half * view).sum(-1).clamp(0, 1)
    faces = (n_v > 0) & (n_l > 0)
    n_v, n_l = n_v.clamp(min=_COSINE), n_l.clamp(min=_COSINE)
    square = width * width
    lobe = square / (math.pi * (n_h * n_h * (square - 1) + 1).square()).clamp(min=1e-12)
    shadowing = n_l * torch.sqrt(n_v * n_v * (1 - square) + square) + n_v * torch.sqrt(
        n_l * n_l * (1 - square) + square
    )
    return lobe * 0.5 * n_l / shadowing * faces, (1 - h_v) ** 5


def lobe_sharpness(n_v: Tensor, width: Tensor) -> Tensor:
    """Of the spherical Gaussian around the mirrored direction that comes closest to a GGX lobe (…).

    Reference: Wang, Ren, Gong, Snyder, Guo: All-Frequency Rendering of Dynamic, Spatially-Varying Reflectance, 2009, section 3.
    """
    return 2 / (width * width) / (4 * n_v.clamp(min=0.1))


def albedo(n_v: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """What part of a uniform light a lobe reflects (N,): where Fresnel's term is 1, and of its rise (1 − h·v)⁵."""
    at = torch.stack([width.clamp(0, 1), n_v.clamp(0, 1)], -1).view(1, -1, 1, 2) * 2 - 1
    table = _albedo_table().to(at)
    found = torch.nn.functional.grid_sample(table[None], at, align_corners=True, padding_mode="border")[0, :, :, 0]
    return found[0], found[1]


@functools.cache
def _albedo_table() -> Tensor:
    """(2, n·v, width): integrals of `ggx` over half vectors drawn as the lobe has them, on a fixed lattice."""
    cosines = torch.linspace(0, 1, _TABLE, dtype=torch.float64).clamp(min=2 * _COSINE)
    widths = torch.linspace(0, 1, _TABLE, dtype=torch.float64).clamp(min=0.02)
    n = 48
    u = ((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]
    phi = ((torch.arange(n, dtype=torch.float64) + 0.5) / n)[None] * math.pi  # the other half is its mirror image
    n_v, square = cosines[:, None, None, None], (widths**2)[None, :, None, None]
    n_h = torch.sqrt((1 - u) / (1 + (square - 1) * u))
    sine = (1 - n_h * n_h).clamp(min=0).sqrt()
    h_v = (1 - n_v * n_v).sqrt() * sine * phi.cos() + n_v * n_h
    n_l = 2 * h_v * n_h - n_v
    reaches = (n_l > 0) & (h_v > 0)
    n_l = n_l.clamp(min=_COSINE)
    smith = n_l * torch.sqrt(n_v**2 * (1 - square) + square) + n_v * torch.sqrt(n_l**2 * (1 - square) + square)
    # f cos / pdf of the light direction, where pdf = D n·h / (4 h·v).
    value = 2 * n_l * h_v.clamp(min=0) / smith / n_h.clamp(min=1e-6) * reaches
    rise = (1 - h_v.clamp(0, 1)) ** 5
    return torch.stack([value.mean((-1, -2)), (value * rise).mean((-1, -2))]).float()
