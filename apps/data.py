"""``fields data check DIR``: looks at a scene before anybody trains on it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fields.apps.common import parse
from tyro.conf import Positional


@dataclass
class Options:
    path: Annotated[Path, Positional]
    """Scene folder, or its transforms.json."""
    out: Path | None = None
    """Folder for the picture of cameras and box. Default: the current one."""


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            "usage: fields data check DIR [--out DIR]\n\nPoses, coverage, bounds with a picture, blur, masks; what is wrong and how to fix it."
        )
        return 0 if arguments else 2
    if arguments[0] != "check":
        print(f"error: fields data has no {arguments[0]!r}; it has: check.", file=sys.stderr)
        return 2
    options = parse(
        arguments[1:], Options, "fields data check", "Looks at a scene and says what is wrong and how to fix it."
    )

    from rich.console import Console

    from fields.data.check import check_scene

    report = check_scene(options.path, options.out or Path("."))
    Console().print(report.render())
    if report.ok:
        print(f"Next: fields train tensorf-vm --data {options.path}")
    return 0 if report.ok else 2
