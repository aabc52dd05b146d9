"""Pictures of materials, as somebody might take them: what an encoder of pictures learns from.

Spheres and knobs are lit by lamps that are drawn at random, developed by a camera that is not quite right, and kept; every time that they are looked at they are turned,
moved, blurred and set before something else. Both shapes are round, so that turning a picture turns the light about the eye's axis; and exchanging its channels
exchanges those of the material, and of the light.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, pad

from fields.errors import DataError
from fields.io.atomic import read_tensors, write_tensors
from fields.io.hdr import has_eight_bits, read_linear
from fields.neumadiff.angles import Reflectance
from fields.neumadiff.network import Networks, sorted_channels
from fields.neumadiff.preview import Light, LitSpheres, light_of, picture, studio
from fields.neumadiff.rows import Rows
from fields.neumadiff.statistics import SCALES
from fields.relighting.develop import auto_exposure, develop
from fields.relighting.environment import STUDIOS

SIZE = 64
"""Pixels of a picture, either way."""
_VIEWS, _AT_ONCE = 4, 100
"""Of each material, and materials that are in the same lights."""
_ROWS = 48
"""Of maps of the light: mirrors show it a pixel wide."""
_WHITE, _STOPS, _OFF = 0.8, 0.6, 0.3
"""How bright the bright side of a white ball is, by how many stops exposures vary, and how much of the light's colour the camera may leave, at the most."""
_LEAST = 16  # pixels of a photograph
_GREY = 0.5  # around what is opaque


# ------------------------------------------------------------------------------------ taken


def random_light(generator: torch.Generator) -> Light:
    """One to five lamps, from spots to soft boxes, in a room that is darker below; one in four is a studio that comes along."""
    kind = int(torch.randint(12, (1,), generator=generator))
    if kind == 0:
        return studio
    if kind < 1 + len(STUDIOS):
        turn = 360 * float(torch.rand(1, generator=generator))
        return light_of(list(STUDIOS.values())[kind - 1]().turned(turn))
    count = int(torch.randint(1, 6, (1,), generator=generator))
    # More of them above than below, and on the eye's side than behind.
    axes = torch.randn(count, 3, generator=generator) + torch.tensor([0.0, 0.5, 0.5])
    axes = torch.nn.functional.normalize(axes, dim=-1)
    sharp = 3 * 250 ** torch.rand(count, 1, generator=generator)
    power = 10 ** torch.rand(count, 1, generator=generator) * torch.exp(0.2 * torch.randn(count, 3, generator=generator))  # fmt: skip
    sky = (0.05 + torch.rand(1, 1, generator=generator)) * torch.exp(0.15 * torch.randn(1, 3, generator=generator))
    floor = sky * torch.rand(1, 1, generator=generator)

    def light(directions: Tensor) -> Tensor:
        lobes = torch.exp(sharp[:, 0] * (directions @ axes.T - 1))
        return torch.lerp(floor, sky, (directions[:, 1:2] + 0.5).clamp(0, 1)) + lobes @ (power * sharp / (2 * math.pi))

    return light


def taken(materials: Reflectance, lights: Sequence[Light], generator: torch.Generator) -> Tensor:
    """(M, L, SIZE, SIZE, 3) sRGB of M materials, on the scale "physical", before black: in every light one is on spheres, the next on knobs."""

    def beside_white(angles: Tensor) -> Tensor:
        return torch.cat([torch.full((1, len(angles), 3), 1 / math.pi), materials(angles)])

    lit = LitSpheres(beside_white, lambda directions: torch.cat([light(directions) for light in lights], 1), _ROWS)
    spheres, knobs = (picture(lit, shape, SIZE).unflatten(0, (len(lights), -1)) for shape in ("sphere", "knob"))  # type: ignore[arg-type]
    white = spheres[:, 0][:, ~(_outside()[0] > 0)]  # (L, P, 3)
    colour = white.mean(1) / white.mean((1, 2))[:, None]
    bright = (white / colour[:, None]).mean(-1).quantile(0.9, dim=1)
    on_knobs = torch.arange(spheres.shape[1] - 1) % 2 == torch.arange(len(lights))[:, None] % 2
    radiance = torch.where(on_knobs[..., None, None, None], knobs[:, 1:], spheres[:, 1:])
    left = _OFF * torch.rand(*on_knobs.shape, 1, generator=generator)
    stops = _STOPS * torch.randn(*on_knobs.shape, 1, generator=generator)
    exposed = _WHITE / bright[:, None, None] * 2**stops * colour[:, None] ** (left - 1)
    return develop(radiance * exposed[:, :, None, None]).transpose(0, 1)


@functools.cache
def _outside() -> Tensor:
    """(1, SIZE, SIZE): what part of each pixel sees none of the shape."""
    black = LitSpheres(lambda angles: torch.zeros(1, len(angles), 3), torch.ones_like, _ROWS)
    return picture(black, "sphere", SIZE, 1.0)[..., 0]


