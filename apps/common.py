"""What several commands share: parsing, devices, the progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from fields.errors import DeviceError
from fields.methods import shipped

T = TypeVar("T")


def parse(arguments: Sequence[str], into: type[T], prog: str, description: str, default: T | None = None) -> T:
    """Arguments to a dataclass; a wrong one ends the program with exit code 2, `--help` with 0."""
    import tyro

    extra = {} if default is None else {"default": default}
    return tyro.cli(into, args=list(arguments), prog=prog, description=description, **extra)


def subcommand(
    arguments: Sequence[str], prog: str, usage: str, commands: Mapping[str, Callable[[list[str]], int]]
) -> int:
    """Runs the command that the first argument names; says what there is where it names none."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        return 0 if arguments else 2
    if arguments[0] not in commands:
        print(f"error: {prog} has no {arguments[0]!r}; it has: {', '.join(commands)}.", file=sys.stderr)
        return 2
    return commands[arguments[0]](list(arguments[1:]))


def choose_device(name: str):
    """ "auto" is the GPU where torch sees one that kernels can be compiled for, else the CPU. Raises DeviceError for a
    device this machine does not have."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and _kernels_for_gpus() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"There is no device {name!r}. Use auto, cpu or cuda.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: torch sees no NVIDIA GPU here. Use --device cpu, or see `fields doctor`.")
    return device


def _kernels_for_gpus() -> bool:
    from fields.core import _cuda
    from fields.errors import BackendError

    try:
        _cuda.architecture()
    except BackendError as error:
        print(f"Using the CPU: {error}", file=sys.stderr)
        return False
    return True


def open_run(run: Path, device: str) -> tuple[dict[str, Any], Any]:
    """Config and field of a run folder or .slim file; says what is missing of it."""
    from fields.io.run import load, load_config

    config = load_config(run)
    if note := config.get("note"):
        print(note, file=sys.stderr)
    return config, load(run, choose_device(device))


def demo_scene() -> Path:
    """The embedded scene."""
    return shipped("assets") / "demo"


def demo_fragments() -> Path:
    """The embedded broken vase."""
    return shipped("assets") / "demo-garf"


def watching(title: str) -> AbstractContextManager[Any]:
    """A `Progress` to watch with; where several processes train, for the first of them only."""
    from fields.training import processes
    from fields.training.loop import Silent

    return Progress(title) if processes.writer() else nullcontext(Silent())


class Progress:
    """A bar with the metric, the memory and the time left; plain lines where the output is not a terminal."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.console = Console(stderr=True)
        columns = [TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
                   TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]  # fmt: skip
        self.bar = Bar(*columns, console=self.console, transient=False)
        self.title, self.task, self.psnr, self.last_line = title, None, None, 0

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, training: Any, stop: Callable[[], bool]) -> None:
        pass

    def step(self, i: int, total: int, numbers: Mapping[str, Any] | None = None) -> None:
        from fields.training.loop import peak_memory

        # Every tenth value: looking at more would make a GPU wait for the host.
        if numbers and i % 10 == 0 and (value := numbers.get("psnr")) is not None:
            self.psnr = float(value) if self.psnr is None else 0.75 * self.psnr + 0.25 * float(value)
        note = "" if self.psnr is None else f"PSNR {self.psnr:5.2f} dB"
        if self.console.is_terminal:
            if self.task is None:
                self.task = self.bar.add_task(self.title, total=total, note="")
            if i % 10 == 0 or i == total:
                import torch

                memory = peak_memory(torch.device("cuda" if torch.cuda.is_initialized() else "cpu")) / 2**30
                note = f"{note}  {memory:.1f} GiB"
            self.bar.update(
                self.task, completed=i, total=total, **({"note": note} if i % 10 == 0 or i == total else {})
            )
        elif i * 10 // total != self.last_line:  # of another total it begins again
            self.last_line = i * 10 // total
            print(f"{self.title}: {i}/{total}  {note}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        self.console.print(line, style="dim")
