"""Scenes: posed images from disk, and the cameras, pixels and box that training needs.

scene = load_scene("data/lego", downscale=2)
origins, directions = scene.train.cameras.rays(index, xy)
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

from fields.data.assemble import assemble
from fields.data.cameras import Cameras
from fields.data.frames import Capture
from fields.data.images import ImageStore
from fields.data.lenses import Lens
from fields.data.scene import Scene, Split
from fields.errors import DataError

__all__ = ["Cameras", "ImageStore", "Lens", "Scene", "Split", "detect_format", "load_scene", "read_capture"]

FORMATS = ("blender", "transforms", "colmap", "nsvf", "llff", "dtu")


def load_scene(
    path: str | Path,
    *,
    format: str = "auto",
    downscale: int = 1,
    test_every: int = 8,
    max_images: int | None = None,
    splits: Sequence[Literal["train", "test"]] = ("train", "test"),
) -> Scene:
    """Read a scene of any known format.

    Args:    path: its folder (or a transforms.json); format: one of `FORMATS`, or "auto" to look;
             downscale: reduce the images by this whole factor; test_every: which images to hold out where
             the files define no split (0: none); max_images: at most so many per split, evenly spaced;
             splits: which to load, the others stay empty.
    Raises:  DataError naming the file and what to do, for anything wrong with it."""
    return assemble(
        read_capture(path, format),
        downscale=downscale,
        test_every=test_every,
        max_images=max_images,
        splits=splits,
    )


def read_capture(path: str | Path, format: str = "auto") -> Capture:
    """The scene's files as they are: poses and lenses, no pixels, nothing checked yet."""
    path = Path(path)
    kind = detect_format(path) if format == "auto" else format
    if kind not in FORMATS:
        raise DataError(f"{kind!r} is not a scene format.\nUse one of: auto, {', '.join(FORMATS)}.")
    return import_module(f"fields.data.{kind}").read(path)


def detect_format(path: str | Path) -> str:
    """Which of `FORMATS` a folder holds, by looking at its files."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such folder.\nCheck the path; a relative one starts from {Path.cwd()}.")
    if path.is_file() and path.suffix == ".json":
        return "transforms"
    if path.is_dir():
        if (path / "transforms.json").exists():
            return "transforms"
        if (path / "transforms_train.json").exists():
            return _blender_or_transforms(path)
        if any((path / d).is_dir() for d in ("sparse", "colmap/sparse")) or any(path.glob("cameras.[bt][ix][nt]")):
            return "colmap"
        if (path / "poses_bounds.npy").exists():
            return "llff"
        if (path / "pose").is_dir() and (path / "rgb").is_dir():
            return "nsvf"
        if any((path / n).exists() for n in ("cameras_sphere.npz", "cameras.npz")):
            return "dtu"
    raise DataError(
        f"{path}: no scene found here (looked for transforms.json, transforms_train.json, sparse/ of COLMAP, "
        "poses_bounds.npy, pose/ with rgb/, cameras_sphere.npz).\n"
        "Give the folder that holds one of these. `fields data cameras` makes one of photographs, with COLMAP."
    )


def _blender_or_transforms(path: Path) -> str:
    """NeRF-synthetic files know one field of view and nothing else about the lens."""
    from fields.data.transforms import load_json

    meta = load_json(path / "transforms_train.json")
    lens = {"fl_x", "cx", "k1", "aabb_scale", "camera_model", "w"}
    return "transforms" if lens & meta.keys() else "blender"
