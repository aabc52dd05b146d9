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
    level_set: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    t_starts, t_ends, rays, packed, x, _ = march_rays(rays_o, rays_d, t_min, t_max, clearance, aabb, step, 0.0, 2**62)
    levels = grids.value(x, factors, layout, True) + shift
    sigmas = scale * softplus(levels)
    if level_set:
        w, trans, _ = weights.weights_from_density(
            torch.zeros_like(sigmas), torch.ones_like(sigmas), weights.rises(sigmas, rays), packed
        )
        at = (t_starts + t_ends) / 2 - (t_ends - t_starts) * (1 - weights.crossings(levels, rays))
        x = (rays_o[rays] + at[:, None] * rays_d[rays] - aabb[:3]) * (2 / (aabb[3:] - aabb[:3])) - 1
    else:
        w, trans, _ = weights.weights_from_density(t_starts, t_ends, sigmas, packed)
        at = (t_starts + t_ends) / 2
    seen = trans > stop
    w = torch.where(seen, w, torch.zeros_like(w))
    per_ray = torch.stack([w, w * at, seen.to(w.dtype)], -1)
    sums = w.new_zeros(rays_o.shape[0], 3).index_add(0, rays, per_ray)
    shows = (w > threshold).nonzero()[:, 0]
    counts = torch.bincount(rays[shows], minlength=rays_o.shape[0])
    packed = torch.stack([counts.cumsum(0) - counts, counts], -1)
    return x[shows], w[shows], rays[shows], packed, sums[:, 0], sums[:, 1], sums[:, 2].long()
