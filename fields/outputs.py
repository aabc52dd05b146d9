"""What there is to see of a field beside its colour, and how it is shown: distances, normals, opacity, samples, features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fields.io.images import colour_map
from fields.radiance import RadianceField
from fields.rendering import Field

OUTPUTS = ("rgb", "distance", "z", "normal", "opacity", "samples", "features")
"""Colour; expected distance along the ray; the same along the viewing axis; normals in the world frame; opacity; samples
that were made on the ray; appearance features, of which the three main components are shown."""


@dataclass(frozen=True)
class Seen:
    """An output along rays (N,)."""

    value: Tensor
    """(N, C): rgb and normals composited, features as sums weighted by the light, distances divided by opacity."""
    opacity: Tensor
    """(N,)."""
    distance: Tensor
    """(N,) expected, divided by opacity; infinite where there is nothing."""


def outputs_of(field: Field) -> tuple[str, ...]:
    """Those of `OUTPUTS` that a field has."""
    return OUTPUTS if isinstance(field, RadianceField) else ("rgb", "distance", "z", "opacity")


@torch.no_grad()
def see(field: Field, output: str, origins: Tensor, directions: Tensor, axis: Tensor, background: Tensor) -> Seen:
    """One output along rays (N, 3).

    Args:
        axis: (3,) unit, the viewing axis, along which z is measured.
        background: (3,) sRGB.
    """
    rendering = field.render_rays(origins, directions, background)
    opacity = rendering.opacity
    distance = torch.where(opacity > 0, rendering.depth / opacity.clamp(min=1e-6), torch.inf)
    if output == "rgb":
        value = rendering.rgb.clamp(0, 1)
    elif output == "distance":
        value = distance[:, None]
    elif output == "z":
        value = (distance * (directions @ axis))[:, None]
    elif output == "opacity":
        value = opacity[:, None]
    elif output == "normal":
        value = field.normals(origins, directions)
    elif output == "samples":
        value = field.march(origins, directions)[4][:, 1:].float()  # type: ignore[operator]
    else:
        value = field.accumulate(origins, directions, field.features)  # type: ignore[operator, arg-type]
    return Seen(value, opacity, distance)


@dataclass(frozen=True)
class Palette:
    """How the values of an output become colours: the same way in every tile and frame of it."""

    output: str
    low: float = 0.0
    high: float = 1.0
    """What the first and the last colour of the map stand for; of single values."""
    name: str = "turbo"
    """Of a colour map of matplotlib."""
    axes: Tensor | None = None
    """(C, 3) and, in the last row of (C + 1, 3), what is added: of features."""

    @staticmethod
    def fit(output: str, seen: Seen, name: str = "turbo") -> Palette:
        """One that shows the spread of the values of an image."""
        palette = Palette(output, name=name)
        there = seen.value[seen.opacity > 0.5]
        if output in ("distance", "z", "samples"):
            values = (seen.value if output == "samples" else there)[:, 0].sort().values
            if len(values):
                low, high = float(values[len(values) // 50]), float(values[-1 - len(values) // 50])
                margin = 0.05 * (high - low) if output != "samples" else 0.0
                palette = replace(palette, low=low - margin, high=max(high + margin, low + 1e-6))
        elif output == "features":
            palette = replace(palette, axes=_main_axes(there if len(there) > 3 else seen.value))
        return palette

    def __call__(self, seen: Seen, background: Tensor) -> Tensor:
        """Colours (N, 3) in [0, 1]; what is not there lets the background (3,) through."""
        value, opacity = seen.value, seen.opacity[:, None]
        if self.output == "rgb":
            return value
        if self.output in ("opacity", "samples"):
            return colour_map(value[:, 0], self.low, self.high, self.name).to(value.device)
        if self.output == "normal":
            colour = (value + 1) / 2
        elif self.output == "features":
            assert self.axes is not None
            unmixed = value / opacity.clamp(min=1e-6)
            colour = (unmixed @ self.axes[:-1] + self.axes[-1]).clamp(0, 1)
        else:
            # Near is the map's last colour: what is close stands out.
            shown = torch.where(value[:, 0].isfinite(), -value[:, 0], -self.high)
            colour = colour_map(shown, -self.high, -self.low, self.name).to(value.device)
        return colour * opacity + background * (1 - opacity)


def _main_axes(values: Tensor) -> Tensor:
    """(C + 1, 3): the projection of values (N, C) on their three main components, of which two standard deviations to
    either side fill [0, 1]."""
    mean = values.mean(0)
    _, scale, axes = torch.linalg.svd(values - mean, full_matrices=False)
    axes = axes[:3].mT
    axes = axes * axes.sum(0).sign()  # the sign of a singular vector is arbitrary: settle it
    axes = axes * (len(values) ** 0.5 / (4 * scale[:3].clamp(min=1e-9)))
    if axes.shape[1] < 3:
        axes = torch.nn.functional.pad(axes, (0, 3 - axes.shape[1]))
    return torch.cat([axes, 0.5 - mean[None] @ axes])
