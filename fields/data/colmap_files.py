"""The bytes and lines of COLMAP's model files. No geometry here."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fields.errors import DataError

MODELS = (
    ("SIMPLE_PINHOLE", 3), ("PINHOLE", 4), ("SIMPLE_RADIAL", 4), ("RADIAL", 5), ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8), ("FULL_OPENCV", 12), ("FOV", 5), ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5), ("THIN_PRISM_FISHEYE", 12), ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
)  # fmt: skip
"""(name, number of parameters) by COLMAP's model id."""


@dataclass
class CameraRecord:
    id: int
    model: str
    width: int
    height: int
    params: list[float]


@dataclass
class ImageRecord:
    name: str
    camera_id: int
    quat_wxyz: np.ndarray
    """(4,) rotation of camera_from_world."""
    translation: np.ndarray
    keypoints: np.ndarray
    """(K, 2) pixels."""
    point_ids: np.ndarray
    """(K,) int64, -1 where a keypoint belongs to no 3D point."""


@dataclass
class Model:
    cameras: dict[int, CameraRecord]
    images: list[ImageRecord]
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    """(P, 3), world."""
    point_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def count_images(folder: Path) -> int | None:
    """How many images a model registers, without reading it all; None if the folder holds no model."""
    if (folder / "images.bin").is_file() and (folder / "cameras.bin").is_file():
        with open(folder / "images.bin", "rb") as f:
            head = f.read(8)
        return struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if (folder / "images.txt").is_file() and (folder / "cameras.txt").is_file():
        return len(_lines(folder / "images.txt", keep_empty=True)) // 2
    return None


def read_model(folder: Path) -> Model:
    """All files of a model; points3D may be missing."""
    if (folder / "images.bin").is_file() and (folder / "cameras.bin").is_file():
        model = Model(_cameras_bin(folder / "cameras.bin"), _images_bin(folder / "images.bin"))
        if (folder / "points3D.bin").is_file():
            model.point_ids, model.points = _points_bin(folder / "points3D.bin")
        return model
    model = Model(_cameras_txt(folder / "cameras.txt"), _images_txt(folder / "images.txt"))
    if (folder / "points3D.txt").is_file():
        rows = [r[:4] for _, r in _rows(folder / "points3D.txt", 4)]
        table = _numbers(rows, folder / "points3D.txt").reshape(-1, 4)
        model.point_ids, model.points = table[:, 0].astype(np.int64), table[:, 1:]
    return model


class _Bytes:
    """A binary file that notices when it ends too early."""

    def __init__(self, path: Path):
        self.path, self.raw, self.at = path, path.read_bytes(), 0

    def take(self, format: str) -> tuple:
        size = struct.calcsize("<" + format)
        self.need(size)
        self.at += size
        return struct.unpack_from("<" + format, self.raw, self.at - size)

    def need(self, size: int) -> None:
        if size < 0 or self.at + size > len(self.raw):
            raise DataError(
                f"{self.path}: the file is truncated at {len(self.raw)} bytes (more was announced).\n"
                "Copy it again, or export the model again with COLMAP's model_converter."
            )

    def name(self) -> str:
        end = self.raw.find(b"\0", self.at)
        if end < 0:
            self.need(len(self.raw) + 1)
        text = self.raw[self.at : end].decode("utf-8", "replace")
        self.at = end + 1
        return text

    def table(self, dtype: np.dtype, count: int) -> np.ndarray:
        self.need(count * dtype.itemsize)
        self.at += count * dtype.itemsize
        return np.frombuffer(self.raw, dtype, count, self.at - count * dtype.itemsize)


