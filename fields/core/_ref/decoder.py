"""Plain-PyTorch twin of ``fields.core.decoder``."""

from __future__ import annotations

import torch
from torch import Tensor


def fourier(v: Tensor, frequencies: int) -> list[Tensor]:
    """[sin, cos] of v, 2v, 4v …, component-major: each (N, width · frequencies)."""
    if not frequencies:
        return []
    angles = (v[..., None] * 2 ** torch.arange(frequencies, dtype=v.dtype, device=v.device)).flatten(-2)
    return [angles.sin(), angles.cos()]


def encode(f: Tensor, directions: Tensor, feature_frequencies: int, view_frequencies: int) -> Tensor:
    return torch.cat([f, directions, *fourier(f, feature_frequencies), *fourier(directions, view_frequencies)], dim=-1)


def decode(
    features: Tensor,
    directions: Tensor,
    basis: Tensor | None,
    weights: list[Tensor],
    biases: list[Tensor],
    feature_frequencies: int,
    view_frequencies: int,
) -> Tensor:
    f = features if basis is None else features @ basis.T
    x = encode(f, directions, feature_frequencies, view_frequencies)
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = torch.relu(torch.nn.functional.linear(x, weight, bias))
    return torch.sigmoid(torch.nn.functional.linear(x, weights[-1], biases[-1]))
