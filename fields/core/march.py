"""Marching rays through an occupancy grid: where along each ray a field is worth asking."""

from __future__ import annotations

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._check import check_floating, check_shape
from fields.core._ref import march as _ref
from fields.errors import ShapeError


def march_rays(
    rays_o: Tensor,
    rays_d: Tensor,
    t_min: Tensor,
    t_max: Tensor,
    occupied: Tensor,
    aabb: Tensor,
    step_size: float,
    cone_angle: float = 0.0,
    positions: bool = False,
) -> tuple[Tensor, ...]:
    """Packed samples of rays in the occupied cells of a grid.

    Each ray has a fixed lattice of intervals: the first begins at its `t_min`, each is max(step_size, t · cone_angle)
    long. An interval is a sample when its midpoint is nearer than `t_max` and lies in an occupied cell; of nested
    grids, the innermost that holds the midpoint is asked.

    Args:
        rays_o, rays_d: (N, 3) origins and directions.
        t_min, t_max: (N,) distances in units of the direction. Offsets in `t_min` make sampling stratified.
        occupied: (Nx, Ny, Nz) or (levels, Nx, Ny, Nz) bool; level l covers the box scaled by 2^l about its centre.
        aabb: (6,) the box of level 0.
        step_size: shortest interval.
        cone_angle: growth of intervals with distance.
        positions: also return the midpoints, in [-1, 1] over the box.

    Returns:
        t_starts (M,), t_ends (M,), ray_indices (M,) int64 in ascending order, packed_info (N, 2) int64 of first sample
        and number of samples per ray, and with `positions` (M, 3).
    Gradients: none; samples are detached.
    Raises:
        ShapeError: wrong shapes or dtypes, or a step that is not positive.
    """
    check_shape("rays_o", rays_o, None, 3)
    n = rays_o.shape[0]
    check_shape("rays_d", rays_d, n, 3)
    check_shape("t_min", t_min, n)
    check_shape("t_max", t_max, n)
    check_shape("aabb", aabb, 6)
    check_floating(rays_o=rays_o, rays_d=rays_d, t_min=t_min, t_max=t_max, aabb=aabb)
    if occupied.dim() not in (3, 4) or occupied.dtype is not torch.bool or 0 in occupied.shape:
        raise ShapeError(
            f"occupied must be bool (Nx, Ny, Nz) or (levels, Nx, Ny, Nz), not {occupied.dtype} {tuple(occupied.shape)}."
        )
    if not step_size > 0 or not cone_angle >= 0:
        raise ShapeError(f"step_size must be positive and cone_angle not negative; got {step_size} and {cone_angle}.")
    grids = (occupied if occupied.dim() == 4 else occupied[None]).contiguous()
    inputs = [t.detach().contiguous() for t in (rays_o, rays_d, t_min, t_max)]
    implementation = _ref.march_rays if _backend.use_reference(rays_o) else _march
    t_starts, t_ends, ray_indices, packed_info, x = implementation(
        *inputs, grids, aabb.detach().contiguous(), float(step_size), float(cone_angle)
    )
    return (
        (t_starts, t_ends, ray_indices, packed_info, x) if positions else (t_starts, t_ends, ray_indices, packed_info)
    )


@torch.library.custom_op("fields::march", mutates_args=())
def _march(
    rays_o: Tensor,
    rays_d: Tensor,
    t_min: Tensor,
    t_max: Tensor,
    grids: Tensor,
    aabb: Tensor,
    step: float,
    cone_angle: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    n, (levels, *resolution) = rays_o.shape[0], grids.shape
    bricks = [-(-r // 8) for r in resolution]
    bits = torch.empty(levels, resolution[0], resolution[1], bricks[2], dtype=torch.uint8)
    any_bits = torch.empty(levels, *bricks, dtype=torch.uint8)
    _backend.launch("pack_occupancy", any_bits.numel(), rays_o.dtype, 64, cells=grids, bits=bits, bricks=any_bits,
                    resolution=resolution)  # fmt: skip
    counts = torch.empty(n, dtype=torch.int64)
    common = {"rays_o": rays_o, "rays_d": rays_d, "t_min": t_min, "t_max": t_max, "aabb": aabb, "bits": bits, "bricks": any_bits,
              "levels": levels, "resolution": resolution, "step": step, "cone_angle": cone_angle}  # fmt: skip
    nothing = dict.fromkeys(("begins", "t_starts", "t_ends", "ray_indices", "positions"))
    _backend.launch("march", n, rays_o.dtype, 64, **common, **nothing, counts=counts)
    ends = counts.cumsum(0)
    begins, total = ends - counts, int(ends[-1]) if n else 0
    t_starts, t_ends, x = rays_o.new_empty(total), rays_o.new_empty(total), rays_o.new_empty(total, 3)
    ray_indices = torch.empty(total, dtype=torch.int64)
    _backend.launch("march", n, rays_o.dtype, 64, **common, counts=None, begins=begins, t_starts=t_starts, t_ends=t_ends,
                    ray_indices=ray_indices, positions=x)  # fmt: skip
    return t_starts, t_ends, ray_indices, torch.stack([begins, counts], -1), x


@_march.register_fake
def _(rays_o, rays_d, t_min, t_max, grids, aabb, step, cone_angle):
    total = torch.library.get_ctx().new_dynamic_size()
    packed = rays_o.new_empty(rays_o.shape[0], 2, dtype=torch.int64)
    samples = [rays_o.new_empty(total) for _ in range(2)]
    return *samples, rays_o.new_empty(total, dtype=torch.int64), packed, rays_o.new_empty(total, 3)
