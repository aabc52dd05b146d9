"""Plain-PyTorch twin of ``fields.core.visible``: march, sample, composite, then keep what shows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fields.core._ref import grids, weights
from fields.core._ref.march import march_rays


def visible_samples(
    rays_o: Tensor,
    rays_d: Tensor,
    t_min: Tensor,
    t_max: Tensor,
    clearance: Tensor,
    aabb: Tensor,
    factors: list[Tensor],
    layout: str,
    step: float,
    shift: float,
    scale: float,
    threshold: float,
    stop: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    t_starts, t_ends, rays, packed, x, _ = march_rays(rays_o, rays_d, t_min, t_max, clearance, aabb, step, 0.0, 2**62)
    sigmas = scale * softplus(grids.value(x, factors, layout, True) + shift)
    w, trans, _ = weights.weights_from_density(t_starts, t_ends, sigmas, packed)
    seen = trans > stop
    mids = (t_starts + t_ends) / 2
    w = torch.where(seen, w, torch.zeros_like(w))
    per_ray = torch.stack([w, w * mids, seen.to(w.dtype)], -1)
    sums = w.new_zeros(rays_o.shape[0], 3).index_add(0, rays, per_ray)
    shows = (w > threshold).nonzero()[:, 0]
    counts = torch.bincount(rays[shows], minlength=rays_o.shape[0])
    packed = torch.stack([counts.cumsum(0) - counts, counts], -1)
    return x[shows], w[shows], rays[shows], packed, sums[:, 0], sums[:, 1], sums[:, 2].long()
