"""128 parts of the sphere of equal area, tier B's lights: eight bands uniform in y, of sixteen azimuths each."""

from __future__ import annotations

import torch
from torch import Tensor

from fields.relighting.environment import Environment

BANDS, AZIMUTHS = 8, 16
BINS = BANDS * AZIMUTHS  # bin b is azimuth b % AZIMUTHS, from −Z towards +X, of band b // AZIMUTHS, from the zenith
_ROWS = 256


def singles() -> list[list[int]]:
    """The 64 white fields of the checkerboard: lights to learn from."""
    return [[b] for b in range(BINS) if (b // AZIMUTHS + b) % 2 == 0]


def pairs() -> list[list[int]]:
    """The black fields, by twos that touch at a corner: one pair of each block of 2 × 2."""
    corners = [(band, azimuth) for band in range(0, BANDS, 2) for azimuth in range(0, AZIMUTHS, 2)]
    return [[band * AZIMUTHS + azimuth + 1, (band + 1) * AZIMUTHS + azimuth] for band, azimuth in corners]


def as_map(radiance: Tensor) -> Environment:
    """Radiances (BINS, 3) as a map. A row that a band ends in has its share of both, so that all power is there."""
    return Environment((_shares() @ radiance.double().view(BANDS, AZIMUTHS * 3)).view(_ROWS, AZIMUTHS, 3)
                       .repeat_interleave(2 * _ROWS // AZIMUTHS, 1).float())  # fmt: skip


def averages(environment: Environment) -> Tensor:
    """(BINS, 3): mean radiances of a map."""
    columns = environment.resized(_ROWS).radiance.double().view(_ROWS, AZIMUTHS, -1, 3).mean(2)
    areas = environment.resized(_ROWS).solid_angles()[:, None] * _shares()
    return ((areas / areas.sum(0)).T @ columns.flatten(1)).view(BINS, 3)


def _shares() -> Tensor:
    """(rows, BANDS) float64: how much of the area of each row of a map is in each band."""
    rows = torch.cos(torch.linspace(0, torch.pi, _ROWS + 1, dtype=torch.float64))
    bands = torch.linspace(1, -1, BANDS + 1, dtype=torch.float64)
    top, bottom = torch.minimum(rows[:-1, None], bands[:-1]), torch.maximum(rows[1:, None], bands[1:])
    return (top - bottom).clamp(min=0) / (rows[:-1] - rows[1:])[:, None]
