"""`transforms.json` of instant-ngp and nerfstudio: one file, or the pair transforms_train.json /
transforms_test.json.

Poses are world_from_camera with OpenGL axes in both. Every number about the lens may stand at the top or in
a frame.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fields.data.frames import Capture, Frame, Intrinsics, Mask
from fields.data.lenses import DISPLACED, PANORAMAS, Lens
from fields.data.ply import read_ply_points
from fields.errors import DataError
from fields.io.reading import is_file, parse_json, reading

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG", ".JPEG", ".tif", ".tiff", ".bmp")

Split = Literal["train", "test", "skip"]

_LENSES = {
    "PINHOLE": Lens.PINHOLE, "SIMPLE_PINHOLE": Lens.PINHOLE, "PERSPECTIVE": Lens.PINHOLE,
    "OPENCV": Lens.OPENCV, "SIMPLE_RADIAL": Lens.OPENCV, "RADIAL": Lens.OPENCV, "FULL_OPENCV": Lens.OPENCV,
    "OPENCV_FISHEYE": Lens.FISHEYE, "FISHEYE": Lens.FISHEYE, "FISHEYE624": Lens.FISHEYE624,
    "EQUIRECTANGULAR": Lens.EQUIRECTANGULAR, "PANORAMA": Lens.EQUIRECTANGULAR,
    "ORTHOPHOTO": Lens.ORTHOGRAPHIC,
    "OMNIDIRECTIONALSTEREO_L": Lens.STEREO_PANORAMA, "OMNIDIRECTIONALSTEREO_R": Lens.STEREO_PANORAMA,
    "VR180_L": Lens.VR180, "VR180_R": Lens.VR180,
}  # fmt: skip

_FIX = "Correct it, or write the file again."

HALF_EYE_DISTANCE = 0.032
"""Metres: nerfstudio's stereo cameras take scene units for metres."""


def read(path: Path) -> Capture:
    """A folder with transforms.json (or transforms_train.json …), or such a file itself."""
    if path.is_file():
        parts: list[tuple[Path, Split | None]] = [(path, None)]
    elif (path / "transforms.json").exists():
        parts = [(path / "transforms.json", None)]
    else:
        test = "test" if (path / "transforms_test.json").exists() else "val"
        names: list[tuple[str, Split | None]] = [("train", "train"), (test, "test")]
        parts = [(path / f"transforms_{n}.json", s) for n, s in names if (path / f"transforms_{n}.json").exists()]
        if not any(s == "train" for _, s in parts):
            raise DataError(
                f"{path / 'transforms_train.json'}: this file does not exist.\n"
                "Add it, or rename the file to transforms.json."
            )
    capture = Capture(path=path if path.is_dir() else path.parent, format="transforms", frames=[])
    for i, (file, split) in enumerate(parts):
        meta = load_json(file)
        capture.frames += read_frames(file, meta, split)
        if i == 0:
            with reading(file, "a transforms.json of instant-ngp or nerfstudio", _FIX):
                _read_scene(capture, file, meta)
            # A pair of files is a rendered scene with coordinates of its own; one file, without a box, is a
            # capture.
            # Lenses that displace their rays know the length of a scene unit, which is then not free.
            metric = any(f.intrinsics.lens in DISPLACED for f in capture.frames)
            capture.free_gauge = split is None and capture.aabb is None and not metric
            capture.image_folder = file.parent / "images" if split is None else None
    return capture


def load_json(file: Path) -> dict[str, Any]:
    """Parse a JSON object; says the line of a syntax error."""
    try:
        meta = parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file}: this file does not exist.\nCheck the path.") from None
    except json.JSONDecodeError as e:
        raise DataError(
            f"{file}: not valid JSON: {e.msg} at line {e.lineno}, column {e.colno}.\n"
            "Correct that line, or write the file again."
        ) from e
    except (OSError, ValueError) as e:
        raise DataError(f"{file}: cannot be read ({e}).\nWrite the file again.") from e
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        raise DataError(
            f'{file}: no list "frames" at the top level.\nThis must be a transforms.json of instant-ngp or nerfstudio.'
        )
    return meta


