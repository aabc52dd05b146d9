"""How much memory a large scene takes: training on 300 images of 1920 × 1080 pixels, and a frame of 3840 × 2160.

The scene is a painted ball, written as NeRF-synthetic files (2.5 GB of pixels with alpha). Each command is the one a user
runs, in a process of its own whose peak of resident memory the system tells when it ends.

    python -m fields.benchmarks.memory [--images 300] [--iterations 300] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from fields.data import Cameras

SIZE = (1920, 1080)
FRAME = (3840, 2160)
BARS = {"train": 3.0, "frame": 2.0}  # GB
_RADIUS, _DISTANCE, _FOV = 0.75, 4.0, math.radians(40)
_HELD_OUT = 2


def cameras(count: int, size: tuple[int, int]) -> Cameras:
    """On a spiral around the ball, from below it to above."""
    t = (np.arange(count) + 0.5) / count
    turn, height = 2 * np.pi * 12 * t, 1.6 * t - 0.8
    flat = np.sqrt(1 - height**2)
    eyes = _DISTANCE * np.stack([flat * np.cos(turn), flat * np.sin(turn), height], -1)
    return Cameras.look_at(eyes, np.zeros(3), fov_x=_FOV, width=size[0], height=size[1])


def picture(pose: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 4) uint8 of a camera (4, 4): stripes and spots under one light."""
    width, height = size
    focal = 0.5 * width / math.tan(0.5 * _FOV)
    x, y = (np.arange(n, dtype=np.float32) + 0.5 - n / 2 for n in (width, height))
    seen = 1.02 * focal * _RADIUS / math.sqrt(_DISTANCE**2 - _RADIUS**2)  # of the middle, in pixels: nothing is beyond
    columns, rows = (slice(*np.searchsorted(v, (-seen, seen))) for v in (x, y))
    local = np.stack(np.broadcast_arrays(x[columns] / focal, -y[rows, None] / focal, np.float32(-1)), -1)
    directions = local @ pose[:3, :3].T.astype(np.float32)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    origin = pose[:3, 3].astype(np.float32)
    along = directions @ origin
    inside = along**2 - origin @ origin + _RADIUS**2
    normal = (origin + directions * (-along - np.sqrt(np.maximum(inside, 0)))[..., None]) / _RADIUS
    paint = 0.5 + 0.4 * np.sin(np.array([9, 14, 23], np.float32) * normal) * np.cos(11 * normal[..., [1, 2, 0]])
    paint *= 0.5 + 0.5 * np.maximum(normal @ np.array([0.48, 0.6, 0.64], np.float32), 0)[..., None]
    image = np.zeros((height, width, 4), np.uint8)
    image[rows, columns, :3] = paint * 255
    image[rows, columns, 3] = (inside > 0) * 255
    return image * (image[..., 3:] > 0)


def write_scene(folder: Path, count: int, size: tuple[int, int] = SIZE) -> None:
    for split, views in (("train", cameras(count, size)), ("test", cameras(_HELD_OUT, size))):
        (folder / split).mkdir(parents=True, exist_ok=True)
        frames = []
        for i, pose in enumerate(views.world_from_camera.numpy()):
            Image.fromarray(picture(pose, size)).save(folder / split / f"r_{i}.png", compress_level=1)
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": pose.tolist()})
        scene = {"camera_angle_x": _FOV, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(scene))


def measured(arguments: list[str]) -> tuple[float, float, float]:
    """Peak of resident memory in GB, seconds of processor and of clock, of a command of ours."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "fields.apps.cli", *arguments], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"fields {' '.join(arguments)}: ended with {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 1e9, usage.ru_utime + usage.ru_stime, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="keep the scene and the run here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        scene, run = folder / "ball", folder / "run"
        if not (scene / "transforms_test.json").exists():
            write_scene(scene, options.images)
        train = [
            "train",
            "tensorf-vm",
            "--data",
            str(scene),
            "--out",
            str(run),
            "--iterations",
            str(options.iterations),
        ]
        frame = [
            "render",
            str(run),
            "--frames",
            "1",
            "--size",
            *map(str, FRAME),
            "--out",
            str(run / "renders" / "large"),
        ]
        pixels = options.images * SIZE[0] * SIZE[1] * 4 / 1e9
        print(
            "| command | pixels (GB) | peak memory (GB) | bar (GB) | CPU (s) | clock (s) |\n|---|---|---|---|---|---|"
        )
        for name, command, held in (("train", train, pixels), ("frame", frame, FRAME[0] * FRAME[1] * 4 / 1e9)):
            peak, busy, clock = measured(command)
            print(f"| {name} | {held:.2f} | **{peak:.2f}** | {BARS[name]:.1f} | {busy:.0f} | {clock:.0f} |", flush=True)
            if peak >= BARS[name]:
                raise SystemExit(f"{name}: {peak:.2f} GB, which is not under {BARS[name]:.1f} GB")


if __name__ == "__main__":
    main()
