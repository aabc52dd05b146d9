"""The loop around a training step: progress, checkpoints, a clean stop, and going on from where it stopped."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from fields.errors import CheckpointError, FieldsError
from fields.io.atomic import read_tensors, remove_left, write_tensors
from fields.io.run import SCHEMA
from fields.training import processes


class Steps(Protocol):
    """What a training offers the loop. All its randomness comes from generators in its state."""

    shares: ClassVar[bool]
    """Whether several processes may train it: it takes its share of every batch, and means of gradients and numbers, by
    `fields.training.processes`."""

    def step(self, i: int) -> dict[str, Tensor]:
        """Iteration i (from 0); returns numbers to log.

        As tensors, so that a GPU is asked for them, and waited for, only when somebody looks.
        """
        ...

    def state(self) -> tuple[dict[str, Tensor], dict]: ...


class Watcher(Protocol):
    """Shows a training to somebody."""

    def begin(self, training: Any, stop: Callable[[], bool]) -> None:
        """Before the first step. `stop` says whether somebody wants the training to end, for whoever makes it wait."""

    def step(self, i: int, total: int, numbers: Mapping[str, Any]) -> None: ...

    def say(self, line: str) -> None: ...


class Silent:
    """Watches a training without a word."""

    def begin(self, training: Any, stop: Callable[[], bool]) -> None:
        pass

    def step(self, i: int, total: int, numbers: Mapping[str, Any] | None = None) -> None:
        pass

    def say(self, line: str) -> None:
        pass


class Interrupted(FieldsError):
    """Training was stopped from outside; its checkpoint is on disk."""


class Loop:
    """Trains, with a checkpoint every so many seconds and on Ctrl-C or SIGTERM.

    Several processes run a loop each and stay together in it; the first of them writes.

    Args:
        name: of the method.
        data: where what it learns from lies.
    """

    def __init__(self, name: str, settings: dict[str, Any], seed: int, data: str, out: Path) -> None:
        self.out, self.checkpoint = out, out / "checkpoints" / "last.safetensors"
        self.previous = self.checkpoint.with_name("previous.safetensors")
        self._ours, self._note = False, ""  # whether the last checkpoint is of this training; what to say first
        self.name, self.settings = name, settings
        self.header = {"schema": SCHEMA, "method": name, "settings": settings, "seed": seed, "scene": data}

    def run(
        self, training: Steps, iterations: int, start: int, spent: float, watcher: Watcher, checkpoint_seconds: float,
        events: Any, after: Callable[[int], None] = lambda done: None,
    ) -> float:  # fmt: skip
        """From iteration `start` to the last; returns the seconds all of it took, those `spent` before included.

        Args:
            watcher, events, after: of the first process; `after` is called after every iteration with the number of
                those that are done.

        Raises:
            Interrupted: stopped by a signal, after saving.
            ProcessError: another process has ended, or does not train the same.
        """
        began = saved = time.perf_counter()

        def save(done: int) -> None:
            self._save(training, done, spent + time.perf_counter() - began)
            if events is not None:  # those of before a checkpoint are not written again
                events.flush()

        with _signals() as stop:
            if processes.writer():
                watcher.begin(training, stop)
                if self._note:
                    watcher.say(self._note)
            for i in range(start, iterations):
                numbers = training.step(i)
                if processes.writer():
                    watcher.step(i + 1, iterations, numbers)
                    if (i + 1) % 20 == 0:
                        for name, value in numbers.items():
                            events.add_scalar(f"train/{name}", float(value), i + 1)
                    after(i + 1)
                due = processes.writer() and i + 1 < iterations and time.perf_counter() - saved > checkpoint_seconds
                stopping, due = processes.agreed(stop() or processes.abandoned(), due)
                if stopping:
                    save(i + 1)
                    raise Interrupted(
                        f"Stopped after {i + 1} iterations, saved in {self.out}. Add --resume to the same command to go on."
                    )
                if due:
                    save(i + 1)
                    saved = time.perf_counter()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds = spent + time.perf_counter() - began
        if start < iterations:
            save(iterations)
        return seconds

    def _save(self, training: Steps, done: int, seconds: float, same: bool = True) -> None:
        tensors, plain = training.state()
        if same:
            processes.require_same(tensors)
        if processes.writer():
            progress = {"iteration": done, "seconds": seconds, "training": plain}
            write_tensors(self.checkpoint, tensors, self.header | progress, self.previous if self._ours else None)
            if not self._ours:  # but of a training before this one
                self.previous.unlink(missing_ok=True)
        self._ours = True
        processes.wait()

    def begin(
        self, new: Callable[[], Any], going_on: Callable[[dict[str, Tensor], dict], Any], resume: bool
    ) -> tuple[Any, int, float]:
        """A training, the iterations done by then, and the seconds: a new one, or `going_on` from the last checkpoint.

        Where several processes begin, kernels that add in any order may make each begin a little differently: all go
        on from what the first has.

        Raises:
            CheckpointError: see `stopped`.
        """
        if resume:
            return self.stopped(going_on)
        training = new()
        if processes.count() > 1:
            self._save(training, 0, 0.0, same=False)
            training, _, _ = self.stopped(going_on)
        return training, 0, 0.0

    def stopped(self, resume: Callable[[dict[str, Tensor], dict], Any]) -> tuple[Any, int, float]:
        """What `resume` makes of the last checkpoint, the iterations done by then, and the seconds; of the one before it
        where the last is damaged.

        Raises:
            CheckpointError: there is none, or one of another method or other settings.
        """
        try:
            tensors, header = read_tensors(self.checkpoint)
        except CheckpointError as damage:
            if not self.previous.exists():
                raise
            try:
                tensors, header = read_tensors(self.previous)
            except CheckpointError:
                raise CheckpointError(f"{damage} The one before it, {self.previous.name}, is damaged too.") from damage
            found = self._resumed(self.previous, tensors, header, resume)
            self._note = f"The last checkpoint is damaged: going on from the one before it, of {found[1]} iterations."
            processes.wait()  # until all have read
            if processes.writer():
                os.replace(self.previous, self.checkpoint)
        else:
            found = self._resumed(self.checkpoint, tensors, header, resume)
        if processes.writer():  # one that was killed as it saved what was saved already leaves nothing to save
            remove_left(self.checkpoint.parent)
        self._ours = True
        return found

    def _resumed(
        self, file: Path, tensors: dict[str, Tensor], header: Any, resume: Callable[[dict[str, Tensor], dict], Any]
    ) -> tuple[Any, int, float]:
        method, settings = self.name, self.settings
        if not isinstance(header, dict) or header.get("method") != method:
            other = header.get("method") if isinstance(header, dict) else "something else"
            raise CheckpointError(f"{file}: a checkpoint of {other}, not {method}. Choose another --out.")
        try:
            stored = {k: tuple(v) if isinstance(v, list) else v for k, v in header["settings"].items()}
            changed = [k for k in settings if stored.get(k) != settings[k]]
            if changed or header["seed"] != self.header["seed"]:
                what = ", ".join(changed) or "seed"
                raise CheckpointError(
                    f"{file}: was trained with another {what}. Resume with the same settings, or leave out --resume."
                )
            return resume(tensors, header["training"]), header["iteration"], header["seconds"]
        except (TypeError, ValueError, RuntimeError, KeyError, AttributeError, IndexError) as error:
            raise CheckpointError(
                f"{file}: not a whole checkpoint of {method} ({error!r}). Train again without --resume."
            ) from error


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