def read_frames(file: Path, meta: dict[str, Any], split: Split | None = None) -> list[Frame]:
    """The frames of one file; `split` is for all of them, else the file's own lists decide."""
    keys: list[tuple[str, Split]] = [
        ("train_filenames", "train"), ("val_filenames", "test"), ("test_filenames", "test")
    ]  # fmt: skip
    lists: dict[str, Split] = {}
    with reading(f"{file}: train_filenames and the like", "lists of names", _FIX):
        for key, to in keys:
            if key == "val_filenames" and meta.get("test_filenames"):
                to = "skip"
            lists.update({_tidy(n): to for n in meta.get(key) or []})
    frames = []
    for i, record in enumerate(meta["frames"]):
        with reading(f"{file}: frame {i}", "an image with a camera", _FIX):
            frames.append(_read_frame(file, meta, record, i, split, lists))
    return frames


def _read_frame(
    file: Path, meta: dict[str, Any], record: Any, i: int, split: Split | None, lists: dict[str, Split]
) -> Frame:
    if not isinstance(record, dict) or not isinstance(record.get("file_path"), str):
        raise DataError(f'{file}: frame {i} has no "file_path".\nAdd it, or remove the frame.')
    name = record["file_path"]
    where = f"{file.name}: frame {i} ({name})"
    mask, image = record.get("mask_path"), find_image(file.parent, name)
    return Frame(
        name=_tidy(name),
        image=image,
        pose=_matrix(record.get("transform_matrix"), where),
        intrinsics=read_intrinsics({**meta, **record}, where),
        mask=Mask(file.parent / mask) if isinstance(mask, str) else _dynamic_mask(image),
        split=split or (lists.get(_tidy(name), "skip") if lists else None),
        where=where,
    )


def _dynamic_mask(image: Path) -> Mask | None:
    """instant-ngp's custom: dynamic_mask_NAME.png beside the image, white where something moved."""
    path = image.with_name(f"dynamic_mask_{image.stem}.png")
    return Mask(path, inverted=True) if path.is_file() else None


def _tidy(name: str) -> str:
    return name[2:] if name.startswith("./") else name


def find_image(folder: Path, name: str) -> Path:
    """The image file; the NeRF-synthetic files leave its extension away. May not exist: checked later, with
    the others."""
    path = folder / name
    if path.suffix.lower() in {e.lower() for e in IMAGE_EXTENSIONS}:
        return path
    for extension in IMAGE_EXTENSIONS:
        candidate = path.with_name(path.name + extension)
        if candidate.exists():
            return candidate
    return path if path.exists() else path.with_name(path.name + ".png")


def _matrix(value: Any, where: str) -> np.ndarray | None:
    if value is None:
        return None
    try:
        m = np.array(value, dtype=np.float64)
    except (ValueError, TypeError):
        raise DataError(
            f"{where}: transform_matrix is not a table of numbers.\nWrite it as four rows of four numbers."
        ) from None
    if m.shape == (3, 4):
        m = np.concatenate([m, [[0.0, 0.0, 0.0, 1.0]]])
    if m.shape != (4, 4):
        raise DataError(
            f"{where}: transform_matrix has shape {m.shape}; expected (4, 4).\nWrite it as four rows of four numbers."
        )
    return m


def read_intrinsics(d: dict[str, Any], where: str) -> Intrinsics:
    """The lens from the merged keys of file and frame."""

    def number(*keys: str) -> float | None:
        for key in keys:
            if d.get(key) is not None:
                try:
                    return float(d[key])
                except (TypeError, ValueError):
                    raise DataError(f"{where}: {key} is {d[key]!r}, not a number.\nCorrect it.") from None
        return None

    w, h = number("w", "width"), number("h", "height")
    x = Intrinsics(
        number("fl_x", "fx", "focal_length"), number("fl_y", "fy"), number("cx"), number("cy"),
        int(w) if w else None, int(h) if h else None, number("camera_angle_x"), number("camera_angle_y"),
    )  # fmt: skip
    x.lens, x.distortion = _read_lens(d, number, where)
    if x.lens in PANORAMAS and w and h:  # fx and fy in such files mean nothing else
        x.fx, x.fy = w / 2, h
    return x


