"""LLFF scenes: poses_bounds.npy, one row per image in order of file name.

A row is a 3 x 5 table (rotation | position | height, width, focal length), whose camera axes are (down,
right, backwards), followed by the nearest and farthest depth of what the image shows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fields.data.frames import Capture, Frame, Intrinsics, Mask
from fields.data.transforms import IMAGE_EXTENSIONS
from fields.errors import DataError
from fields.io.reading import read_npy, reading

_FOLDERS = ("images", "images_2", "images_4", "images_8")


def read(path: Path) -> Capture:
    table = load_npy(path / "poses_bounds.npy")
    if table.ndim != 2 or table.shape[1] != 17:
        raise DataError(
            f"{path / 'poses_bounds.npy'}: shape {table.shape}; expected (images, 17).\n"
            "Make it again with LLFF's imgs2poses."
        )
    folder = next((path / f for f in _FOLDERS if (path / f).is_dir() and list_images(path / f)), None)
    if folder is None:
        raise DataError(f"{path}: no images (looked in {', '.join(f + '/' for f in _FOLDERS)}).\nAdd the images.")
    images = list_images(folder)
    if len(images) != len(table):
        raise DataError(
            f"{folder}: {len(images)} images, but poses_bounds.npy has {len(table)} poses.\n"
            "They are matched in order of name: restore or remove images until the numbers agree."
        )
    masks = path / folder.name.replace("images", "masks")
    capture = Capture(path=path, format="llff", frames=[], free_gauge=True, image_folder=folder)
    capture.masks_are_alpha = masks.is_dir()
    if folder.name != "images":
        capture.notes.append(f"images from {folder.name}/")
    if masks.is_dir():
        capture.notes.append(f"{masks.name}/ cuts out the object: used as transparency")
    if not np.isfinite(table).all():
        row = int(np.argwhere(~np.isfinite(table))[0, 0])
        raise DataError(
            f"{path / 'poses_bounds.npy'}: row {row} has numbers that are not finite.\nMake it again with LLFF's imgs2poses."
        )
    for i, (row, image) in enumerate(zip(table, images, strict=True)):
        m = row[:15].reshape(3, 5)
        height, width, focal = m[:, 4]
        pose = np.eye(4)
        pose[:3] = np.stack([m[:, 1], -m[:, 0], m[:, 2], m[:, 3]], -1)
        mask = masks / f"{image.stem}.png"
        capture.frames.append(
            Frame(
                name=image.name,
                image=image,
                pose=pose,
                intrinsics=Intrinsics(focal, focal, width=int(width), height=int(height)),
                mask=Mask(mask) if masks.is_dir() else None,
                where=f"poses_bounds.npy: row {i} ({image.name})",
                depth_range=(float(row[15]), float(row[16])),
            )
        )
    return capture


def list_images(folder: Path) -> list[Path]:
    """Its images in order of name."""
    extensions = {e.lower() for e in IMAGE_EXTENSIONS}
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in extensions and not p.name.startswith("."))


def load_npy(path: Path) -> np.ndarray:
    """An array of numbers as float64; never unpickles."""
    if not path.is_file():
        raise DataError(f"{path}: this file does not exist.\nCheck the path.")
    with reading(path, "a readable array", "Copy it again from its source."):
        return read_npy(path).astype(np.float64)
