"""What a reader hands over: one record per image, before any pixel is decoded or any pose is trusted.

Readers only translate a format. Checking, splitting, decoding and choosing the box happen once, for all of
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fields.data.lenses import Lens

OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Also its own inverse: (+X right, +Y down, +Z forward) <-> (+X right, +Y up, -Z forward)."""


@dataclass
class Intrinsics:
    """One lens, in pixels of an image of width x height; None where the file leaves it to the image."""

    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    width: int | None = None
    height: int | None = None
    fov_x: float | None = None
    """Radians; stands in for fx (and fy, unless fov_y is there too)."""
    fov_y: float | None = None
    lens: Lens = Lens.PINHOLE
    distortion: tuple[float, ...] = ()

    def at_size(self, w: int, h: int) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy for the image as it is on disk, which may be a reduced copy of the calibrated
        one."""
        sx, sy = w / (self.width or w), h / (self.height or h)
        fx = self.fx * sx if self.fx is not None else None
        if fx is None and self.fov_x is not None:
            fx = 0.5 * w / np.tan(0.5 * self.fov_x)
        fy = self.fy * sy if self.fy is not None else None
        if fy is None and self.fov_y is not None:
            fy = 0.5 * h / np.tan(0.5 * self.fov_y)
        if fx is None and fy is None:
            raise ValueError("no focal length")
        fx, fy = (fy if fx is None else fx), (fx if fy is None else fy)
        assert fx is not None and fy is not None
        cx = 0.5 * w if self.cx is None else self.cx * sx
        cy = 0.5 * h if self.cy is None else self.cy * sy
        return float(fx), float(fy), float(cx), float(cy)

    @property
    def depends_on_image_size(self) -> bool:
        """Whether the same numbers mean different lenses at different image sizes."""
        return self.width is None and self.fx is not None


@dataclass(frozen=True)
class Mask:
    """A grey image: white where the object is or the pixel may be used, or black there if `inverted`."""

    path: Path
    inverted: bool = False


@dataclass
class Frame:
    """One image and its camera."""

    name: str
    image: Path
    pose: np.ndarray | None
    """(4, 4) float64 world_from_camera, OpenGL; None if the file gives none."""
    intrinsics: Intrinsics
    mask: Mask | None = None
    split: Literal["train", "test", "skip"] | None = None
    """None: the format has no split, so every n-th image becomes a test image."""
    where: str = ""
    """Where the frame is described, for messages: "transforms.json: frame 3 (images/0003.jpg)"."""
    depth_range: tuple[float, float] | None = None
    """Nearest and farthest depth ("z") of what the image shows, where the format tells."""


@dataclass
class Capture:
    """A scene as its files describe it, in their own coordinates unless `world_from_input` says otherwise."""

    path: Path
    format: str
    frames: list[Frame]
    points: np.ndarray | None = None
    """(P, 3) sparse points, same frame as the poses."""
    world_from_input: np.ndarray = field(default_factory=lambda: np.eye(4))
    aabb: np.ndarray | None = None
    """(2, 3) box that the format itself gives, and the sentence that says where from."""
    aabb_note: str = ""
    free_gauge: bool = False
    """The coordinates have an arbitrary origin, rotation and scale (structure from motion), so they may be
    normalised."""
    real: bool = True
    """Photographs with their surroundings, rather than an isolated object."""
    masks_are_alpha: bool = False
    """Masks cut out the object (its surroundings are to be empty), rather than mark pixels to ignore."""
    image_folder: Path | None = None
    """Where all images are; beside it, `images_2` … may hold reduced copies."""
    notes: list[str] = field(default_factory=list)
    """What a reader chose or ignored, in words."""
