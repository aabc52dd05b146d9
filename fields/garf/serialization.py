"""Points in the order of space-filling curves, so that neighbours in a sequence are neighbours in space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fields.core import morton_encode


def z_order(cells: Tensor, depth: int) -> Tensor:
    """Morton keys (N,) of cells (N, 3) in [0, 2^depth)."""
    return morton_encode(cells)


def hilbert(cells: Tensor, depth: int) -> Tensor:
    """Keys (N,) of cells (N, 3) in [0, 2^depth) along Hilbert's curve: one step in key is one step in space.

    Skilling, *Programming the Hilbert curve*, 2004: the coordinates become the transposed key by undoing excess work, then
    by a Gray code.
    """
    x = list(cells.unbind(-1))
    for bit in range(depth - 1, 0, -1):
        low = (1 << bit) - 1
        for a in range(3):  # for a = 0 there is nothing to swap
            high = (x[a] >> bit & 1).bool()
            swap = torch.where(high, 0, (x[0] ^ x[a]) & low)
            x[a] = x[a] ^ swap
            x[0] = x[0] ^ torch.where(high, low, swap)
    x[1] = x[1] ^ x[0]
    x[2] = x[2] ^ x[1]
    flip = torch.zeros_like(x[2])
    for bit in range(depth - 1, 0, -1):
        flip = torch.where((x[2] >> bit & 1).bool(), flip ^ (1 << bit) - 1, flip)
    x = [value ^ flip for value in x]
    return morton_encode(torch.stack([x[2], x[1], x[0]], -1))


ORDERS: tuple[Callable[[Tensor, int], Tensor], ...] = (
    z_order,
    lambda cells, depth: z_order(cells[:, [1, 0, 2]], depth),
    hilbert,
    lambda cells, depth: hilbert(cells[:, [1, 0, 2]], depth),
)
"""Of PTv3: both curves, and both with x and y exchanged."""


def patches(fragment: Tensor, keys: Tensor, size: int) -> Tensor:
    """Cuts every fragment, in the order of its keys, into the fewest patches of equal length that have at most `size` points.

    Args:
        fragment: (N,) ascending.
        keys: (N,) within a fragment.
    Returns:
        (P, W) indices of points, −1 where a patch is shorter than the longest, W ≤ size.
    """
    order = torch.argsort(keys, stable=True)
    order = order[torch.argsort(fragment[order], stable=True)]
    counts = torch.bincount(fragment)
    counts = counts[counts > 0]
    parts = (counts + size - 1) // size
    patch_of = torch.repeat_interleave(torch.arange(len(counts), device=keys.device), parts)
    which = torch.arange(len(patch_of), device=keys.device) - (parts.cumsum(0) - parts)[patch_of]
    begin = which * counts[patch_of] // parts[patch_of]
    end = (which + 1) * counts[patch_of] // parts[patch_of]
    first = (counts.cumsum(0) - counts)[patch_of] + begin
    at = torch.arange(int((end - begin).max()), device=keys.device)
    index = first[:, None] + at
    return torch.where(at < (end - begin)[:, None], order[index.clamp(max=len(order) - 1)], -1)
