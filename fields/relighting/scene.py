"""Photographs of one object under many lights, grouped by camera: what relighting is learned from."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from fields.data import validate
from fields.data.assemble import make_cameras
from fields.data.bounds import choose_bounds
from fields.data.cameras import Cameras
from fields.data.frames import Capture, Frame
from fields.data.images import ImageHeader, ImageStore
from fields.data.scene import Scene, Split
from fields.errors import DataError
from fields.io.hdr import decode_srgb, encode_srgb, has_eight_bits, read_linear, read_vectors
from fields.relighting.lights import Light

_INTEGERS = (".png", ".jpg", ".jpeg")  # such pictures end at white, and their alpha is straight


@dataclass(frozen=True)
class LitFrame:
    """One photograph: where it was taken from, and the light it was taken in."""

    frame: Frame
    light: Light
    group: str = ""
    """What it is held out for; empty for training."""
    srgb: bool = False
    """Whether its numbers are sRGB-encoded."""
    normals: Path | None = None
    """True normals of its pixels, in the axes of the file's world, where they are known: to measure by."""


@dataclass
class LitCapture:
    """What a reader hands over."""

    capture: Capture
    """Of which the frames are those of `photographs`."""
    photographs: list[LitFrame]


@dataclass(eq=False)
class Photographs:
    """All photographs of a split: V cameras, L lights, and of every camera's covered pixels all its photographs' radiances."""

    cameras: Cameras
    """(V,)."""
    lights: list[Light]
    """(L,)."""
    slots: Tensor
    """(V, J) int64: the light of each camera's photographs; −1 where it has fewer than J."""
    names: list[list[str]]
    """Of each camera's photographs."""
    groups: list[list[str]]
    """See `LitFrame`."""
    normals: list[Tensor | None]
    """(H, W, 3) of each camera where they are known: true normals, unit, scene axes; zero where there is no surface."""
    coverage: ImageStore
    """One channel of 8 bits: how much of each pixel the object covers."""
    view: Tensor
    """(M,) int64, the camera of each covered pixel."""
    pixel: Tensor
    """(M,) int64, its place in the image, row by row."""
    radiance: Tensor
    """(M, J, 3) half: linear, over black; NaN where a photograph does not say (it is clipped, or there is none)."""

    def __len__(self) -> int:
        return len(self.cameras)

    @property
    def device(self) -> torch.device:
        return self.radiance.device

    def to(self, device: torch.device | str) -> Photographs:
        moved = {k: getattr(self, k).to(device) for k in ("cameras", "slots", "coverage", "view", "pixel", "radiance")}
        return replace(self, **moved)

    def select(self, which: Sequence[int]) -> Photographs:
        """Those of some cameras, in this order."""
        rows = torch.cat([(self.view == i).nonzero()[:, 0] for i in which])
        place = torch.full((len(self),), -1, device=self.device)
        place[list(which)] = torch.arange(len(which), device=self.device)
        return replace(
            self, cameras=self.cameras[list(which)], slots=self.slots[list(which)],
            names=[self.names[i] for i in which], groups=[self.groups[i] for i in which],
            normals=[self.normals[i] for i in which],
            coverage=self.coverage.select(list(which)), view=place[self.view[rows]], pixel=self.pixel[rows],
            radiance=self.radiance[rows],
        )  # fmt: skip

    def image(self, view: int, slot: int) -> tuple[Tensor, Tensor]:
        """A photograph (H, W, 3), linear over black, NaN where it does not say; and the coverage (H, W) in [0, 1]."""
        coverage = self.coverage.image(view)[..., 0].float() / 255
        image = torch.zeros(coverage.numel(), 3, device=self.device)
        rows = (self.view == view).nonzero()[:, 0]
        image[self.pixel[rows]] = self.radiance[rows, slot].float()
        return image.view(*coverage.shape, 3), coverage

    def covered(self, rows: Tensor) -> Tensor:
        """(N,) in [0, 1]: how much of each of these covered pixels the object covers."""
        return self.coverage.data[self.coverage.offsets[self.view[rows]] + self.pixel[rows], 0].float() / 255

    def means(self) -> Tensor:
        """(M, 3): the mean over each camera's lights, as if all of them were on."""
        return self.radiance.float().nanmean(1).nan_to_num()


