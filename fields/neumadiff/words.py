"""Words for materials: colours as they are called, captions, and what a prompt asks for.

Colours are named by where they are in CIELAB, as an albedo under white light.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

HUES = {
    "red": 36, "orange": 62, "yellow": 98, "green": 140, "turquoise": 195, "blue": 290, "purple": 325, "pink": 355,
}  # fmt: skip
"""Degrees about the grey axis of CIELAB at which a colour is most itself."""
GREY = 9.0
"""Chroma below which there is no hue."""
_OFF, _STRONG = 22.0, 26.0
"""Degrees by which a hue may be off and still go by its name, and the chroma from which it needs no other word; less of it in the dark."""
_BROWN = ("orange", "red", "yellow")
"""Hues that are brown where they are dark and not strong."""
_NIGHT = 10.0
"""Lightness below which any hue is black."""
BLACK, DARK, LIGHT, WHITE = 22.0, 40.0, 68.0, 82.0
"""Lightness below which what has no hue is black, and what has is dark (a strong colour less so); above which that is light, and the other white."""

CATEGORIES = {
    "metal": ("metal", "metallic"),
    "mirror": ("mirror", "mirror-like", "polished metal", "chrome-plated metal"),
    "metallic paint": ("metallic paint", "car paint"),
    "plastic": ("plastic",),
    "acrylic": ("acrylic", "phenolic", "lacquer"),
    "rubber": ("rubber", "silicone"),
    "fabric": ("fabric", "cloth", "textile"),
    "velvet": ("velvet",),
    "wood": ("wood",),
    "stone": ("stone", "rock"),
    "paint": ("paint", "wall paint"),
    "ceramic": ("ceramic", "porcelain", "glazed ceramic"),
    "leather": ("leather",),
}
"""Kinds of material, and what each is called."""
GLOSS = {
    "very glossy": ("very glossy", "polished"),
    "glossy": ("glossy", "shiny"),
    "satin": ("satin", "semi-gloss"),
    "rough": ("rough", "matte", "brushed"),
    "dull": ("dull", "matte", "rough"),
}
"""Of what is from a degree to half a hemisphere wide, and what each is called. What shines broadly is brushed only where it is metal."""
_WIDTHS = (("very glossy", 0.8), ("glossy", 4.5), ("satin", 11.0), ("rough", 24.0), ("dull", 181.0))


def lab(colour: Tensor) -> Tensor:
    """CIELAB (…, 3) of linear sRGB (…, 3), D65."""
    matrix = torch.tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    ).to(colour)
    x = colour.clamp(min=0) @ matrix.T / torch.tensor([0.95047, 1.0, 1.08883]).to(colour)
    f = torch.where(x > (6 / 29) ** 3, x.clamp(min=1e-9) ** (1 / 3), x * (29 / 6) ** 2 / 3 + 4 / 29)
    return torch.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def hue_and_chroma(colour: Tensor) -> tuple[Tensor, Tensor]:
    """Degrees and distance from grey in CIELAB, (…) each, of linear sRGB (…, 3)."""
    _, a, b = lab(colour).unbind(-1)
    return torch.rad2deg(torch.atan2(b, a)) % 360, torch.hypot(a, b)


def hue_off(hue: Tensor, wanted: float) -> Tensor:
    """Degrees between two hues, the short way."""
    return ((hue - wanted + 180) % 360 - 180).abs()


def goes_by(colour: Tensor, name: str) -> Tensor:
    """Which of linear sRGB colours (…, 3) anybody would call by one of the names of `HUES`, (…)."""
    lightness, (hue, chroma) = lab(colour)[..., 0], hue_and_chroma(colour)
    off, nearest = hue_off(hue, HUES[name]), torch.stack([hue_off(hue, other) for other in HUES.values()]).amin(0)
    strong = (chroma > _strong(lightness)) & (lightness > _NIGHT)
    named = (off < _OFF) & (off <= nearest) & strong
    return named & ~_brown(lightness, hue, chroma) if name in _BROWN else named


def _brown(lightness: Tensor, hue: Tensor, chroma: Tensor) -> Tensor:
    """Which colours of one of the hues `_BROWN` are brown, (…)."""
    return (lightness < 55) & (chroma < 66) & (hue > 40) & (hue < 95)


def _strong(lightness: Tensor) -> Tensor:
    return (0.52 * lightness).clamp(GREY, _STRONG)


@dataclass(frozen=True)
class Colour:
    """What a colour is called."""

    name: str
    """One word where it is all that needs to be said; else two, as of turquoise blue and greyish red."""
    shade: str = ""
    """dark, light, or nothing; of what has a hue."""


def colour_of(albedo: Tensor) -> Colour:
    """The name of one linear sRGB colour (3,)."""
    lightness, (hue, chroma) = lab(albedo)[0], hue_and_chroma(albedo)
    if chroma < GREY:
        return Colour("black" if lightness < BLACK else "white" if lightness > WHITE else "grey")
    if lightness < _NIGHT:
        return Colour("black")
    second, name = sorted(HUES, key=lambda name: -float(hue_off(hue, HUES[name])))[-2:]
    if name in _BROWN and _brown(lightness, hue, chroma):
        return Colour("brown", "dark" if lightness < 30 else "light" if lightness > 50 else "")
    if chroma < _strong(lightness):
        return Colour(f"greyish {name}")
    if not goes_by(albedo, name):
        name = f"{second} {name}"
    return Colour(
        name, "dark" if lightness + 0.12 * chroma < DARK else "light" if lightness > LIGHT and chroma < 55 else ""
    )


def gloss_of(half_width: float) -> str:
    """What a highlight of this half width, degrees of the half vector, is called."""
    return next(name for name, most in _WIDTHS if half_width < most)


def captions(seen: Tensor, half_width: float, category: str, names: tuple[str, ...] = ()) -> list[str]:
    """What one material may be called that is seen in a linear colour (3,); `names` are its own, as gold has."""
    colour, called = colour_of(seen), list(CATEGORIES.get(category, (category,)))
    glossy = [word for word in GLOSS[gloss_of(half_width)] if word != "brushed" or "metal" in category]
    metal = category in ("metal", "mirror")
    plain = [colour.name] + ([f"{colour.shade} {colour.name}"] if colour.shade else [])
    if metal and colour.name in ("grey", "white"):
        plain = ["silver", "grey"]
    found = [noun for noun in [*called, *names]]
    found += [f"{shade} {noun}" for shade in plain for noun in called]
    found += [f"{gloss} {noun}" for gloss in glossy for noun in [*called, *names]]
    found += [f"{gloss} {shade} {noun}" for gloss in glossy for shade in plain for noun in called]
    if colour.shade and not metal:
        found += [f"{colour.shade} {noun}" for noun in called]
    if colour.name in ("black", "white") or colour.shade:
        shade = "dark" if colour.name == "black" else "light" if colour.name == "white" else colour.shade
        found += [f"{gloss} {shade} {noun}" for gloss in glossy for noun in called]
    return found + plain + glossy


_NOTHING = {
    "a",
    "an",
    "the",
    "of",
    "like",
    "with",
    "and",
    "in",
    "very",
    "this",
    "material",
    "coloured",
    "colored",
    "some",
}
_SAME = {
    "gray": "grey", "colour": "", "color": "", "metallic": "metal", "mirror-like": "mirror", "mirrorlike": "mirror", "mat": "matte", "shiny": "glossy",
    "cyan": "turquoise", "teal": "turquoise", "violet": "purple", "magenta": "purple", "cloth": "fabric", "textile": "fabric", "bright": "light", "pale": "light",
    "deep": "dark", "grayish": "greyish", "silicone": "rubber", "rock": "stone", "porcelain": "ceramic", "semi-gloss": "satin", "aluminum": "aluminium", "fabrics": "fabric", "cotton": "fabric",
    "dull": "matte", "crimson": "red", "scarlet": "red", "navy": "blue", "emerald": "green",
}  # fmt: skip


def words_in(text: str) -> list[str]:
    """The words of a prompt that say something, each the commonest of those that mean the same."""
    found = [_SAME.get(word, word) for word in re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())]
    return [word for word in found if word and word not in _NOTHING]
