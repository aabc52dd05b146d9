"""New materials of what somebody wants: drawn, looked at, and those kept that are it.

A model that is asked for red plastic mostly draws that; whatever else it draws is seen in its statistics, and left out. What words say of statistics is
written here, and nowhere learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.errors import ConfigError
from fields.methods import shipped
from fields.neumadiff.encoders import text_encoder
from fields.neumadiff.energy import albedo
from fields.neumadiff.model import MaterialModel
from fields.neumadiff.network import Networks
from fields.neumadiff.statistics import Statistics, classes, statistics
from fields.neumadiff.words import GREY, HUES, goes_by, hue_off, lab, words_in

_HUE = 22.0
"""Degrees by which a metal's colour may be off its own."""
_AT_ONCE, _MOST_TRIES = 64, 1024
"""Materials drawn at a time, and before giving up."""


@dataclass
class Synthesis:
    """Materials that were asked for."""

    networks: Networks
    statistics: Statistics
    drawn: int
    """How many were, to find these."""

    @property
    def accepted(self) -> float:
        """Share of what was drawn."""
        return len(self.networks) / max(self.drawn, 1)


def load_model(path: str | Path | None = None) -> MaterialModel:
    """A trained model from a run folder; by default the one that comes with the package."""
    from fields.io.run import load

    model = load(path or shipped("assets") / "neumadiff")
    if not isinstance(model, MaterialModel):
        raise ConfigError(f"{path}: not a model that draws materials. `fields train neumadiff` makes one.")
    return model.float().eval()


Check = Callable[[Statistics, str], Tensor]
"""Which of materials (M,), on a scale, are what a word says."""


def _of_class(name: str) -> Check:
    return lambda found, scale: classes(found, scale)[name]


def _coloured(name: str) -> Check:
    return lambda found, scale: goes_by(found.seen, name)


def _lightness(found: Statistics) -> Tensor:
    return lab(found.seen)[:, 0]


def _metal(wanted: float) -> Check:
    """Metals by name have pale colours of their own."""
    return lambda found, scale: (hue_off(found.hue()[0], wanted) < _HUE) & classes(found, scale)["metallic"]


def _plastic(found: Statistics, scale: str) -> Tensor:
    # In dark plastic the highlight is most of what there is to see.
    dark = _lightness(found) < 40
    return (found.highlight_saturation < 0.2) & ((found.base_share > 0.5) | dark) & ~classes(found, scale)["mirror"]


def _matte(found: Statistics, scale: str) -> Tensor:
    return found.half_width > 4.5


_CHECKS: dict[str, Check] = {
    **{name: _coloured(name) for name in HUES},
    "grey": lambda found, scale: found.hue()[1] < 2 * GREY,
    "silver": lambda found, scale: found.hue()[1] < 2 * GREY,
    "black": lambda found, scale: _lightness(found) < 30,
    "white": lambda found, scale: (_lightness(found) > 72) & (found.hue()[1] < 2 * GREY),
    "dark": lambda found, scale: _lightness(found) < 50,
    "light": lambda found, scale: _lightness(found) > 50,
    "brown": lambda found, scale: (hue_off(found.hue()[0], 65) < 35) & (_lightness(found) < 62),
    "gold": _metal(82), "copper": _metal(55), "brass": _metal(90), "bronze": _metal(78),
    "metal": _of_class("metallic"),
    "mirror": lambda found, scale: (found.half_width < 0.8) & _of_class("metallic")(found, scale),
    "plastic": _plastic,
    "matte": _matte, "rough": _matte,
    "satin": lambda found, scale: (found.half_width > 3) & (found.half_width < 14),
    "glossy": lambda found, scale: found.half_width < 6,
    "polished": lambda found, scale: found.half_width < 1.2,
    "rubber": lambda found, scale: _matte(found, scale) & (found.base_share > 0.3),
    "fabric": _of_class("diffuse"), "velvet": _of_class("diffuse"),
}  # fmt: skip
"""What words say of statistics, where they do."""


