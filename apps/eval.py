"""``fields eval RUN``: measures a trained run on held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fields.apps.common import Progress, open_run, parse
from tyro.conf import Positional


@dataclass
class Options:
    run: Annotated[Path, Positional]
    """Run folder that `fields train` wrote, or a .slim file."""
    data: Path | None = None
    """Scene folder, where it is no longer where it was trained from."""
    split: Literal["test", "train"] = "test"
    """Which images."""
    downscale: int | None = None
    """Reduce the images by this factor; default as in training."""
    device: str = "auto"
    """auto, cpu or cuda."""


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "fields eval", "Measures a trained run on held-out images.")

    from fields.errors import DataError
    from fields.io.atomic import read_json, write_json
    from fields.io.run import results_folder, scene_of
    from fields.methods import method

    config, field = open_run(options.run, options.device)
    scene = scene_of(options.run, config, options.data, options.downscale).to(field.aabb.device)
    split = getattr(scene, options.split)
    if not len(split):
        raise DataError(f"{scene.path}: has no {options.split} images. Choose the other --split.")
    with Progress("eval") as progress:
        folder = results_folder(options.run) / ("renders" if options.split == "test" else f"renders-{options.split}")
        evaluate = method(config["method"]).load_evaluation().evaluate
        result = evaluate(field, scene, split, folder, progress.step)
    metrics = results_folder(options.run) / "metrics.json"
    facts = read_json(metrics) if metrics.exists() else {"schema": config["schema"], "method": config["method"]}
    write_json(metrics, facts | {"split": options.split, "data": scene.name} | result.as_json())
    figures = "  ".join(f"{name.upper()} {value:.4g}" for name, value in result.results.items() if value is not None)
    print(f"{figures}   ({len(split)} {options.split} images, {result.render_seconds_per_image:.2f} s each)")
    print(f"Next: fields render {options.run}")
    return 0
