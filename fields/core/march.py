"""Marching rays through an occupancy grid: where along each ray a field is worth asking."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._check import check_floating, check_shape
from fields.core._op import op
from fields.core._ref import march as _ref
from fields.core.data_specs import RayIntervals, RaySamples
from fields.core.pack import pack_info
from fields.core.rays import nested_boxes
from fields.errors import ShapeError

UNLIMITED = 2**62  # samples per ray
_RUNS = 8  # noted while counting: kRuns in march.h
_TEAM = 8  # GPU threads that write the samples of a ray


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
    limit: int = UNLIMITED,
    room: int | None = None,
) -> tuple[Tensor, ...]:
    """Packed samples of rays in the occupied cells of a grid.

    Each ray has a fixed lattice of intervals: the first begins at its `t_min`, each is max(step_size, t · cone_angle)
    long. An interval is a sample when its midpoint is nearer than `t_max` and lies in an occupied cell; of nested
    grids, the innermost that holds the midpoint is asked.

    Args:
        rays_o, rays_d: (N, 3) origins and directions.
        t_min, t_max: (N,) distances in units of the direction. Offsets in `t_min` make sampling stratified.
        occupied: (Nx, Ny, Nz) or (levels, Nx, Ny, Nz) bool; level l covers the box scaled by 2^l about its centre.
            Or its `occupancy_clearance`, which saves computing that here.
        aabb: (6,) the box of level 0.
        step_size: shortest interval.
        cone_angle: growth of intervals with distance.
        positions: also return the midpoints, in [-1, 1] over the box.
        limit: samples per ray at most, the nearest ones.
        room: make exactly so many samples, without asking a GPU how many there are: the last are left out where the
            rays have more, and where they have fewer, the rest are zeros of ray N, which no ray's packing covers.

    Returns:
        t_starts (M,), t_ends (M,), ray_indices (M,) int64 in ascending order, packed_info (N, 2) int64 of first sample
        and number of samples per ray, and with `positions` (M, 3).
    Gradients: none; samples are detached.
    Raises:
        ShapeError: wrong shapes or dtypes, or a step that is not positive.
    """
    inputs = checked(rays_o, rays_d, t_min, t_max, occupied, aabb, step_size, cone_angle)
    implementation: Any = _ref.march_rays if _backend.use_reference(rays_o) else _march
    t_starts, t_ends, ray_indices, packed_info, x, _ = implementation(*inputs, limit, room)
    return (
        (t_starts, t_ends, ray_indices, packed_info, x) if positions else (t_starts, t_ends, ray_indices, packed_info)
    )


@torch.no_grad()
def occupancy_clearance(occupied: Tensor) -> Tensor:
    """How many cells around each are empty: what marching skips by. Worth keeping while the grid does not change.

    Args:
        occupied: (Nx, Ny, Nz) or (levels, Nx, Ny, Nz) bool.

    Returns:
        uint8 of the same shape: 0 for an occupied cell, else the number of cells to the nearest occupied one of its
        level, counted along axes and diagonals alike, at most 16.
    Raises:
        ShapeError: not such a grid.
    """
    if occupied.dim() not in (3, 4) or occupied.dtype is not torch.bool or 0 in occupied.shape:
        raise ShapeError(
            f"occupied must be bool (Nx, Ny, Nz) or (levels, Nx, Ny, Nz), not {occupied.dtype} {tuple(occupied.shape)}."
        )
    return (_ref.occupancy_clearance if _backend.use_reference(occupied) else _clearance)(occupied.contiguous())


class ClearanceCache:
    """Computes the clearance of a grid when asked, and again only when the grid was replaced or written to."""

    def __init__(self) -> None:
        self._known: tuple[Tensor, int, Tensor] | None = None

    def __call__(self, occupied: Tensor) -> Tensor:
        version = -1 if occupied.is_inference() else occupied._version
        if self._known is None or self._known[0] is not occupied or self._known[1] != version or version < 0:
            self._known = occupied, version, occupancy_clearance(occupied)
        return self._known[2]


@op("occupancy_clearance")
def _clearance(occupied: Tensor) -> Tensor:
    given, resolution = occupied, list(occupied.shape[-3:])
    for axis in (2, 1, 0):
        clearance = torch.empty_like(occupied, dtype=torch.uint8)
        rows = occupied.numel() // resolution[2]
        _backend.launch("clearance", rows, occupied, 64, dtype=torch.float32, given=given, clearance=clearance,
                        resolution=resolution, axis=axis)  # fmt: skip
        given = clearance
    return given


_clearance.register_fake(lambda occupied: torch.empty_like(occupied, dtype=torch.uint8))


@torch.no_grad()
def traverse_grids(
    rays_o: Tensor,
    rays_d: Tensor,
    binaries: Tensor,
    aabbs: Tensor,
    near_planes: Tensor | None = None,
    far_planes: Tensor | None = None,
    step_size: float = 1e-3,
    cone_angle: float = 0.0,
    traverse_steps_limit: int | None = None,
    over_allocate: bool = False,
    rays_mask: Tensor | None = None,
    t_sorted: Tensor | None = None,
    t_indices: Tensor | None = None,
    hits: Tensor | None = None,
) -> tuple[RayIntervals, RaySamples, Tensor]:
    """`march_rays` under nerfacc's name, with the edges of intervals and a limit of samples per ray.

    Args:
        rays_o, rays_d: (n_rays, 3) origins and directions.
        binaries: (levels, Nx, Ny, Nz) bool.
        aabbs: (levels, 6) boxes, each twice the one before about the same centre, as `OccGridEstimator` has them.
        near_planes, far_planes: (n_rays,) where rays begin and end; by default 0 and never.
        step_size, cone_angle: as in `march_rays`.
        traverse_steps_limit: samples per ray at most.
        rays_mask: (n_rays,) bool, rays to walk; by default all.
        over_allocate, t_sorted, t_indices, hits: taken for compatibility. Memory is always exact, and intersections
            are found on the way.

    Returns:
        Packed edges of the intervals, their midpoints, and the distance (n_rays,) where each ray's walk ended, to go on
        from if it was limited.
    Gradients: none.
    Raises:
        ShapeError: as `march_rays`; and for boxes that are not nested that way.
    """
    n, levels = rays_o.shape[0], binaries.shape[0]
    if aabbs.shape != (levels, 6) or not torch.allclose(nested_boxes(aabbs[0], levels), aabbs, rtol=1e-4, atol=1e-5):
        raise ShapeError("aabbs must hold one box per level, each twice the one before about the same centre.")
    near = torch.zeros_like(rays_o[:, 0]) if near_planes is None else near_planes
    far = torch.full_like(near, float("inf")) if far_planes is None else far_planes
    if rays_mask is not None:
        far = torch.where(rays_mask, far, near)
    limit = UNLIMITED if traverse_steps_limit is None or traverse_steps_limit <= 0 else traverse_steps_limit
    inputs = checked(rays_o, rays_d, near, far, binaries, aabbs[0], step_size, cone_angle)
    implementation: Any = _ref.march_rays if _backend.use_reference(rays_o) else _march
    t_starts, t_ends, rays, packed, _, t_stops = implementation(*inputs, limit, None)
    samples = RaySamples((t_starts + t_ends) / 2, packed, rays, torch.ones_like(rays, dtype=torch.bool))
    # An interval that begins where the one before it ends shares its edge. On one lattice they do so to rounding.
    joined = torch.zeros_like(rays, dtype=torch.bool)
    joined[1:] = (rays[1:] == rays[:-1]) & ((t_starts[1:] - t_ends[:-1]).abs() < 0.25 * (t_ends - t_starts)[1:])
    own = (~joined).long()  # an edge of its own where it begins
    right = torch.arange(len(rays), device=rays.device) + own.cumsum(0)
    edges = t_starts.new_empty(len(rays) + int(own.sum()))
    edges[right], edges[right[~joined] - 1] = t_ends, t_starts[~joined]
    is_left, is_right = torch.zeros_like(edges, dtype=torch.bool), torch.zeros_like(edges, dtype=torch.bool)
    is_right[right] = True
    is_left[right - 1] = True
    of_edges = rays.repeat_interleave(1 + own)
    return RayIntervals(edges, pack_info(of_edges, n), of_edges, is_left, is_right), samples, t_stops


def checked(rays_o, rays_d, t_min, t_max, occupied, aabb, step_size, cone_angle) -> Any:
    """The inputs of the op."""
    check_shape("rays_o", rays_o, None, 3)
    n = rays_o.shape[0]
    check_shape("rays_d", rays_d, n, 3)
    check_shape("t_min", t_min, n)
    check_shape("t_max", t_max, n)
    check_shape("aabb", aabb, 6)
    check_floating(rays_o=rays_o, rays_d=rays_d, t_min=t_min, t_max=t_max, aabb=aabb)
    if not step_size > 0 or not cone_angle >= 0:
        raise ShapeError(f"step_size must be positive and cone_angle not negative; got {step_size} and {cone_angle}.")
    clearance = occupied if occupied.dtype is torch.uint8 else occupancy_clearance(occupied)
    levels = clearance if clearance.dim() == 4 else clearance[None]
    tensors = [t.detach().contiguous() for t in (rays_o, rays_d, t_min, t_max, levels, aabb)]
    return *tensors, float(step_size), float(cone_angle)


@op("march")
def _march(
    rays_o: Tensor,
    rays_d: Tensor,
    t_min: Tensor,
    t_max: Tensor,
    clearance: Tensor,
    aabb: Tensor,
    step: float,
    cone_angle: float,
    limit: int,
    room: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    n, (levels, *resolution) = rays_o.shape[0], clearance.shape
    counts, t_stops = rays_o.new_empty(n, dtype=torch.int64), rays_o.new_empty(n)
    starts, lengths = rays_o.new_empty(n, _RUNS), rays_o.new_empty(n, _RUNS, dtype=torch.int32)
    common: dict[str, Any] = {"rays_o": rays_o, "rays_d": rays_d, "t_min": t_min, "t_max": t_max, "aabb": aabb,
              "clearance": clearance, "levels": levels, "resolution": resolution, "step": step, "cone_angle": cone_angle, "limit": limit,
              "counts": counts, "t_stops": t_stops, "run_starts": starts, "run_lengths": lengths}  # fmt: skip
    nothing: dict[str, Any] = dict.fromkeys(("begins", "t_starts", "t_ends", "ray_indices", "positions"))
    _backend.launch("march_count", n, rays_o, 64, **common, **nothing)
    ends = counts.cumsum(0)
    begins = ends - counts
    if room is None:
        total = int(ends[-1]) if n else 0
        t_starts, t_ends, x = rays_o.new_empty(total), rays_o.new_empty(total), rays_o.new_empty(total, 3)
        ray_indices = rays_o.new_empty(total, dtype=torch.int64)
    else:
        begins = begins.clamp(max=room)
        common["counts"] = counts = ends.clamp(max=room) - begins
        t_starts, t_ends, x = rays_o.new_zeros(room), rays_o.new_zeros(room), rays_o.new_zeros(room, 3)
        ray_indices = rays_o.new_full((room,), n, dtype=torch.int64)
    team = _TEAM if _backend.on_gpu(rays_o) else 1
    _backend.launch("march_write", n, rays_o, 64, team=team, **common, begins=begins, t_starts=t_starts, t_ends=t_ends,
                    ray_indices=ray_indices, positions=x)  # fmt: skip
    return t_starts, t_ends, ray_indices, torch.stack([begins, counts], -1), x, t_stops


@_march.register_fake
def _(rays_o, rays_d, t_min, t_max, clearance, aabb, step, cone_angle, limit, room):
    total = torch.library.get_ctx().new_dynamic_size() if room is None else room
    packed = rays_o.new_empty(rays_o.shape[0], 2, dtype=torch.int64)
    samples = [rays_o.new_empty(total) for _ in range(2)]
    return (
        *samples,
        rays_o.new_empty(total, dtype=torch.int64),
        packed,
        rays_o.new_empty(total, 3),
        torch.empty_like(t_min),
    )
