"""COLMAP reconstructions, binary or text: sparse/0/{cameras,images,points3D}.{bin,txt} beside a folder of
images.

COLMAP stores camera_from_world with OpenCV axes and counts pixels as we do (the first pixel's centre is
0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fields.data.colmap_files import CameraRecord, ImageRecord, count_images, read_model
from fields.data.frames import OPENGL_FROM_OPENCV, Capture, Frame, Intrinsics, Mask
from fields.data.lenses import Lens
from fields.errors import DataError
from fields.io.reading import is_file

_IMAGE_FOLDERS = ("images", "image", "input", "rgb", "images_2", "images_4", "images_8", ".")
_MASK_FOLDERS = ("masks", "mask")


@dataclass(frozen=True)
class Layout:
    """Where a camera model's numbers stand among COLMAP's parameters."""

    lens: Lens
    one_focal: bool
    columns: tuple[int, ...] = ()
    """The column of `Cameras.distortion` of each further parameter."""


LAYOUTS = {
    "SIMPLE_PINHOLE": Layout(Lens.PINHOLE, True),
    "PINHOLE": Layout(Lens.PINHOLE, False),
    "SIMPLE_RADIAL": Layout(Lens.OPENCV, True, (0,)),
    "RADIAL": Layout(Lens.OPENCV, True, (0, 1)),
    "OPENCV": Layout(Lens.OPENCV, False, (0, 1, 2, 3)),
    "OPENCV_FISHEYE": Layout(Lens.FISHEYE, False, (0, 1, 4, 12)),
    "FULL_OPENCV": Layout(Lens.OPENCV, False, (0, 1, 2, 3, 4, 5, 6, 7)),
    "FOV": Layout(Lens.FOV, False, (0,)),
    "SIMPLE_RADIAL_FISHEYE": Layout(Lens.FISHEYE, True, (0,)),
    "RADIAL_FISHEYE": Layout(Lens.FISHEYE, True, (0, 1)),
    "THIN_PRISM_FISHEYE": Layout(Lens.FISHEYE, False, (0, 1, 2, 3, 4, 12, 8, 10)),
    "RAD_TAN_THIN_PRISM_FISHEYE": Layout(Lens.FISHEYE624, False, tuple(range(12))),
}


def read(path: Path) -> Capture:
    folder, others = largest_model(path)
    model = read_model(folder)
    capture = Capture(path=path, format="colmap", frames=[], free_gauge=True)
    if others:
        capture.notes.append(f"{folder.relative_to(path)} has the most images of {others + 1} reconstructions")
    if len(model.points):
        capture.points = model.points
    images = sorted(model.images, key=lambda r: r.name)
    if not images:
        return capture
    capture.image_folder = _image_folder(path, images[0].name)
    masks = next((path / m for m in _MASK_FOLDERS if (path / m).is_dir()), None)
    for record in images:
        camera = model.cameras.get(record.camera_id)
        where = f"{folder / 'images'}: {record.name}"
        if camera is None:
            raise DataError(f"{where} uses camera {record.camera_id}, which is not listed.\nExport the model again.")
        capture.frames.append(
            Frame(
                name=record.name,
                image=capture.image_folder / record.name,
                pose=pose_of(record),
                intrinsics=intrinsics_of(camera, folder),
                mask=mask_of(masks, record.name),
                where=where,
            )
        )
    return capture


def largest_model(path: Path) -> tuple[Path, int]:
    """The folder of the reconstruction with the most registered images, and how many others there are."""
    candidates = []
    for base in (path / "sparse", path / "colmap" / "sparse", path):
        if base.is_dir():
            candidates += [base, *sorted(d for d in base.iterdir() if d.is_dir())]
    counted = [(count_images(c), c) for c in dict.fromkeys(candidates)]
    found = [(n, c) for n, c in counted if n is not None]
    if not found:
        raise DataError(
            f"{path}: no cameras.bin/.txt with images.bin/.txt under sparse/.\n"
            "Run COLMAP's mapper, or give the folder that contains sparse/."
        )
    most = max(n for n, _ in found)
    return next(c for n, c in found if n == most), len(found) - 1


def pose_of(record: ImageRecord) -> np.ndarray:
    """(4, 4) world_from_camera, OpenGL axes."""
    w, x, y, z = record.quat_wxyz / max(np.linalg.norm(record.quat_wxyz), 1e-300)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )  # camera_from_world
    pose = np.eye(4)
    pose[:3, :3] = rotation.T
    pose[:3, 3] = -rotation.T @ record.translation
    return pose @ OPENGL_FROM_OPENCV


def intrinsics_of(camera: CameraRecord, folder: Path) -> Intrinsics:
    layout = LAYOUTS.get(camera.model)
    expected = 0 if layout is None else (3 if layout.one_focal else 4) + len(layout.columns)
    if layout is None or len(camera.params) != expected:
        raise DataError(
            f"{folder / 'cameras'}: camera {camera.id} is {camera.model} with {len(camera.params)} numbers.\n"
            f"Undistort the images with COLMAP's image_undistorter, or use one of {', '.join(LAYOUTS)}."
        )
    p = camera.params
    fx, fy, cx, cy = (p[0], p[0], p[1], p[2]) if layout.one_focal else p[:4]
    distortion = [0.0] * 13
    for column, value in zip(layout.columns, p[3 if layout.one_focal else 4 :], strict=True):
        distortion[column] = value
    lens = Lens.PINHOLE if layout.lens == Lens.OPENCV and not any(distortion) else layout.lens
    return Intrinsics(fx, fy, cx, cy, camera.width, camera.height, lens=lens, distortion=tuple(distortion))


def _image_folder(path: Path, name: str) -> Path:
    for folder in _IMAGE_FOLDERS:
        if is_file(path / folder / name):
            return path / folder
    existing = [f for f in _IMAGE_FOLDERS if f != "." and (path / f).is_dir()]
    return path / (existing[0] if existing else "images")


def mask_of(folder: Path | None, name: str) -> Mask | None:
    """COLMAP calls the mask of a.jpg a.jpg.png; others call it a.png."""
    if folder is None:
        return None
    for candidate in (folder / f"{name}.png", (folder / name).with_suffix(".png"), folder / name):
        if is_file(candidate):
            return Mask(candidate)
    return None
