"""The unit square, stretched so that as much of it is where a density is: how measured reflectances are stored, and drawn from.

A density is known at even places and bilinear in between. Rows are stretched first, then places within them, as Mitsuba's and pbrt's readers of such files do it.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Warp:
    """The unit square stretched so that as much of it is where a density is: first along rows, then within them."""

    def __init__(self, density: Tensor) -> None:
        """(E, H, W): E densities at even places of the square, none of them zero everywhere."""
        self.values = density / _accumulated(_accumulated(density)[..., -1])[:, -1, None, None]
        self.within = _accumulated(self.values)
        self.rows = self.within[..., -1]
        self.along = _accumulated(self.rows)

    def sample(self, side: Tensor) -> Tensor:
        """(E, K, K, 2) where the points of a grid of the square go to, (x, y) each, y first."""
        n = len(self.values)
        y = _place(self.along, self.rows, side.expand(n, -1))
        place = y * (self.rows.shape[1] - 1)
        left = place.long().clamp(max=self.rows.shape[1] - 2)
        each = torch.arange(n)[:, None]
        within, values = (
            torch.lerp(table[each, left], table[each, left + 1], (place - left)[..., None])
            for table in (self.within, self.values)
        )
        x = _place(within, values, side.expand(*y.shape, -1))
        return torch.stack([x, y[..., None].expand_as(x)], -1)

    def invert(self, u: Tensor, which: Tensor) -> Tensor:
        """(N, 2) the points of the square that go to u (N, 2), of densities in between two: `which` (N,) counts from 0."""
        counts = [s - 1 for s in self.values.shape]
        place = [which, u[:, 1] * counts[1], u[:, 0] * counts[2]]
        left = [p.long().clamp(0, c - 1) for p, c in zip(place, counts, strict=True)]
        e, y, x = (p - i for p, i in zip(place, left, strict=True))

        def at(table: Tensor, *index: Tensor) -> Tensor:
            return torch.lerp(table[left[0], *index], table[left[0] + 1, *index], e)

        def beyond(low: Tensor, high: Tensor, part: Tensor, count: int) -> Tensor:
            return part * (low + 0.5 * part * (high - low)) / count

        row, column = left[1:]
        total = torch.lerp(at(self.rows, row), at(self.rows, row + 1), y)
        low, high = (
            torch.lerp(at(self.values, row, column + k), at(self.values, row + 1, column + k), y) for k in (0, 1)
        )
        within = torch.lerp(at(self.within, row, column), at(self.within, row + 1, column), y)
        along = at(self.along, row) + beyond(at(self.rows, row), at(self.rows, row + 1), y, counts[1])
        last = torch.full_like(row, counts[1])
        return torch.stack([(within + beyond(low, high, x, counts[2])) / total, along / at(self.along, last)], -1)


def _accumulated(density: Tensor) -> Tensor:
    """(…, K) the integral up to each of K places, even on [0, 1]."""
    steps = (density[..., 1:] + density[..., :-1]) / (2 * (density.shape[-1] - 1))
    return torch.nn.functional.pad(steps.cumsum(-1), (1, 0))


def _place(accumulated: Tensor, density: Tensor, share: Tensor) -> Tensor:
    """(…, K) up to where on [0, 1] a density's integral is this share of the whole."""
    aim = share * accumulated[..., -1:]
    last = density.shape[-1] - 1
    left = (torch.searchsorted(accumulated, aim.contiguous(), right=True) - 1).clamp(0, last - 1)
    low, high = density.gather(-1, left), density.gather(-1, left + 1)
    more = (aim - accumulated.gather(-1, left)) * last
    part = 2 * more / (low + (low.square() + 2 * more * (high - low)).clamp(min=0).sqrt()).clamp(min=1e-30)
    return ((left + part.clamp(0, 1)) / last).clamp(0, 1)