def _read_lens(d: dict[str, Any], number: Any, where: str) -> tuple[Lens, tuple[float, ...]]:
    name = str(d.get("camera_model") or ("OPENCV_FISHEYE" if d.get("is_fisheye") else "OPENCV")).upper()
    if d.get("equirectangular") or d.get("lens_mode") == "LatLong":
        name = "EQUIRECTANGULAR"
    if "ftheta_p0" in d or name not in _LENSES:
        name = "FTHETA" if "ftheta_p0" in d else name
        raise DataError(f"{where}: unknown camera model {name}.\nUndistort the images to one of {', '.join(_LENSES)}.")
    lens = _LENSES[name]
    if lens in (Lens.STEREO_PANORAMA, Lens.VR180):
        return lens, (HALF_EYE_DISTANCE * (1 if name.endswith("_R") else -1),)
    if lens not in (Lens.OPENCV, Lens.FISHEYE, Lens.FISHEYE624):
        return lens, ()
    listed = d.get("distortion_params")
    if lens == Lens.FISHEYE624:
        if not isinstance(listed, list) or len(listed) != 12:
            raise DataError(f"{where}: FISHEYE624 needs twelve distortion_params.\nWrite k0..k5, p0, p1, s0..s3.")
        return lens, tuple(float(v) for v in listed)
    k1, k2, k3, k4, k5, k6, p1, p2 = (number(k) or 0.0 for k in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2"))
    if isinstance(listed, list) and len(listed) >= 6:  # nerfstudio's order
        k1, k2, k3, k4, p1, p2 = (float(v) for v in listed[:6])
    # k4 alone is the fourth Brown coefficient (nerfstudio, OpenCV's fisheye); with k5 or k6 the lens is
    # OpenCV's rational one.
    rational = lens == Lens.OPENCV and (k5 != 0 or k6 != 0)
    coefficients: tuple[float, ...] = (
        (k1, k2, p1, p2, k3) + ((k4, k5, k6) if rational else (0.0, 0.0, 0.0)) + (0.0,) * 4
    )
    coefficients += (0.0 if rational else k4,)
    if lens == Lens.OPENCV and not any(coefficients):
        return Lens.PINHOLE, ()
    return lens, coefficients


def _read_scene(capture: Capture, file: Path, meta: dict[str, Any]) -> None:
    """What concerns the scene as a whole: box, earlier transforms, sparse points."""
    scale = meta.get("aabb_scale")
    if isinstance(scale, (int, float)) and scale > 0:
        # instant-ngp places p * 0.33 + 0.5 (then cycles the axes) in a box of side aabb_scale around (0.5,
        # 0.5, 0.5).
        ngp_scale = float(meta.get("scale", 0.33))
        centre = (0.5 - np.array(meta.get("offset", [0.5] * 3), dtype=np.float64).reshape(3)) / ngp_scale
        half = 0.5 * scale / ngp_scale
        capture.aabb = np.stack([centre - half, centre + half])
        capture.aabb_note = f"aabb_scale {scale:g} of {file.name} (instant-ngp's convention)"
    if meta.get("applied_transform") is not None or meta.get("applied_scale") is not None:
        applied = _matrix(meta.get("applied_transform", np.eye(4).tolist()), f"{file.name}: applied_transform")
        assert applied is not None
        applied[:3] *= float(meta.get("applied_scale", 1.0))
        capture.world_from_input = applied
    ply = meta.get("ply_file_path")
    if isinstance(ply, str):
        if is_file(file.parent / ply):  # not a device, which has no end
            capture.points = read_ply_points(file.parent / ply)
        else:
            capture.notes.append(f"{ply} (ply_file_path) does not exist; the box comes from the cameras")
