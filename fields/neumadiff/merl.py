"""Tables of measured reflectances, as the MERL database keeps them (Matusik et al., A Data-Driven Reflectance Model, SIGGRAPH 2003).

A `.binary` file is three little-endian int32, 90, 90 and 180, and as many float64 for red, then for green, then for blue: one for each bin of θh, θd and φd, the last
fastest. Bins of θh are squeezed towards the highlight, (i/90)² of a right angle; the others are even. φd ends at π, for light and eye may change places. Files of
materials where they may not have 360 bins, up to 2π. Throughout, a bin stands for its lower edge.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fields.core import dense_sample
from fields.errors import DataError, ShapeError
from fields.io.atomic import write_atomically
from fields.neumadiff.angles import cosines
from fields.neumadiff.network import MERL_UNITS

BINS = 90
"""Of θh, and of θd."""
PHI_BINS = (180, 360)
"""Of φd: up to π, or up to 2π."""
_CHUNK = 1 << 18
_GUESSED = 1e-6
"""Weight of a bin that was not measured: none beside one that was."""


@dataclass(eq=False)
class Table:
    """A material as a table: called with angles, it says how much light it reflects, in between bins by linear interpolation."""

    values: Tensor
    """(3, 90, 90, P) as a file has them: of colour, θh, θd and φd. A bin where any of the three is negative was not measured."""

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape)
        if shape not in [(3, BINS, BINS, phi) for phi in PHI_BINS]:
            raise ShapeError(f"A table has shape (3, {BINS}, {BINS}, 180 or 360), not {shape}.")

    @classmethod
    def of(
        cls,
        reflectance: Callable[[Tensor], Tensor],
        phi_bins: int = 180,
        fill_invalid: bool = True,
        device: torch.device | str = "cpu",
    ) -> Table:
        """The table of any reflectance of one material, evaluated at the bins' lower edges.

        Args:
            reflectance: angles (N, 3) → (1, N, 3), 1/sr.
            fill_invalid: −1 where a bin is below the horizon; else what the reflectance says there.
            device: where it is evaluated, and where the table will be.
        """
        angles = bin_angles(phi_bins).view(-1, 3)
        values = angles.new_full((len(angles), 3), -1.0)
        above = valid_bins(phi_bins).view(-1) if fill_invalid else torch.ones(len(angles), dtype=torch.bool)
        for part in above.nonzero()[:, 0].split(_CHUNK):
            with torch.no_grad():
                found = reflectance(angles[part].float().to(device))
            if found.shape != (1, len(part), 3):
                raise ShapeError(f"A table is of one material, (1, {len(part)}, 3), not {tuple(found.shape)}.")
            values[part] = found[0].to(values)
        values[above] /= values.new_tensor(MERL_UNITS)
        return cls(values.T.reshape(3, BINS, BINS, phi_bins).contiguous().to(device))

    @property
    def valid(self) -> Tensor:
        """(90, 90, P) whether a bin was measured."""
        return (self.values >= 0).all(0)

    def __call__(self, angles: Tensor) -> Tensor:
        """(1, N, 3) reflectance, 1/sr, at angles (N, 3), or (1, N, 3).

        Bins that were not measured do not count where there are others about; where there are none, the nearest at a smaller θd do.
        """
        volume = self._volume
        last = volume.new_tensor(volume.shape[:3]) - 1
        found = dense_sample(self._bins(angles.float()) * (2 / last) - 1, volume)
        return (found[:, :3] / found[:, 3:].clamp(min=_GUESSED**2)).to(angles)[None]

    def nearest(self, angles: Tensor) -> Tensor:
        """(1, N, 3) reflectance, 1/sr, of the bins that angles (N, 3), or (1, N, 3), are in; negative where those were not measured."""
        last = torch.tensor(self.values.shape[1:], device=angles.device) - 1
        theta_h, theta_d, phi_d = self._bins(angles.double()).long().minimum(last).unbind(-1)
        found = self.values[:, theta_h, theta_d, phi_d].T
        return (found * found.new_tensor(MERL_UNITS)).to(angles)[None]

    def statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, largest and standard deviation over all bins, (3,) each, 1/sr; what was not measured counts as zero."""
        known = self.values.double().clamp(min=0).flatten(1)
        units = known.new_tensor(MERL_UNITS)
        return known.mean(1) * units, known.amax(1) * units, known.std(1, correction=0) * units

    def _bins(self, angles: Tensor) -> Tensor:
        """(N, 3) in bins, not rounded."""
        theta_h, theta_d, phi_d = angles.view(-1, 3).unbind(-1)
        right = torch.pi / 2
        bins_h = BINS * (theta_h.clamp(min=0) / right).sqrt()
        return torch.stack([bins_h, theta_d * (BINS / right), phi_d * (180 / torch.pi) % self.values.shape[3]], -1).clamp(min=0)  # fmt: skip

    @functools.cached_property
    def _volume(self) -> Tensor:
        """(90, 90, P + 1, 4) float32 for interpolation: what a bin says times its weight, and that weight. φd ends where it begins."""
        values = self.values.permute(1, 2, 3, 0).float() * torch.tensor(MERL_UNITS).to(self.values.device)
        valid = self.valid
        place = torch.arange(BINS, device=valid.device)[:, None].expand_as(valid)
        source = torch.where(valid, place, -1).cummax(1).values
        weight = torch.where(valid, 1.0, torch.where(source >= 0, _GUESSED, 0.0))[..., None]
        known = values.gather(1, source.clamp(min=0)[..., None].expand_as(values))
        volume = torch.cat([known * weight, weight], -1)
        return torch.cat([volume, volume[:, :, :1]], 2)


