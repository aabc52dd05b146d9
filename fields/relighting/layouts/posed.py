"""Layouts with a transforms.json: posed photographs, each with its light.

What is written about a light is in the coordinates of "transform_matrix", except in BiGS. Radiant intensities are of
point lights: they make an irradiance of intensity / distance² on what faces them.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from fields.errors import DataError
from fields.relighting.layouts.records import (
    HELD_OUT,
    INTEGERS,
    at,
    find_picture,
    is_srgb,
    lit_capture,
    point_light,
    read_frames,
    read_records,
    refuse_pickle,
)
from fields.relighting.lights import Light
from fields.relighting.scene import LitCapture, LitFrame

_BIGS_TRAINING = 40
"""Of the 98 lights of BiGS, olat_1 to olat_40 are its authors' training lights (scripts/training.py)."""


def transforms_of(path: Path) -> list[Path]:
    """The files of a folder that list frames: those to learn from first, then, if any, those held out."""
    if path.is_file():
        return [path]
    if (path / "transforms.json").is_file():
        return [path / "transforms.json"]
    held_out = [path / f"transforms_{name}.json" for name in ("test", "val", "valid")]
    train = path / "transforms_train.json"
    return [train, *[f for f in held_out if f.is_file()][:1]] if train.is_file() else []


def _files(path: Path) -> list[tuple[Path, str]]:
    files = transforms_of(path)
    if not files:
        raise DataError(
            f"{path / 'transforms_train.json'}: this file does not exist.\nAdd it, or give the folder that holds it."
        )
    return list(zip(files, ("", HELD_OUT), strict=False))


def read_lit_transforms(path: Path) -> LitCapture:
    """Our own: transforms.json, or transforms_train.json and transforms_test.json, every frame with its "light".

    Of a frame: "light" (see `Light.parse`); optionally "set", "train" or the name of a set that is held out;
    "mask_path"; "normal_path" of its true normals, world axes; "file_ext". Of a file: "color_space", linear or srgb, otherwise srgb for pictures of 8 bits and linear
    for all others; "light_unit", irradiance (see `Light.rgb`) or intensity: a white wall that faces a directional light
    of 1, or a point light of 1 at a distance of 1, has radiance 1.
    """
    photographs = []
    for file, held_out in _files(path):
        meta, records = read_records(file)
        space = _choice(file, meta, "color_space", ("linear", "srgb"))
        factor = math.pi if _choice(file, meta, "light_unit", ("irradiance", "intensity")) == "intensity" else 1.0
        for frame, record in zip(read_frames(file, meta, records), records, strict=True):
            where, group = at(file, frame), record.get("set", held_out)
            if "light" not in record:
                raise DataError(f'{where}: no "light".\nAdd what it was taken in, or remove the frame.')
            if not isinstance(group, str):
                raise DataError(f'{where}: "set" is {group!r}.\nWrite "train", or a name for what is held out.')
            if space == "srgb" and frame.image.suffix.lower() not in INTEGERS:
                raise DataError(
                    f'{where}: {frame.image.suffix} holds linear light, but "color_space" is srgb.\n'
                    'Set "color_space" to linear, or leave it out.'
                )
            srgb = is_srgb(frame.image) if space is None else space == "srgb"
            light = _light(record["light"], file.parent, where, factor)
            normals = record.get("normal_path")
            if normals is not None and not isinstance(normals, str):
                raise DataError(f'{where}: "normal_path" is {normals!r}.\nWrite the path of an .exr or .npy.')
            truth = None if normals is None else file.parent / normals
            photographs.append(LitFrame(frame, light, "" if group == "train" else group, srgb, truth))
    notes = [] if any(p.group for p in photographs) else ['nothing is held out: no frame has a "set"']
    return lit_capture(path, "lit-transforms", photographs, notes)


def _choice(file: Path, meta: dict[str, Any], key: str, known: tuple[str, ...]) -> str | None:
    value = meta.get(key)
    if value is not None and value not in known:
        raise DataError(f'{file}: "{key}" is {value!r}.\nIt is one of {", ".join(known)}.')
    return value


