"""Plain-PyTorch twin of ``fields.core.rays``."""

from __future__ import annotations

import torch
from torch import Tensor


def ray_aabb_intersect(
    rays_o: Tensor, rays_d: Tensor, aabbs: Tensor, near_plane: float, far_plane: float, miss_value: float
) -> tuple[Tensor, Tensor, Tensor]:
    o, d = rays_o[:, None], rays_d[:, None]
    low, high = aabbs[:, :3], aabbs[:, 3:]
    parallel = d == 0
    inverse = 1 / torch.where(parallel, torch.ones_like(d), d)
    t0, t1 = (low - o) * inverse, (high - o) * inverse
    within = (o >= low) & (o <= high)
    lowest = torch.where(parallel, torch.full_like(t0, -torch.inf), torch.minimum(t0, t1)).amax(-1)
    highest = torch.where(parallel, torch.full_like(t0, torch.inf), torch.maximum(t0, t1)).amin(-1)
    t_mins, t_maxs = lowest.clamp(min=near_plane), highest.clamp(max=far_plane)
    hits = (t_maxs > t_mins) & (within | ~parallel).all(-1)
    miss = torch.full_like(t_mins, miss_value)
    return torch.where(hits, t_mins, miss), torch.where(hits, t_maxs, miss), hits
