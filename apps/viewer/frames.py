"""One picture of a field: its tiles from the middle outwards, values to colours, and what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from fields.data.cameras import Cameras
from fields.data.scene import Split
from fields.io.images import to_bytes
from fields.outputs import Palette, Seen, outputs_of, see
from fields.radiance import Crop, RadianceField
from fields.rendering import Field

TILE = 128  # pixels: as many rays as keep all threads busy for some ten milliseconds


@dataclass(frozen=True)
class Eye:
    """What looks along rays."""

    output: str
    """One of `fields.outputs.OUTPUTS`."""
    look: Callable[[Tensor, Tensor, Tensor, Tensor], Seen]
    """Origins and directions (N, 3), viewing axis (3,) and background (3,) to what is seen there."""


@dataclass(frozen=True)
class View:
    """A pinhole of any size in pixels."""

    world_from_camera: Tensor
    """(4, 4), OpenGL axes."""
    fov: float
    """Vertical, radians."""
    aspect: float
    """Width over height."""

    @staticmethod
    def of(camera: Cameras) -> View:
        """What the first of these sees."""
        aspect = float(camera.width[0] / camera.height[0])
        return View(camera.world_from_camera[0].cpu(), float(camera.fov_y[0]), aspect)

    def camera(self, height: int) -> Cameras:
        width = max(1, round(height * self.aspect))
        focal = torch.tensor(height / 2 / math.tan(self.fov / 2))
        sizes = (torch.tensor(width / 2), torch.tensor(height / 2), torch.tensor(width), torch.tensor(height))
        return Cameras(self.world_from_camera[None], focal, focal, *sizes)


@dataclass(frozen=True)
class Style:
    """How a view is shown."""

    output: str = "rgb"
    colours: str = "turbo"
    span: tuple[float, float] | None = None
    """What the first and last colour of the map stand for; None: what there is to see."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    crop: Crop | None = None
    split: float = 1.0
    """The part of the width, from the left, that shows the run itself; the rest shows what it is compared with."""

    def palette(self) -> Palette | None:
        """What turns values into colours, where that needs no look at them."""
        if self.output in ("rgb", "normal"):
            return Palette(self.output)
        if self.output == "features" or (self.span is None and self.output != "opacity"):
            return None
        return Palette(self.output, *(self.span or (0.0, 1.0)), self.colours)


@dataclass(frozen=True)
class Frame:
    """A picture, perhaps with tiles that are still those of a coarser one."""

    colours: np.ndarray
    """(H, W, 3) uint8."""
    z: np.ndarray
    """(H, W) float32, distance along the viewing axis; infinite where there is nothing."""
    palette: Palette
    whole: bool


def draw(
    eyes: tuple[Eye, Eye | None], view: View, style: Style, height: int, palette: Palette | None = None,
    under: Frame | None = None, device: torch.device | str = "cpu",
) -> Generator[Frame | None, None, Frame]:  # fmt: skip
    """A picture, tile by tile: yields it as it is so far (None before it has colours), and returns it when it is whole.

    Args:
        eyes: what sees to the left of `style.split`, and what to the right.
        height: pixels.
        palette: that of a picture that this one refines. By default one that fits this picture, whose tiles then stay in
            memory as values until the last one is there.
        under: a coarser picture, shown where no tile is yet.
    """
    camera = view.camera(height)
    width = int(camera.width)
    background = torch.tensor(style.background, device=device)
    axis = camera.forward[0].to(device)
    middle = width if eyes[1] is None else round(style.split * width)
    tiles = [*_tiles(0, middle, height, eyes[0]), *_tiles(middle, width, height, eyes[1])]
    tiles.sort(key=lambda tile: math.hypot(tile.x + tile.w / 2 - width / 2, tile.y + tile.h / 2 - height / 2))
    colours, z = _enlarged(under, width, height)
    kept: list[tuple[_Tile, Seen]] = []

    def paint(tile: _Tile, seen: Seen, palette: Palette) -> None:
        fitting = palette if tile.eye.output == palette.output else Palette(tile.eye.output)
        colours[tile.place] = to_bytes(fitting(seen, background).view(tile.h, tile.w, 3))

    for tile in tiles:
        origins, directions = tile.rays(camera, device)
        seen = tile.eye.look(origins, directions, axis, background)
        z[tile.place] = (seen.distance * (directions @ axis)).view(tile.h, tile.w).cpu().numpy()
        if palette is None:
            kept.append((tile, seen))
            yield None
        else:
            paint(tile, seen, palette)
            yield Frame(colours, z, palette, whole=False)
    if palette is None:
        palette = _fitting(style, [seen for tile, seen in kept if tile.eye.output == style.output])
        for tile, seen in kept:
            paint(tile, seen, palette)
    return Frame(colours, z, palette, whole=True)


