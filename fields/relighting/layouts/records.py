"""What the readers share: frames with their pictures, and lights, from records in JSON."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fields.data import transforms
from fields.data.frames import Capture, Frame, Mask
from fields.errors import DataError
from fields.io.hdr import FORMATS, has_eight_bits
from fields.relighting.lights import Light
from fields.relighting.scene import LitCapture, LitFrame

INTEGERS = (".png", ".jpg", ".jpeg")
HELD_OUT = "olat"
"""The name of a set that is held out, where a layout does not name it."""

_PICKLES = (".pkl", ".pickle")
_GUESSED = (".png", ".exr", ".npy", ".hdr", ".jpg")


def lit_capture(path: Path, kind: str, photographs: list[LitFrame], notes: list[str]) -> LitCapture:
    folder = path if path.is_dir() else path.parent
    frames = [p.frame for p in photographs]
    return LitCapture(Capture(path=folder, format=kind, frames=frames, real=False, notes=notes), photographs)


def read_records(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is said of all frames, and of each.

    Raises:
        DataError: not JSON, no frames, or some that are not objects.
    """
    meta = transforms.load_json(file)
    records = meta.pop("frames")
    if not records:
        raise DataError(f"{file}: it lists no frames.\nAdd at least one, with its light.")
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(f"{file}: frame {i} is {str(record)[:40]!r}.\nA frame is an object of names and values.")
    return meta, records


def read_frames(
    file: Path, meta: dict[str, Any], records: list[dict[str, Any]], mask: str = "mask_path"
) -> list[Frame]:
    """Cameras and pictures of records as nerfstudio has them, and masks where they name any.

    Pictures may be of any kind that `read_linear` knows; "file_ext", or else what exists, completes names without an
    ending.

    Args:
        mask: the key of the path of a mask.

    Raises:
        DataError: names the frame and what to do.
    """
    lit = []
    for frame, record in zip(transforms.read_frames(file, {**meta, "frames": records}), records, strict=True):
        picture = find_picture(file.parent, record["file_path"], record.get("file_ext"), at(file, frame))
        lit.append(replace(frame, image=picture, mask=_mask(file.parent, record.get(mask), at(file, frame))))
    return lit


def at(file: Path, frame: Frame) -> str:
    """Names a frame of a file in messages."""
    return f"{file.parent}/{frame.where}"


def find_picture(folder: Path, name: str, ending: Any, where: str) -> Path:
    """It may not exist: that is checked later, with the others."""
    if ending is not None and not isinstance(ending, str):
        raise DataError(f'{where}: "file_ext" is {ending!r}.\nIt is an ending, like ".png".')
    path = folder / (name if ending is None or name.lower().endswith(ending.lower()) else name + ending)
    refuse_pickle(path)
    if path.suffix.lower() in FORMATS or path.is_file():
        return path
    candidates = [path.with_name(path.name + ending) for ending in _GUESSED]
    for candidate in (path.with_name(path.name + ending) for ending in _PICKLES):
        if candidate.is_file():
            refuse_pickle(candidate)
    return next((c for c in candidates if c.is_file()), candidates[0])


def _mask(folder: Path, name: Any, where: str) -> Mask | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise DataError(f"{where}: the path of its mask is {name!r}.\nWrite the path of a picture.")
    refuse_pickle(folder / name)
    return Mask(folder / name)


def point_light(position: Any, intensity: Any, names: tuple[str, str], where: str) -> Light:
    """A point light of a layout that calls its position and radiant intensity `names`. One number stands for three.

    Raises:
        DataError: something is missing or no light.
    """
    if position is None:
        raise DataError(f'{where}: no "{names[0]}".\nAdd where its light was, [x, y, z], or remove the frame.')
    rgb = [intensity] * 3 if isinstance(intensity, int | float) else intensity
    record = {"type": "point", "position": position, "rgb": [1.0, 1.0, 1.0] if rgb is None else rgb}
    return Light.parse(record, Path(), f'{where}, from "{names[0]}" and "{names[1]}"')


def is_srgb(image: Path) -> bool:
    """Where nothing else is known: pictures of 8 bits are."""
    return image.suffix.lower() in INTEGERS and image.is_file() and has_eight_bits(image)


def refuse_pickle(path: Path) -> None:
    """Raises DataError for one. It is not opened."""
    if path.suffix.lower() in _PICKLES:
        raise DataError(
            f"{path}: pickles run code when they are opened, so this is not; where you trust it, load it in a Python of its own and "
            "save its pictures with fields.io.hdr.write_exr and its numbers as JSON."
        )
