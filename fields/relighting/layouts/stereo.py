"""Photometric stereo: one camera far away, lights far away, and the object where it was.

The world is the camera's own frame: x right, y up, z towards the camera, the middle of the picture at x = y = 0, and
the picture 2 units wide. Rays are parallel. Which depth the object has is not known: it is placed at z = 0.

Lights are given by what a white wall that faces them looks like: irradiance is π times that, since a Lambertian surface
of albedo 1 turns irradiance E into radiance E / π. Pixels then are radiances as they stand, and divided by it, albedo
times cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fields.data.frames import Frame, Intrinsics, Mask
from fields.data.lenses import Lens
from fields.errors import DataError
from fields.io.hdr import read_linear
from fields.relighting.layouts.records import HELD_OUT, lit_capture, refuse_pickle
from fields.relighting.lights import Light
from fields.relighting.scene import LitCapture, LitFrame

FIRST, EVERY = 4, 6
"""Lights 4, 10, 16, … are held out, counted from 0: 16 of 96, 2 of 12."""

_SPHERE = "chrome"
_HIGHLIGHT = 0.8  # of the brightest pixel of a mirror: where the lamp is
_BRIGHT = 0.5  # at least, where a lamp is seen


def read_diligent(path: Path) -> LitCapture:
    """DiLiGenT: light_directions.txt, light_intensities.txt, filenames.txt, mask.png, and the pictures, linear, here or
    in images/; true normals in normal_gt.npy, where they are known."""
    names = _lines(path / "filenames.txt")
    directions = _table(path / "light_directions.txt")
    intensities = _table(path / "light_intensities.txt")
    if not len(names) == len(directions) == len(intensities):
        raise DataError(
            f"{path}: {len(names)} filenames, {len(directions)} light directions, {len(intensities)} light intensities.\n"
            "Each photograph has one line in all three files."
        )
    folder = path / "images" if (path / "images").is_dir() else path
    files = [folder / name for name in names]
    rows = [f"light_directions.txt and light_intensities.txt: line {i + 1}" for i in range(len(names))]
    lit = _capture(path, "diligent", files, directions, intensities, rows, path / "mask.png")
    truth = path / "normal_gt.npy"
    return replace(lit, photographs=[replace(p, normals=truth) for p in lit.photographs]) if truth.is_file() else lit


def read_uw_ps(path: Path) -> LitCapture:
    """The University of Washington's sets: NAME.0.png, NAME.1.png, …, NAME.mask.png, and beside them the folder chrome/
    with the same of a mirror sphere under the same lights.

    Pictures have 8 bits and are linear, and all lights equally bright: "we have linearized the camera response function
    … balanced all the light sources" (CSE 455, winter 2010, project 4). Directions are where the sphere mirrors the
    lamp.
    """
    files, mask = _numbered(path)
    sphere, sphere_mask = _numbered(path.resolve().parent / _SPHERE)
    if files.keys() != sphere.keys():
        raise DataError(
            f"{path}: {len(files)} photographs ({_listed(files)}), but {len(sphere)} ({_listed(sphere)}) of the mirror sphere in "
            f"{sphere_mask.parent}.\nEach light needs one of both."
        )
    ball = _Ball.of(sphere_mask)
    directions = np.stack([ball.mirrored(sphere[i]) for i in files])
    rows = [f"the mirror sphere in {sphere[i].name}" for i in files]
    return _capture(path, "uw-ps", list(files.values()), directions, np.ones_like(directions), rows, mask)


def _capture(
    path: Path, kind: str, files: list[Path], directions: np.ndarray, white: np.ndarray, rows: list[str], mask: Path
) -> LitCapture:
    """Args: white, (L, 3): the radiance of a white wall that faces the light; rows: where each light is said."""
    box, (height, width) = _box_of(mask)
    pose = np.eye(4)
    pose[2, 3] = box[1, 2] + 1  # outside the box
    half = width / 2
    lens = Intrinsics(half, half, half, height / 2, width, height, lens=Lens.ORTHOGRAPHIC)
    photographs = []
    for i, (file, direction, colour, row) in enumerate(zip(files, directions, white, rows, strict=True)):
        refuse_pickle(file)
        record = {"type": "directional", "direction": direction.tolist(), "rgb": (math.pi * colour).tolist()}
        light = Light.parse(record, path, f"{path}, {row}")
        frame = Frame(file.name, file, pose, lens, Mask(mask), where=row)
        photographs.append(LitFrame(frame, light, HELD_OUT if i % EVERY == FIRST else ""))
    held_out = sum(bool(p.group) for p in photographs)
    notes = [
        f"{held_out} of {len(files)} lights are held out: counted from 0, number {FIRST} and every {EVERY}th after it"
    ]
    lit = lit_capture(path, kind, photographs, notes)
    lit.capture.aabb = box
    lit.capture.aabb_note = "the mask, and as deep as it is large, around z = 0; the picture is 2 units wide"
    return lit


def _box_of(mask: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """(2, 3) of the object, and height and width of the picture."""
    inside = _coverage(mask) > 0.5
    if not inside.any():
        raise DataError(f"{mask}: it is black all over.\nThe object is white in a mask.")
    height, width = inside.shape
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    pad = 2  # pixels
    left, right = columns[0] - pad, columns[-1] + 1 + pad
    top, bottom = rows[0] - pad, rows[-1] + 1 + pad
    deep = max(right - left, bottom - top) / 2
    low = [left - width / 2, height / 2 - bottom, -deep]
    high = [right - width / 2, height / 2 - top, deep]
    return np.array([low, high]) / (width / 2), (height, width)


def _coverage(mask: Path) -> np.ndarray:
    return read_linear(mask)[..., 0].numpy()


@dataclass(frozen=True)
class _Ball:
    """The outline of a sphere in a picture, in pixels."""

    mask: Path
    x: float
    y: float
    radius: float

    @staticmethod
    def of(mask: Path) -> _Ball:
        coverage = _coverage(mask)
        area = float(coverage.sum())
        if area < 9:
            raise DataError(f"{mask}: it shows no sphere.\nThe sphere is white in its mask.")
        row, column = np.indices(coverage.shape) + 0.5
        return _Ball(
            mask,
            float((column * coverage).sum()) / area,
            float((row * coverage).sum()) / area,
            math.sqrt(area / math.pi),
        )

    def mirrored(self, picture: Path) -> np.ndarray:
        """(3,) unit: the direction of the lamp whose mirror image is the highlight. Seen along −z, the normal halves
        the angle between the two."""
        coverage, image = _coverage(self.mask), read_linear(picture)[..., :3].mean(-1).numpy()
        if image.shape != coverage.shape:
            raise DataError(f"{picture}: its size is not that of {self.mask}.\nUse the mask that belongs to it.")
        image = np.where(coverage > 0.5, image, 0)
        if image.max() < _BRIGHT:
            raise DataError(
                f"{picture}: the mirror sphere shows no highlight (its brightest pixel is {image.max():.2f} of white).\n"
                "Use photographs in which the lamp is mirrored."
            )
        row, column = (v.mean() + 0.5 for v in np.nonzero(image >= _HIGHLIGHT * image.max()))
        x, y = (column - self.x) / self.radius, (self.y - row) / self.radius
        z = math.sqrt(max(1 - x * x - y * y, 0.0))
        direction = np.array([2 * z * x, 2 * z * y, 2 * z * z - 1])
        return direction / np.linalg.norm(direction)


def _numbered(folder: Path) -> tuple[dict[int, Path], Path]:
    """NAME.0.png, … by number, and NAME.mask.png."""
    masks = sorted(folder.glob("*.mask.png"))
    if len(masks) != 1:
        which = "the mirror sphere that light directions come from: " if folder.name == _SPHERE else ""
        raise DataError(
            f"{folder}: {which}{len(masks)} files NAME.mask.png.\nOne, with NAME.0.png, NAME.1.png, …, is needed."
        )
    name = masks[0].name.removesuffix(".mask.png")
    found = {f.name.removeprefix(f"{name}.").removesuffix(".png"): f for f in folder.glob("*.png") if f != masks[0]}
    files = {int(n): f for n, f in found.items() if n.isdecimal()}
    if not files:
        raise DataError(f"{folder}: no photographs {name}.0.png, {name}.1.png, ….\nPut them beside {masks[0].name}.")
    return dict(sorted(files.items())), masks[0]


def _listed(files: dict[int, Path]) -> str:
    return ", ".join(map(str, files))


def _lines(file: Path) -> list[str]:
    for suffix in (".pkl", ".pickle"):
        if not file.exists() and file.with_suffix(suffix).exists():
            refuse_pickle(file.with_suffix(suffix))
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{file}: this file does not exist.\nAdd it: one line for each photograph.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}).\nCopy it again from its source.") from error


def _table(file: Path) -> np.ndarray:
    """(L, 3)."""
    rows = []
    for i, line in enumerate(_lines(file)):
        try:
            row = [float(v) for v in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != 3 or not all(map(math.isfinite, row)):
            raise DataError(f"{file}: line {i + 1} is {line[:60]!r}.\nThree finite numbers are needed.")
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, 3)
