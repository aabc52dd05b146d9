"""In which order a file's bytes are worth most.

A file is made of units: the layers of the density planes of one rank, and those of its appearance planes. Which comes first
is measured: on rays of the training cameras, after what has been chosen, every next unit is tried; the one that brings the
picture nearest to that of the whole field per byte is taken. Where a layer is of use only together with those behind it, they
are taken together, so that every level is better than the one before. (Rate-distortion optimal truncation, as JPEG 2000
orders its code blocks.)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fields.core import accumulate_along_rays, render_weight_from_density
from fields.data.cameras import Cameras
from fields.tensorf.field import TensoRF

KINDS = ("density", "appearance")
_RAYS = 768


class Level(NamedTuple):
    """Some layers of the planes of one kind and rank, behind those that earlier levels have."""

    kind: str
    rank: int
    layers: int


class Views:
    """The error, on random rays, of a field of which only some layers are there.

    Args:
        field: the whole.
        rounded: the same of its first 1, 2, … layers only, all ranks.
        bases: as of `fields.slimmerf.slim.to_slim`.
    """

    @torch.no_grad()
    def __init__(self, field: TensoRF, rounded: list[TensoRF], cameras: Cameras, bases: list[Tensor] | None) -> None:
        origins, self.directions = random_rays(cameras, _RAYS)
        t_starts, t_ends, self.rays, x, packed = field.march(origins, self.directions)
        self.field, self.bases, self.along = field, bases, (t_starts, t_ends, packed)
        self.density = [f.density_grid(x).view(len(x), 3, -1).sum(1) for f in rounded]
        self.products = [f.appearance_grid(x).view(len(x), 3, -1) for f in rounded]
        self.each = self.products[0].shape[2] // self.density[0].shape[1]
        self.truth = self._picture(field.density_feature(x), field.appearance_grid(x).view(len(x), 3, -1), None)

    @torch.no_grad()
    def error(self, there: dict[tuple[str, int], int]) -> float:
        """Mean squared, of a field with so many layers of each kind and rank."""
        feature = torch.zeros_like(self.density[0][:, 0])
        products = torch.zeros_like(self.products[0])
        ranks = 1  # a decoder needs something: columns of zeros
        for (kind, rank), layers in there.items():
            if kind == "density":
                feature += self.density[layers - 1][:, rank]
            else:
                mine = slice(self.each * rank, self.each * (rank + 1))
                products[..., mine] = self.products[layers - 1][..., mine]
                ranks = max(ranks, rank + 1)
        basis = None if self.bases is None else self.bases[ranks - 1]
        return float((self._picture(feature, products[..., : self.each * ranks], basis) - self.truth).square().mean())

    def _picture(self, feature: Tensor, products: Tensor, basis: Tensor | None) -> Tensor:
        """(N, 3) on white."""
        field = self.field
        sigmas = torch.nn.functional.softplus(feature + field.density_shift) * field.distance_scale
        weights = render_weight_from_density(*self.along[:2], sigmas, packed_info=self.along[2])[0]
        shaded = (weights > field.shading_threshold).nonzero()[:, 0]
        rays, chosen = self.rays[shaded], products[shaded]
        if basis is None:
            whole = field.decoder.basis.weight
            basis = whole.view(len(whole), 3, -1)[..., : chosen.shape[2]].flatten(1)
        colour = field.decoder(chosen.flatten(1), self.directions[rays], basis)
        rgb = accumulate_along_rays(weights[shaded], colour, rays, _RAYS)
        return rgb + 1 - accumulate_along_rays(weights, None, self.rays, _RAYS)


def random_rays(cameras: Cameras, count: int) -> tuple[Tensor, Tensor]:
    """Origins and directions (count, 3) through random places of random images, always the same."""
    device = cameras.width.device
    generator = torch.Generator(device).manual_seed(0)
    which = torch.randint(len(cameras), (count,), generator=generator, device=device)
    sizes = torch.stack([cameras.width, cameras.height], -1)[which]
    return cameras.rays(which, torch.rand(count, 2, generator=generator, device=device) * sizes)


def best_order(views: Views, sizes: dict[tuple[str, int], list[int]]) -> list[Level]:
    """The levels of a file, the first of which are one layer of each kind of the first rank.

    Args:
        sizes: bytes of every layer, of every kind and rank.
    """
    levels = [Level(kind, 0, 1) for kind in KINDS]
    there = {(level.kind, 0): 1 for level in levels}
    error = views.error(there)
    rated: dict[tuple[str, int], tuple[float, int, float, int]] = {}  # slope, layers, error, when

    def rate(unit: tuple[str, int]) -> tuple[float, int, float, int]:
        have = there.get(unit, 0)
        best = (-float("inf"), 0, 0.0, 0)
        for layers in range(1, len(sizes[unit]) - have + 1):
            after = views.error(there | {unit: have + layers})
            slope = (error - after) / sum(sizes[unit][have : have + layers])
            best = max(best, (slope, layers, after, len(levels)))
        return best

    while open_units := [
        (kind, rank)
        for kind, rank in sizes
        if there.get((kind, rank), 0) < len(sizes[kind, rank]) and (rank == 0 or (kind, rank - 1) in there)
    ]:
        # What a unit is worth rarely grows by what else is there: only the first in line is rated again.
        while True:
            first = max(open_units, key=lambda unit: rated.get(unit, (float("inf"),))[0])
            if first in rated and rated[first][3] == len(levels):
                break
            rated[first] = rate(first)
        _, layers, error, _ = rated.pop(first)
        levels.append(Level(*first, layers))
        there[first] = there.get(first, 0) + layers
    return levels
