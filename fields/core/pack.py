"""Packed samples: those of all rays in one row, ray after ray."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def pack_info(ray_indices: Tensor, n_rays: int | None = None) -> Tensor:
    """(n_rays, 2) int64: first sample and number of samples of each ray.

    Args:
        ray_indices: (n,) the ray of each sample, in ascending order.
        n_rays: how many rays; by default one more than the last index.
    """
    if n_rays is None:
        n_rays = int(ray_indices[-1]) + 1 if ray_indices.numel() else 0
    # Not by bincount, which asks a GPU for the largest index and waits for the answer.
    edges = torch.searchsorted(ray_indices.contiguous(), torch.arange(n_rays + 1, device=ray_indices.device))
    return torch.stack([edges[:-1], edges.diff()], dim=-1)
