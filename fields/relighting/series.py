"""Maps as Fourier series: what a lobe makes of a map depends on its low frequencies alone.

A function on the sphere goes on across the poles, half way round: f(2π − θ, φ) = f(θ, φ + π). So it is as periodic in θ as in φ.
A lobe exp(κ (cos − 1)) has no frequencies to speak of above a few √κ, and its sum with the powers of a map's pixels stays the same
when those are freed of higher ones. A few rows then hold them.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from fields.relighting.equirectangular import solid_angles

_REACH = 6.5
"""Standard deviations after which a Gaussian counts as zero, of angle as of frequency: 7e-10 of its peak."""


_SOME = 256  # rows at once: maps of 8k would fill gigabytes


def rows_for(kappa: float) -> int:
    """Rows of a map that hold what a lobe of sharpness κ sees."""
    return math.ceil(_REACH * math.sqrt(kappa)) + 9


def angle_for(kappa: float) -> float:
    """Radians from its axis at which a lobe of sharpness κ has ended."""
    return _REACH / math.sqrt(kappa)


def series(radiance: Tensor, rows: int) -> Tensor:
    """Coefficients of the powers of the pixels of a map (H, 2H, C), for frequencies below `rows` ≤ H, as complex double precision
    (2 rows − 1, rows, C): in θ from 0 upwards and then the negative ones, in φ from 0."""
    weights = solid_angles(len(radiance)).to(radiance.device)[:, None, None]
    some = zip(radiance.split(_SOME), weights.split(_SOME), strict=True)
    along = torch.cat([torch.fft.rfft(part * weight, dim=1)[:, :rows] for part, weight in some])
    return around_poles(along * _shift(rows, -radiance.shape[1], radiance.device)[:, None], rows)


def around_poles(along: Tensor, rows: int) -> Tensor:
    """The same from coefficients in φ alone, (H, M, C)."""
    height, count = along.shape[:2]
    sign = 1 - 2 * (torch.arange(count, device=along.device) % 2)  # half way round
    around = torch.fft.fft(torch.cat([along, along.flip(0) * sign[:, None]]), dim=0)
    shift = _shift(rows, -2 * height, along.device)[:, None, None]
    return torch.cat([around[:rows] * shift, around[1 - rows :] * shift[1:].flip(0).conj()])


def sample_rows(coefficients: Tensor, rows: int) -> Tensor:
    """Powers of the rows of a smaller map (rows, rows, C), as coefficients in φ."""
    known, shift = (len(coefficients) + 1) // 2, _shift(rows, 2 * rows, coefficients.device)[:, None, None]
    low = coefficients[:, :rows]
    spectrum = torch.cat(
        [low[:rows] * shift, low.new_zeros(1, *low.shape[1:]), low[2 * known - rows :] * shift[1:].flip(0).conj()]
    )
    return torch.fft.ifft(spectrum, dim=0)[:rows]


def sample_columns(along: Tensor, width: int) -> Tensor:
    """Values (R, width, C) from coefficients in φ (R, M, C)."""
    return torch.fft.irfft(along * _shift(along.shape[1], width, along.device)[:, None], n=width, dim=1)


@functools.cache
def rows_of_ones(height: int, rows: int) -> Tensor:
    """(rows,) float64: of each row of a smaller map, the power of a pixel where the map of that height is 1 all over."""
    along = (solid_angles(height) * 2 * height).to(torch.complex128)[:, None, None]
    return sample_rows(around_poles(along, rows), rows)[:, 0, 0].real / (2 * rows)


def _shift(count: int, parts: int, device: torch.device) -> Tensor:
    """(count,) complex: from frequencies of samples at the beginnings of |parts| of a circle to those in their middles, or back."""
    angles = torch.arange(count, dtype=torch.float64, device=device) * (math.pi / parts)
    return torch.polar(torch.ones_like(angles), angles)