def _cameras_bin(path: Path) -> dict[int, CameraRecord]:
    f, cameras = _Bytes(path), {}
    for _ in range(f.take("Q")[0]):
        id, model, width, height = f.take("iiQQ")
        if not 0 <= model < len(MODELS):
            raise DataError(
                f"{path}: camera {id} has the unknown model number {model}.\n"
                "Undistort the images with COLMAP's image_undistorter, or repair the file."
            )
        name, n = MODELS[model]
        cameras[id] = CameraRecord(id, name, width, height, list(f.take(f"{n}d")))
    return cameras


_KEYPOINT = np.dtype([("x", "<f8"), ("y", "<f8"), ("id", "<i8")])


def _images_bin(path: Path) -> list[ImageRecord]:
    f, images = _Bytes(path), []
    for _ in range(f.take("Q")[0]):
        numbers = f.take("i7di")
        name = f.name()
        table = f.table(_KEYPOINT, f.take("Q")[0])
        keypoints = np.stack([table["x"], table["y"]], -1)
        quat, translation = np.array(numbers[1:5]), np.array(numbers[5:8])
        images.append(ImageRecord(name, numbers[8], quat, translation, keypoints, table["id"].astype(np.int64)))
    return images


def _points_bin(path: Path) -> tuple[np.ndarray, np.ndarray]:
    f = _Bytes(path)
    count = f.take("Q")[0]
    f.need(count * 51)  # a point without a track; keeps a damaged count from allocating the machine's memory
    ids, points = np.zeros(count, np.int64), np.zeros((count, 3))
    for i in range(count):
        ids[i], *points[i], _, _, _, _, track = f.take("q3d3BdQ")
        f.need(8 * track)
        f.at += 8 * track
    return ids, points


def _lines(path: Path, keep_empty: bool = False) -> list[tuple[int, str]]:
    """(line number, text) without comments."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: cannot be read ({e}).\nExport the model again.") from e
    lines = [(i + 1, x.strip()) for i, x in enumerate(text.splitlines()) if not x.startswith("#")]
    return lines if keep_empty else [x for x in lines if x[1]]


def _rows(path: Path, least: int) -> list[tuple[int, list[str]]]:
    rows = [(i, x.split()) for i, x in _lines(path)]
    for i, row in rows:
        if len(row) < least:
            raise DataError(f"{path}: line {i} has {len(row)} values, expected {least}.\nExport the model again.")
    return rows


def _numbers(values: object, path: Path, line: int | None = None) -> np.ndarray:
    at = "" if line is None else f"line {line}: "
    try:
        numbers = np.array(values, dtype=np.float64)
    except ValueError as e:
        raise DataError(f"{path}: {at}{e}.\nExport the model again as text.") from e
    if not (np.abs(numbers) < 2**62).all():  # identifiers and sizes become integers
        raise DataError(f"{path}: {at}numbers that are infinite, or none.\nExport the model again as text.")
    return numbers


def _cameras_txt(path: Path) -> dict[int, CameraRecord]:
    cameras = {}
    for line, (id, model, *rest) in _rows(path, 5):
        n = _numbers([id, *rest], path, line)
        cameras[int(n[0])] = CameraRecord(int(n[0]), model, int(n[1]), int(n[2]), n[3:].tolist())
    return cameras


def _images_txt(path: Path) -> list[ImageRecord]:
    lines = _lines(path, keep_empty=True)
    images = []
    for i in range(0, len(lines), 2):
        line, text = lines[i]
        row = text.split(maxsplit=9)
        if not row and i == len(lines) - 1:
            break
        if len(row) < 10:
            raise DataError(f"{path}: line {line} has {len(row)} values, expected 10.\nExport the model again.")
        n = _numbers(row[:9], path, line)
        # The second line, empty for an image without keypoints, may be missing at the end of the file.
        values = lines[i + 1][1].split() if i + 1 < len(lines) else []
        table = _numbers(values[: len(values) // 3 * 3], path, line + 1).reshape(-1, 3)
        images.append(ImageRecord(row[9], int(n[8]), n[1:5], n[5:8], table[:, :2], table[:, 2].astype(np.int64)))
    return images
