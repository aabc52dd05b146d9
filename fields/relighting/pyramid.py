"""A map seen through lobes: blurred with spherical Gaussians of a ladder of sharpnesses, to be looked up."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from fields.relighting.equirectangular import angles, centres, corners, padded
from fields.relighting.series import angle_for, rows_for, rows_of_ones, sample_columns, sample_rows

LADDER = (4.0, 16.0, 64.0, 256.0, 1024.0)
"""Sharpnesses λ of the lobes exp(λ (cos − 1))."""
_TOGETHER = 16  # rows of a level, of which the height of each is a multiple


@dataclass(frozen=True, eq=False)
class Pyramid:
    """A map averaged by normalised lobes around every direction; linear in the map."""

    levels: Tensor
    """(P, 3): the pixels of `blur`, one level after the other."""
    world_from_map: Tensor
    """(3, 3) rotation."""

    def to(self, device: torch.device | str) -> Pyramid:
        return replace(self, levels=self.levels.to(device), world_from_map=self.world_from_map.to(device))

    def lookup(self, directions: Tensor, rungs: Rungs) -> Tensor:
        """Radiance (N, 3) averaged by lobes around unit directions (N, 3) of the world: bilinear on the sphere, linear between rungs."""
        theta, phi = angles(directions @ self.world_from_map.to(directions))
        place, share = corners(rungs.height, theta[:, None], phi[:, None])
        place, share = (place + rungs.start[..., None]).flatten(1), (share * rungs.part[..., None]).flatten(1)
        return embedding_bag(place, self.levels, per_sample_weights=share.to(self.levels), mode="sum")


class Rungs(NamedTuple):
    """Between which two levels of a pyramid each of N lobes is looked up."""

    height: Tensor
    """(N, 2) int32, of the levels."""
    start: Tensor
    """(N, 2) int32: where their pixels are."""
    part: Tensor
    """(N, 2) of each."""

    @staticmethod
    def of(sharpness: Tensor) -> Rungs:
        """Of lobes of sharpness (N,): linear in its logarithm; beyond the ends of the ladder, its end."""
        level = ((sharpness / LADDER[0]).log() / math.log(LADDER[1] / LADDER[0])).clamp(0, len(LADDER) - 1)
        two = level.int().clamp(max=len(LADDER) - 2)[:, None] + torch.arange(2, device=level.device)
        heights = [_height(one) for one in LADDER]
        starts = itertools.accumulate(((h + 2) * (2 * h + 2) for h in heights[:-1]), initial=0)
        height, start = (torch.tensor(list(v), dtype=torch.int32, device=level.device) for v in (heights, starts))
        return Rungs(height[two], start[two], 1 - (level[:, None] - two).abs())


def _height(sharpness: float) -> int:
    """Rows of a level, two and a half to the lobe's standard deviation 1/√λ: bilinear interpolation is then 4 % off where it is worst,
    in the middle of the image of a sun."""
    return round(8 * math.sqrt(sharpness))


def blur(coefficients: Tensor, map_height: int) -> Tensor:
    """All levels (P, 3) float64 from the `series` of the powers of a map with that many rows, up to the frequencies of the last.

    Between two rows a lobe depends on the difference of longitudes only, so that along rows convolution is a product of coefficients.
    This is done in double precision: beside a sun, single precision would leave ripples brighter than the night.
    """
    levels = []
    for sharpness in LADDER:
        height = _height(sharpness)
        light = torch.view_as_real(sample_rows(coefficients, rows_for(sharpness))).flatten(2)  # (R, M, 6)
        kernel, rows = (v.to(light.device) for v in _kernel(sharpness))
        blurred = (kernel @ light[rows].transpose(1, 2)).transpose(1, 2).reshape(height, -1, 3, 2)
        level = sample_columns(torch.view_as_complex(blurred), 2 * height)
        levels.append(padded(level / _of_ones(sharpness, map_height).to(light.device)).flatten(0, 1))
    return torch.cat(levels)


@functools.cache
def _kernel(sharpness: float) -> tuple[Tensor, Tensor]:
    """Coefficients in φ (H / 16, M, 16, B) float64 of the lobe around the centre of each row of a level, sixteen rows at a time, in those
    rows (H / 16, B) of what it is applied to that it reaches."""
    rows, height = rows_for(sharpness), _height(sharpness)
    theta, other = centres(height, math.pi), centres(rows, math.pi)
    phi = torch.arange(2 * rows, dtype=torch.float64) * (math.pi / rows)
    reach = math.ceil(angle_for(sharpness) * rows / math.pi)
    band = min(rows, math.ceil(_TOGETHER * rows / height) + 2 * reach + 1)
    first = (torch.arange(0, height, _TOGETHER) * rows // height - reach).clamp(0, rows - band)
    reached = first[:, None] + torch.arange(band)
    theta, other = theta.view(-1, _TOGETHER, 1, 1), other[reached][:, None, :, None]
    # cos of the angle between, less one, without the loss of digits that λ would magnify
    below = -2 * ((theta - other) / 2).sin() ** 2 - 2 * theta.sin() * other.sin() * (phi / 2).sin() ** 2
    # (The inverse transform divides by the number of columns that it gives, this one by as many as it has.)
    kernel = torch.fft.rfft((sharpness * below).exp())[..., :rows].real * (height / rows)
    return kernel.permute(0, 3, 1, 2).contiguous(), reached


@functools.cache
def _of_ones(sharpness: float, map_height: int) -> Tensor:
    """(H, 1, 1): what the lobes make of the powers of a map that is 1 all over: nearly their integral."""
    kernel, rows = _kernel(sharpness)
    window = rows_of_ones(map_height, rows_for(sharpness))[rows]
    return (kernel[:, 0] @ window[..., None]).view(-1, 1, 1) * (rows_for(sharpness) / _height(sharpness))