def _light(record: Any, folder: Path, where: str, factor: float) -> Light:
    if isinstance(record, dict) and isinstance(record.get("file"), str):
        refuse_pickle(folder / record["file"])
    light = Light.parse(record, folder, where)
    if factor == 1 or light.kind not in ("directional", "point"):
        return light
    return replace(light, rgb=tuple(factor * v for v in light.rgb))


def read_nrhints(path: Path) -> LitCapture:
    """NRHints and GS³: Blender's layout with "pl_pos" and, optionally, "pl_intensity" in every frame; the numbers of
    PNG as they are.

    "camera_intrinsics", of the file or a frame, is [cx, cy, fx, fy] in pixels (NRHints: data/data_parser.py; GS³:
    scene/dataset_readers.py) and comes before "camera_angle_x". Lights are in the axes of the cameras' positions: of
    Blender's frames both programs turn the axes of cameras alone. Neither uses "pl_intensity"; without one, it is 1.
    """
    photographs = []
    for file, group in _files(path):
        meta, records = read_records(file)
        meta, *records = (_with_intrinsics(d, str(file)) for d in (meta, *records))
        for frame, record in zip(read_frames(file, meta, records), records, strict=True):
            position, intensity = record.get("pl_pos"), record.get("pl_intensity")
            light = point_light(position, intensity, ("pl_pos", "pl_intensity"), at(file, frame))
            photographs.append(LitFrame(frame, light, group))
    return lit_capture(path, "nrhints", photographs, [])


def _with_intrinsics(record: dict[str, Any], file: str) -> dict[str, Any]:
    values = record.get("camera_intrinsics")
    if values is None:
        return record
    if not isinstance(values, list) or len(values) != 4:
        raise DataError(
            f'{file}: "camera_intrinsics" is {str(values)[:80]}.\nWrite four numbers in pixels, [cx, cy, fx, fy].'
        )
    return record | dict(zip(("cx", "cy", "fl_x", "fl_y"), values, strict=True))


def read_sss_gs(path: Path) -> LitCapture:
    """SSS-GS: one frame a camera, with "file_paths" (PNG in sRGB), "light_positions" and, optionally,
    "light_intensities".

    A light's position is in the axes of "transform_matrix", as it stands: the program negates its y and z when it reads
    the file (scene/dataset_readers.py) and negates them again when it makes a batch (scene/dataset.py, same commit
    d2c0506), and what wrote the real scenes (light_stage_preprocessing.py) takes lights and camera centres through the
    same steps, turning only the axes of cameras. To do one of the two puts every light on the wrong side. Without
    intensities, as there, they are 1. What exclude_list.txt names (flare) is left out, as there.
    """
    excluded = _excluded(path if path.is_dir() else path.parent)
    photographs, left_out = [], 0
    for file, group in _files(path):
        meta, records = read_records(file)
        for i, record in enumerate(records):
            _require_equal(file, i, record)
        firsts = [record | {"file_path": record["file_paths"][0]} for record in records]
        for camera, record in zip(read_frames(file, meta, firsts), records, strict=True):
            names, positions = record["file_paths"], record["light_positions"]
            intensities = record.get("light_intensities") or [None] * len(names)
            of_camera = camera.where.partition(" (")[0]
            for name, position, intensity in zip(names, positions, intensities, strict=True):
                if name.rpartition("/")[2].removesuffix(".png") in excluded:
                    left_out += 1
                    continue
                frame = replace(camera, name=name.removeprefix("./"), where=f"{of_camera} ({name})")
                frame.image = find_picture(file.parent, name, None, at(file, frame))
                light = point_light(position, intensity, ("light_positions", "light_intensities"), at(file, frame))
                photographs.append(LitFrame(frame, light, group, frame.image.suffix.lower() in INTEGERS))
    notes = [f"{left_out} photographs that exclude_list.txt names are left out"] if left_out else []
    return lit_capture(path, "sss-gs", photographs, notes)


