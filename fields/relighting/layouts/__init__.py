"""Photographs under many lights, in the layouts that people have them in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fields.data.transforms import load_json
from fields.errors import DataError
from fields.relighting.layouts import posed, stereo
from fields.relighting.layouts.records import refuse_pickle
from fields.relighting.scene import LitCapture

_READERS: dict[str, Callable[[Path], LitCapture]] = {
    "lit-transforms": posed.read_lit_transforms, "nrhints": posed.read_nrhints, "sss-gs": posed.read_sss_gs,
    "bigs": posed.read_bigs, "diligent": stereo.read_diligent, "uw-ps": stereo.read_uw_ps,
}  # fmt: skip
FORMATS = tuple(_READERS)


def read(path: Path, format: str = "auto") -> LitCapture:
    """Poses, lenses and lights of a folder; no pixels yet.

    Args:
        format: one of `FORMATS`, or "auto" to look.

    Raises:
        DataError: nothing known, or something wrong, in a file that is named.
    """
    kind = detect(path) if format == "auto" else format
    if kind not in _READERS:
        raise DataError(
            f"{kind!r} is no layout of photographs under many lights.\nUse one of: auto, {', '.join(FORMATS)}."
        )
    _require(path)
    return _READERS[kind](path)


def detect(path: Path) -> str:
    """Which of `FORMATS` a folder, or a transforms.json, holds, by looking at its files.

    Raises:
        DataError: none.
    """
    _require(path)
    if path.is_file():
        if path.suffix == ".json":
            return _by_frames(path)
    elif files := posed.transforms_of(path):
        return _by_frames(files[0])
    elif posed.olat_folders(path):
        return "bigs"
    elif any((path / f"light_directions{suffix}").exists() for suffix in (".txt", ".pkl", ".pickle")):
        return "diligent"
    elif any(path.glob("*.mask.png")):
        return "uw-ps"
    for depth in ("*", "*/*", "*/*/*"):
        for file in path.glob(depth) if path.is_dir() else ():
            refuse_pickle(file)
    raise DataError(
        f"{path}: no photographs under known lights found here (looked for transforms.json, transforms_train.json, a folder "
        "with one per light, light_directions.txt, NAME.mask.png).\nGive the folder that holds one of these."
    )


def _require(path: Path) -> None:
    refuse_pickle(path)
    if not path.exists():
        raise DataError(f"{path}: no such folder.\nCheck the path; a relative one starts from {Path.cwd()}.")


def _by_frames(file: Path) -> str:
    frames: list[Any] = load_json(file)["frames"]
    keys = {key for frame in frames if isinstance(frame, dict) for key in frame}
    for key, kind in (("light", "lit-transforms"), ("pl_pos", "nrhints"), ("light_positions", "sss-gs"), ("file_paths", "sss-gs")):  # fmt: skip
        if key in keys:
            return kind
    if not frames:
        raise DataError(f"{file}: it lists no frames.\nAdd at least one, with its light.")
    raise DataError(
        f"{file}: none of its {len(frames)} frames says what light it was taken in.\n"
        'Add "light" to each, for example {"type": "point", "position": […], "rgb": […]}.'
    )
