"""Light by name: what a user writes, and what `fields.relight` takes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from fields.errors import ConfigError, DataError
from fields.relighting.environment import STUDIOS, Environment
from fields.relighting.field import TransferField
from fields.relighting.lights import Light, load_lights
from fields.relighting.transfer import Illumination

Source = str | Path | Light | Environment | Illumination


def illumination(
    source: Source | Sequence[Light | Environment], frame: str = "yup", ldr_ok: bool = False
) -> Illumination:
    """Light from an environment map (.hdr, .exr), a list of lights (.json), ``const:R,G,B``, the name of a studio that comes along,
    or from lights and maps themselves.

    Args:
        frame: whose axes a map is in; see `fields.relighting.environment.Environment.load`.
        ldr_ok: take a map of 8 bits.

    Raises:
        ConfigError: none of these. DataError: a file that is missing, damaged or no light.
    """
    if isinstance(source, Illumination):
        return source
    if isinstance(source, Light | Environment):
        return Illumination.of(source)
    if not isinstance(source, str | Path):
        return Illumination.of(*source)
    text = str(source)
    if text in STUDIOS:
        return Illumination.of(STUDIOS[text]())
    if text.startswith("const:"):
        return Illumination.of(Environment.constant(_colour(text)))
    path = Path(text)
    if path.suffix.lower() == ".json":
        return Illumination.of(*load_lights(path))
    if not path.exists() and not path.suffix:
        raise ConfigError(
            f"There is no light {text!r}. Give a map (.hdr, .exr), a list (.json), const:R,G,B, or {', '.join(STUDIOS)}."
        )
    return Illumination.of(Environment.load(path, frame, ldr_ok))


def relight(
    field: TransferField, light: Source | Sequence[Light | Environment], exposure: float | None = None
) -> TransferField:
    """The same field in another light: it shares all tensors with the one given, and renders like any field.

        >>> field = fields.load(run)
        >>> image = fields.render(fields.relight(field, "sunset"), fields.orbit(8, size=(40, 30)), 2)
        >>> image.rgb.shape
        torch.Size([30, 40, 3])

    Args:
        field: a trained transfer field.
        light: as of `fields.relighting.sources.illumination`.
        exposure: what linear radiance is multiplied by before the sRGB curve; by default the field's.

    Raises:
        ConfigError: a field that cannot be relit, or no such light. DataError: a damaged file.
    """
    if not isinstance(field, TransferField):
        raise ConfigError(
            f"A {type(field).__name__} has its light baked in. `fields train relighting` makes fields that can be relit."
        )
    lit = copy.copy(field)
    lit.illumination = illumination(light).to(field.aabb.device)
    lit.exposure = field.exposure if exposure is None else exposure
    return lit


def _colour(text: str) -> tuple[float, float, float]:
    try:
        r, g, b = (float(v) for v in text.removeprefix("const:").split(","))
    except ValueError:
        raise ConfigError(f"{text!r}: write three numbers, as const:1,1,1.") from None
    if not all(0 <= v < float("inf") for v in (r, g, b)):
        raise DataError(f"{text!r}: radiance is finite and not negative.")
    return r, g, b