@dataclass
class Pictures:
    """Of R materials; those that differ in nothing but the order of their channels share them."""

    images: Tensor
    """(C, V, SIZE, SIZE, 3) uint8 sRGB, before black."""
    of: Tensor
    """(R,) which of these are a material's."""
    order: Tensor
    """(R, 3) which of their channels are its red, green and blue."""

    @property
    def views(self) -> int:
        """Of each material."""
        return self.images.shape[1]

    def __call__(self, which: Tensor, view: Tensor) -> Tensor:
        """(B, 3, SIZE, SIZE) in [0, 1] of materials and views (B,)."""
        seen = self.images[self.of[which], view].permute(0, 3, 1, 2)
        return seen[torch.arange(len(which))[:, None], self.order[which]].float() / 255

    def save(self, path: Path) -> None:
        write_tensors(path, {"images": self.images, "of": self.of, "order": self.order}, {})

    @classmethod
    def load(cls, path: Path) -> Pictures:
        tensors, _ = read_tensors(path)
        return cls(tensors["images"], tensors["of"], tensors["order"])


def pictures_of(rows: Rows, watch: Callable[[int, int], None]) -> Pictures:
    """Four views of every row."""
    weights, order = sorted_channels(rows.weights)
    unique, of = weights.unique(dim=0, return_inverse=True)
    networks, times = Networks(unique, rows.networks.dialect), SCALES["physical"] / SCALES[rows.scale]
    generator = torch.Generator().manual_seed(0)
    images = torch.empty(len(unique), _VIEWS, SIZE, SIZE, 3, dtype=torch.uint8)
    done = 0
    for some in torch.randperm(len(unique), generator=generator).split(_AT_ONCE):
        part = networks[some]
        lights = [random_light(generator) for _ in range(_VIEWS)]
        seen = taken(lambda angles, part=part: times * part(angles), lights, generator)  # type: ignore[misc]
        images[some] = (255 * seen).round().byte()
        done += len(some)
        watch(done, len(unique))
    return Pictures(images, of, order)


# ------------------------------------------------------------------------------------ looked at


def looked_at(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, SIZE, SIZE) before black, once more: turned, mirrored, moved, cut out, blurred, noisy, and before anything."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(len(images), *shape, generator=generator)

    # Backdrops are of one colour, that changes over them.
    shade = uniform(1, 1, 1) + 0.15 * (uniform(3, 1, 1) - 0.5) + 0.4 * uniform() [:, None, None, None] * (uniform(3, 3, 3) - 0.5)  # fmt: skip
    seen = images + _outside() * interpolate(shade, SIZE, mode="bilinear").clamp(0, 1)
    turn = 2 * math.pi * uniform()
    # A quarter shows part of the shape alone.
    size = torch.where(uniform() < 0.25, 0.4 + 0.4 * uniform(), 0.85 + 0.35 * uniform())
    cosine, sine = size * turn.cos(), size * turn.sin()
    mirrored = 1 - 2 * (uniform() < 0.5).float()
    moved = 0.2 * (uniform(2) - 0.5)
    places = torch.stack([torch.stack([cosine, -sine, moved[:, 0]], 1), torch.stack([mirrored * sine, mirrored * cosine, moved[:, 1]], 1)], 1)  # fmt: skip
    seen = grid_sample(seen, affine_grid(places, list(seen.shape), False), padding_mode="border", align_corners=False)
    soft = interpolate(avg_pool2d(seen, 2), SIZE, mode="bilinear")
    seen = torch.lerp(seen, soft, uniform(1, 1, 1).square())
    exposed = 2 ** (0.15 * torch.randn(len(images), 1, 1, 1, generator=generator) + 0.05 * torch.randn(len(images), 3, 1, 1, generator=generator))  # fmt: skip
    noise = 0.03 * uniform(1, 1, 1).square() * torch.randn(seen.shape, generator=generator)
    return (seen * exposed + noise).clamp(0, 1)


def photograph(path: Path) -> Tensor:
    """(3, S, S) sRGB of a picture of a material: of what is opaque in it, where it has an alpha channel, otherwise of the square in its middle.

    Raises:
        DataError: no such file, another kind of file, or a damaged one; it is less than 16 pixels wide or high, or transparent.
    """
    image = read_linear(path)
    if not has_eight_bits(path):
        # A picture of linear radiance is developed as a whole.
        image = torch.cat([develop(image[..., :3], auto_exposure(image[..., :3].flatten(0, 1))), image[..., 3:]], -1)
    return square(image, str(path))


def square(image: Tensor, name: str = "picture") -> Tensor:
    """(3, S, S) of an sRGB picture (H, W, 3), or with alpha (H, W, 4).

    Raises:
        DataError: as of `photograph`.
    """
    if image.shape[-1] == 4:
        opaque = image[..., 3] > 0.5
        if not opaque.any():
            raise DataError(f"{name}: all of it is transparent. Give a picture in which the material is opaque.")
        rows, columns = opaque.any(1).nonzero(), opaque.any(0).nonzero()
        image = torch.where(opaque[..., None], image[..., :3], _GREY)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]  # fmt: skip
        side = max(image.shape[:2])
    else:
        side = min(image.shape[:2])
    if side < _LEAST:
        raise DataError(f"{name}: {side} pixels of material; at least {_LEAST} are needed. Give a larger picture.")
    # Padding that is negative cuts off.
    (top, left), (height, width) = ((side - n) // 2 for n in image.shape[:2]), image.shape[:2]
    return pad(image.permute(2, 0, 1), (left, side - width - left, top, side - height - top), value=_GREY)
