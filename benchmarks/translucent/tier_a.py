"""Tier A: an object that light enters without being bent, in one light at a time, and in maps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from fields.benchmarks.translucent.cameras import Cameras, directions
from fields.benchmarks.translucent.layout import TRAIN, Picture, noise_floor
from fields.benchmarks.translucent.scene import coated, emitter, lit, load_shape, photograph

from fields.io.hdr import read_linear, write_exr
from fields.relighting.environment import STUDIOS, Environment

if TYPE_CHECKING:
    import mitsuba as mi

_LIGHTS = 64  # every eighth is held out, and the one after it is left for validation
_AGAIN = 2  # pictures of each kind that are rendered again to see how noisy they are


@dataclass(frozen=True)
class Size:
    """How much is rendered."""

    pixels: int
    """Of a side."""
    train: int
    """Cameras to learn from."""
    test: int
    """Cameras that are held out."""
    lights: int
    """That each camera to learn from is lit by, drawn from 48."""
    test_lights: int
    """Of the eight that are held out."""
    seen: int
    """Cameras to learn from that are tested in the held-out lights, too."""
    maps: tuple[str, ...]
    """"venice" is left out where there is no $FIELDS_DATA."""
    samples: dict[str, int]
    """Per pixel, of each group of pictures."""


_MAPS = ("constant", "studio", "sunset", "venice")
SIZES = {
    "demo": Size(96, 16, 3, 16, 4, 0, ("studio", "sunset"), {TRAIN: 96, "olat": 1024, "map": 1024}),
    "quick": Size(128, 16, 3, 16, 4, 4, _MAPS, {TRAIN: 32, "olat": 256, "seen-cameras": 256, "map": 256}),
    "full": Size(128, 32, 6, 32, 8, 4, _MAPS, {TRAIN: 64, "olat": 1024, "seen-cameras": 1024, "map": 512}),
}


class Tier:
    """What is in a set, and how to get it; `out` has the surface."""

    note = (
        "What a camera sees straight through the object, unscattered, is left out: behind it is black, not the light."
    )

    def __init__(self, out: Path, material: str, size: Size, seed: int) -> None:
        self.out, self.size, self.seed = out, size, seed
        self.cameras = Cameras(out / "surface.ply", size.pixels, size.train, size.test)
        self.pictures = self._pictures(_write_maps(out, size.maps))
        self._shape = load_shape(out / "surface.ply", coated(material))

    def _pictures(self, maps: list[str]) -> list[Picture]:
        draw = np.random.default_rng(self.seed)
        to_learn = [i for i in range(_LIGHTS) if i % 8 > 1]
        to_test = list(range(0, _LIGHTS, 8))[8 // self.size.test_lights - 1 :: 8 // self.size.test_lights]
        held_out = self.cameras.held_out
        cameras = [c for c in range(len(self.cameras)) if c not in held_out]
        rgb = [np.pi] * 3  # a white wall that faces the light has radiance 1
        lights = [{"type": "directional", "direction": d.tolist(), "rgb": rgb} for d in directions(_LIGHTS)]

        def single(camera: int, i: int, group: str) -> Picture:
            split = "train" if group == TRAIN else "test"
            return Picture(f"{split}/c{camera:02d}_l{i:02d}.exr", camera, lights[i], group)

        drawn = {c: sorted(draw.choice(to_learn, self.size.lights, replace=False).tolist()) for c in cameras}
        seen = cameras[:: len(cameras) // self.size.seen] if self.size.seen else []
        return [
            *(single(c, i, TRAIN) for c in cameras for i in drawn[c]),
            *(single(c, i, "olat") for c in held_out for i in to_test),
            *(single(c, i, "seen-cameras") for c in seen for i in to_test),
            *(
                Picture(f"test/c{c:02d}_{name}.exr", c, {"type": "env", "file": f"maps/{name}.exr"}, "map")
                for c in held_out
                for name in maps
            ),
        ]

    def images(self, missing: list[Picture]) -> Iterator[tuple[Picture, np.ndarray]]:
        """Renders them, in any order."""
        for light, alike in groupby(sorted(missing, key=_light), _light):
            scene = lit(self._shape, emitter(json.loads(light), self.out))
            for picture in alike:
                yield picture, self._image(scene, picture)

    def _image(self, scene: mi.Scene, picture: Picture, again: int = 0) -> np.ndarray:
        seed = (self.seed, self.pictures.index(picture), again)
        eye, samples = self.cameras.eyes[picture.camera], self.size.samples[picture.group]
        return photograph(scene, eye, self.size.pixels, samples, seed)

    def floors(self, known: dict) -> Iterator[tuple[str, float]]:
        """PSNR (dB) of the noiseless truth against the pictures of each kind that is not known yet; they exist."""
        for kind in dict.fromkeys(p.kind for p in self.pictures):
            if kind in known:
                continue
            alike = [p for p in self.pictures if p.kind == kind]
            some = alike[:: -(-len(alike) // _AGAIN)]
            decibels = []
            for picture in some:
                image = read_linear(self.out / picture.file)
                again = self._image(lit(self._shape, emitter(picture.light, self.out)), picture, 1)
                decibels.append(noise_floor(image[..., :3].numpy(), again, image[..., 3].numpy(), 2))
            yield kind, float(np.mean(decibels))


def _light(picture: Picture) -> str:
    return json.dumps(picture.light)


def _write_maps(out: Path, names: tuple[str, ...]) -> list[str]:
    """Those there are."""
    venice = Path(os.environ.get("FIELDS_DATA", ""), "envmaps", "venice_sunset_1k.hdr")
    known = STUDIOS | {"constant": lambda: Environment.constant((1.0, 1.0, 1.0))}
    if "FIELDS_DATA" in os.environ and venice.is_file():
        known["venice"] = lambda: Environment.load(venice).resized(256)
    found = [name for name in names if name in known]
    for name in found:
        write_exr(out / "maps" / f"{name}.exr", {"": known[name]().radiance})
    return found
