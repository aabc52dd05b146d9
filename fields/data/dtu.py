"""DTU scans as prepared for IDR and NeuS: cameras_sphere.npz and image/*.png, with mask/*.png if there are
masks.

world_mat_i is the 3 x 4 projection of the scan's millimetres to pixels; scale_mat_i takes the unit sphere
that holds the object to millimetres. The scene's frame is the unit sphere; `world_from_input` takes
millimetres there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fields.data.frames import OPENGL_FROM_OPENCV, Capture, Frame, Intrinsics, Mask
from fields.data.images import read_header
from fields.data.llff import list_images
from fields.errors import DataError
from fields.io.reading import read_npz, reading


def read(path: Path) -> Capture:
    file = next(
        (path / n for n in ("cameras_sphere.npz", "cameras.npz") if (path / n).exists()),
        path / "cameras_sphere.npz",
    )
    with reading(file, "a readable archive of cameras", "Copy it again from its source."):
        matrices = {k: v.astype(np.float64) for k, v in read_npz(file, lambda name: "_mat_" in name).items()}
    folder = next((path / n for n in ("image", "images", "rgb") if (path / n).is_dir()), path / "image")
    images = list_images(folder) if folder.is_dir() else []
    masks = list_images(path / "mask") if (path / "mask").is_dir() else []
    capture = Capture(path=path, format="dtu", frames=[], masks_are_alpha=bool(masks))
    if not images:
        return capture
    if len(masks) not in (0, len(images)):
        raise DataError(
            f"{path / 'mask'}: {len(masks)} masks for {len(images)} images.\nAdd the missing ones, or remove mask/."
        )
    scale = matrices.get("scale_mat_0", np.eye(4))
    for i, image in enumerate(images):
        if matrices.get(f"world_mat_{i}", np.zeros(0)).shape != (4, 4):
            raise DataError(
                f"{file}: no 4 x 4 world_mat_{i} for {image.name}.\nOne per image, counted from 0, is needed."
            )
        header = read_header(image)
        with reading(f"{file}: world_mat_{i}", "the projection of a camera", "Copy it again from its source."):
            k, pose = decompose((matrices[f"world_mat_{i}"] @ scale)[:3])
            # Reduced copies keep the matrices of the original: the principal point, near the middle, tells its
            # size.
            factor = max(round(2 * k[0, 2] / header.width), 1)
        w, h = header.width * factor, header.height * factor
        # IDR's matrices count pixels from the centre of the first one.
        intrinsics = Intrinsics(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5, w, h)
        capture.frames.append(
            Frame(
                name=image.name,
                image=image,
                pose=pose @ OPENGL_FROM_OPENCV,
                intrinsics=intrinsics,
                mask=Mask(masks[i]) if masks else None,
                where=f"{file.name}: world_mat_{i}",
            )
        )
        if factor > 1 and i == 0:
            capture.notes.append(f"images are 1/{factor} of the size that {file.name} is for")
    capture.aabb = np.array([[-1.0] * 3, [1.0] * 3])
    capture.aabb_note = f"the unit sphere of {file.name}"
    with reading(f"{file}: scale_mat_0", "invertible", "Copy it again from its source."):
        capture.world_from_input = np.linalg.inv(scale)
    return capture


def decompose(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a projection (3, 4) into intrinsics K (3, 3) with K[2, 2] = 1 and world_from_camera (4, 4),
    OpenCV axes."""
    # RQ decomposition by QR of the matrix with its rows reversed.
    q, r = np.linalg.qr(p[::-1, :3].T)
    k, rotation = r.T[::-1, ::-1], q.T[::-1]
    signs = np.where(np.diag(k) < 0, -1.0, 1.0)
    k, rotation = k * signs, rotation * signs[:, None]
    if np.linalg.det(rotation) < 0:  # a projection is defined up to sign
        rotation = -rotation
    pose = np.eye(4)
    pose[:3, :3] = rotation.T
    pose[:3, 3] = -np.linalg.solve(p[:, :3], p[:, 3])
    return k / k[2, 2], pose
