"""Rendering the geometry of a factorised field in one pass: only the samples that show ever reach memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._op import op
from fields.core._ref import visible as _ref
from fields.core.grids import aligned, resolution_and_channels, specialised
from fields.core.march import UNLIMITED, checked
from fields.errors import ShapeError

_NOTED = 16  # samples of a ray noted while counting: kNoted in visible.h


class VisibleSamples(NamedTuple):
    """What of a field shows along rays."""

    x: Tensor
    """(M, 3) positions in [-1, 1] over the box, ray by ray, near to far."""
    weights: Tensor
    """(M,) each above the threshold."""
    ray_indices: Tensor
    """(M,) int64, ascending."""
    packed_info: Tensor
    """(N, 2) int64 first and number of each ray's samples."""
    opacity: Tensor
    """(N,) of all that was walked, shown or not."""
    depth: Tensor
    """(N,) sum of weight times distance."""
    walked: Tensor
    """(N,) int64 how many samples were looked at."""


@torch.no_grad()
def visible_samples(
    rays_o: Tensor,
    rays_d: Tensor,
    t_min: Tensor,
    t_max: Tensor,
    occupied: Tensor,
    aabb: Tensor,
    factors: Sequence[Tensor],
    layout: str,
    step_size: float,
    *,
    shift: float = 0.0,
    scale: float = 1.0,
    threshold: float = 1e-4,
    early_stop: float = 1e-4,
    level_set: bool = False,
) -> VisibleSamples:
    """Marches, samples the density σ = scale · softplus(v + shift) of a grid, and composites, all in one.

    Args:
        rays_o, rays_d, t_min, t_max, occupied, aabb, step_size: as of `march_rays`, of one level.
        factors, layout: of the density grid, as in `fields.core.grids`; its channels and modes are summed to v.
        threshold: samples of lower weight count towards opacity and depth, but are not returned.
        early_stop: a ray is walked no further behind this transmittance.
        level_set: the optical depth of a step is not the integral of σ but its rise since the step before (`rises`), and what
            shows is where that is lost (`crossings`). The scale has to be 1.

    Gradients: none.
    Raises:
        ShapeError: as `march_rays` and the samplers; or more than one level.
    """
    inputs = checked(rays_o, rays_d, t_min, t_max, occupied, aabb, step_size, 0.0)[:6]
    resolution_and_channels(factors, layout)
    if level_set and scale != 1:
        raise ShapeError(f"scale is {scale:g}; of a level set it is 1.")
    if inputs[4].shape[0] != 1:
        raise ShapeError("visible_samples walks one grid; nested levels are for march_rays.")
    factors = [f.detach().to(rays_o.dtype).contiguous() for f in factors]
    implementation: Any = _ref.visible_samples if _backend.use_reference(rays_o) else _visible
    return VisibleSamples(
        *implementation(*inputs, factors, layout, step_size, shift, scale, threshold, early_stop, level_set)
    )


@op("visible_samples")
def _visible(
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
    n = rays_o.shape[0]
    resolution, channels = resolution_and_channels(factors, layout)
    counts, walked = (rays_o.new_empty(n, dtype=torch.int64) for _ in range(2))
    opacity, depth = (rays_o.new_empty(n) for _ in range(2))
    noted, noted_weights = rays_o.new_empty(n, _NOTED), rays_o.new_empty(n, _NOTED)
    unused = dict.fromkeys(("counts", "run_starts", "run_lengths", "begins", "t_starts", "t_ends", "ray_indices", "positions", "t_stops"))  # fmt: skip
    march = unused | {"rays_o": rays_o, "rays_d": rays_d, "t_min": t_min, "t_max": t_max, "aabb": aabb, "clearance": clearance,
                      "limit": UNLIMITED, "levels": 1, "resolution": clearance.shape[1:], "step": step, "cone_angle": 0.0}  # fmt: skip
    unused = dict.fromkeys(("x", "dx", "grad", "dgrad", "value", "jacobian", "grad_x", "fixed_point"))
    grid = unused | {"factor": factors, "dfactor": [], "grad_factor": [], "part_stride": [], "parts": 1, "n": 0,
                     "resolution": resolution, "channels": channels, "out": sum(channels), "summed": 1}  # fmt: skip
    arguments: dict[str, Any] = {f"march.{k}": v for k, v in march.items()} | {f"grid.{k}": v for k, v in grid.items()}
    arguments |= {"counts": counts, "walked": walked, "opacity": opacity, "depth": depth, "noted_t": noted,
                  "noted_weights": noted_weights, "shift": shift, "scale": scale, "level_set": int(level_set),
                  "threshold": threshold, "stop": stop}  # fmt: skip
    team, special, types = specialised(factors, channels, True)
    arguments["grid.factor"] = aligned(factors) if special["aligned"] and _backend.on_gpu(rays_o) else factors
    how: dict[str, Any] = {"grain": 64, "team": team, "special": special, "types": types}
    empty: dict[str, Any] = dict.fromkeys(("begins", "x", "weights", "ray_indices"))
    _backend.launch(f"{layout}_visible_count", n, rays_o, **how, **arguments, **empty)
    ends = counts.cumsum(0)
    total = int(ends[-1]) if n else 0
    x, weights, ray_indices = (
        rays_o.new_empty(total, 3),
        rays_o.new_empty(total),
        rays_o.new_empty(total, dtype=torch.int64),
    )
    begins = ends - counts
    _backend.launch(f"{layout}_visible_write", n, rays_o, **how, **arguments, begins=begins, x=x, weights=weights,
                    ray_indices=ray_indices)  # fmt: skip
    return x, weights, ray_indices, torch.stack([begins, counts], -1), opacity, depth, walked


@_visible.register_fake
def _(rays_o, rays_d, t_min, t_max, clearance, aabb, factors, layout, step, shift, scale, threshold, stop, level_set):
    n, total = rays_o.shape[0], torch.library.get_ctx().new_dynamic_size()
    samples = rays_o.new_empty(total, 3), rays_o.new_empty(total), rays_o.new_empty(total, dtype=torch.int64)
    return (
        *samples,
        rays_o.new_empty(n, 2, dtype=torch.int64),
        rays_o.new_empty(n),
        rays_o.new_empty(n),
        rays_o.new_empty(n, dtype=torch.int64),
    )
