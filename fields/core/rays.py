"""Rays against boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._check import check_floating, check_shape
from fields.core._op import op
from fields.core._ref import rays as _ref


def ray_aabb_intersect(
    rays_o: Tensor,
    rays_d: Tensor,
    aabbs: Tensor,
    near_plane: float = -math.inf,
    far_plane: float = math.inf,
    miss_value: float = math.inf,
) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays enter and leave axis-aligned boxes.

    Args:
        rays_o, rays_d: (N, 3) origins and directions (of any length).
        aabbs: (M, 6) lowest and highest corners.
        near_plane, far_plane: distances outside of which is clipped.
        miss_value: both distances of a miss.

    Returns:
        t_mins (N, M), t_maxs (N, M) in units of the direction, and hits (N, M) bool. A ray that starts inside enters at
        near_plane, or at a negative distance without one.
    Gradients: none; the distances are detached.
    Raises:
        ShapeError: wrong shapes or dtypes.
    """
    check_shape("rays_o", rays_o, None, 3)
    check_shape("rays_d", rays_d, rays_o.shape[0], 3)
    check_shape("aabbs", aabbs, None, 6)
    check_floating(rays_o=rays_o, rays_d=rays_d, aabbs=aabbs)
    near_plane, far_plane = max(near_plane, -_FARTHEST), min(far_plane, _FARTHEST)
    if _backend.use_reference(rays_o):
        return _ref.ray_aabb_intersect(rays_o, rays_d, aabbs, near_plane, far_plane, miss_value)
    inputs = (t.detach().contiguous() for t in (rays_o, rays_d, aabbs))
    return _ray_aabb(*inputs, near_plane, far_plane, miss_value)


def nested_boxes(aabb: Tensor, levels: int) -> Tensor:
    """(levels, 6): the box (6,) and boxes around the same centre, each twice the one before."""
    centre, half = (aabb[:3] + aabb[3:]) / 2, (aabb[3:] - aabb[:3]) / 2
    return torch.stack([torch.cat([centre - half * 2**level, centre + half * 2**level]) for level in range(levels)])


_FARTHEST = 1e30  # finite, so that distances stay ordered in float32


@op("ray_aabb")
def _ray_aabb(
    rays_o: Tensor, rays_d: Tensor, aabbs: Tensor, near_plane: float, far_plane: float, miss_value: float
) -> tuple[Tensor, Tensor, Tensor]:
    n, m = rays_o.shape[0], aabbs.shape[0]
    t_mins, t_maxs = rays_o.new_empty(n, m), rays_o.new_empty(n, m)
    hits = torch.empty(n, m, dtype=torch.bool, device=rays_o.device)
    _backend.launch("ray_aabb", n, rays_o, 1024, rays_o=rays_o, rays_d=rays_d, aabbs=aabbs, t_mins=t_mins, t_maxs=t_maxs,
                    hits=hits, m=m, near_plane=near_plane, far_plane=far_plane, miss_value=miss_value)  # fmt: skip
    return t_mins, t_maxs, hits


@_ray_aabb.register_fake
def _(rays_o, rays_d, aabbs, near_plane, far_plane, miss_value):
    shape = rays_o.shape[0], aabbs.shape[0]
    return rays_o.new_empty(shape), rays_o.new_empty(shape), torch.empty(shape, dtype=torch.bool, device=rays_o.device)
