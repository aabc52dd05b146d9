"""Making a trained field cut well without training: the freedom that its factors have, put to use.

Density: the products of one mode are summed, Σ_r line_r ∘ plane_r = Lᵀ P, so any invertible R × R matrix between the two
leaves the field as it is, between knots too. The singular value decomposition is the choice whose every truncation is the
nearest to the whole (Eckart and Young).

Appearance: every product has a column of the basis matrix of its own, so there is no such freedom; but which products are
kept, and what the matrix should be for those, is a least-squares problem of a few hundred unknowns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fields.data.cameras import Cameras
from fields.slimmerf.field import first_columns
from fields.slimmerf.order import random_rays
from fields.tensorf.field import TensoRF

_RAYS = 4096


@torch.no_grad()
def put_in_order(field: TensoRF, cameras: Cameras) -> list[Tensor]:
    """Puts the components of a VM field in order, and says with which basis matrix the first ones are nearest to all.

    The field stays the same, up to rounding. Takes a fraction of a second.

    Args:
        cameras: what they see is what counts.

    Returns:
        The matrices (F, 3 k c) for the first k = 1, 2, … of R ranks, c = appearance components / R each.
    """
    grids = field.density_grid, field.appearance_grid
    ranks, colours = (grid.channels // 3 for grid in grids)
    x, weights = _seen(field, cameras)
    order_density(field)
    order_appearance(field, appearance_moments(field, x, weights))
    moments, basis = appearance_moments(field, x, weights), field.decoder.basis.weight
    kept = [first_columns(colours, colours // ranks * k) for k in range(1, ranks + 1)]
    return [refitted_basis(basis, moments, columns) for columns in kept[:-1]] + [basis.detach().clone()]


def _seen(field: TensoRF, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Positions in [-1, 1] (N, 3) of the samples on random rays, and their rendering weights (N,)."""
    x, _, _, _, weights, _ = field.in_sight(*random_rays(cameras, _RAYS))
    shown = weights > field.shading_threshold
    return x[shown], weights[shown]


@torch.no_grad()
def order_density(field: TensoRF) -> None:
    """Rewrites the density factors of a VM field so that components come in order of singular values.

    The field stays the same, up to rounding.
    """
    factors = field.density_grid.factors
    for plane, line in zip(factors[::2], factors[1::2], strict=True):
        rank = line.shape[-1]
        p, l = plane.reshape(-1, rank).double(), line.double()
        qp, rp = torch.linalg.qr(p)
        ql, rl = torch.linalg.qr(l)
        u, s, v = torch.linalg.svd(rp @ rl.T)  # p lᵀ = qp (rp rlᵀ) qlᵀ
        root = s.sqrt()
        plane.copy_((qp @ u * root).view(plane.shape))
        line.copy_(ql @ v.T * root)


@torch.no_grad()
def appearance_moments(field: TensoRF, x: Tensor, weights: Tensor) -> Tensor:
    """(C, C) float64: the mean of φφᵀ over positions x (N, 3) in [-1, 1], each counted by its weight (N,).

    φ are the C products before the basis matrix; rendering weights make errors count where they are seen.
    """
    total = x.new_zeros(field.appearance_grid.channels, field.appearance_grid.channels, dtype=torch.float64)
    for some, w in zip(x.split(65536), weights.split(65536), strict=True):
        products = field.appearance_grid(some).double()
        total += products.T @ (products * w[:, None])
    return total / weights.sum()


def refitted_basis(basis: Tensor, moments: Tensor, kept: Tensor) -> Tensor:
    """The matrix (F, K) for the products `kept` (K,) alone whose features are nearest to those of all products.

    Args:
        basis: (F, C), of all products.
        moments: (C, C), see `appearance_moments`.
    """
    moments = moments + 1e-9 * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
    some = moments[kept][:, kept]
    return torch.linalg.solve(some, moments[kept] @ basis.double().T).T.to(basis)


@torch.no_grad()
def order_appearance(field: TensoRF, moments: Tensor) -> None:
    """Reorders the appearance components of every mode so that the first ones explain most of the features.

    Greedy: one component of each mode after the other, the one without whose successors the refitted features are nearest
    to those of all. The field stays the same, up to the order of a sum.
    """
    grid, basis = field.appearance_grid, field.decoder.basis.weight
    rank = grid.channels // 3
    order: list[list[int]] = [[], [], []]
    left = moments.clone()  # what of the moments the chosen products do not explain
    for _ in range(rank):
        for mode in range(3):
            # Gain of a product c: |B left[:, c]|² / left[c, c], the part of the features' error that it takes away.
            gain = (basis.double() @ left).square().sum(0) / left.diagonal().clamp(min=1e-12)
            mask = torch.zeros(len(gain), dtype=torch.bool)
            mask[mode * rank : (mode + 1) * rank] = True
            mask[[mode * rank + c for c in order[mode]]] = False
            best = int(gain.where(mask, -torch.inf).argmax())
            order[mode].append(best - mode * rank)
            left = left - torch.outer(left[:, best], left[best]) / left[best, best].clamp(min=1e-12)
    for mode, chosen in enumerate(order):
        for factor in grid.factors[2 * mode : 2 * mode + 2]:
            factor.copy_(factor[..., chosen])
    columns = torch.cat([torch.tensor(c) + m * rank for m, c in enumerate(order)])
    basis.copy_(basis[:, columns])
