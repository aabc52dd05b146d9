"""Inverse lighting: which light a photograph was taken in. Because radiance is linear in light, this is least squares."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fields.errors import DataError
from fields.relighting import brdf
from fields.relighting.environment import Environment
from fields.relighting.image import TransferImage
from fields.relighting.transfer import Transfer

_RIDGE = 1e-3  # of the mean of the diagonal: holds what the photograph does not decide close to no light


def responses(rays: Transfer, image: TransferImage) -> Tensor:
    """(P, K, 3): what every pixel shows under each lobe of the light's basis, at a peak radiance of 1."""
    basis = image.field.basis
    matrix = basis.matrix()
    mirror = brdf.reflect(rays.view, rays.normal)
    n_v = (rays.normal * rays.view).sum(-1)
    whole, rise = brdf.albedo(n_v, rays.width)
    reflectance = rays.at_normal * (whole - rise)[:, None] + rays.at_grazing * rise[:, None]
    # Two Gaussians on the sphere blur to about a wider one.
    lobe = brdf.lobe_sharpness(n_v, rays.width)[:, None]
    wider = basis.sharpness * lobe / (basis.sharpness + lobe)
    seen = wider / basis.sharpness * torch.exp(wider * (mirror @ basis.axes.T - 1))
    reflected = seen[..., None] * (reflectance * (rays.mirrored * (n_v > 0))[:, None])[:, None]
    # Lobe k has Σ_r s_r H_rj ∫ b_j b_k, as any light spread over the sky is projected on the lobes.
    overlap = _overlap(basis.axes, basis.sharpness)
    scattered = torch.einsum("prc,rk->pkc", rays.scatter, matrix @ overlap)
    return rays.opacity[:, None, None] * (scattered + reflected)


def solve(image: TransferImage, photograph: Tensor) -> Environment:
    """The map, of non-negative lobes, under which a view looks most like a photograph of it.

    Args:
        image: the view.
        photograph: (H, W, 3) linear, from the same camera; NaN where it is not to be looked at.

    Raises:
        DataError: the photograph has another size, or shows nothing where the object is.
    """
    from scipy.optimize import nnls

    if photograph.shape[:2] != (image.height, image.width):
        raise DataError(
            f"The photograph has {photograph.shape[1]} × {photograph.shape[0]} pixels, the view {image.width} × {image.height}. "
            "Give one from the same camera, or --size."
        )
    truth = photograph.view(-1, 3)[image.pixels]
    known = truth.isfinite().all(-1) & (image.rays.opacity > 0.99)
    if not known.any():
        raise DataError("The photograph shows nothing where the object is.")
    shown, truth = responses(image.rays, image)[known].double(), truth[known].double()
    lobes = []
    for c in range(3):
        gram = shown[..., c].T @ shown[..., c]
        gram = gram + _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        root = torch.linalg.cholesky(gram).T  # least squares of P equations are those of K
        right = torch.linalg.solve_triangular(root.T, (shown[..., c].T @ truth[:, c])[:, None], upper=False)[:, 0]
        lobes.append(torch.from_numpy(nnls(root.numpy(), right.numpy())[0]))
    strength = torch.stack(lobes, -1)
    basis = image.field.basis
    gaussians = [
        (tuple(a), basis.sharpness, tuple(s)) for a, s in zip(basis.axes.tolist(), strength.tolist(), strict=True)
    ]
    return Environment.spherical_gaussians(gaussians, ambient=0.0)


def _overlap(axes: Tensor, sharpness: float) -> Tensor:
    """(K, K): integrals over the sphere of products of two lobes, in closed form."""
    length = (sharpness * (axes[:, None] + axes[None])).norm(dim=-1).clamp(min=1e-6)
    return 2 * math.pi / length * torch.exp(length - 2 * sharpness) * -torch.expm1(-2 * length)
