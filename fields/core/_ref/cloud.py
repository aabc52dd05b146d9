"""Plain-PyTorch twin of ``fields.core.cloud``: every point against every box, written for reading."""

from __future__ import annotations

import torch
from torch import Tensor


def box_weights(
    x: Tensor, centres: Tensor, half: float, spacing: float, windowed: bool, nearest: int, clamped: bool
) -> Tensor:
    """(N, B): how much each box contributes to each point."""
    offset = x[:, None] - centres
    held = (offset.abs() <= half).all(-1)
    if windowed:
        weight = ((half - offset.abs()) / (2 * half - spacing)).clamp(0, 1).prod(-1) * held
    else:
        weight = 1 / (offset.norm(dim=-1) + 1e-6) * held
    if centres.shape[0] > nearest:
        # Stable: equal weights are ranked by box.
        far = weight.detach().argsort(dim=1, descending=True, stable=True)[:, nearest:]
        weight = weight.scatter(1, far, 0.0)
    total = weight.sum(1, keepdim=True)
    return weight / torch.where(total > (1.0 if clamped else 0.0), total, 1.0)


def products(x: Tensor, centres: Tensor, half: float, vectors: Tensor) -> Tensor:
    """(N, B, R): the products X_r Y_r Z_r of each box at each point; outside a box its border value is held."""
    knots = vectors.shape[2]
    q = ((x[:, None] - centres + half) * ((knots - 1) / (2 * half))).clamp(0, knots - 1)
    left = q.detach().nan_to_num().long().clamp(max=knots - 2)
    right = (q - left)[..., None]
    box = torch.arange(len(centres), device=x.device)
    values = [
        (1 - right[:, :, a]) * vectors[box, a, left[..., a]] + right[:, :, a] * vectors[box, a, left[..., a] + 1]
        for a in range(3)
    ]
    return values[0] * values[1] * values[2]


def value(
    x: Tensor,
    vectors: list[Tensor],
    index: list[Tensor],
    frame: list[float],
    summed: bool,
    averaged: bool,
    windowed: bool,
    nearest: int,
    clamped: bool,
) -> Tensor:
    parts, covered = [], []
    for s, v in enumerate(vectors):
        centres, lattice = index[5 * s].to(x.dtype), index[5 * s + 1]
        spacing, half = frame[5 * s + 3 : 5 * s + 5]
        of_window = spacing if lattice.numel() else half
        weight = box_weights(x, centres, half, of_window, windowed, nearest, clamped)
        parts.append((weight[..., None] * products(x, centres, half, v)).sum(1))
        covered.append((weight > 0).any(1))
    if averaged:
        held = torch.stack(covered).sum(0).clamp(min=1)[:, None]
        parts = [p / held for p in parts]
    concatenated = torch.cat(parts, -1)
    fault = x.detach().sum(-1, keepdim=True)
    concatenated = concatenated.masked_fill(fault.isnan(), torch.nan)
    return concatenated.sum(-1) if summed else concatenated
