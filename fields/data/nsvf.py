"""NSVF's layout, also that of its Tanks & Temples scenes: intrinsics.txt, bbox.txt, pose/*.txt, rgb/*.png.

File names begin with 0_ (train), 1_ (validation) or 2_ (test). Poses are world_from_camera with OpenCV axes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fields.data.frames import OPENGL_FROM_OPENCV, Capture, Frame, Intrinsics
from fields.data.llff import list_images
from fields.errors import DataError


def read(path: Path) -> Capture:
    intrinsics = _read_intrinsics(path / "intrinsics.txt")
    capture = Capture(path=path, format="nsvf", frames=[], real=False)
    images = list_images(path / "rgb") if (path / "rgb").is_dir() else []
    prefixes = {p.name[:2] for p in images}
    test = "2_" if "2_" in prefixes else "1_"
    has_split = "0_" in prefixes and prefixes <= {"0_", "1_", "2_"}
    for image in images:
        pose_file = path / "pose" / f"{image.stem}.txt"
        pose = read_table(pose_file)
        if pose.shape != (4, 4):
            raise DataError(
                f"{pose_file}: {pose.shape} numbers, expected 4 x 4.\nWrite the camera pose as a 4 x 4 matrix."
            )
        kind = {"0_": "train", test: "test"}.get(image.name[:2], "skip") if has_split else None
        capture.frames.append(
            Frame(
                name=image.name,
                image=image,
                pose=pose @ OPENGL_FROM_OPENCV,
                intrinsics=intrinsics,
                split=kind,  # type: ignore[arg-type]
                where=f"pose/{pose_file.name}",
            )
        )
    if (path / "bbox.txt").is_file():
        numbers = read_table(path / "bbox.txt").ravel()
        if len(numbers) < 6 or not (numbers[:3] < numbers[3:6]).all():
            raise DataError(f"{path / 'bbox.txt'}: not a box.\nWrite xmin ymin zmin xmax ymax zmax in one line.")
        capture.aabb = numbers[:6].reshape(2, 3)
        capture.aabb_note = "bbox.txt"
    return capture


def _read_intrinsics(path: Path) -> Intrinsics:
    """Either a 3 x 3 or 4 x 4 matrix, or a first line `f cx cy ...`."""
    rows = _read_rows(path)
    if len(rows) >= 3 and all(len(r) >= 3 for r in rows[:3]) and rows[0][1] == 0 and rows[1][1] > 0:
        return Intrinsics(rows[0][0], rows[1][1], rows[0][2], rows[1][2])
    first = rows[0] if rows else []
    if len(first) >= 3 and first[0] > 0:
        return Intrinsics(first[0], first[0], first[1], first[2])
    if len(first) == 1 and first[0] > 0:
        return Intrinsics(first[0], first[0])
    raise DataError(f"{path}: no intrinsics understood.\nWrite a 4 x 4 camera matrix, or a line: f cx cy 0.")


def _read_rows(path: Path) -> list[list[float]]:
    try:
        return [[float(v) for v in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path}: this file does not exist.\nAn NSVF scene needs it.") from None
    except (ValueError, OSError) as e:
        raise DataError(f"{path}: not a table of numbers ({e}).\nWrite it again.") from e


def read_table(path: Path) -> np.ndarray:
    """A rectangular table of numbers."""
    rows = _read_rows(path)
    if len({len(r) for r in rows}) != 1:
        raise DataError(f"{path}: its lines differ in length, or it is empty.\nWrite it again.")
    return np.array(rows)
