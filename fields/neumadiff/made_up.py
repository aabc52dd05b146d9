"""Materials made up at random, of kinds that people know, and what they are called: what the shipped model has learned from.

They are nobody's measurements. What is usual of each kind is put in by hand: metals have no base and a colour of their own, plastics a white highlight over
any colour, fabrics hardly any, and so on.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from fields.neumadiff.energy import albedo
from fields.neumadiff.network import ORDERS
from fields.neumadiff.principled import Principled
from fields.neumadiff.words import colour_of

METALS = {
    "gold": (1.0, 0.77, 0.34), "copper": (0.95, 0.64, 0.54), "silver": (0.96, 0.95, 0.92), "aluminium": (0.91, 0.92, 0.92), "brass": (0.89, 0.79, 0.43),
    "bronze": (0.72, 0.53, 0.30), "steel": (0.56, 0.57, 0.58), "chrome": (0.62, 0.63, 0.63), "titanium": (0.54, 0.50, 0.45), "nickel": (0.66, 0.61, 0.53),
    "tungsten": (0.50, 0.51, 0.54), "iron": (0.53, 0.51, 0.49),
}  # fmt: skip
"""What they reflect along the normal, linear sRGB."""
KINDS = {
    "metal": 6, "mirror": 2, "metallic paint": 3, "plastic": 5, "acrylic": 2, "rubber": 3, "fabric": 3, "velvet": 1, "wood": 1, "stone": 1, "paint": 2,
    "ceramic": 2, "leather": 1,
}  # fmt: skip
"""And how often each is drawn."""
UNSEEN = {("metal", "pink"), ("rubber", "purple"), ("fabric", "turquoise"), ("plastic", "orange"), ("metallic paint", "yellow")}  # fmt: skip
"""Pairs that are never made, so that it can be seen what a model makes of words that it has not met together."""


_MOST, _AT_ONCE = 0.92, 100
"""Of the light that is reflected in any direction: networks are off by some percent, and what they reflect must stay below all. And how many are looked at together."""


@dataclass
class MadeUp:
    """Materials, and what is known of each."""

    materials: Principled
    categories: list[str]
    names: list[tuple[str, ...]]
    """Of its own, as gold has."""


def made_up(count: int, seed: int = 0) -> MadeUp:
    """`count` materials; the first so many are the same whatever the count."""
    rows, categories, names = [], [], []
    kinds, shares = list(KINDS), np.array(list(KINDS.values()), float)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        kind = str(rng.choice(kinds, p=shares / shares.sum()))
        rng_row = _material(kind, rng)
        while _unseen(kind, rng_row):
            rng_row = _material(kind, rng)
        *row, name = rng_row
        rows.append(row)
        categories.append(kind)
        names.append(name)
    columns = [torch.tensor(np.array(column), dtype=torch.float32) for column in zip(*rows, strict=True)]
    return MadeUp(_dimmed(Principled(*columns)), categories, names)


def _dimmed(materials: Principled) -> Principled:
    """Those that reflect more of the light than there is, or nearly, in any direction, are made darker."""
    most = torch.cat([albedo(materials[k : k + _AT_ONCE]).amax((1, 2)) for k in range(0, len(materials), _AT_ONCE)])
    fall = (_MOST / most).clamp(max=1)
    dim = {name: getattr(materials, name) * fall[:, None] for name in ("base", "sheen")}
    return replace(materials, specular=materials.specular * fall[:, None, None], **dim)


def _unseen(kind: str, row: tuple) -> bool:
    """In any order of its channels, for those are made of it too."""
    base, _, specular, *_ = row
    shown = torch.tensor(np.array([base + share * np.sum(specular, 0) for share in (0, 0.25, 0.5, 1)])).float()
    called = {word for order in ORDERS for seen in shown[:, list(order)] for word in colour_of(seen).name.split()}
    return any((kind, word) in UNSEEN for word in called)


def _material(kind: str, rng: np.random.Generator) -> tuple:
    """base, roughness, specular, width, sheen of `Principled`, and names."""
    names: tuple[str, ...] = ()
    colour, nothing = _colour(rng), np.zeros(3)
    base, sheen, roughness = colour * rng.uniform(0.6, 1), nothing, rng.uniform(0.3, 0.8)
    first, second = np.full(3, rng.uniform(0.03, 0.05)), nothing
    width, wider = _between(rng, 0.012, 0.35), rng.uniform(2, 4)
    if kind in ("metal", "mirror"):
        width = _between(rng, 0.03, 0.35) if kind == "metal" else _between(rng, 0.006, 0.014)
        if rng.random() < 0.6:
            name = str(rng.choice(list(METALS)))
            names, colour = (name,), (np.array(METALS[name]) * rng.uniform(0.85, 1.0, 3) ** 0.4).clip(0, 1)
        else:  # anodised
            colour = _colour(rng, rng.uniform(0.35, 0.95))
        tail, wider = rng.uniform(0.05, 0.3), rng.uniform(1.5, 2.5)
        base, first, second = nothing, colour * (1 - tail), colour * tail
    elif kind == "metallic paint":
        flakes = _between(rng, 0.15, 0.4)
        width, wider = _between(rng, 0.01, 0.06), 1.0
        base, second, wider = colour * rng.uniform(0.02, 0.2), colour * rng.uniform(0.15, 0.55), flakes / width
    elif kind == "acrylic":
        width = _between(rng, 0.014, 0.04)
        first = np.full(3, rng.uniform(0.04, 0.06))
    elif kind == "rubber":
        width = _between(rng, 0.25, 0.6)
        base, first, roughness = base * rng.uniform(0.15, 0.7), np.full(3, rng.uniform(0.02, 0.04)), rng.uniform(0.5, 1)
    elif kind in ("fabric", "velvet"):
        width, first, roughness = 0.7, np.full(3, rng.uniform(0, 0.012)), rng.uniform(0.7, 1)
        sheen = (0.5 * colour + 0.5 * colour.max()) * (
            rng.uniform(0.6, 1.5) if kind == "velvet" else rng.uniform(0, 0.4)
        )
        base = base * (0.5 if kind == "velvet" else 1)
    elif kind == "wood":
        brown = np.array(
            colorsys.hsv_to_rgb(rng.uniform(0.045, 0.095), rng.uniform(0.45, 0.85), rng.uniform(0.12, 0.6))
        )
        base, width = brown, _between(rng, 0.05, 0.45)
    elif kind == "stone":
        base, width = _colour(rng, 0.15) * rng.uniform(0.4, 0.9), _between(rng, 0.02, 0.5)
    elif kind == "paint":
        width = _between(rng, 0.15, 0.6)
    elif kind == "ceramic":
        width, base = _between(rng, 0.008, 0.05), (0.5 * colour + 0.5 * colour.max()) if rng.random() < 0.5 else base
    elif kind == "leather":
        width, base = _between(rng, 0.12, 0.4), base * rng.uniform(0.2, 0.7)
    # What the lobes reflect does not reach the base, nor return from it.
    base = base * (1 - first.mean()) * 0.95
    return base, roughness, np.stack([first, second]), np.array([width, min(0.8, width * wider)]), sheen, names


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _colour(rng: np.random.Generator, most: float = 1.0) -> np.ndarray:
    """Linear albedo: a quarter has no hue."""
    value = rng.uniform(0.15, 1) if rng.random() < 0.75 else rng.uniform(0.05, 0.2)
    saturation = 0.05 * rng.random() if rng.random() < 0.25 else rng.uniform(0.35, 1)
    return np.array(colorsys.hsv_to_rgb(rng.random(), most * saturation, value)) ** 1.4 * 0.88
