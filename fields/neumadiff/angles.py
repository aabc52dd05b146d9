"""The half-vector coordinates in which isotropic reflectances are measured (Rusinkiewicz, EGWR 1998).

In the frame of the surface, its normal is z. The half vector h = normalize(wi + wo) is θh from the normal; seen from it, the light wi is θd away, in the direction φd
about it, where φd = 0 points away from the normal. Angles are (θh, θd, φd) in radians, everywhere: the turn φh about the normal makes no difference to an isotropic material.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Reflectance = Callable[[Tensor], Tensor]
"""From angles (N, 3) to reflectances (M, N, 3) of M materials, in 1/sr."""


def half_difference(wi: Tensor, wo: Tensor) -> Tensor:
    """Angles (…, 3) of directions to the light and to the eye, (…, 3) unit in the frame of the surface; φd in [0, 2π)."""
    half = torch.nn.functional.normalize(wi + wo, dim=-1)
    x, y, cosine = half.unbind(-1)
    sine = torch.hypot(x, y)
    # Along the normal the half vector has no direction about it: any will do.
    turn_cos, turn_sin = torch.where(sine > 0, x / sine, 1.0), torch.where(sine > 0, y / sine, 0.0)
    # wi, turned by −φh about z and by −θh about y.
    ahead, aside = wi[..., 0] * turn_cos + wi[..., 1] * turn_sin, wi[..., 1] * turn_cos - wi[..., 0] * turn_sin
    dx, dz = ahead * cosine - wi[..., 2] * sine, ahead * sine + wi[..., 2] * cosine
    turn = torch.atan2(aside, dx) % (2 * torch.pi)
    return torch.stack([torch.atan2(sine, cosine), torch.atan2(torch.hypot(dx, aside), dz), turn], -1)


def directions(angles: Tensor) -> tuple[Tensor, Tensor]:
    """To the light and to the eye, (…, 3) unit each, where the half vector leans towards x."""
    theta_h, theta_d, phi_d = angles.unbind(-1)
    results = []
    for sign in (1, -1):  # the eye is the light's mirror image about the half vector
        dx, dy, dz = sign * theta_d.sin() * phi_d.cos(), sign * theta_d.sin() * phi_d.sin(), theta_d.cos()
        results.append(
            torch.stack([dx * theta_h.cos() + dz * theta_h.sin(), dy, dz * theta_h.cos() - dx * theta_h.sin()], -1)
        )
    return results[0], results[1]


def cosines(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Of the light and of the eye with the normal, (…): both are positive where the angles are of directions above the surface."""
    theta_h, theta_d, phi_d = angles.unbind(-1)
    along, across = theta_d.cos() * theta_h.cos(), theta_d.sin() * phi_d.cos() * theta_h.sin()
    return along - across, along + across
