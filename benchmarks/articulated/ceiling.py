"""What the measures say of the truth itself: `python -m fields.benchmarks.articulated.ceiling VIDEO...`.

Half of the true points stand for what was learned, each off by a normal deviate along its normal. Where parts touch, the nearest point may be of either, however well
both are known: no method can do better.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from fields.apps.common import parse
from tyro.conf import Positional

from fields.geometry.rigid import move
from fields.reacto.evaluation import Truth, errors_at_times
from fields.reacto.scene import load_scene

_SHOWN = ("chamfer", "part_iou", "part_iou_seen")


@dataclass
class Options:
    videos: Annotated[tuple[Path, ...], Positional]
    """Folders."""
    off: tuple[float, ...] = (0.0, 0.1, 0.2, 0.5)
    """Standard deviations, hundredths of the object's size."""


def ceiling(truth: Truth, off: float, generator: torch.Generator) -> dict[str, float]:
    half = torch.rand(len(truth.part), generator=generator) < 0.5
    other = replace(truth, **{k: getattr(truth, k)[~half] for k in ("points", "normals", "part", "seen")})
    points, normals, part = truth.points[half], truth.normals[half], truth.part[half]
    points = points + off * truth.size * torch.randn(len(points), 1, generator=generator) * normals

    def at(frame: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pose = truth.poses(frame)[part]
        return move(pose, points), (pose[:, :3, :3] @ normals[..., None])[..., 0], part

    return errors_at_times(at, other)


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "python -m fields.benchmarks.articulated.ceiling", __doc__.splitlines()[0])
    print("| off by | " + " | ".join(f"{video.name}: {name}" for video in options.videos for name in _SHOWN) + " |")
    print("|---:|" + "---:|" * (len(_SHOWN) * len(options.videos)))
    truths = []
    for video in options.videos:
        truth = Truth.beside(load_scene(video))
        if truth is None:
            print(
                f"error: {video}: no joints.json; only videos of fields.benchmarks.articulated have it.",
                file=sys.stderr,
            )
            return 2
        truths.append(truth)
    for off in options.off:
        found = [ceiling(truth, off / 100, torch.Generator().manual_seed(0)) for truth in truths]
        print(f"| {off} % | " + " | ".join(f"{one[name]:.3f}" for one in found for name in _SHOWN) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
