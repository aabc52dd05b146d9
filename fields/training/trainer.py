"""From a scene to a run folder: a method's training in the loop, with previews, and the final evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fields.core import _backend, ray_aabb_intersect
from fields.data.scene import Scene
from fields.errors import DataError
from fields.io.atomic import write_json
from fields.io.run import SCHEMA, save_field
from fields.methods import Method
from fields.paths import to_json
from fields.rendering import Field
from fields.training import processes
from fields.training.evaluation import Evaluation
from fields.training.events import event_log
from fields.training.loop import Loop, Steps, Watcher, peak_memory


class Training(Steps, Protocol):
    """What a method's training offers: among the numbers of a step is "psnr", of the batch."""

    config: Any
    field: Field

    def __init__(self, config: Any, scene: Scene, seed: int) -> None: ...

    def finish(self, out: Path) -> Iterable[str]:
        """Writes what else a run leaves, after its field and config; returns lines to say."""
        ...

    @classmethod
    def resume(cls, config: Any, scene: Scene, tensors: dict[str, Tensor], plain: dict) -> Training: ...


def run(
    method: Method,
    config: Any,
    scene: Scene,
    out: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    watcher: Watcher,
    checkpoint_seconds: float = 60.0,
    preview_every: int = 500,
    downscale: int = 1,
) -> Evaluation | None:
    """Trains, saves and evaluates; see `fields.io.run` for what ends up in `out`.

    Of several processes (`fields.training.processes`) all train, the first does everything else, and the others return
    None once it has.

    A checkpoint is written every `checkpoint_seconds` and on Ctrl-C or SIGTERM. Resuming goes on from it with the
    same random numbers: on a CPU the result is bit for bit that of an uninterrupted run.

    Args:
        downscale: by how much the images of `scene` were reduced, for whoever loads them again.

    Raises:
        Interrupted: stopped by a signal, after saving.
        CheckpointError: `resume` without a checkpoint, or with one of another method or other settings.
        ProcessError: another process has ended.
    """
    _backend.keep_freed_memory()
    if scene.aabb.is_cuda:  # the decoder's products on tensor cores: 10 bits of mantissa, sums in float32
        torch.set_float32_matmul_precision("high")
    settings, measure = dataclasses.asdict(config), method.load_evaluation()
    _require_rays_in_box(scene)
    begin: Any = method.load_training()
    loop = Loop(method.name, settings, seed, str(scene.path), out)
    training, start, spent = loop.begin(
        partial(begin, config, scene, seed), partial(begin.resume, config, scene), resume
    )
    if not processes.writer():
        loop.run(training, config.iterations, start, spent, watcher, checkpoint_seconds, None)
        processes.wait()
        return None
    with event_log(out, start) as events:

        def preview(done: int) -> None:
            if preview_every and done % preview_every == 0 and len(scene.test):
                score, picture = measure.compare(training.field, scene, scene.test, 0)
                events.add_scalar("preview/psnr", score["psnr"], done)
                events.add_image("preview", picture, done, dataformats="HWC")

        seconds = loop.run(training, config.iterations, start, spent, watcher, checkpoint_seconds, events, preview)
        relative = {"path": str(scene.path.resolve()), "format": scene.format, "downscale": downscale,
                    "world_from_input": scene.world_from_input.tolist(), "cameras": to_json(scene.train.cameras),
                    "images": scene.train.names}  # fmt: skip
        save_field(out, training.field, method.name, settings, relative)
        for line in training.finish(out):
            watcher.say(line)
        watcher.say("Rendering the test views")
        evaluation = measure.evaluate(
            training.field, scene, scene.test if len(scene.test) else scene.train, out / "renders"
        )
        facts = {
            "schema": SCHEMA,
            "method": method.name,
            "data": scene.name,
            "split": "test" if len(scene.test) else "train",
            "device": str(scene.aabb.device),
            "backend": _backend.backend_name(scene.aabb.device),
            "processes": processes.count(),
            "seed": seed,
            "iterations": config.iterations,
            "train_seconds": round(seconds, 2),
            "parameters": sum(p.numel() for p in training.field.parameters()),
            "file_bytes": (out / "model.safetensors").stat().st_size,
            "peak_memory_bytes": peak_memory(scene.aabb.device),
        }
        write_json(out / "metrics.json", facts | evaluation.as_json())
        for name, figure in evaluation.results.items():
            if figure is not None:
                events.add_scalar(f"test/{name}", figure, config.iterations)
    processes.wait()
    return evaluation


def _require_rays_in_box(scene: Scene) -> None:
    """Raises DataError where no ray through a coarse grid of points of any training image meets the box."""
    cameras = scene.train.cameras
    n, side = len(cameras), 8
    at = (torch.arange(side, device=scene.aabb.device) + 0.5) / side
    spots = torch.cartesian_prod(at, at).repeat(n, 1)
    index = torch.arange(n, device=spots.device).repeat_interleave(side * side)
    sizes = torch.stack([cameras.width, cameras.height], -1)[index]
    origins, directions = cameras.rays(index, spots * sizes)
    enter, leave, hits = ray_aabb_intersect(origins, directions, scene.aabb.view(1, 6), scene.near, scene.far)
    if not (hits & (leave > enter)).any():
        low, high = ([round(v, 3) for v in corner] for corner in scene.aabb.tolist())
        raise DataError(
            f"{scene.path}: no ray of any training image meets the box {low} to {high} between the distances "
            f"{scene.near:.3g} and {scene.far:.3g}. Look at bounds.png of `fields data check {scene.path}`; check the "
            "poses, and the box if the files give one."
        )
