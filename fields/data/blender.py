"""NeRF-synthetic ("Blender") scenes: transforms_train.json and transforms_test.json with one field of view
and RGBA images."""

from __future__ import annotations

from pathlib import Path

from fields.data import transforms
from fields.data.frames import Capture


def read(path: Path) -> Capture:
    """The same file format as instant-ngp's; what differs is that the object is cut out and stands in a
    known box."""
    capture = transforms.read(path)
    capture.format = "blender"
    capture.real = False
    return capture
