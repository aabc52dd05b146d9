"""``fields data check DIR``: looks at a scene before anybody trains on it. ``fields data cameras PICTURES``: makes one of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fields.apps.common import Progress, parse, subcommand
from tyro.conf import Positional


@dataclass
class CheckOptions:
    path: Annotated[Path, Positional]
    """Scene folder, or its transforms.json."""
    out: Path | None = None
    """Folder for the picture of cameras and box. Default: the current one."""


@dataclass
class CamerasOptions:
    source: Annotated[Path, Positional]
    """Folder of pictures in the order of their names, or a video."""
    out: Path
    """Folder for the scene."""
    masks: Path | None = None
    """Folder of masks: of the same names as the pictures, or numbered as the frames of the video; black is what is not of the object."""
    every: int = 1
    """Takes each so many-th picture."""
    longest: int = 1600
    """Pixels of the longer side; larger pictures are made smaller."""


def main(arguments: list[str]) -> int:
    usage = (
        "usage: fields data check DIR [--out DIR]\n\n"
        "Poses, coverage, bounds with a picture, blur, masks; what is wrong and how to fix it.\n\n"
        "       fields data cameras PICTURES --out DIR [--masks DIR] [--every N] [--longest N]\n\n"
        "A scene of pictures, or of a video, that come without cameras: COLMAP finds them."
    )
    return subcommand(arguments, "fields data", usage, {"check": _check, "cameras": _cameras})


def _check(arguments: list[str]) -> int:
    options = parse(
        arguments, CheckOptions, "fields data check", "Looks at a scene and says what is wrong and how to fix it."
    )

    from rich.console import Console

    from fields.data.check import check_scene

    report = check_scene(options.path, options.out or Path("."))
    Console().print(report.render())
    if report.ok:
        print(f"Next: fields train tensorf-vm --data {options.path}")
    return 0 if report.ok else 2


def _cameras(arguments: list[str]) -> int:
    options = parse(
        arguments, CamerasOptions, "fields data cameras", "Finds the cameras of pictures, or of a video, with COLMAP."
    )

    from fields.data.sfm import prepare
    from fields.errors import ConfigError

    for name in ("every", "longest"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: it must be positive.")
    with Progress("cameras") as progress:
        count, found = prepare(
            options.source, options.out, options.masks, options.every, options.longest, progress.step
        )
    print(f"{options.out}: {found} of {count} pictures found their place")
    print(f"Next: fields data check {options.out}")
    return 0
