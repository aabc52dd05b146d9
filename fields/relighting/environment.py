"""Light from all around: radiance maps, and what is needed of them.

All of it is linear in radiance. Sums are done in double precision; results have the map's own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from fields.errors import DataError
from fields.io.hdr import decode_srgb, has_eight_bits, read_linear
from fields.relighting import equirectangular
from fields.relighting.basis import fibonacci_sphere
from fields.relighting.pyramid import LADDER, Pyramid, blur
from fields.relighting.series import rows_for, rows_of_ones, sample_columns, sample_rows, series

Frame = Literal["yup", "zup", "mitsuba", "blender"]
"""Whose axes a file is in; see `Environment.load`."""

# From directions of a map to a world whose zenith is +Z.
_BLENDER = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
_NRTF = torch.tensor([[0.0, 0, -1], [-1, 0, 0], [0, 1, 0]], dtype=torch.float64)  # after its columns are reversed

_FINE = 256  # rows, from which on the sharpest lobes see none


@dataclass(frozen=True, eq=False)
class Environment:
    """Distant light: radiance from every direction, as a picture laid out as `fields.relighting.equirectangular` says."""

    radiance: Tensor
    """(H, 2H, 3) ≥ 0, linear."""
    world_from_map: Tensor = field(default_factory=lambda: torch.eye(3, dtype=torch.float64))
    """(3, 3) rotation. Turning a map changes this alone: its pixels are never resampled."""
    _lobes: _Lobes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_lobes", _Lobes(self.radiance))

    @staticmethod
    def load(path: str | Path, frame: str = "yup", ldr_ok: bool = False) -> Environment:
        """Reads an equirectangular picture, zenith at the top, twice as wide as high.

        With φ = 2π u from the left edge and θ = π v from the top edge, the light comes from

        | frame | direction in the world |
        |---|---|
        | yup | (sin θ sin φ, cos θ, −sin θ cos φ) |
        | mitsuba | the same, but the first and last rows lie on the poles; they are resampled to centres |
        | zup (NRTF) | (sin θ cos φ, sin θ sin φ, cos θ): seen from within, the picture is mirrored |
        | blender (also TensoIR) | (−sin θ cos φ, sin θ sin φ, cos θ): the middle of the picture is at +X, a quarter at +Y |

        In the last two the world's zenith is +Z. Blender's are those of its world shader with no mapping node, as in Cycles'
        u = ½ − atan2(y, x) / 2π.

        Args:
            frame: one of these.
            ldr_ok: take pictures of 8 bits, which are sRGB and end at 1.

        Raises:
            DataError: no such frame; anything wrong with the file; not twice as wide as high; 8 bits without `ldr_ok`.
        """
        path = Path(path)
        if frame not in get_args(Frame):
            raise DataError(f"{path}: {frame!r} is no frame of a map.\nChoose one of {', '.join(get_args(Frame))}.")
        radiance = read_linear(path)[..., :3].contiguous()
        height, width = radiance.shape[:2]
        if width != 2 * height:
            raise DataError(
                f"{path}: {width} × {height} pixels; an environment map is twice as wide as high.\n"
                "Give an equirectangular picture, or convert yours to one."
            )
        if has_eight_bits(path):
            if not ldr_ok:
                raise DataError(
                    f"{path}: a picture of 8 bits: its lamps are cut off at white, so it gives too little light.\n"
                    "Give an .hdr or .exr, or allow it (--ldr-ok)."
                )
            radiance = decode_srgb(radiance)
        if frame == "mitsuba":
            return Environment(_rows_to_centres(radiance))
        if frame == "zup":
            return Environment(radiance.flip(1), _NRTF)
        return Environment(radiance, _BLENDER) if frame == "blender" else Environment(radiance)

    @staticmethod
    def constant(rgb: Sequence[float]) -> Environment:
        """The same radiance from everywhere."""
        return Environment(torch.tensor(rgb, dtype=torch.float32).expand(16, 32, 3).contiguous())

    @staticmethod
    def spherical_gaussians(
        gaussians: Sequence[tuple[Sequence[float], float, Sequence[float]]],
        ambient: float | Sequence[float] = 0.0,
        height: int = 256,
    ) -> Environment:
        """Lamps with soft edges: Σ rgb exp(κ (w·axis − 1)) + ambient.

        Args:
            gaussians: of each the axis (of any length, world), κ and the peak radiance.
            ambient: radiance from everywhere, grey or of three channels.
            height: of the map. A lamp narrower than a pixel is made as wide as one, and keeps its power.
        """
        radiance = torch.zeros(height, 2 * height, 3, dtype=torch.float64) + torch.as_tensor(
            ambient, dtype=torch.float64
        )
        directions = equirectangular.directions(height)
        for axis, kappa, rgb in gaussians:
            wide = min(kappa, (height / math.pi) ** 2)
            mu = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
            lobe = torch.exp(wide * (directions @ mu - 1)) * (lobe_integral(kappa) / lobe_integral(wide))
            radiance += lobe[..., None] * torch.tensor(rgb, dtype=torch.float64)
        return Environment(radiance.float())

    @property
    def device(self) -> torch.device:
        return self.radiance.device

    @property
    def height(self) -> int:
        return self.radiance.shape[0]

    def to(self, device: torch.device | str) -> Environment:
        if self.device == torch.device(device):
            return self
        return Environment(self.radiance.to(device), self.world_from_map.to(device))

    # ------------------------------------------------------------------------------------ what it is

    def solid_angles(self) -> Tensor:
        """(H,) float64, steradians: of one pixel of each row."""
        return equirectangular.solid_angles(self.height).to(self.device)

    def directions(self) -> Tensor:
        """(H, 2H, 3) unit, world: where the light of each pixel comes from."""
        return (equirectangular.directions(self.height).to(self.device) @ self.world_from_map.T).to(self.radiance)

    def power(self) -> Tensor:
        """(3,): the integral of radiance over the sphere."""
        return (self.radiance.sum(1, dtype=torch.float64) * self.solid_angles()[:, None]).sum(0).to(self.radiance)

    def sample(self, directions: Tensor) -> Tensor:
        """Radiance (N, 3) from unit directions (N, 3) of the world, bilinear: what the map looks like."""
        pixels = equirectangular.padded(self.radiance).flatten(0, 1)
        return equirectangular.sample(
            pixels, self.height, *equirectangular.angles(directions @ self.world_from_map.to(directions))
        )

    # ------------------------------------------------------------------------------------ changed

    def turned(self, degrees: float) -> Environment:
        """Turned about its own zenith (+Y, or +Z of frames that have it there): counter-clockwise, seen from above."""
        angle = math.radians(degrees)
        c, s = math.cos(angle), math.sin(angle)
        about_y = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64, device=self.device)
        return self._facing(self.world_from_map @ about_y)

    def moved(self, rotation: Tensor) -> Environment:
        """In other axes of the world: `rotation` (3, 3) leads there from the ones it has been in."""
        return self._facing(rotation.to(self.world_from_map) @ self.world_from_map)

    def _facing(self, world_from_map: Tensor) -> Environment:
        turned = replace(self, world_from_map=world_from_map)
        object.__setattr__(turned, "_lobes", self._lobes)
        return turned

    def scaled(self, factor: float) -> Environment:
        """So many times as bright."""
        return replace(self, radiance=self.radiance * factor)

    def resized(self, height: int) -> Environment:
        """Averaged over the areas of larger pixels, or cut up into smaller ones, keeping its power: a sun is neither lost nor doubled."""
        return replace(self, radiance=equirectangular.resize(self.radiance, height))

    # ------------------------------------------------------------------------------------ seen through lobes

    def project(self, axes: Tensor, kappa: float) -> Tensor:
        """What the map has of lobes: Σ exp(κ (w·axis − 1)) E dΩ over its pixels, which is 2π/κ (1 − exp(−2κ)) where E is 1.

        The sum is of fewer where κ lets it, with the same value: see `fields.relighting.series`. A lobe narrower than a pixel is made
        as wide as one.

        Args:
            axes: (K, 3) unit, world.

        Returns:
            (K, 3), on the map's device.
        """
        light, of_ones = self._lobes.light(rows_for(kappa))
        directions = equirectangular.directions(len(light)).view(-1, 3).to(light)
        axes = axes.to(light) @ self.world_from_map
        kappa, whole = min(kappa, (len(light) / math.pi) ** 2), lobe_integral(kappa)
        sums = []
        for some in axes.split(max(1, 2**22 // len(directions))):
            lobes = torch.exp(kappa * (some @ directions.T - 1))
            # Pixels are points here; near the poles of a coarse map they sum to something else than the integral over them.
            sums.append(whole * (lobes @ light.view(-1, 3)) / (lobes @ of_ones.view(-1, 1)))
        return torch.cat(sums).to(self.radiance)

    def spots(self, count: int) -> Tensor:
        """(count, 3): the map gathered into directions all over the sphere, those of `fibonacci_sphere`: irradiances that face them."""
        sharpness = count / 4  # a cell of the sky is as wide as this lobe
        axes = fibonacci_sphere(count).to(self.radiance)
        return self.project(axes, sharpness) * (4 * math.pi / count / lobe_integral(sharpness))

    def blurred(self) -> Pyramid:
        """The map seen through lobes of many sharpnesses; worked out when it is first asked for."""
        return Pyramid(self._lobes.levels, self.world_from_map)


class _Lobes:
    """What a map has of lobes, in its own axes: turned maps share it."""

    def __init__(self, radiance: Tensor) -> None:
        self.radiance = radiance

    @functools.cached_property
    def fine(self) -> Tensor:
        """The map; the pixels of a coarse one are cut up, so that no lobe sees spots."""
        cut = math.ceil(_FINE / len(self.radiance))
        return self.radiance if cut == 1 else self.radiance.repeat_interleave(cut, 0).repeat_interleave(cut, 1)

    @functools.cached_property
    def coefficients(self) -> Tensor:
        """The `series` of that, as far as the sharpest lobes of the pyramid see."""
        return series(self.fine, rows_for(LADDER[-1]))

    def light(self, rows: int) -> tuple[Tensor, Tensor]:
        """Powers (R, 2R, 3) float64 of the map, or of one with so many rows that it cannot be told from through a lobe; and (R, 2R)
        those of a map that is 1 all over."""
        height = len(self.fine)
        if rows > rows_for(LADDER[-1]):
            of_ones = equirectangular.solid_angles(height).to(self.fine.device)
            light = self.fine * of_ones[:, None, None]
        else:
            of_ones = rows_of_ones(height, rows).to(self.fine.device)
            light = sample_columns(sample_rows(self.coefficients, rows), 2 * rows)
        return light.contiguous(), of_ones[:, None].expand(-1, 2 * len(of_ones)).contiguous()

    @functools.cached_property
    def levels(self) -> Tensor:
        return blur(self.coefficients, len(self.fine)).to(self.radiance.dtype)


def lobe_integral(kappa: float) -> float:
    """Of exp(κ (w·axis − 1)) over the sphere, steradians."""
    return -2 * math.pi * math.expm1(-2 * kappa) / kappa


def _rows_to_centres(radiance: Tensor) -> Tensor:
    """Rows of (H, W, 3) that stand at θ = π r / (H − 1), interpolated to θ = π (r + ½) / H."""
    height = radiance.shape[0]
    at = (torch.arange(height, dtype=torch.float64) + 0.5) * ((height - 1) / height)
    above = at.floor().long().clamp(max=max(height - 2, 0))
    below = (above + 1).clamp(max=height - 1)
    return torch.lerp(radiance[above], radiance[below], (at - above)[:, None, None].to(radiance))


STUDIOS: dict[str, Callable[[], Environment]] = {
    "studio": lambda: Environment.spherical_gaussians(
        [((1, 1, 1), 40, (6, 5.5, 5)), ((-1, 0.3, 0.6), 20, (1.5, 2, 3)), ((0, 0.2, -1), 60, (5, 5, 6))], ambient=0.15
    ),
    "sunset": lambda: Environment.spherical_gaussians(
        [((0.8, 0.35, 0.5), 400, (150, 110, 70)), ((0, 1, 0), 2, (0.3, 0.45, 0.8))], ambient=0.05
    ),
}
"""Maps that come along, by name."""