@dataclass(frozen=True)
class _Tile:
    eye: Eye
    x: int
    y: int
    w: int
    h: int

    @property
    def place(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.h), slice(self.x, self.x + self.w)

    def rays(self, camera: Cameras, device: torch.device | str) -> tuple[Tensor, Tensor]:
        rows, columns = (torch.arange(n) + (first + 0.5) for first, n in ((self.y, self.h), (self.x, self.w)))
        spots = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).view(-1, 2)
        origins, directions = camera.rays(torch.zeros(len(spots), dtype=torch.int64), spots)
        return origins.to(device), directions.to(device)


def _tiles(left: int, right: int, height: int, eye: Eye | None) -> Iterator[_Tile]:
    """Tiles that fill the columns from left to right."""
    if eye is not None:
        for y in range(0, height, TILE):
            for x in range(left, right, TILE):
                yield _Tile(eye, x, y, min(TILE, right - x), min(TILE, height - y))


def _fitting(style: Style, parts: list[Seen]) -> Palette:
    """One that suits what is seen."""
    if not parts:
        return Palette("rgb")
    together = Seen(*(torch.cat([getattr(p, name) for p in parts]) for name in ("value", "opacity", "distance")))
    return Palette.fit(style.output, together, style.colours)


def _enlarged(under: Frame | None, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours and z to draw over."""
    if under is None:
        return np.full((height, width, 3), 255, np.uint8), np.full((height, width), np.inf, np.float32)
    h, w = under.z.shape
    rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
    return under.colours[rows[:, None], columns], under.z[rows[:, None], columns]


# ---------------------------------------------------------------------------------------- eyes


def field_eye(field: Field, style: Style) -> Eye:
    """Sees a field; its colour where it has no such output."""
    output = style.output if style.output in outputs_of(field) else "rgb"

    def look(origins: Tensor, directions: Tensor, axis: Tensor, background: Tensor) -> Seen:
        if not isinstance(field, RadianceField):
            return see(field, output, origins, directions, axis, background)
        with field.cropped(style.crop):
            return see(field, output, origins, directions, axis, background)

    return Eye(output, look)


@lru_cache(maxsize=2)
def photograph_eye(photographs: Split, index: int) -> Eye:
    """Sees what camera `index` saw, from where it stood: exact for any lens and any turn of the head."""
    camera = photographs.cameras[index]
    size = torch.stack([camera.width, camera.height], -1)
    image = photographs.images.image(index).float() / 255
    alpha = image[..., 3:] if image.shape[-1] == 4 else torch.ones_like(image[..., :1])
    layers = torch.cat([image[..., :3] * alpha, alpha], -1).permute(2, 0, 1)[None]

    def look(origins: Tensor, directions: Tensor, axis: Tensor, background: Tensor) -> Seen:
        first = torch.zeros(len(origins), dtype=torch.int64)
        spots, _ = camera.project(first, camera.centres + directions.cpu())
        inside = (spots.isfinite() & (spots >= 0) & (spots < size)).all(-1)
        at = torch.where(inside[:, None], spots, 0.0) * 2 / size - 1
        values = grid_sample(layers, at[None, None], mode="bilinear", padding_mode="border", align_corners=False)
        colour, opacity = (values[0, :, 0].mT * inside[:, None]).to(origins.device).split([3, 1], -1)
        nowhere = torch.full_like(origins[:, 0], torch.inf)
        return Seen(colour + (1 - opacity) * background, opacity[:, 0], nowhere)

    return Eye("rgb", look)


def nearest_photograph(photographs: Split, view: View, reach: float) -> int | None:
    """The one that was taken from where the view is, within `reach`, and most nearly in its direction."""
    away = (photographs.cameras.centres - view.world_from_camera[:3, 3]).norm(dim=-1)
    turned = photographs.cameras.forward @ view.world_from_camera[:3, 2]  # −1 where they look the same way
    there = (away <= reach).nonzero()[:, 0]
    return int(there[turned[there].argmin()]) if len(there) else None