@dataclass(eq=False)
class LitScene(Scene):
    """A scene whose ordinary images are the means over the lights; beside them, every photograph."""

    exposure: float = 1.0
    """What brings the mean images to a brightness to look at."""
    photographs: Photographs = None  # type: ignore[assignment]
    """To learn from."""
    held_out: Photographs = None  # type: ignore[assignment]
    """To measure on."""

    def to(self, device: torch.device | str) -> LitScene:
        moved = cast(LitScene, super().to(device))
        return replace(moved, photographs=self.photographs.to(device), held_out=self.held_out.to(device))

    def with_views(self, count: int) -> LitScene:
        fewer = cast(LitScene, super().with_views(count))
        which = [self.train.names.index(name) for name in fewer.train.names]
        return replace(fewer, photographs=self.photographs.select(which))


def load_scene(path: str | Path, *, format: str = "auto", downscale: int = 1) -> LitScene:
    """Reads photographs under many lights, of any known layout.

    Raises:
        DataError: naming the file and what to do, for anything wrong with it.
    """
    from fields.relighting.layouts import read

    if downscale != 1:
        raise DataError(f"{path}: photographs under many lights are used at their own size; leave out --downscale.")
    return assemble(read(Path(path), format))


def assemble(lit: LitCapture) -> LitScene:
    """From a reader's photographs to a scene: check, group by camera, decode, choose the box."""
    capture = lit.capture
    validate.raise_first(validate.frame_problems(capture))
    train = [p for p in lit.photographs if not p.group]
    test = [p for p in lit.photographs if p.group]
    if not train:
        raise DataError(f"{capture.path}: no photographs to train on among {len(lit.photographs)}.")
    axes = torch.from_numpy(capture.world_from_input)[:3, :3]
    photographs, held_out = _photographs(train, axes), _photographs(test, axes, like=train)
    means, exposure = _mean_images(photographs)
    bounds = choose_bounds(
        photographs.cameras, images=means,
        given=None if capture.aabb is None else torch.from_numpy(capture.aabb), given_note=capture.aabb_note,
    )  # fmt: skip
    lights = {light for light in photographs.lights}
    notes = [
        *capture.notes,
        f"{sum(map(len, photographs.names))} photographs from {len(photographs)} cameras under {len(lights)} lights",
        bounds.note,
    ]
    return LitScene(
        name=capture.path.resolve().name, path=capture.path,
        train=Split(photographs.cameras, means, [names[0] for names in photographs.names]),
        test=Split(held_out.cameras, _mean_images(held_out, exposure)[0], [names[0] for names in held_out.names]),
        aabb=bounds.aabb, near=bounds.near, far=bounds.far, background="black", alpha=True,
        world_from_input=torch.from_numpy(capture.world_from_input), format=capture.format, real=False, notes=notes,
        exposure=exposure, photographs=photographs, held_out=held_out,
    )  # fmt: skip


def _photographs(taken: list[LitFrame], axes: Tensor, like: Sequence[LitFrame] = ()) -> Photographs:
    """Groups photographs by camera and reads them. Where there are none, the empty set, with cameras as those of `like`."""
    by_camera: dict[bytes, list[LitFrame]] = {}
    for one in taken:
        by_camera.setdefault(_camera_key(one.frame), []).append(one)
    groups = list(by_camera.values())
    place: dict[Light, int] = {}
    for one in taken:
        place.setdefault(one.light, len(place))
    most = max(map(len, groups), default=1)
    slots = torch.full((len(groups), most), -1)
    for v, group in enumerate(groups):
        slots[v, : len(group)] = torch.tensor([place[one.light] for one in group])
    with ThreadPoolExecutor(4) as pool:
        views = list(pool.map(_read_view, groups))
    firsts = [group[0].frame for group in groups]
    headers = [ImageHeader(c.shape[1], c.shape[0], True, False) for c, _ in views]
    validate.raise_first(validate.size_problems(firsts, headers))
    sizes = torch.tensor([c.shape for c, _ in views], dtype=torch.long).view(-1, 2)
    coverage = [c.view(-1, 1) for c, _ in views]
    counts = sizes.prod(1)
    store = ImageStore(torch.cat(coverage) if coverage else torch.zeros(0, 1, dtype=torch.uint8), counts.cumsum(0) - counts,
                       sizes[:, 1].contiguous(), sizes[:, 0].contiguous())  # fmt: skip
    covered = [(c[:, 0] > 0).nonzero()[:, 0] for c in coverage]
    radiance = []
    for _, images in views:
        values = torch.full((images.shape[1], most, 3), torch.nan, dtype=torch.float16)
        values[:, : len(images)] = images.transpose(0, 1)
        radiance.append(values)
    return Photographs(
        make_cameras(firsts, headers), list(place), slots, [[one.frame.name for one in g] for g in groups],
        [[one.group for one in g] for g in groups],
        [_normals(g[0], axes, c) for g, (c, _) in zip(groups, views, strict=True)], store,
        torch.cat([torch.full_like(rows, v) for v, rows in enumerate(covered)]) if covered else torch.zeros(0, dtype=torch.long),
        torch.cat(covered) if covered else torch.zeros(0, dtype=torch.long),
        torch.cat(radiance) if radiance else torch.zeros(0, 1, 3, dtype=torch.float16),
    )  # fmt: skip


