"""The shared core: rays, marching, compositing, grid sampling, occupancy, neighbours.

Public names and shapes are those of nerfacc where it has them: a program written for nerfacc 0.5 runs by importing
from here. Importing this module loads nothing; each name does when first used.
"""

from __future__ import annotations

from typing import Any

_HOME = {
    "grids": ("vm_sample", "cp_sample", "dense_sample"),
    "decoder": ("fourier_encode", "fused_decoder"),
    "networks": ("parameter_count", "small_networks"),
    "rays": ("ray_aabb_intersect",),
    "march": ("ClearanceCache", "march_rays", "occupancy_clearance", "traverse_grids"),
    "visible": ("visible_samples",),
    "data_specs": ("RayIntervals", "RaySamples"),
    "pdf": ("importance_sampling", "searchsorted"),
    "pack": ("pack_info",),
    "weights": (
        "accumulate_along_rays",
        "accumulate_along_rays_",
        "crossings",
        "render_weight_from_alpha",
        "render_weight_from_density",
        "rises",
    ),
    "volrend": (
        "render_transmittance_from_alpha",
        "render_transmittance_from_density",
        "render_visibility_from_alpha",
        "render_visibility_from_density",
        "rendering",
    ),
    "scan": ("exclusive_prod", "exclusive_sum", "inclusive_prod", "inclusive_sum"),
    "losses": ("distortion",),
    "alignment": ("CONTACTS", "NearestTable", "aligned", "contacts", "support"),
    "neighbours": ("VoxelHash", "knn", "morton_decode", "morton_encode", "radius_neighbours"),
    "estimators.occ_grid": ("OccGridEstimator",),
    "estimators.prop_net": ("PropNetEstimator", "get_proposal_requires_grad_fn"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        from importlib import import_module

        return getattr(import_module(f"fields.core.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'fields.core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
