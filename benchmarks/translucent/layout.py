"""How a set lies in its folder: pictures, what was in front of which camera and in what light, and how noisy they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fields.benchmarks.translucent.cameras import FIELD_OF_VIEW, Cameras, camera_to_world
from torch import Tensor

from fields.io.atomic import write_atomically
from fields.io.hdr import encode_srgb, read_linear, write_exr
from fields.io.images import side_by_side, write_image
from fields.relighting.evaluation import INSIDE, score

TRAIN = "train"

_README = """\
Path-traced pictures of one object ({shape}, {material}) from known cameras, each in one known light: a benchmark for relighting.
`transforms_train.json` and `transforms_test.json` list them, with camera-to-world matrices (OpenGL axes, world +Y up) and the light
of each: the direction towards it and the irradiance on a plane that faces it, or an equirectangular map. "set" says what a test
picture is held out for. Pictures are linear, half floats, premultiplied over black; alpha is coverage.
`surface.ply` is the true surface; `normals/` are its normals (signed, world axes) as the held-out cameras see them.
`noise.json` says how noisy the truth is: the PSNR in dB of the noiseless truth against a picture, for each kind of them, measured in
the foreground, exposed so that its 99th percentile is 1, clamped, sRGB-encoded. Predictions that come near it cannot be told apart.
{note}
Made by `python -m fields.benchmarks.translucent OUT {options}`.
CC0 1.0: dedicated to the public domain.
"""


@dataclass(frozen=True)
class Picture:
    file: str
    """In the folder of the set."""
    camera: int
    light: dict[str, Any]
    """As frames have it."""
    group: str
    """`TRAIN`, or what it is held out for."""

    @property
    def kind(self) -> str:
        """Which pictures are about as noisy: those in one map, or in any single light."""
        return f"map/{Path(self.light['file']).stem}" if self.group == "map" else self.group


def write_picture(path: Path, image: np.ndarray, coverage: np.ndarray) -> None:
    """Of linear (H, W, 3), premultiplied, and (H, W)."""
    write_exr(path, {"": torch.from_numpy(np.concatenate([image, coverage[..., None]], -1)).float()})


def noise_floor(image: np.ndarray, other: np.ndarray, coverage: np.ndarray, variance: float) -> float:
    """PSNR (dB) of the noiseless truth against a picture, from the difference of two (H, W, 3) with independent noise.

    The metric is the one that relighting reports: foreground, exposed by the 99th percentile, sRGB.

    Args:
        variance: of that difference, over that of the picture: 2 of two such pictures, 4 of the halves that it is the mean of.
    """
    one, two, inside = (torch.from_numpy(v).float() for v in (image, other, coverage))
    return score(two, one, inside)[0]["psnr"] + 10 * math.log10(variance)


def write_transforms(out: Path, cameras: Cameras, pictures: Iterable[Picture]) -> None:
    """transforms_train.json and transforms_test.json, a frame a line."""
    frames: dict[str, list[str]] = {"train": [], "test": []}
    for picture in pictures:
        pose = np.round(camera_to_world(cameras.eyes[picture.camera]), 9).tolist()
        frame = {"file_path": picture.file, "transform_matrix": pose, "light": picture.light}
        if picture.group == TRAIN:
            frames["train"].append(json.dumps(frame))
        else:
            frame |= {"normal_path": f"normals/c{picture.camera:02d}.exr", "set": picture.group}
            frames["test"].append(json.dumps(frame))
    head = {"camera_angle_x": np.radians(FIELD_OF_VIEW), "w": cameras.pixels, "h": cameras.pixels, "color_space": "linear",
            "light_unit": "irradiance"}  # fmt: skip
    for split, lines in frames.items():
        text = json.dumps(head)[:-1] + ', "frames": [\n' + ",\n".join(lines) + "\n]}\n"
        write_atomically(out / f"transforms_{split}.json", lambda file, text=text: file.write_text(text))


def write_readme(out: Path, note: str, recipe: dict[str, str]) -> None:
    options = " ".join(f"--{k} {v}" for k, v in recipe.items())
    text = _README.format(note=note, options=options, **recipe)
    write_atomically(out / "README.md", lambda file: file.write_text(text))


def write_overview(out: Path, pictures: list[Picture], rows: int = 3, columns: int = 7) -> None:
    """overview.png: some cameras in some lights, a camera a row; those to learn from above those held out."""
    sheet = []
    for learned in (True, False):
        some = [p for p in pictures if (p.group == TRAIN) == learned and p.group != "seen-cameras"]
        for camera in _spread(sorted({p.camera for p in some}), rows):
            maps = [p for p in some if p.camera == camera and p.group == "map"]
            singles = [p for p in some if p.camera == camera and p.group != "map"]
            tiles = _developed(out, _spread(singles, columns - len(maps)))
            tiles += [tile for picture in maps for tile in _developed(out, [picture])]
            tiles += [torch.ones_like(tiles[0])] * (columns - len(tiles))
            row = side_by_side(*tiles)
            sheet += [row, torch.ones(4, row.shape[1], 3)]
    write_image(out / "overview.png", torch.cat(sheet[:-1]))


def _developed(out: Path, pictures: list[Picture]) -> list[Tensor]:
    """As sRGB (H, W, 3), all with the same exposure."""
    images = [read_linear(out / p.file) for p in pictures]
    brightest = torch.cat([i[i[..., 3] > INSIDE][:, :3].max(-1).values for i in images]).quantile(0.98)
    return [encode_srgb(0.9 / brightest.clamp(min=1e-6) * i[..., :3]) for i in images]


def _spread(items: list, count: int) -> list:
    """So many, evenly, or all."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else items