def _normals(one: LitFrame, axes: Tensor, coverage: Tensor) -> Tensor | None:
    if one.normals is None:
        return None
    normals = read_vectors(one.normals)
    if normals.shape[:2] != coverage.shape:
        raise DataError(
            f"{one.normals}: {normals.shape[1]} × {normals.shape[0]} normals, but {one.frame.image.name} has {coverage.shape[1]} × "
            f"{coverage.shape[0]} pixels."
        )
    return torch.nn.functional.normalize(normals @ axes.T.to(normals), dim=-1)


def _camera_key(frame: Frame) -> bytes:
    assert frame.pose is not None
    return (np.round(frame.pose, 6) + 0.0).tobytes() + repr(frame.intrinsics).encode()  # no −0


def _read_view(group: list[LitFrame]) -> tuple[Tensor, Tensor]:
    """Coverage (H, W) of a camera in 8 bits, and of the N pixels that have some its photographs (J, N, 3) half, NaN where they
    are clipped: what is beside the object is never kept."""
    coverage: Tensor | None = None
    images: list[Tensor] = []
    for one in group:
        image = read_linear(one.frame.image)
        colour = image[..., :3]
        if coverage is not None and colour.shape[:2] != coverage.shape:
            raise DataError(
                f"{one.frame.image}: {colour.shape[1]} × {colour.shape[0]} pixels, but {group[0].frame.image.name} of the same camera "
                f"has {coverage.shape[1]} × {coverage.shape[0]}. Photographs from one camera have one size."
            )
        if coverage is None:
            coverage = (_coverage(one.frame, image).clamp(0, 1) * 255).round().to(torch.uint8)
            covered = coverage > 0
        if one.frame.image.suffix.lower() in _INTEGERS:
            step = 1 / (255 if has_eight_bits(one.frame.image) else 65_535)
            clipped = (colour > 1 - step / 2).any(-1, keepdim=True)
            colour = torch.where(clipped, torch.nan, decode_srgb(colour) if one.srgb else colour)
            if image.shape[-1] == 4:
                colour = colour * image[..., 3:]  # PNG alpha is straight
        images.append(colour.clamp(max=65504).half()[covered])
    assert coverage is not None
    return coverage, torch.stack(images)


def _coverage(frame: Frame, image: Tensor) -> Tensor:
    if frame.mask is not None:
        mask = read_linear(frame.mask.path)[..., 0]
        if mask.shape != image.shape[:2]:
            raise DataError(
                f"{frame.mask.path}: {mask.shape[1]} × {mask.shape[0]} pixels, its image has {image.shape[1]} × {image.shape[0]}."
            )
        return 1 - mask if frame.mask.inverted else mask
    if image.shape[-1] == 4:
        return image[..., 3]
    raise DataError(
        f"{frame.image}: nothing says which pixels show the object. Give images with alpha, or a mask_path for each."
    )


def _mean_images(photographs: Photographs, exposure: float | None = None) -> tuple[ImageStore, float]:
    """What ordinary methods, and people, are shown: the means over the lights, 8-bit sRGB with straight alpha."""
    means = photographs.means()
    if exposure is None:
        exposure = 0.9 / max(float(means.max(-1).values.quantile(0.99)) if 0 < len(means) < 2**24 else 1.0, 1e-9)
    store = photographs.coverage
    data = torch.zeros(len(store.data), 4, dtype=torch.uint8, device=store.device)
    data[:, 3] = store.data[:, 0]
    rows = store.offsets[photographs.view] + photographs.pixel
    straight = means / (data[rows, 3:].float() / 255)
    data[rows, :3] = (encode_srgb(exposure * straight) * 255).round().to(torch.uint8)
    return ImageStore(data, store.offsets, store.width, store.height), exposure
