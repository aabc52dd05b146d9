"""Importance sampling along rays from a cumulative distribution, and search in sorted edges."""

from __future__ import annotations

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._check import check_floating
from fields.core._op import op
from fields.core._ref import pdf as _ref
from fields.core.data_specs import RayIntervals, RaySamples
from fields.errors import ShapeError


@torch.no_grad()
def importance_sampling(
    intervals: RayIntervals, cdfs: Tensor, n_intervals_per_ray: Tensor | int, stratified: bool = False
) -> tuple[RayIntervals, RaySamples]:
    """Draws new samples from a distribution along each ray, and intervals around them.

    The range of the distribution is split into equal strata with a sample in the middle of each, or with `stratified`
    at one random place, the same in all strata of a ray. Intervals meet halfway between samples and stay within the
    given edges.

    Args:
        intervals: edges, batched (n_rays, n + 1) or packed with `packed_info`.
        cdfs: like `intervals.vals`, the cumulative distribution at the edges, ascending.
        n_intervals_per_ray: samples per ray, one number or (n_rays,).

    Returns:
        Intervals and samples: batched (n_rays, n + 1) and (n_rays, n) for one number; packed, with `packed_info`,
        `ray_indices` and for the intervals `is_left` and `is_right`, for a number per ray.
    Gradients: none.
    Raises:
        ShapeError: cdfs of another shape, packed edges without packed_info, or samples asked of a ray without an interval.
    """
    check_floating(intervals=intervals.vals, cdfs=cdfs)
    if cdfs.shape != intervals.vals.shape:
        raise ShapeError(f"cdfs {tuple(cdfs.shape)} must have the shape of the edges {tuple(intervals.vals.shape)}.")
    given = _packing(intervals)
    n_rays, device = given.shape[0], cdfs.device
    counts = torch.as_tensor(n_intervals_per_ray, device=device).to(torch.int64).expand(n_rays).contiguous()
    if (counts < 0).any() or ((given[:, 1] < 2) & (counts > 0)).any():
        raise ShapeError("A ray needs two edges at least to be sampled, and a number of samples that is not negative.")
    drawn = torch.stack([counts.cumsum(0) - counts, counts], -1)
    edges = torch.where(counts > 0, counts + 1, counts)
    bounding = torch.stack([edges.cumsum(0) - edges, edges], -1)
    offsets = torch.rand(n_rays, dtype=cdfs.dtype, device=device) if stratified else cdfs.new_full((n_rays,), 0.5)
    implementation = _ref.importance_sampling if _backend.use_reference(cdfs) else _importance_sampling
    samples, bounds = implementation(
        intervals.vals.reshape(-1).contiguous(), cdfs.reshape(-1).contiguous(), given, drawn, bounding[:, 0].contiguous(),
        offsets, int(counts.sum()), int(edges.sum()),
    )  # fmt: skip
    if not isinstance(n_intervals_per_ray, Tensor):
        n = n_intervals_per_ray
        return RayIntervals(bounds.view(n_rays, n + 1 if n else 0)), RaySamples(samples.view(n_rays, n))
    rays = torch.arange(n_rays, device=device)
    is_left, is_right = (torch.ones(len(bounds), dtype=torch.bool, device=device) for _ in range(2))
    occupied = bounding[counts > 0]
    is_left[occupied.sum(-1) - 1] = False
    is_right[occupied[:, 0]] = False
    of_bounds, of_samples = rays.repeat_interleave(edges), rays.repeat_interleave(counts)
    valid = torch.ones(len(samples), dtype=torch.bool, device=device)
    return RayIntervals(bounds, bounding, of_bounds, is_left, is_right), RaySamples(samples, drawn, of_samples, valid)


@torch.no_grad()
def searchsorted(
    sorted_sequence: RayIntervals | RaySamples, values: RayIntervals | RaySamples
) -> tuple[Tensor, Tensor]:
    """The neighbours of values among the sorted distances of the same ray.

    Args:
        sorted_sequence: distances, ascending along each ray; batched, or packed with `packed_info`.
        values: distances to look up; batched, or packed with `packed_info` or `ray_indices`.

    Returns:
        ids_left, ids_right: int64 like `values.vals`, with keys[ids_left] ≤ value < keys[ids_right], values beyond the
        ends taken as at the ends. Positions count within the ray where `values` are batched, within all packed keys
        otherwise.
    Gradients: none.
    Raises:
        ShapeError: packed distances without their packing, or values on a ray without keys.
    """
    check_floating(sorted_sequence=sorted_sequence.vals, values=values.vals)
    given, queries = _packing(sorted_sequence), values.vals.reshape(-1).contiguous()
    if values.vals.dim() == 1 and values.ray_indices is not None:
        rays = values.ray_indices.contiguous()
    else:
        packed = _packing(values)
        rays = torch.arange(len(packed), device=queries.device).repeat_interleave(packed[:, 1])
    if len(rays) and (given[rays, 1] < 1).any():
        raise ShapeError("A value lies on a ray that has no sorted distances.")
    implementation = _ref.search_sorted if _backend.use_reference(queries) else _search_sorted
    left, right = implementation(sorted_sequence.vals.reshape(-1).contiguous(), given, queries, rays)
    if values.vals.dim() > 1:
        left, right = (ids - given[rays, 0] for ids in (left, right))
    return left.view(values.vals.shape), right.view(values.vals.shape)


def _packing(along: RayIntervals | RaySamples) -> Tensor:
    """(n_rays, 2) first and number of each ray's distances."""
    if along.vals.dim() > 1:
        per_ray = along.vals.shape[-1]
        n_rays = along.vals.numel() // per_ray if per_ray else 0
        begins = torch.arange(n_rays, device=along.device) * per_ray
        return torch.stack([begins, torch.full_like(begins, per_ray)], -1)
    if along.packed_info is None:
        raise ShapeError("Packed distances need packed_info: first and number of each ray's.")
    return along.packed_info.to(torch.int64).contiguous()


@op("importance_sampling")
def _importance_sampling(
    edges: Tensor, cdfs: Tensor, given: Tensor, drawn: Tensor, begins: Tensor, offsets: Tensor, n_samples: int, n_bounds: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    samples, bounds = edges.new_empty(n_samples), edges.new_empty(n_bounds)
    _backend.launch("importance_sampling", given.shape[0], edges, 64, edges=edges, cdfs=cdfs, given=given, drawn=drawn,
                    begins=begins, offsets=offsets, samples=samples, bounds=bounds)  # fmt: skip
    return samples, bounds


@_importance_sampling.register_fake
def _(edges, cdfs, given, drawn, begins, offsets, n_samples, n_bounds):
    return edges.new_empty(n_samples), edges.new_empty(n_bounds)


@op("search_sorted")
def _search_sorted(keys: Tensor, given: Tensor, values: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    left, right = torch.empty_like(rays), torch.empty_like(rays)
    _backend.launch("search_sorted", values.shape[0], keys, 1024, keys=keys, given=given, values=values, rays=rays,
                    left=left, right=right)  # fmt: skip
    return left, right


_search_sorted.register_fake(lambda keys, given, values, rays: (torch.empty_like(rays), torch.empty_like(rays)))
