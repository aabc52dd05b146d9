"""Plain-PyTorch twin of ``fields.core.grids``: written for reading, and differentiable any number of times."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

# The axes of the factors of each mode, in the order in which factors are passed.
LAYOUTS: dict[str, tuple[tuple[tuple[int, ...], ...], ...]] = {
    "vm": (((0, 1), (2,)), ((0, 2), (1,)), ((1, 2), (0,))),
    "cp": (((0,), (1,), (2,)),),
    "dense": (((0, 1, 2),),),
}


def interpolate(x: Tensor, factor: Tensor, axes: Sequence[int]) -> Tensor:
    """(N, C): multilinear interpolation of `factor` (knots of `axes`..., C) at x (N, 3) in [-1, 1]."""
    resolution = torch.tensor(factor.shape[:-1], device=x.device)
    u = (x[:, list(axes)] + 1) / 2 * (resolution - 1)
    u = torch.minimum(torch.clamp(u, min=0), (resolution - 1).to(u))
    left = torch.minimum(u.detach().nan_to_num().floor().long(), resolution - 2)
    fraction = u - left
    value = x.new_zeros(x.shape[0], factor.shape[-1])
    for corner in itertools.product((0, 1), repeat=len(axes)):
        weight = torch.stack([fraction[:, a] if c else 1 - fraction[:, a] for a, c in enumerate(corner)]).prod(0)
        knots = tuple(left[:, a] + c for a, c in enumerate(corner))
        value = value + weight[:, None] * factor[knots]
    return value


def value(x: Tensor, factors: Sequence[Tensor], layout: str, summed: bool) -> Tensor:
    remaining = iter(factors)
    products = []
    for mode in LAYOUTS[layout]:
        product = interpolate(x, next(remaining), mode[0])
        for axes in mode[1:]:
            product = product * interpolate(x, next(remaining), axes)
        products.append(product)
    concatenated = torch.cat(products, dim=-1)
    return concatenated.sum(-1) if summed else concatenated


def jacobian(x: Tensor, factors: Sequence[Tensor], layout: str, summed: bool) -> tuple[Tensor, Tensor]:
    """Value and derivative; the derivative of sample i depends on sample i alone, so one pass per channel suffices."""
    with torch.enable_grad():
        position = x if x.requires_grad else x.detach().requires_grad_()
        v = value(position, factors, layout, summed)
        columns = v[:, None] if summed else v
        rows = [
            torch.autograd.grad(columns[:, c].sum(), position, create_graph=True)[0] for c in range(columns.shape[1])
        ]
    slopes = rows[0] if summed else torch.stack(rows, dim=1)
    return (v, slopes) if torch.is_grad_enabled() else (v.detach(), slopes.detach())
