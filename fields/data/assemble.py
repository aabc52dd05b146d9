"""From a reader's frames to a `Scene`: check, split, decode, choose the box."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch

from fields.data import gauge, validate
from fields.data.bounds import choose_bounds
from fields.data.cameras import Cameras
from fields.data.frames import Capture, Frame
from fields.data.images import ImageHeader, load_images, read_header
from fields.data.lenses import N_DISTORTION
from fields.data.scene import Scene, Split
from fields.errors import DataError


def split_frames(capture: Capture, test_every: int) -> tuple[list[Frame], list[Frame]]:
    """(train, test). Without a split in the files, every `test_every`-th image in order of name is a test image,
    the custom of LLFF and Mip-NeRF 360; 0 makes all of them training images."""
    if any(f.split is not None for f in capture.frames):
        return tuple([f for f in capture.frames if f.split == s] for s in ("train", "test"))  # type: ignore[return-value]
    frames = sorted(capture.frames, key=lambda f: f.name)
    if test_every <= 0 or len(frames) < 2:
        return frames, []
    return [f for i, f in enumerate(frames) if i % test_every], frames[::test_every]


def headers_of(frames: Sequence[Frame]) -> list[ImageHeader]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda f: read_header(f.image), frames))


def make_cameras(frames: Sequence[Frame], headers: Sequence[ImageHeader]) -> Cameras:
    """Cameras for the images at their size on disk."""
    n = len(frames)
    poses = torch.from_numpy(np.stack([f.pose for f in frames])) if n else torch.zeros(0, 4, 4)  # type: ignore[arg-type]
    numbers = [f.intrinsics.at_size(h.width, h.height) for f, h in zip(frames, headers, strict=True)]
    k = torch.tensor(numbers, dtype=torch.float64).view(n, 4)
    distortion = torch.zeros(n, N_DISTORTION)
    for i, f in enumerate(frames):
        distortion[i, : len(f.intrinsics.distortion)] = torch.tensor(f.intrinsics.distortion)
    return Cameras(
        poses, *k.unbind(-1),
        width=torch.tensor([h.width for h in headers], dtype=torch.int64),
        height=torch.tensor([h.height for h in headers], dtype=torch.int64),
        model=torch.tensor([int(f.intrinsics.lens) for f in frames], dtype=torch.int64),
        distortion=distortion,
    )  # fmt: skip


def load_split(capture: Capture, frames: Sequence[Frame], downscale: int) -> Split:
    headers = headers_of(frames)
    validate.raise_first(validate.size_problems(frames, headers))
    images = load_images(
        [f.image for f in frames], headers, downscale=downscale,
        masks=[f.mask for f in frames], mask_inverted=capture.mask_inverted, masks_are_alpha=capture.masks_are_alpha,
    )  # fmt: skip
    return Split(make_cameras(frames, headers).downscaled(downscale), images, [f.name for f in frames])


def assemble(
    capture: Capture,
    *,
    downscale: int = 1,
    test_every: int = 8,
    max_images: int | None = None,
    splits: Sequence[Literal["train", "test"]] = ("train", "test"),
) -> Scene:
    """See `fields.data.load_scene`."""
    if downscale < 1 or int(downscale) != downscale:
        raise DataError(f"downscale = {downscale}: images are reduced by whole factors.\nUse 1, 2, 4 or 8.")
    validate.raise_first(validate.frame_problems(capture))
    train, test = split_frames(capture, test_every)
    if not train:
        raise DataError(
            f"{capture.path}: no training images among {len(capture.frames)} frames.\nCheck the lists of file names that define the split."
        )
    # From all frames, whatever is loaded below, so that training and evaluation see one coordinate system.
    if capture.free_gauge:
        gauge.normalise(capture)
    chosen = {"train": train, "test": test}
    loaded = {
        name: load_split(capture, _thin(frames, max_images) if name in splits else [], int(downscale))
        for name, frames in chosen.items()
    }
    main = loaded["train"] if len(loaded["train"]) else loaded["test"]
    if not len(main):
        raise DataError(
            f"{capture.path}: no images in splits {tuple(splits)}.\nAsk for a split that the scene has, or use test_every."
        )
    alpha = main.images.channels == 4
    points = None if capture.points is None else torch.from_numpy(capture.points).float()
    bounds = choose_bounds(
        main.cameras,
        images=main.images,
        points=points,
        given=None if capture.aabb is None else torch.from_numpy(capture.aabb),
        given_note=capture.aabb_note,
        near_far=capture.near_far,
        blender=capture.format == "blender",
    )
    real = capture.real and not alpha
    return Scene(
        name=capture.path.resolve().name,
        path=capture.path,
        train=loaded["train"],
        test=loaded["test"],
        aabb=bounds.aabb,
        near=bounds.near,
        far=bounds.far,
        background="random" if real else "white",
        alpha=alpha,
        world_from_input=torch.from_numpy(capture.world_from_input),
        format=capture.format,
        real=real,
        points=points,
        notes=[*capture.notes, bounds.note],
    )


def _thin(frames: list[Frame], most: int | None) -> list[Frame]:
    """At most `most` frames, evenly spaced."""
    if most is None or len(frames) <= most:
        return frames
    return [frames[i] for i in np.linspace(0, len(frames) - 1, max(most, 1)).round().astype(int)]
