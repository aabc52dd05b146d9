"""`fields.train`: what ``fields train`` does, as a function."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fields.data.scene import Scene
from fields.io.run import load
from fields.methods import from_dict, method
from fields.training.loop import Silent
from fields.training.trainer import run


def train(
    name: str,
    data: str | Path | Scene | None = None,
    out: str | Path | None = None,
    *,
    config: str | Path = "fast",
    device: str = "cpu",
    iterations: int | None = None,
    seed: int = 0,
    resume: bool = False,
    views: int | None = None,
    **overrides: Any,
):
    """Trains a field and returns it; the run folder `out` is what the command would have written.

    Args:
        name: method, such as "tensorf-vm".
        data: scene folder of any known format, or a loaded Scene; by default the embedded demo.
        out: run folder; by default ``runs/METHOD-SCENE``, as of the command.
        config: preset or TOML file.
        iterations: length; milestones of the preset move in proportion.
        views: train on so many of the images only, evenly spaced.
        overrides: settings by name, such as ``density_rank=16``.

    Raises:
        DataError, ConfigError, CheckpointError: see the commands.
    """

    chosen = method(name)
    scene = data if isinstance(data, Scene) else chosen.load_scene(data)
    if views is not None:
        scene = scene.with_views(views)
    settings = chosen.configure(config, real=scene.real)
    settings = from_dict(chosen.config, dataclasses.asdict(settings) | overrides, "overrides")
    if iterations is not None:
        settings = settings.scaled(iterations)
    out = Path(out or f"runs/{name}-{scene.name}")
    run(chosen, settings, scene.to(device), out, seed=seed, resume=resume, watcher=Silent())
    return load(out, device)
