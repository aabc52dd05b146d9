"""From a reader's frames to a `Scene`: check, split, decode, choose the box."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
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
from fields.io.reading import reading

_ANEW = "Estimate the cameras again."


def split_frames(capture: Capture, test_every: int) -> tuple[list[Frame], list[Frame]]:
    """(train, test). Without a split in the files, every `test_every`-th image in order of name is a test
    image, the custom of LLFF and Mip-NeRF 360; 0 makes all of them training images."""
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
    poses = torch.from_numpy(np.stack([f.pose for f in frames if f.pose is not None])) if n else torch.zeros(0, 4, 4)  # type: ignore[arg-type]
    numbers = [f.intrinsics.at_size(h.width, h.height) for f, h in zip(frames, headers, strict=True)]
    fx, fy, cx, cy = torch.tensor(numbers, dtype=torch.float64).view(n, 4).unbind(-1)
    distortion = torch.zeros(n, N_DISTORTION)
    for i, f in enumerate(frames):
        distortion[i, : len(f.intrinsics.distortion)] = torch.tensor(f.intrinsics.distortion)
    return Cameras(
        poses, fx, fy, cx, cy,
        width=torch.tensor([h.width for h in headers], dtype=torch.int64),
        height=torch.tensor([h.height for h in headers], dtype=torch.int64),
        model=torch.tensor([int(f.intrinsics.lens) for f in frames], dtype=torch.int64),
        distortion=distortion,
    )  # fmt: skip


def load_splits(capture: Capture, chosen: dict[str, list[Frame]], downscale: int) -> dict[str, Split]:
    """Decode the chosen frames. Sizes are compared across splits, for one lens may have to serve them all."""
    frames = [f for some in chosen.values() for f in some]
    reduced = _reduced_copies(frames, capture.image_folder, downscale)
    if reduced is not None:
        frames, downscale = reduced, 1
    headers = headers_of(frames)
    validate.raise_first(validate.size_problems(frames, headers))
    splits, start = {}, 0
    for name, some in chosen.items():
        part = slice(start, start + len(some))
        start = part.stop
        images = load_images(
            [f.image for f in frames[part]], headers[part], downscale=downscale,
            masks=[f.mask for f in frames[part]], masks_are_alpha=capture.masks_are_alpha,
        )  # fmt: skip
        cameras = make_cameras(frames[part], headers[part]).downscaled(downscale)
        splits[name] = Split(cameras, images, [f.name for f in frames[part]])
    return splits


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
            f"{capture.path}: no training images among {len(capture.frames)} frames.\n"
            "Check the lists of file names that define the split."
        )
    # From all frames, whatever is loaded below, so that training and evaluation see one coordinate system.
    if capture.free_gauge:
        with reading(capture.path, "a scene whose cameras have a middle and a size", _ANEW):
            gauge.normalise(capture)
    chosen = {"train": train, "test": test}
    wanted = {k: _thin(frames, max_images) if k in splits else [] for k, frames in chosen.items()}
    loaded = load_splits(capture, wanted, int(downscale))
    main = loaded["train"] if len(loaded["train"]) else loaded["test"]
    if not len(main):
        raise DataError(
            f"{capture.path}: no images in splits {tuple(splits)}.\n"
            "Ask for a split that the scene has, or use test_every."
        )
    alpha = main.images.channels == 4
    points = None if capture.points is None else torch.from_numpy(capture.points).float()
    with reading(capture.path, "a scene whose cameras have a box before them", _ANEW):
        bounds = choose_bounds(
            main.cameras,
            images=main.images,
            points=points,
            given=None if capture.aabb is None else torch.from_numpy(capture.aabb),
            given_note=capture.aabb_note,
            depth_ranges=_depth_ranges(main, chosen),
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


def _depth_ranges(split: Split, chosen: dict[str, list[Frame]]) -> torch.Tensor | None:
    """(N, 2) for the split's cameras, if the format has depth ranges."""
    ranges = {f.name: f.depth_range for frames in chosen.values() for f in frames}
    picked = [ranges[name] for name in split.names]
    return torch.tensor(picked) if all(r is not None for r in picked) else None


def _reduced_copies(frames: Sequence[Frame], folder: Path | None, downscale: int) -> list[Frame] | None:
    """The frames with their images from `images_4` or the like, if all of them are there."""
    if folder is None or downscale == 1:
        return None
    if any(f.intrinsics.depends_on_image_size for f in frames):  # the full image's size is what gives them meaning
        return None
    smaller = folder.with_name(f"{folder.name}_{downscale}")
    if not smaller.is_dir():
        return None
    # Matched by path without extension: reduced copies of a JPEG are often PNG.
    there = {p.relative_to(smaller).with_suffix(""): p for p in smaller.rglob("*") if p.is_file()}
    try:
        found = [there.get(f.image.relative_to(folder).with_suffix("")) for f in frames]
    except ValueError:  # an image from elsewhere
        return None
    return [replace(f, image=p) for f, p in zip(frames, found, strict=True) if p] if all(found) else None


def _thin(frames: list[Frame], most: int | None) -> list[Frame]:
    """At most `most` frames, evenly spaced."""
    if most is None or len(frames) <= most:
        return frames
    return [frames[i] for i in np.linspace(0, len(frames) - 1, max(most, 1)).round().astype(int)]
