"""A video of an articulated object: frames, cameras relative to the part that stands still, and optical flow.

Cameras and images are in any layout of `fields.data` whose frames are named in the order of time. Optical flow lies
beside them in flow/fw_1, flow/bw_1, flow/fw_2 …, from each frame to that so many frames later or earlier, as KITTI's PNG.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from fields.data import read_capture
from fields.data.assemble import assemble
from fields.data.bounds import near_far_of, nearest_to_lines
from fields.data.scene import Scene, Split
from fields.errors import DataError
from fields.reacto.flow import estimate_flow, read_flow

_OBJECT = 127  # alpha above which a pixel is of the object
_FEWEST = 4  # frames
_STILL = 1e-6  # scene units, that cameras which do not move are apart
_GAPS = (1, 2, 4)  # frames apart, that flow is estimated between
_AGAIN = 0.25  # of a frame's object, at least, is found in the next one: in pictures from all sides it is up to 0.13, in videos 0.55 to 0.9


@dataclass(eq=False)
class Flow:
    """From one training frame to another."""

    first: int
    """Indices into the training frames."""
    second: int
    moved: Tensor
    """(H, W, 2) pixels."""
    known: Tensor
    """(H, W) bool."""


@dataclass(eq=False)
class VideoScene(Scene):
    """A scene whose images are of different moments."""

    times: Tensor = None  # type: ignore[assignment]
    """(N,) float32 of the training images."""
    test_times: Tensor = None  # type: ignore[assignment]
    """Of those held out."""
    flows: list[Flow] = None  # type: ignore[assignment]

    def to(self, device: torch.device | str) -> VideoScene:
        moved = cast(VideoScene, super().to(device))
        flows = [replace(f, moved=f.moved.to(device), known=f.known.to(device)) for f in self.flows]
        return replace(moved, times=self.times.to(device), test_times=self.test_times.to(device), flows=flows)


def load_scene(path: str | Path, *, format: str = "auto", downscale: int = 1) -> VideoScene:
    """Reads a video, of any layout that `fields.data` knows.

    Raises:
        DataError: naming the file and what to do, for anything wrong with it.
    """
    if downscale != 1:
        raise DataError(f"{path}: a video is used at its own size, as its optical flow is; leave out --downscale.")
    capture = read_capture(path, format)
    capture.masks_are_alpha, capture.real = True, False
    order = {f.name: k for k, f in enumerate(sorted(capture.frames, key=lambda f: Path(f.name).stem))}
    scene = assemble(capture)
    if len(scene.train) < _FEWEST:
        raise DataError(f"{path}: {len(scene.train)} frames to learn from. Motion is seen in {_FEWEST} or more.")
    if not scene.alpha:
        raise DataError(
            f"{path}: nothing says which pixels show the object. Give images with alpha, or a mask_path for each frame."
        )
    splits = []
    for split in (scene.train, scene.test):  # in the order of time
        splits.append(
            split.select(sorted(range(len(split)), key=lambda i: order[split.names[i]])) if len(split) else split
        )
    train, test = splits
    for i, name in enumerate(train.names):
        if not bool((train.images.image(i)[..., 3] > _OBJECT).any()):
            raise DataError(f"{path}: the mask of {name} is empty. Remove the frame, or mask the object in it.")
    places = train.cameras.centres
    if float((places - places.mean(0)).norm(dim=-1).max()) < _STILL:
        raise DataError(
            f"{path}: all cameras are at one place, from which no depth is seen. Give cameras relative to the part that stands still."
        )
    aabb = box_of(train)
    near, far = near_far_of(train.cameras, aabb.double(), None, None)
    flows = read_flows(Path(path), train, order)
    notes = [note for note in scene.notes if not note.startswith("box")]
    notes.append(f"{len(flows)} fields of optical flow" if flows else "no optical flow beside the frames")
    known = {
        k: getattr(scene, k) for k in ("name", "path", "background", "alpha", "world_from_input", "format", "real")
    }
    return VideoScene(
        **known, train=train, test=test, aabb=aabb, near=near, far=far, notes=notes, flows=flows,
        times=torch.tensor([float(order[n]) for n in train.names]), test_times=torch.tensor([float(order[n]) for n in test.names]),
    )  # fmt: skip


def box_of(split: Split) -> Tensor:
    """(2, 3) around whatever the masks show, about where their middles are seen: a hull will not do, for what moves is nowhere all the time."""
    shown = []
    for i in range(len(split)):
        row, column = (split.images.image(i)[..., 3] > _OBJECT).nonzero().unbind(-1)
        shown.append(torch.stack([column, row], -1) + 0.5)
    origins, directions = split.cameras.rays(
        torch.arange(len(split), device=shown[0].device), torch.stack([xy.mean(0) for xy in shown])
    )
    centre, _ = nearest_to_lines(origins, directions)
    reach = []
    for i, xy in enumerate(shown):
        origins, directions = split.cameras.rays(torch.full_like(xy[:, 0], i, dtype=torch.long), xy)
        away = centre - origins
        reach.append(torch.linalg.cross(away, directions).norm(dim=-1).max())
    radius = 1.05 * torch.stack(reach).max()
    return torch.stack([centre - radius, centre + radius])


def read_flows(folder: Path, train: Split, order: dict[str, int]) -> list[Flow]:
    """All there are between training frames; `order` is that of all frames in time, by name."""
    place = {order[name]: i for i, name in enumerate(train.names)}
    flows = []
    for way in sorted((folder / "flow").glob("[fb]w_*")):
        try:
            gap = int(way.name[3:]) * (1 if way.name[0] == "f" else -1)
        except ValueError:
            raise DataError(f"{way}: flow lies in fw_1, bw_1, fw_2 and so on. Rename or remove this folder.") from None
        for moment, i in place.items():
            file = way / f"{Path(train.names[i]).stem}.png"
            if not file.is_file() or moment + gap not in place:
                continue
            moved, known = read_flow(file)
            size = int(train.images.height[i]), int(train.images.width[i])
            if moved.shape[:2] != size:
                raise DataError(
                    f"{file}: {moved.shape[1]} × {moved.shape[0]} pixels of flow, but its frame has {size[1]} × {size[0]}."
                )
            flows.append(
                Flow(i, place[moment + gap], torch.from_numpy(moved), torch.from_numpy(np.ascontiguousarray(known)))
            )
    return flows


def estimated_flows(scene: VideoScene) -> list[Flow]:
    """Between training frames, of the pictures themselves; see `fields.reacto.flow.estimate_flow`.

    Raises:
        DataError: next to nothing of a frame is seen again in the next.
    """
    images = [scene.train.images.image(i).cpu().numpy() for i in range(len(scene.train))]
    device, flows = scene.aabb.device, []
    for gap in _GAPS:
        for i in range(len(images) - gap):
            if images[i].shape != images[i + gap].shape:
                continue
            both = estimate_flow(images[i], images[i + gap])
            for (first, second), (moved, known) in zip(((i, i + gap), (i + gap, i)), both, strict=True):
                flows.append(
                    Flow(first, second, torch.from_numpy(moved).to(device), torch.from_numpy(known).to(device))
                )
    again = [float(f.known[scene.train.images.image(f.first)[..., 3] > _OBJECT].float().mean()) for f in flows
             if abs(f.second - f.first) == 1]  # fmt: skip
    if not again or float(np.median(again)) < _AGAIN:
        raise DataError(
            f"{scene.path}: what one frame shows is not found in the next. A video has frames in the order of time, whose names say it; of pictures from "
            "all sides no motion can be learned."
        )
    return flows
