"""Trials on Ray: it places them, starts them anew where a worker dies, and carries what they say of themselves."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fields.apps.sweep.plan import Sweep, Trial

from fields.errors import ConfigError, FieldsError
from fields.io.atomic import read_json, write_atomically
from fields.training.loop import Silent

_LOOK = 0.5  # seconds between two looks at what trials say


@dataclass
class Standing:
    """How far a trial has come."""

    state: str = "waiting"
    """waiting, training, done or failed."""
    done: int = 0
    """Iterations, …"""
    total: int = 0
    """… of so many."""
    psnr: float | None = None
    """Of batches, lately."""
    starts: int = 0
    """How many workers have taken it up."""
    since: int = 0
    """Iterations that were done when the last of them did."""
    worker: str = ""
    """Machine and process."""
    reason: str = ""
    """Why it failed."""


class Board:
    """An actor: where trials write how far they have come."""

    def __init__(self) -> None:
        self.standings: dict[str, Standing] = {}

    def begin(self, name: str, worker: str) -> None:
        starts = self.standings[name].starts if name in self.standings else 0
        self.standings[name] = Standing("training", starts=starts + 1, worker=worker)

    def tell(self, name: str, facts: dict[str, Any]) -> None:
        self.standings[name] = replace(self.standings[name], **facts)

    def read(self) -> dict[str, Standing]:
        return self.standings


class Reporter(Silent):
    """Watches a training for the board."""

    def __init__(self, tell: Callable[..., Any]) -> None:
        self.tell, self.told, self.started = tell, 0.0, False

    def step(self, i: int, total: int, numbers: Mapping[str, Any] | None = None) -> None:
        if not numbers or (self.started and i < total and time.monotonic() - self.told < _LOOK):
            return
        psnr = float(numbers["psnr"]) if "psnr" in numbers else None
        self.tell(done=i, total=total, psnr=psnr, **({} if self.started else {"since": i - 1}))
        self.started, self.told = True, time.monotonic()


def train(trial: Trial, run: Path, board: Any) -> None:
    """One trial, in a worker. A worker before it that died may have left a checkpoint."""
    from fields.apps import train

    def tell(**facts: Any) -> None:
        board.tell.remote(trial.name, facts)

    board.begin.remote(trial.name, f"{platform.node()} {os.getpid()}")
    going_on = ["--resume"] if any((run / "checkpoints").glob("*.safetensors")) else []

    @contextmanager
    def watching(title: str) -> Iterator[Reporter]:
        yield Reporter(tell)

    try:
        if train.main([*trial.arguments, "--out", str(run), *going_on], watching):
            raise FieldsError("was stopped")
    except FieldsError as error:
        tell(state="failed", reason=str(error))
    except Exception as error:
        where = traceback.format_exc()
        write_atomically(run / "error.txt", lambda file: file.write_text(where))
        tell(state="failed", reason=f"{type(error).__name__}, see {run / 'error.txt'}")
    else:
        tell(state="done")


def run(
    sweep: Sweep, out: Path, address: str | None, workers: int | None, watch: Callable[[dict[str, Standing]], None]
) -> dict[str, Standing]:
    """Trains what is not trained yet; returns how all trials ended.

    Args:
        address: of a Ray cluster; None: workers on this machine, `workers` at once.
        watch: is shown all standings, again and again.

    Raises:
        ConfigError: no Ray, or no cluster at the address.
    """
    if address is None:  # keeps all of Ray on 127.0.0.1, and is read when it is imported
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError("Sweeps need Ray and PyYAML: pip install 'fields[sweep]'.") from None
    standings = {trial.name: Standing() for trial in sweep.trials}
    waiting = []
    for trial in sweep.trials:
        if finished(run_folder(out, trial)):
            standings[trial.name].state = "done"
        else:
            waiting.append(trial)
    if not waiting:
        return standings
    with _ray(ray, address, sweep, workers):
        gpus = sweep.gpus if sweep.gpus is not None else float(ray.cluster_resources().get("GPU", 0) >= 1)
        board = ray.remote(num_cpus=0)(Board).remote()
        # Each trial has a process of its own: what it leaves on a GPU ends with it.
        task = ray.remote(num_cpus=sweep.cpus, num_gpus=gpus, max_retries=sweep.retries, max_calls=1)(train)
        running = {task.remote(trial, run_folder(out, trial), board): trial for trial in waiting}
        try:
            while running:
                ended, _ = ray.wait(list(running), num_returns=len(running), timeout=_LOOK)
                standings |= ray.get(board.read.remote())
                for reference in ended:
                    trial = running.pop(reference)
                    try:
                        ray.get(reference)
                    except ray.exceptions.RayError as error:
                        lost = f"its worker died {sweep.retries + 1} times ({str(error).splitlines()[0]})"
                        standings[trial.name].state, standings[trial.name].reason = "failed", lost
                watch(standings)
        except KeyboardInterrupt:
            for reference in running:
                ray.cancel(reference, recursive=False)
            ray.wait(list(running), num_returns=len(running), timeout=20)  # they save
            raise
    return standings


def finished(run: Path) -> bool:
    """Whether a run folder has all that a training leaves: its figures come last."""
    return (run / "metrics.json").is_file()


def run_folder(out: Path, trial: Trial) -> Path:
    return (out / trial.name).resolve()


def require_same(out: Path, sweep: Sweep) -> None:
    """Raises ConfigError where run folders in `out` are of other trials that have the same names."""
    file = out / "sweep.json"
    before = read_json(file) if file.exists() else {}
    for trial in sweep.trials:
        if isinstance(before, dict) and before.get(trial.name, trial.arguments) != trial.arguments:
            raise ConfigError(
                f"{file}: {trial.name} was trained by {' '.join(before[trial.name])}, this sweep does it by "
                f"{' '.join(trial.arguments)}. Choose another --out."
            )


@contextmanager
def _ray(ray: Any, address: str | None, sweep: Sweep, workers: int | None) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    try:
        if address is not None:
            ray.init(address=address, **quiet)
        else:
            cores = max(workers * sweep.cpus if workers else os.cpu_count() or 1, sweep.cpus)
            ray.init(num_cpus=int(cores), include_dashboard=False, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise ConfigError(
            f"Ray cannot be reached at {address or 'this machine'}: {str(error).splitlines()[0]}"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()