def agrees(text: str, found: Statistics, scale: str) -> Tensor:
    """Which of M materials are what a text says, (M,), as far as statistics tell."""
    held = torch.ones(len(found), dtype=torch.bool)
    for word in words_in(text):
        if word in _CHECKS:
            held &= _CHECKS[word](found, scale)
    return held


def sound(networks: Networks, found: Statistics) -> Tensor:
    """Which are materials at all, (M,): finite, not black, and from no direction reflecting more light than there is."""
    finite = networks.weights.isfinite().all(-1) & found.vector.isfinite().all(-1)
    return finite & (found.albedo.amax(-1) > 1e-3) & (albedo(networks).amax((1, 2)) <= 1)


def synthesize(
    text: str = "", count: int = 1, model: MaterialModel | None = None, *, category: str | None = None, like: Statistics | None = None,
    image: Tensor | None = None, seed: int = 0, guidance: float = 1.0, check: bool = True,
) -> Synthesis:  # fmt: skip
    """Draws `count` new materials.

    Args:
        text: what they should be; anything, where it is empty.
        category: one that the model knows.
        like: statistics of one material, to be like it.
        image: sRGB (3, H, W) of one, see `fields.neumadiff.pictures.photograph`.
        check: leave out what is not what the text says.

    Raises:
        ConfigError: a category or a word it does not know, or an image where it knows none; or nothing of what was drawn is what the text says.
    """
    model = model or load_model()
    wanted: dict[str, Tensor] = {}
    if text:
        wanted["text"] = _read(text, model)
    if category:
        if category not in model.categories:
            raise ConfigError(f"There is no category {category!r}; there are {', '.join(model.categories)}.")
        wanted["category"] = torch.nn.functional.one_hot(torch.tensor(model.categories.index(category)), len(model.categories)).float()  # fmt: skip
    if like is not None:
        wanted["statistics"] = like.vector[0]
    if image is not None:
        if model.picture_encoder is None:
            raise ConfigError("This model knows no pictures. `fields train neumadiff` makes one that does.")
        with torch.no_grad():
            wanted["image"] = model.picture_encoder(image[None])[0]
    generator = torch.Generator().manual_seed(seed)
    kept: list[Tensor] = []
    drawn, some = 0, max(count, min(_AT_ONCE, 2 * count))
    while sum(len(part) for part in kept) < count and drawn < max(_MOST_TRIES, 8 * count):
        networks = model.draw(some, wanted, guidance=guidance, generator=generator)
        found = statistics(networks)
        good = sound(networks, found)
        if check:
            good &= agrees(text, found, model.scale)
        kept.append(networks.weights[good])
        drawn += some
    weights = torch.cat(kept)
    if len(weights) < count:
        raise ConfigError(f"{text or 'materials'!r}: of {drawn} that were drawn {len(weights)} are that. Ask for less, or for something else, or go on with --no-check.")  # fmt: skip
    networks = Networks(weights[:count], model.dialect)
    # What came after the last that was needed was drawn in vain, and does not count.
    return Synthesis(networks, statistics(networks), round(drawn * count / len(weights)))


def _read(text: str, model: MaterialModel) -> Tensor:
    """(dim,) of a text, all words of which say something to the model."""
    if model.vocabulary:
        words = words_in(text)
        unknown = [word for word in words if word not in model.vocabulary]
        if unknown or not words:
            raise ConfigError(f"{text!r}: {', '.join(unknown) + ' is not known' if unknown else 'no word of it is known'}. Words are {', '.join(model.vocabulary)}.")  # fmt: skip
    return text_encoder(model.text).encode([text])[0]


def as_plain(found: Statistics, k: int) -> dict[str, Any]:
    """The statistics of one material, as plain numbers."""
    return {
        "mean": found.mean[k].tolist(), "most": found.most[k].tolist(), "albedo": found.albedo[k].tolist(), "base": found.base[k].tolist(),
        "half_width_degrees": float(found.half_width[k]), "peak": found.peak[k].tolist(),
    }  # fmt: skip
