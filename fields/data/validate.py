"""Checks that every reader's frames go through. `load_scene` stops at the first error; `check_scene` lists
them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fields.data.frames import Capture, Frame
from fields.data.images import ImageHeader
from fields.errors import DataError
from fields.io.reading import is_file

ROTATION_TOLERANCE = 5e-3
"""Largest entry of R^T R - I. Poses written with four decimals reach 3e-4; a shear or scale worth
rejecting, 1e-2."""


_FARTHEST = 1e12
"""Scene units: squares of distances, in 32 bits, stay finite."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with a scene, and what to do about it."""

    severity: Literal["error", "warning"]
    what: str
    fix: str

    def raise_(self) -> None:
        raise DataError(f"{self.what}\n{self.fix}")


def pose_problem(frame: Frame, file: str = "") -> Problem | None:
    """None if the pose is a rigid motion."""
    where = f"{file}{frame.where or frame.name}"
    pose = frame.pose
    if pose is None:
        return Problem(
            "error", f"{where} has no transform_matrix.", "Add the camera pose (4 x 4), or remove the frame."
        )
    if not (np.abs(pose) < _FARTHEST).all():
        return Problem(
            "error",
            f"{where}: the pose contains NaN, infinity, or a number beyond {_FARTHEST:.0e}.",
            "Estimate this pose again, or remove the frame.",
        )
    rotation = pose[:3, :3]
    determinant = float(np.linalg.det(rotation))
    if determinant < 0:
        return Problem(
            "error",
            f"{where}: the pose mirrors space (determinant {determinant:.3f}).",
            "Flip one axis: OpenGL camera axes (+X right, +Y up, -Z forward) are right-handed.",
        )
    off = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    if off > ROTATION_TOLERANCE or np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-6:
        return Problem(
            "error",
            f"{where}: the pose is not rigid (rotation off by {off:.2g}, determinant {determinant:.3f}).",
            "Its axes must be perpendicular and of length 1, its last row 0 0 0 1. Is a scale mixed in?",
        )
    return None


def frame_problems(capture: Capture) -> list[Problem]:
    """Everything wrong that can be seen without opening an image."""
    if not capture.frames:
        return [Problem("error", f"{capture.path}: the scene lists no images.", "Add at least two frames with poses.")]
    problems = [pose_problem(frame, f"{capture.path.name}/") for frame in capture.frames]
    wholes = {
        "sparse points": capture.points,
        "box": capture.aabb,
        "transform of all coordinates": capture.world_from_input,
    }
    for name, numbers in wholes.items():
        if numbers is not None and not (np.abs(numbers) < _FARTHEST).all():
            problems.append(
                Problem(
                    "error",
                    f"{capture.path}: its {name} has numbers that are not finite, or beyond {_FARTHEST:.0e}.",
                    "Write it again, or leave it out.",
                )
            )
    for frame in capture.frames:
        where = f" (from {frame.where})" if frame.where else ""
        if not is_file(frame.image):
            problems.append(
                Problem(
                    "error",
                    f"{frame.image}: this image does not exist{where}.",
                    "Put it there, or remove its frame from the scene.",
                )
            )
        if frame.mask is not None and not is_file(frame.mask.path):
            problems.append(
                Problem(
                    "error",
                    f"{frame.mask.path}: this mask does not exist{where}.",
                    "Put it there, or remove the mask's path.",
                )
            )
    return [p for p in problems if p is not None]


def size_problems(frames: Sequence[Frame], headers: Sequence[ImageHeader]) -> list[Problem]:
    """Whether each image's size agrees with what its intrinsics are for."""
    problems: list[Problem] = []
    loose = [(f, h) for f, h in zip(frames, headers, strict=True) if f.intrinsics.width is None]
    if loose:
        f0, h0 = loose[0]
        for f, h in loose[1:]:
            pixels = f.intrinsics.depends_on_image_size
            same = (h.width, h.height) == (h0.width, h0.height)
            stretched = abs(h.width * h0.height - h.height * h0.width) > 0.01 * h.width * h0.height
            if (pixels and not same) or stretched:
                problems.append(
                    Problem(
                        "error",
                        f"{f.image} is {h.width} x {h.height}, {f0.image.name} {h0.width} x {h0.height}, "
                        "and the scene gives one lens for both.",
                        'Give each frame its own "w", "h", "fl_x", "cx" and "cy", or bring them to one size.',
                    )
                )
                break
    for f, h in zip(frames, headers, strict=True):
        x = f.intrinsics
        if x.width and x.height and abs(h.width / x.width - h.height / x.height) > 0.01 * h.width / x.width:
            turned = (
                " The image seems to be turned by 90 degrees."
                if (h.width > h.height and x.width < x.height) or (h.width < h.height and x.width > x.height)
                else ""
            )
            problems.append(
                Problem(
                    "error",
                    f"{f.image} is {h.width} x {h.height}, but its intrinsics are for {x.width} x {x.height}.{turned}",
                    "Use the images that the cameras were estimated from, or a reduced copy of them.",
                )
            )
        if x.fx is None and x.fy is None and x.fov_x is None and x.fov_y is None:
            problems.append(
                Problem(
                    "error",
                    f"{f.where or f.image}: no focal length.",
                    'Add "fl_x" (pixels) with "w" and "h", or "camera_angle_x" (radians).',
                )
            )
    return problems


def raise_first(problems: Sequence[Problem]) -> None:
    """DataError for the first error; mentions how many more there are."""
    errors = [p for p in problems if p.severity == "error"]
    if not errors:
        return
    more = f" ({len(errors) - 1} more: run `fields data check`)" if len(errors) > 1 else ""
    raise DataError(f"{errors[0].what}\n{errors[0].fix}{more}")
