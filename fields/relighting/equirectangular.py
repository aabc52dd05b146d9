"""The sphere as a picture: 2H columns around +Y, H rows from the zenith at the top to the nadir.

Pixel (r, c) has its centre at θ = π (r + ½) / H and φ = 2π (c + ½) / 2H, which is the direction (sin θ sin φ, cos θ, −sin θ cos φ):
the left edge is at −Z, a quarter of the width at +X, the middle at +Z.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def centres(count: int, whole: float) -> Tensor:
    """(count,) float64: the middles of equal parts of an angle."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) * (whole / count)


def direction(theta: Tensor, phi: Tensor) -> Tensor:
    """(…, 3) unit."""
    return torch.stack(torch.broadcast_tensors(theta.sin() * phi.sin(), theta.cos(), -theta.sin() * phi.cos()), -1)


def directions(height: int) -> Tensor:
    """(H, 2H, 3) float64 unit: of the pixels' centres."""
    return direction(centres(height, math.pi)[:, None], centres(2 * height, 2 * math.pi))


def solid_angles(height: int) -> Tensor:
    """(H,) float64, steradians: exactly of one pixel of each row. 2H times their sum is 4π."""
    theta = torch.linspace(0, math.pi, height + 1, dtype=torch.float64)
    # A difference of cosines, written so that rows at the poles keep their digits.
    return (2 * math.pi / height) * math.sin(math.pi / (2 * height)) * ((theta[1:] + theta[:-1]) / 2).sin()


def resize(radiance: Tensor, height: int) -> Tensor:
    """Averages (H, 2H, C) over the areas that the pixels of (height, 2 height, C) have on the sphere: power is kept.

    Pixels are patches of one radiance, and divided where a new pixel's edge crosses them.
    """
    if height == radiance.shape[0]:
        return radiance
    rows, columns = radiance.shape[:2]
    old_edges, new_edges = (torch.linspace(0, math.pi, n + 1, dtype=torch.float64).cos().neg() for n in (rows, height))
    narrower = _average(
        radiance.double(), old_edges, new_edges
    )  # first along the side that is contiguous in large pieces
    edges = (torch.linspace(0, 1, n + 1, dtype=torch.float64) for n in (columns, 2 * height))
    return _average(narrower.transpose(0, 1), *edges).transpose(0, 1).to(radiance.dtype)


def _average(values: Tensor, old_edges: Tensor, new_edges: Tensor) -> Tensor:
    """Means over new intervals of what is constant on old ones (N, …), both with the same ends; as differences of the integral."""
    width = old_edges.diff().to(values.device).view(-1, *[1] * (values.ndim - 1))
    pieces = values * width
    integral = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])
    inside = torch.searchsorted(old_edges, new_edges, right=True).sub(1).clamp(0, len(old_edges) - 2)
    share = ((new_edges - old_edges[inside]) / old_edges.diff()[inside]).clamp(0, 1).to(values.device)
    inside = inside.to(values.device)
    at_edges = torch.lerp(integral[inside], integral[inside + 1], share.view(-1, *[1] * (values.ndim - 1)))
    return at_edges.diff(dim=0) / new_edges.diff().to(values.device).view(-1, *[1] * (values.ndim - 1))


def padded(radiance: Tensor) -> Tensor:
    """(H + 2, W + 2, C): continued by one pixel over the seam, and over the poles, where the sphere goes on half way round."""
    over = radiance.roll(radiance.shape[1] // 2, 1)
    tall = torch.cat([over[:1], radiance, over[-1:]])
    return torch.cat([tall[:, -1:], tall, tall[:, :1]], 1)


def angles(directions: Tensor) -> tuple[Tensor, Tensor]:
    """θ in [0, π] and φ in [0, 2π] of directions (…, 3)."""
    x, y, z = directions.unbind(-1)
    return torch.atan2(torch.hypot(x, z), y), torch.atan2(x, -z).remainder(2 * math.pi)


def corners(height: int | Tensor, theta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Between which four pixels of a `padded` picture angles (…) lie, (…, 4) int32, and the part of each, (…, 4): bilinear.

    Args:
        height: of the picture, or (…) of the pictures; it broadcasts with angles.
    """
    row, column = (v * height / math.pi + 0.5 for v in (theta, phi))  # 1 is the centre of the first real one
    top, left = row.int(), column.int()
    down, right = row - top, column - left
    below = 2 * height + 2
    first, both = top * below + left, right * down
    place = torch.stack([first, first + 1, first + below, first + below + 1], -1)
    return place, torch.stack([1 - right - down + both, right - both, down - both, both], -1)


def sample(pixels: Tensor, height: int, theta: Tensor, phi: Tensor) -> Tensor:
    """Values (N, C) at angles (N,), bilinear, of a `padded` picture ((height + 2) · (2 height + 2), C)."""
    place, share = corners(height, theta, phi)
    return embedding_bag(place, pixels, per_sample_weights=share.to(pixels), mode="sum")
