"""A target, and what the samples of several are made of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SMALL, INFLATED = 64, 1 << 14
"""Bytes of memory that reading may take for each byte of the input, besides `fields.benchmarks.fuzz.running.ROOM`: of plain formats, and
of compressed ones. Deflate makes 1032 bytes of one, and they become numbers of up to eight times their size, and copies."""


@dataclass(frozen=True)
class Target:
    build: Callable[[Path], Any]
    """Fills a folder with a valid sample."""
    read: Callable[[Path], Any]
    """Reads what lies in such a folder."""
    damaged: str = "*"
    """Which of its files are damaged: a pattern for `Path.rglob`."""
    factor: int = SMALL


N, W, H, FOCAL = 4, 12, 10, 14.0


def poses_around() -> np.ndarray:
    """(N, 4, 4) world_from_camera, OpenGL axes, all around the origin."""
    import torch

    from fields.data import Cameras

    t = torch.arange(N) * 2 * math.pi / N
    eye = 4 * torch.stack([t.cos(), t.sin(), 0.3 + 0.1 * t], -1)
    return Cameras.look_at(eye, torch.zeros(3), focal=FOCAL, width=W, height=H).world_from_camera.double().numpy()


def image(i: int, alpha: bool = False) -> Any:
    from PIL import Image

    row, column = np.indices((H, W))
    inside = np.hypot(row - H / 2, column - W / 2) < 4
    pixels = np.stack([row * 20, column * 20, np.full_like(row, 40 * i), inside * 255], -1).astype(np.uint8)
    return Image.fromarray(pixels if alpha else np.ascontiguousarray(pixels[..., :3]))


def write_pictures(folder: Path, names: list[str], alpha: bool = False) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image(i, alpha).save(folder / name)


def write_json(file: Path, data: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data))
