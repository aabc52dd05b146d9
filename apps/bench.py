"""``fields bench core``: times the core against plain PyTorch on this machine; on a GPU also against the hardware."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fields.apps.common import choose_device, demo_scene, parse


@dataclass
class Options:
    json: Path | None = None
    """Write the rows to this file, and a plot beside it."""
    rounds: int = 5
    """Timed repetitions; the median counts."""
    threads: int | None = None
    """Threads of torch and of the kernels; default all."""
    only: Literal["all", "sampling", "march", "threads", "iteration", "hardware"] = "all"
    """One part only. "threads" is of CPUs, "hardware" of GPUs: bytes per second of each kernel against a copy's."""
    device: str = "cpu"
    """cpu or cuda."""
    scene: Path | None = None
    """Scene of the training iteration. Default: lego in $FIELDS_DATA, else the embedded demo."""


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] == "core":
        arguments = arguments[1:]
    options = parse(arguments, Options, "fields bench core", "Times the core against plain PyTorch, ratios in one run.")

    import torch
    from fields.benchmarks import core
    from rich.console import Console
    from rich.table import Table

    from fields.core import _backend
    from fields.errors import ConfigError
    from fields.io.atomic import write_json

    device = choose_device(options.device)
    torch.set_default_device(device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    lego = Path(os.environ.get("FIELDS_DATA", ""), "scenes", "lego")
    scene = options.scene or (lego if lego.is_dir() and "FIELDS_DATA" in os.environ else demo_scene())
    parts = {
        "sampling": lambda: core.vm_density(options.rounds),
        "march": lambda: [core.march_composite(options.rounds)],
        "threads": lambda: core.thread_scaling(options.rounds),
        "hardware": lambda: _hardware(options.rounds),
        "iteration": lambda: _iteration(options.rounds, str(scene), device.type),  # last: it tunes the allocator
    }
    del parts["threads" if device.type == "cuda" else "hardware"]
    if options.only not in ("all", *parts):
        raise ConfigError(f"--only {options.only} is not of device {device.type}.")
    rows = [row for name, part in parts.items() if options.only in ("all", name) for row in part()]
    where = f"{_backend.backend_name(device)}, {torch.get_num_threads()} threads"
    table = Table("", "ratio", "ours", "reference", "", title=where)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.ratio:.1f}×",
            f"{row.ours_seconds * 1e3:.1f} ms",
            f"{row.reference_seconds * 1e3:.1f} ms",
            row.note,
        )
    Console().print(table)
    if options.json:
        machine = {
            "backend": _backend.backend_name(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        write_json(options.json, {"machine": machine, "rows": [row.as_json() for row in rows]})
        core.plot(rows, str(options.json.with_suffix(".png")))
        print(f"Figures in {options.json}, plot in {options.json.with_suffix('.png')}")
    return 0


def _iteration(rounds: int, scene: str, device: str) -> list:
    from fields.benchmarks import core, gpu

    training = core.begun_training(scene)
    if device == "cuda":
        print(gpu.breakdown(training))
    return [core.training_iteration(rounds, training)]


def _hardware(rounds: int) -> list:
    from fields.benchmarks import gpu

    return gpu.kernels(rounds)
