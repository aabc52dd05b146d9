"""Timing two ways of doing one thing in one run, turn by turn, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch


@dataclass
class Row:
    name: str
    ratio: float
    ours_seconds: float
    reference_seconds: float
    note: str = ""

    def as_json(self) -> dict:
        return asdict(self)


def finish() -> None:
    """Waits until a GPU, if tensors live on one by default, has done what it was given."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def compare(
    name: str, ours: Callable[[], object], reference: Callable[[], object], rounds: int = 5, note: str = ""
) -> Row:
    """Medians over alternating rounds, after one of each to warm up; the ratio is reference over ours."""
    ours(), reference()
    finish()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for function, into in zip((ours, reference), times, strict=True):
            began = time.perf_counter()
            function()
            finish()
            into.append(time.perf_counter() - began)
    mine, theirs = map(statistics.median, times)
    return Row(name, theirs / mine, mine, theirs, note)
