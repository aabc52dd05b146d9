"""Volume rendering of samples, all under nerfacc's names: the ops of `weights`, and what is composed of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fields.core.weights import (
    accumulate_along_rays,
    accumulate_along_rays_,
    render_weight_from_alpha,
    render_weight_from_density,
)

__all__ = [
    "accumulate_along_rays",
    "accumulate_along_rays_",
    "render_transmittance_from_alpha",
    "render_transmittance_from_density",
    "render_visibility_from_alpha",
    "render_visibility_from_density",
    "render_weight_from_alpha",
    "render_weight_from_density",
    "rendering",
]


def render_transmittance_from_density(
    t_starts: Tensor, t_ends: Tensor, sigmas: Tensor, packed_info: Tensor | None = None, ray_indices: Tensor | None = None,
    n_rays: int | None = None, prefix_trans: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Transmittance up to each sample, and its opacity. Arguments and gradients: `render_weight_from_density`."""
    _, trans, alphas = render_weight_from_density(
        t_starts, t_ends, sigmas, packed_info, ray_indices, n_rays, prefix_trans
    )
    return trans, alphas


def render_transmittance_from_alpha(
    alphas: Tensor, packed_info: Tensor | None = None, ray_indices: Tensor | None = None, n_rays: int | None = None,
    prefix_trans: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Transmittance up to each sample. Arguments and gradients: `render_weight_from_alpha`."""
    return render_weight_from_alpha(alphas, packed_info, ray_indices, n_rays, prefix_trans)[1]


@torch.no_grad()
def render_visibility_from_density(
    t_starts: Tensor, t_ends: Tensor, sigmas: Tensor, packed_info: Tensor | None = None, ray_indices: Tensor | None = None,
    n_rays: int | None = None, early_stop_eps: float = 1e-4, alpha_thre: float = 0.0, prefix_trans: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Bool like sigmas: transmittance at least `early_stop_eps` and, where `alpha_thre` > 0, opacity at least that.

    Gradients: none.
    """
    trans, alphas = render_transmittance_from_density(
        t_starts, t_ends, sigmas, packed_info, ray_indices, n_rays, prefix_trans
    )
    return _visible(trans, alphas, early_stop_eps, alpha_thre)


@torch.no_grad()
def render_visibility_from_alpha(
    alphas: Tensor, packed_info: Tensor | None = None, ray_indices: Tensor | None = None, n_rays: int | None = None,
    early_stop_eps: float = 1e-4, alpha_thre: float = 0.0, prefix_trans: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As `render_visibility_from_density`, of opacities."""
    trans = render_transmittance_from_alpha(alphas, packed_info, ray_indices, n_rays, prefix_trans)
    return _visible(trans, alphas, early_stop_eps, alpha_thre)


def _visible(trans: Tensor, alphas: Tensor, early_stop_eps: float, alpha_thre: float) -> Tensor:
    visible = trans >= early_stop_eps
    return visible & (alphas >= alpha_thre) if alpha_thre > 0 else visible


def rendering(
    t_starts: Tensor,
    t_ends: Tensor,
    ray_indices: Tensor | None = None,
    n_rays: int | None = None,
    rgb_sigma_fn: Callable | None = None,
    rgb_alpha_fn: Callable | None = None,
    render_bkgd: Tensor | None = None,
    expected_depths: bool = True,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Renders rays from a function of their samples.

    Args:
        t_starts, t_ends: (n,) packed with `ray_indices` and `n_rays`, or (n_rays, n_samples).
        rgb_sigma_fn, rgb_alpha_fn: one of them: (t_starts, t_ends, ray_indices) → rgbs (…, 3) and densities or opacities.
        render_bkgd: (3,) or (n_rays, 3) colour behind.
        expected_depths: divide depths by opacity.

    Returns:
        colours (n_rays, 3), opacities (n_rays, 1), depths (n_rays, 1), and weights, transmittance, opacities and colours
        of the samples.
    Gradients: through colours, opacities and depths to what the function returned.
    Raises:
        ValueError: both functions or neither.
    """
    if (rgb_sigma_fn is None) == (rgb_alpha_fn is None):
        raise ValueError("Give exactly one of rgb_sigma_fn and rgb_alpha_fn.")
    extras: dict[str, Tensor] = {}
    if rgb_sigma_fn is not None:
        rgbs, sigmas = rgb_sigma_fn(t_starts, t_ends, ray_indices)
        packing: Any = {"ray_indices": ray_indices, "n_rays": n_rays}
        weights, trans, alphas = render_weight_from_density(t_starts, t_ends, sigmas, **packing)
        extras["sigmas"] = sigmas
    else:
        assert rgb_alpha_fn is not None
        rgbs, alphas = rgb_alpha_fn(t_starts, t_ends, ray_indices)
        weights, trans = render_weight_from_alpha(alphas, ray_indices=ray_indices, n_rays=n_rays)
    extras |= {"weights": weights, "trans": trans, "alphas": alphas, "rgbs": rgbs}
    colours = accumulate_along_rays(weights, rgbs, ray_indices, n_rays)
    opacities = accumulate_along_rays(weights, None, ray_indices, n_rays)
    depths = accumulate_along_rays(weights, ((t_starts + t_ends) / 2)[..., None], ray_indices, n_rays)
    if expected_depths:
        depths = depths / opacities.clamp(min=torch.finfo(rgbs.dtype).eps)
    if render_bkgd is not None:
        colours = colours + render_bkgd * (1 - opacities)
    return colours, opacities, depths, extras
