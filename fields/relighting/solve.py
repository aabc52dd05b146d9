"""Inverse lighting: which light a photograph was taken in. Because radiance is linear in light, this is least squares."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fields.errors import DataError
from fields.relighting.basis import fibonacci_sphere
from fields.relighting.environment import Environment
from fields.relighting.image import TransferImage
from fields.relighting.interior import ORDERS, SKY
from fields.relighting.response import Response

_SOLID = 0.5  # of opacity: what counts as the object
_AT_ONCE = 16  # lobes
_RIDGE = 1e-3  # of the mean of the diagonal: holds what the photograph does not decide close to no light


def responses(response: Response) -> Tensor:
    """(P, K, 3): what every ray shows under each lobe of the light's basis, at a peak radiance of 1."""
    rays, basis, mirror = response.rays, response.field.basis, response.mirror
    sharpness = mirror.sharpness[:, None]
    seen = overlap(mirror.directions, sharpness, basis.axes, basis.sharpness) / overlap_with_all(sharpness)
    # A light that is lobe k has of lobe j what the two have in common.
    common = overlap(basis.axes, torch.tensor(basis.sharpness), basis.axes, basis.sharpness)
    total = torch.einsum("prc,rk->pkc", rays.scatter, response.soft_lights @ common)
    total += seen[..., None] * mirror.reflectance[:, None]
    sky, wide = fibonacci_sphere(SKY).to(rays.point), torch.tensor(SKY / 4)
    spots = overlap(sky, wide, basis.axes, basis.sharpness) / overlap_with_all(wide) * (4 * math.pi / SKY)
    if rays.sky is not None:
        total += (response.white @ spots)[..., None] * rays.diffuse[:, None]
    if (inside := response.inside) is not None:
        for some in torch.arange(len(basis.axes)).split(_AT_ONCE):
            leaving = response.reach.of(inside.fluence(inside.sky @ spots[:, some]).flatten(1))
            total[:, some] += torch.einsum("pok,poc->pkc", leaving.view(len(leaving), ORDERS, -1), response.gains)
    return rays.opacity[:, None, None] * total


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
    pixels, which = image.pixels.unique(return_inverse=True)
    truth = photograph.view(-1, 3)[pixels]
    opacity = torch.zeros_like(truth[:, 0]).index_add(0, which, image.weights * image.rays.opacity)
    known = truth.isfinite().all(-1) & (opacity > _SOLID)
    if not known.any():
        raise DataError("The photograph shows nothing where the object is.")
    along = image.weights[:, None, None] * responses(image.response)
    shown = along.new_zeros(len(pixels), *along.shape[1:]).index_add(0, which, along)
    shown, truth = shown[known].double(), truth[known].double()
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


def overlap(one: Tensor, sharp: Tensor, other: Tensor, sharpness: float) -> Tensor:
    """(N, K): integrals over the sphere of products of two lobes, around axes (N, 3) and (K, 3), in closed form.

    `sharp` is that of the first: (N, 1), or () for all.
    """
    length = (sharp[..., None] * one[:, None] + sharpness * other[None]).norm(dim=-1).clamp(min=1e-6)
    return 2 * math.pi / length * torch.exp(length - sharp - sharpness) * -torch.expm1(-2 * length)


def overlap_with_all(sharp: Tensor) -> Tensor:
    """The same with a lobe that is one everywhere: the integral of the first."""
    return 2 * math.pi / sharp * -torch.expm1(-2 * sharp)
