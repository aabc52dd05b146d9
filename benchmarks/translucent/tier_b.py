"""Tier B: an object with a smooth boundary that refracts, from its measured transfer: every picture is a weighted sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from fields.benchmarks.translucent.bins import BINS, as_map, averages, pairs, singles
from fields.benchmarks.translucent.cameras import Cameras
from fields.benchmarks.translucent.layout import TRAIN, Picture, noise_floor
from fields.benchmarks.translucent.scene import MEDIA, load_shape
from fields.benchmarks.translucent.walk import transfer
from torch import Tensor

from fields.io.hdr import write_exr
from fields.relighting.environment import STUDIOS


@dataclass(frozen=True)
class Size:
    """How much is rendered."""

    pixels: int
    """Of a side."""
    train: int
    """Cameras to learn from."""
    test: int
    """Cameras that are held out."""
    samples: dict[str, int]
    """Per pixel, of cameras of each kind."""


SIZES = {
    "demo": Size(48, 6, 2, {TRAIN: 512, "test": 2048}),
    "quick": Size(64, 8, 3, {TRAIN: 1024, "test": 4096}),
    "full": Size(64, 16, 6, {TRAIN: 4096, "test": 16384}),
}


class Tier:
    """What is in a set, and how to get it; `out` has the surface."""

    note = (
        "The sphere is cut into 128 bins of equal area, which are the lights: one white field of the checkerboard to learn from, two black\n"
        "ones of a block to test. Pictures have the light that was scattered inside at least once: no mirror images, nothing straight through."
    )

    def __init__(self, out: Path, material: str, size: Size, seed: int) -> None:
        self.size, self.seed = size, seed
        self.cameras = Cameras(out / "surface.ply", size.pixels, size.train, size.test)
        self._medium = MEDIA[material]
        self._shape = load_shape(out / "surface.ply", {"face_normals": True})
        self._lights = _lights()
        for name, (_, radiance) in self._lights.items():
            write_exr(out / "maps" / f"{name}.exr", {"": as_map(radiance).radiance})
        self.pictures = [
            Picture(
                f"{'train' if group == TRAIN else 'test'}/c{c:02d}_{name}.exr",
                c,
                {"type": "env", "file": f"maps/{name}.exr"},
                group,
            )
            for c in range(len(self.cameras))
            for name, (group, _) in self._lights.items()
            if (group == TRAIN) != (c in self.cameras.held_out)
        ]
        self._floors: dict[str, list[float]] = {}

    def images(self, missing: list[Picture]) -> Iterator[tuple[Picture, np.ndarray]]:
        """Measures the transfer to each camera, and lights it."""
        for camera, pictures in groupby(missing, lambda p: p.camera):
            samples = self.size.samples["test" if camera in self.cameras.held_out else TRAIN]
            eye, seed = self.cameras.eyes[camera], (self.seed, camera)
            halves = transfer(self._shape, self._medium, eye, self.size.pixels, samples, seed)
            _, coverage = self.cameras.geometry(camera)
            for picture in pictures:
                _, radiance = self._lights[Path(picture.light["file"]).stem]
                one, two = np.einsum("khwbc,bc->khwc", halves, radiance.numpy())
                self._floors.setdefault(picture.kind, []).append(noise_floor(one, two, coverage, 4))
                yield picture, (one + two) / 2

    def floors(self, known: dict) -> Iterator[tuple[str, float]]:
        """PSNR (dB) of the noiseless truth against the pictures of each kind that `images` went through."""
        yield from ((kind, float(np.mean(values))) for kind, values in self._floors.items())


def _lights() -> dict[str, tuple[str, Tensor]]:
    """By name: the group of pictures that each is for, and its radiances (BINS, 3)."""
    lights: dict[str, tuple[str, Tensor]] = {}
    for kind, group, some in (("bin", TRAIN, singles()), ("pair", "olat", pairs())):
        for bins in some:
            radiance = torch.zeros(BINS, 3, dtype=torch.float64)
            radiance[bins] = 1
            lights[f"{kind}{bins[0]:03d}"] = group, radiance
    lights["constant"] = "furnace", torch.ones(BINS, 3, dtype=torch.float64)
    return lights | {name: ("map", averages(studio())) for name, studio in STUDIOS.items()}