def _require_equal(file: Path, i: int, record: dict[str, Any]) -> None:
    """Every picture of a camera has a light."""
    lists = {k: record.get(k) for k in ("file_paths", "light_positions", "light_intensities")}
    if lists["light_intensities"] is None:
        del lists["light_intensities"]
    for key, values in lists.items():
        if not isinstance(values, list) or not values:
            raise DataError(f'{file}: camera {i} has no list "{key}".\nWrite one entry for each of its photographs.')
    if len({len(values) for values in lists.values()}) > 1:  # type: ignore[arg-type]
        counts = ", ".join(f"{len(values)} {key}" for key, values in lists.items())  # type: ignore[arg-type]
        raise DataError(f"{file}: camera {i} has {counts}.\nEach of its photographs has one light: make them as many.")
    for name in lists["file_paths"]:  # type: ignore[union-attr]
        if not isinstance(name, str):
            raise DataError(f'{file}: camera {i} has {name!r} among its "file_paths".\nThey are paths of pictures.')


def _excluded(folder: Path) -> set[str]:
    file = folder / "exclude_list.txt"
    if not file.is_file():
        return set()
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return {line.strip().removesuffix(".png") for line in lines}


def olat_folders(path: Path) -> list[Path]:
    """Those of single lights, in the order of their numbers."""
    found = [f.parent for f in path.glob("*/transforms*.json")]
    return sorted(dict.fromkeys(f for f in found if not f.name.endswith("all_on")), key=lambda f: (_number(f), f.name))


def _number(folder: Path) -> int:
    digits = re.search(r"(\d+)$", folder.name)
    return int(digits[1]) if digits else 0


def read_bigs(path: Path) -> LitCapture:
    """BiGS: per light a folder olat_N with transforms_train.json, of whose frames each has "light": position,
    intensity.

    Against "transform_matrix", positions are half a turn around Y: its programs multiply them by (−1, 1, −1) wherever
    they use them ("synthetic data generated using mitsuba"; scripts/training.py, point_relight.py, envmap_relight.py).
    Pictures are linear, PNG too. "obj_mask_path" is the mask, where there is one. Held out are a folder's
    transforms_test.json, and, where there are lights on both sides of it, those from 41 on, as its authors do.
    """
    folders = olat_folders(path)
    if not folders:
        raise DataError(
            f"{path}: no folders of single lights (olat_1/transforms_train.json, …).\nGive the folder that holds them."
        )
    numbers = [_number(folder) for folder in folders]
    split = min(numbers) <= _BIGS_TRAINING < max(numbers)
    photographs = []
    for folder, number in zip(folders, numbers, strict=True):
        for file, held_out in _files(folder):
            meta, records = read_records(file)
            group = HELD_OUT if split and number > _BIGS_TRAINING else held_out
            key = "obj_mask_path" if "obj_mask_path" in records[0] else "mask_path"
            for frame, record in zip(read_frames(file, meta, records, key), records, strict=True):
                light = _bigs_light(record.get("light"), at(file, frame))
                inner = replace(frame, name=f"{folder.name}/{frame.name}", where=f"{folder.name}/{frame.where}")
                photographs.append(LitFrame(inner, light, group))
    notes = [f"lights from olat_{_BIGS_TRAINING + 1} on are held out, as the layout's authors do"] if split else []
    return lit_capture(path, "bigs", photographs, notes)


def _bigs_light(record: Any, where: str) -> Light:
    if not isinstance(record, dict) or record.get("type", "point") != "point":
        raise DataError(
            f'{where}: its "light" is {str(record)[:80]}.\nWrite {{"type": "point", "position": […], "intensity": […]}}.'
        )
    light = point_light(record.get("position"), record.get("intensity"), ("position", "intensity"), where)
    assert light.position is not None
    x, y, z = light.position
    return replace(light, position=(-x, y, -z))
