"""Where cameras stand, and what they see of the shape."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fields.relighting.basis import fibonacci_sphere

if TYPE_CHECKING:
    import mitsuba as mi

FIELD_OF_VIEW = 30.0  # degrees
DISTANCE = 2.4  # from the origin
_SAMPLES = 256  # for the shape; stratified
_SHAPE = {"type": "aov", "aovs": "normal:sh_normal", "inner": {"type": "depth"}}


class Cameras:
    """All around an object, looking at the origin.

    Args:
        surface: its .ply.
        pixels: of a side.
        train: how many to learn from.
        test: how many are held out: evenly from top to bottom.
    """

    def __init__(self, surface: Path, pixels: int, train: int, test: int) -> None:
        import mitsuba as mi

        self.pixels = pixels
        self.eyes = DISTANCE * directions(train + test)
        """(N, 3) positions."""
        self.held_out = [(2 * k + 1) * (train + test) // (2 * test) for k in range(test)]
        solid = {"type": "ply", "filename": str(surface)}
        self._scene = mi.load_dict({"type": "scene", "shape": solid, "integrator": _SHAPE})
        self.geometry = functools.cache(self._geometry)

    def __len__(self) -> int:
        return len(self.eyes)

    def _geometry(self, camera: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean normals (pixels, pixels, 3), unit and in world axes, or zero; and coverage (pixels, pixels) in [0, 1].

        Coverage cannot come from a photograph: what light passes unscattered is not opaque there.
        """
        import mitsuba as mi

        image = np.array(mi.render(self._scene, sensor=sensor(self.eyes[camera], self.pixels, "multijitter", _SAMPLES)))
        normals = image[..., -3:]
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        return normals / np.maximum(length, 1e-9), image[..., 3].clip(0, 1)


def directions(count: int) -> np.ndarray:
    """(count, 3) float64 unit: evenly over the sphere."""
    return torch.nn.functional.normalize(fibonacci_sphere(count).double(), dim=1).numpy()


def camera_to_world(eye: np.ndarray) -> np.ndarray:
    """(4, 4), OpenGL axes: +X right, +Y up, looking along −Z; world +Y up."""
    back = eye / np.linalg.norm(eye)
    right = np.cross((0, 1, 0), back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, eye], -1)
    return pose


def sensor(eye: np.ndarray, pixels: int, sampler: str, samples: int) -> mi.Sensor:
    import mitsuba as mi

    pose = camera_to_world(eye) @ np.diag([-1.0, 1, -1, 1])  # Mitsuba's cameras have +X left and look along +Z
    return mi.load_dict(
        {
            "type": "perspective",
            "fov": FIELD_OF_VIEW,
            "to_world": mi.ScalarTransform4f(pose),
            # A wider filter would make the noise of neighbours alike.
            "film": {
                "type": "hdrfilm",
                "width": pixels,
                "height": pixels,
                "rfilter": {"type": "box"},
                "pixel_format": "rgba",
            },
            "sampler": {"type": sampler, "sample_count": samples},
        }
    )
