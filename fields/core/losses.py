"""Regularisers of what lies along rays."""

from __future__ import annotations

from torch import Tensor

from fields.core.scan import exclusive_sum
from fields.core.weights import accumulate_along_rays


def distortion(
    weights: Tensor, t_starts: Tensor, t_ends: Tensor, ray_indices: Tensor | None = None, n_rays: int | None = None
) -> Tensor:
    """Distortion loss per ray, (n_rays, 1): Σᵢⱼ wᵢwⱼ|mᵢ − mⱼ| + ⅓ Σ wᵢ²δᵢ, in one pass over ordered samples.

    Args:
        weights, t_starts, t_ends: (n,) packed with ascending `ray_indices` and `n_rays`, or (n_rays, n_samples).

    Gradients: to weights, t_starts, t_ends.
    Reference: Mip-NeRF 360 (Barron et al., CVPR 2022), eq. 15.
    """
    lengths, mids = t_ends - t_starts, (t_starts + t_ends) / 2
    packing = {} if ray_indices is None else {"indices": ray_indices}
    before = exclusive_sum(weights, **packing)
    before_mids = exclusive_sum(weights * mids, **packing)
    pairs = 2 * weights * (mids * before - before_mids)
    own = weights**2 * lengths / 3
    return accumulate_along_rays(pairs + own, None, ray_indices, n_rays)
