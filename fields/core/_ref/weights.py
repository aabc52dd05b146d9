"""Plain-PyTorch twin of ``fields.core.weights``: pads the rays to one length, so that cumulative products are rows."""

from __future__ import annotations

import torch
from torch import Tensor


def _padded(values: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
    """(rays, longest) values with zeros behind, and where they are real."""
    begins, counts = packed.unbind(-1)
    longest = int(counts.max()) if counts.numel() else 0
    column = torch.arange(longest, device=values.device)
    real = column < counts[:, None]
    index = torch.where(real, begins[:, None] + column, torch.zeros_like(real, dtype=torch.long))
    rows = values[index] if values.numel() else values.new_zeros(index.shape)
    return torch.where(real, rows, torch.zeros_like(rows)), real


def weights_from_density(
    t_starts: Tensor, t_ends: Tensor, sigmas: Tensor, packed: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    depth, real = _padded(sigmas * (t_ends - t_starts), packed)
    alphas = -torch.expm1(-depth)
    trans = torch.exp(-(depth.cumsum(-1) - depth))
    return (trans * alphas)[real], trans[real], alphas[real]


def _follow(ray_indices: Tensor) -> Tensor:
    """(n,) bool: whether the sample before is on the same ray."""
    follow = torch.zeros_like(ray_indices, dtype=torch.bool)
    follow[1:] = ray_indices[1:] == ray_indices[:-1]
    return follow


def rises(values: Tensor, ray_indices: Tensor) -> Tensor:
    return (values - values.roll(1) * _follow(ray_indices)).clamp(min=0)


def crossings(levels: Tensor, ray_indices: Tensor) -> Tensor:
    densities = torch.nn.functional.softplus(levels)
    left = torch.exp(-densities)
    lost = left.roll(1) - left
    mean = 1 - (densities - densities.roll(1)) / (levels - levels.roll(1))
    said = _follow(ray_indices) & (lost > 1e-4)
    return torch.where(said, ((mean - left) / lost).clamp(0, 1), 0.5)


def weights_from_alpha(alphas: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
    rows, real = _padded(alphas, packed)
    trans, columns = [], rows.new_ones(rows.shape[0])
    for column in rows.unbind(-1):  # a running product: cumprod's own gradient divides
        trans.append(columns)
        columns = columns * (1 - column)
    stacked = torch.stack(trans, -1) if trans else rows
    return (stacked * rows)[real], stacked[real]


def accumulate(weights: Tensor, values: Tensor | None, packed: Tensor) -> Tensor:
    ray = torch.repeat_interleave(torch.arange(packed.shape[0], device=weights.device), packed[:, 1])
    terms = weights[:, None] if values is None else weights[:, None] * values
    return weights.new_zeros(packed.shape[0], terms.shape[1]).index_add(0, ray, terms)
