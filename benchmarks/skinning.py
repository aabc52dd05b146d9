"""What of quasi-rigid blend skinning matters: `python -m fields.benchmarks.skinning VIDEO... --out OUT`.

Each video is trained by `fields train qrbs` as it is and with one thing changed, all else alike, and by `fields train reacto`, whose parts are rigid. Videos are those of
`fields.benchmarks.articulated`, whose truth is known. What is done already is not done again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from fields.apps import cli
from fields.apps.common import parse
from tyro.conf import Positional

from fields.io.atomic import read_json, write_json

VARIANTS: dict[str, tuple[str, ...]] = {
    "qrbs": ("qrbs",),
    "25 bones": ("qrbs", "--bones", "25", "--sparse", "0", "--gamma", "1", "1"),
    "linear blending": ("qrbs", "--blend", "linear"),
    "hard assignment": ("qrbs", "--blend", "hard"),
    "no sparsity": ("qrbs", "--sparse", "0"),
    "balls for bones": ("qrbs", "--isotropic"),
    "rigid parts (reacto)": ("reacto",),
}
"""The paper's model, what it is compared with, and ours."""
_SHOWN = {"psnr": 2, "chamfer": 2, "chamfer_seen": 2, "f1": 3, "part_iou": 3, "part_iou_seen": 3, "seconds": 0}


@dataclass
class Options:
    videos: Annotated[tuple[Path, ...], Positional]
    """Folders."""
    out: Path
    """Folder for the runs, and for skinning.json."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which."""


def figures(variant: str, video: Path, out: Path) -> dict[str, float]:
    run = out / f"{video.name}-{variant.replace(' ', '-')}"
    if not (run / "metrics.json").is_file():
        method, *changed = VARIANTS[variant]
        cli.main(["train", method, "--data", str(video), "--out", str(run), "--no-viewer", *changed])
    measured = read_json(run / "metrics.json")
    return measured["results"] | {"seconds": measured["train_seconds"]}


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Means over the videos."""
    lines = ["| | " + " | ".join(_SHOWN) + " |", "|---|" + "---:|" * len(_SHOWN)]
    for variant, videos in found.items():
        means = [np.mean([one[name] for one in videos.values()]) for name in _SHOWN]
        lines.append(
            f"| {variant} | " + " | ".join(f"{m:.{d}f}" for m, d in zip(means, _SHOWN.values(), strict=True)) + " |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "python -m fields.benchmarks.skinning", __doc__.splitlines()[0])
    found: dict[str, dict[str, dict[str, float]]] = {}
    for variant in options.variants:
        for video in options.videos:
            found.setdefault(variant, {})[video.name] = figures(variant, video, options.out)
            write_json(options.out / "skinning.json", found)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
