"""Which bones a place belongs to, by ways that stay inside the object (REACTO, Algorithm 1)."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor


def interior_distances(inside: np.ndarray, spacing: tuple[float, float, float], seeds: np.ndarray) -> np.ndarray:
    """(B, Nx, Ny, Nz) float32: the way from each seed (B, 3) through cells that are inside (Nx, Ny, Nz), which are `spacing` apart along the axes,
    to 26 neighbours each; infinite where there is none. A seed is the cell inside that is nearest to it, and cells outside are reached from the
    nearest inside, straight.

    On the surface of a thin plate the far side is around the rim; through it, it is near.

    Raises:
        ValueError: nothing is inside.
    """
    from scipy.ndimage import distance_transform_edt
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    if not inside.any():
        raise ValueError("nothing is inside")
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    rows, columns, lengths = [], [], []
    for offset in itertools.product((-1, 0, 1), repeat=3):
        if offset <= (0, 0, 0):
            continue  # the other half is these, backwards
        here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, inside.shape, strict=True))
        there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, inside.shape, strict=True))
        both = inside[here] & inside[there]
        rows.append(number[here][both])
        columns.append(number[there][both])
        lengths.append(np.full(both.sum(), np.linalg.norm(np.multiply(offset, spacing))))
    graph = coo_array(
        (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns))), shape=(inside.sum(),) * 2
    )
    straight, nearest = distance_transform_edt(~inside, sampling=spacing, return_indices=True)
    begins = [number[tuple(nearest[:, x, y, z])] for x, y, z in seeds]
    ways = dijkstra(graph.tocsr(), directed=False, indices=begins)
    return (ways[:, number[tuple(nearest)]] + straight).astype(np.float32)


def assigned(near: Tensor, way: Tensor, eta: float, zeta: float) -> Tensor:
    """(M, B) bool: which bones may move a place.

    One that is clearly the nearest, alone; two whose ways are about as long, for they meet at a joint; else, of the two nearest, that to which the way
    is shorter. Where no way leads to either, the nearest.

    Args:
        near: (M, B) Mahalanobis distances to bones.
        way: (M, B) lengths of ways to their middles, that may be infinite.
        eta: by how much of its distance the second must be farther for the first to be clearly the nearest.
        zeta: by how much of the shorter way two that meet may differ.
    """
    distance, pair = near.topk(2, dim=1, largest=False)
    ways = way.gather(1, pair)
    clearly = distance[:, 0] < (1 - eta) * distance[:, 1]
    reached = ways.isfinite()
    apart = (ways[:, 0] - ways[:, 1]).abs()
    meet = reached.all(1) & (apart < zeta * ways.amin(1).clamp(min=1e-12)) & ~clearly
    second = ~clearly & ~meet & (ways[:, 1] < ways[:, 0])
    chosen = torch.zeros_like(near, dtype=torch.bool)
    chosen.scatter_(1, pair, torch.stack([~second, meet | second], 1))
    return chosen


def sparsity(weights: Tensor, chosen: Tensor) -> Tensor:
    """() mean square of the weights (M, B) of bones that are not assigned. Gradients: to the weights."""
    others = ~chosen
    return (weights * others).square().sum() / others.sum().clamp(min=1)