def bin_angles(phi_bins: int = 180) -> Tensor:
    """(90, 90, P, 3) angles of the bins' lower edges, float64."""
    even = torch.arange(BINS, dtype=torch.float64) / BINS
    phi = torch.arange(phi_bins, dtype=torch.float64) * (torch.pi / 180)
    right = torch.pi / 2
    return torch.stack(torch.meshgrid(even.square() * right, even * right, phi, indexing="ij"), -1)


def valid_bins(phi_bins: int = 180) -> Tensor:
    """(90, 90, P) whether light and eye are above the surface at a bin's lower edge: of 180, 1,111,432 of 1,458,000 are."""
    light, eye = cosines(bin_angles(phi_bins))
    return (light > 0) & (eye > 0)


def read_merl(path: Path) -> Table:
    """The table of a `.binary` file.

    Raises:
        DataError: no such file, another kind of file, or a damaged one.
    """
    fix = "Fetch it again."
    try:
        size = path.stat().st_size
        header = np.fromfile(path, "<i4", 3).tolist()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Give a .binary file of the MERL format.") from None
    if header not in [[BINS, BINS, phi] for phi in PHI_BINS]:
        raise DataError(f"{path}: its header is {header}, not [{BINS}, {BINS}, 180] or [{BINS}, {BINS}, 360]. Give a .binary file of the MERL format.")  # fmt: skip
    shape = (3, *header)
    expected = 12 + 8 * int(np.prod(shape))
    if size != expected:
        raise DataError(f"{path}: has {size} bytes, but its header says {expected}. {fix}")
    values = np.fromfile(path, "<f8", offset=12).reshape(shape)
    table = Table(torch.from_numpy(values.astype(np.float64, copy=False)))
    if problem := _problem(table):
        raise DataError(f"{path}: {problem}. {fix}")
    return table


def write_merl(path: Path, table: Table) -> None:
    """Writes a `.binary` file: of a table that was read, the same bytes.

    Raises:
        DataError: a table that no reader would take.
    """
    if problem := _problem(table):
        raise DataError(f"{path}: was not written, for {problem}. Look at the material that it was made of.")
    body = table.values.detach().cpu().numpy().astype("<f8", copy=False)
    header = np.array(body.shape[1:], "<i4").tobytes()

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            stream.write(header)
            stream.write(np.ascontiguousarray(body).data)

    write_atomically(path, write)


def _problem(table: Table) -> str:
    low, high = table.values.aminmax()  # not a number is both the least and the largest
    if not (low.isfinite() and high.isfinite()):
        return "not all of its values are finite"
    return "" if table.valid.any() else "no bin has values in all three colours"
