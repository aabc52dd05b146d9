"""The loop around a method's training step: progress, previews, checkpoints, a clean stop, the final evaluation."""

from __future__ import annotations

import dataclasses
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fields.core import _backend, ray_aabb_intersect
from fields.data.scene import Scene
from fields.errors import CheckpointError, DataError, FieldsError
from fields.io.atomic import read_tensors, write_json, write_tensors
from fields.io.run import SCHEMA, save_field
from fields.methods import Method
from fields.paths import to_json
from fields.rendering import Field
from fields.training.evaluation import Evaluation


class Training(Protocol):
    """What a method's training offers the loop. All its randomness comes from generators in its state."""

    config: Any
    field: Field

    def __init__(self, config: Any, scene: Scene, seed: int) -> None: ...

    def step(self, i: int) -> dict[str, Tensor]:
        """Iteration i (from 0); returns numbers to log, among them "psnr" of the batch.

        As tensors, so that a GPU is asked for them, and waited for, only when somebody looks.
        """

    def finish(self, out: Path) -> Iterable[str]:
        """Writes what else a run leaves, after its field and config; returns lines to say."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict]: ...

    @classmethod
    def resume(cls, config: Any, scene: Scene, tensors: dict[str, Tensor], plain: dict) -> Training: ...


class Watcher(Protocol):
    """Shows a training to somebody."""

    def begin(self, training: Training, stop: Callable[[], bool]) -> None:
        """Before the first step. `stop` says whether somebody wants the training to end, for whoever makes it wait."""

    def step(self, i: int, total: int, numbers: Mapping[str, Any]) -> None: ...

    def say(self, line: str) -> None: ...


class Interrupted(FieldsError):
    """Training was stopped from outside; its checkpoint is on disk."""


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
) -> Evaluation:
    """Trains, saves and evaluates; see `fields.io.run` for what ends up in `out`.

    A checkpoint is written every `checkpoint_seconds` and on Ctrl-C or SIGTERM. Resuming goes on from it with the
    same random numbers: on a CPU the result is bit for bit that of an uninterrupted run.

    Args:
        downscale: by how much the images of `scene` were reduced, for whoever loads them again.

    Raises:
        Interrupted: stopped by a signal, after saving.
        CheckpointError: `resume` without a checkpoint, or with one of another method or other settings.
    """
    from torch.utils.tensorboard import SummaryWriter

    _backend.keep_freed_memory()
    if scene.aabb.is_cuda:  # the decoder's products on tensor cores: 10 bits of mantissa, sums in float32
        torch.set_float32_matmul_precision("high")
    settings, measure = dataclasses.asdict(config), method.load_evaluation()
    checkpoint = out / "checkpoints" / "last.safetensors"
    _require_rays_in_box(scene)
    training, start, spent = _begin(method, config, settings, scene, seed, checkpoint, resume)
    out.mkdir(parents=True, exist_ok=True)
    events = SummaryWriter(str(out), purge_step=start or None)
    began = saved = time.perf_counter()

    def save(done: int) -> None:
        tensors, plain = training.state()
        seconds = spent + time.perf_counter() - began
        header = {"schema": SCHEMA, "method": method.name, "settings": settings, "seed": seed, "scene": str(scene.path)}
        write_tensors(checkpoint, tensors, header | {"iteration": done, "seconds": seconds, "training": plain})

    with _signals() as stop:
        watcher.begin(training, stop)
        for i in range(start, config.iterations):
            numbers = training.step(i)
            watcher.step(i + 1, config.iterations, numbers)
            if (i + 1) % 20 == 0:
                for name, value in numbers.items():
                    events.add_scalar(f"train/{name}", float(value), i + 1)
            if preview_every and (i + 1) % preview_every == 0 and len(scene.test):
                score, picture = measure.compare(training.field, scene, scene.test, 0)
                events.add_scalar("preview/psnr", score["psnr"], i + 1)
                events.add_image("preview", picture, i + 1, dataformats="HWC")
            if stop():
                save(i + 1)
                raise Interrupted(
                    f"Stopped after {i + 1} iterations, saved in {out}. Add --resume to the same command to go on."
                )
            if time.perf_counter() - saved > checkpoint_seconds:
                save(i + 1)
                saved = time.perf_counter()
    if scene.aabb.is_cuda:
        torch.cuda.synchronize(scene.aabb.device)
    seconds = spent + time.perf_counter() - began
    if start < config.iterations:
        save(config.iterations)
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
    events.close()
    return evaluation


def _begin(method, config, settings, scene, seed, checkpoint, resume) -> tuple[Training, int, float]:
    training = method.load_training()
    if not resume:
        return training(config, scene, seed), 0, 0.0
    tensors, header = read_tensors(checkpoint)
    for partial in checkpoint.parent.glob(".*"):  # of a process that was killed while saving
        partial.unlink(missing_ok=True)
    if not isinstance(header, dict) or header.get("method") != method.name:
        other = header.get("method") if isinstance(header, dict) else "something else"
        raise CheckpointError(f"{checkpoint}: a checkpoint of {other}, not {method.name}. Choose another --out.")
    try:
        stored = {k: tuple(v) if isinstance(v, list) else v for k, v in header["settings"].items()}
        changed = [k for k in settings if stored.get(k) != settings[k]]
        if changed or header["seed"] != seed:
            what = ", ".join(changed) or "seed"
            raise CheckpointError(
                f"{checkpoint}: was trained with another {what}. Resume with the same settings, or leave out --resume."
            )
        return training.resume(config, scene, tensors, header["training"]), header["iteration"], header["seconds"]
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{checkpoint}: not a whole checkpoint of {method.name} ({error!r}). Train again without --resume."
        ) from error


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


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGINT or SIGTERM has come; a second one acts at once."""
    received: list[int] = []
    before: dict[int, Any] = {}

    def handle(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread: whoever owns it owns the signals
        before.clear()
    try:
        yield lambda: bool(received)
    finally:
        for code, handler in before.items():
            signal.signal(code, handler)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the process on a CPU, of torch's allocations on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
