"""Plain-PyTorch twin of ``fields.core.march``: every interval of every ray, then a mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool3d

from fields.core._ref.rays import ray_aabb_intersect


def occupancy_clearance(occupied: Tensor) -> Tensor:
    grids = occupied.view(-1, 1, *occupied.shape[-3:]).float()
    clearance = torch.full_like(grids, 16)
    for c in range(15, -1, -1):  # all that is within c cells of an occupied one
        clearance[max_pool3d(grids, 2 * c + 1, 1, c) > 0] = c
    return clearance.view(occupied.shape).to(torch.uint8)


def march_rays(
    rays_o: Tensor,
    rays_d: Tensor,
    t_min: Tensor,
    t_max: Tensor,
    clearance: Tensor,
    aabb: Tensor,
    step: float,
    cone_angle: float,
    limit: int,
    room: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grids = clearance == 0
    n, levels = rays_o.shape[0], grids.shape[0]
    centre, half = (aabb[:3] + aabb[3:]) / 2, (aabb[3:] - aabb[:3]) / 2
    outer = torch.cat([centre - half * 2 ** (levels - 1), centre + half * 2 ** (levels - 1)])
    leave = ray_aabb_intersect(rays_o, rays_d, outer[None], -1e30, 1e30, -1e30)[1][:, 0]
    last = torch.minimum(t_max, leave + step)
    starts, t = [], t_min.clone()
    k = 0
    while bool((t < last).any()):  # the lattice of all rays, one interval at a time
        starts.append(t)
        k += 1
        t = t + torch.clamp(t * cone_angle, min=step) if cone_angle > 0 else t_min + k * step
    t_starts = torch.stack(starts, -1) if starts else t_min.new_empty(n, 0)
    lengths = torch.clamp(t_starts * cone_angle, min=step) if cone_angle > 0 else torch.full_like(t_starts, step)
    mids = t_starts + lengths / 2
    points = rays_o[:, None] + rays_d[:, None] * mids[..., None]
    resolution = torch.tensor(grids.shape[1:], device=aabb.device)
    offset = (points - centre).abs() / half
    keep = torch.zeros_like(mids, dtype=torch.bool)
    undecided = mids < t_max[:, None]
    for level in range(levels):
        inside = undecided & (offset <= 2**level).all(-1)
        cell = ((points - centre) / (half * 2**level) + 1) / 2 * resolution
        cell = torch.minimum(cell.nan_to_num().long().clamp(min=0), resolution - 1)
        keep |= inside & grids[level][cell.unbind(-1)]
        undecided &= ~inside
    keep &= keep.cumsum(-1) <= limit
    counts = keep.sum(-1)
    # A walk ends behind its last sample where that exhausts the limit, else at the first midpoint beyond reach.
    reached = torch.where(keep, t_starts + lengths, t_min[:, None]).amax(-1) if keep.shape[1] else t_min
    ends = torch.cat([t_starts, t[:, None]], -1)
    mid = torch.cat([mids, t[:, None] + torch.clamp(t * cone_angle, min=step)[:, None] / 2], -1)
    beyond = torch.where(mid < last[:, None], torch.inf, ends).amin(-1)
    t_stops = torch.where(counts == limit, reached, beyond)
    ends = counts.cumsum(0)
    packed = torch.stack([ends - counts, counts], -1)
    x = ((points - centre) / half)[keep]
    t_starts, t_ends, ray_indices = t_starts[keep], (t_starts + lengths)[keep], keep.nonzero()[:, 0]
    if room is not None:
        begins = packed[:, 0].clamp(max=room)
        packed = torch.stack([begins, ends.clamp(max=room) - begins], -1)

        def fitted(v: Tensor, rest: float = 0) -> Tensor:
            return torch.cat([v[:room], v.new_full((max(room - len(v), 0), *v.shape[1:]), rest)])

        t_starts, t_ends, ray_indices, x = fitted(t_starts), fitted(t_ends), fitted(ray_indices, n), fitted(x)
    return t_starts, t_ends, ray_indices, packed, x, t_stops
