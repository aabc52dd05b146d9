"""Broken objects to learn from, made up and prepared once: clouds in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from fields.garf.clouds import cloud_of
from fields.garf.fracturing import fracture, random_count
from fields.garf.fragment import Fragment
from fields.garf.solids import random_solid
from fields.garf.wear import Wear, worn

HELD_OUT = 1_000_000
"""Objects of numbers from here on are for measuring."""


def broken(
    number: int, pieces: int | None = None, kind: str | None = None, wear: Wear | None = None
) -> tuple[str, list[Fragment], np.random.Generator]:
    """Object `number` of an endless list, broken: its kind, its fragments in their places, and the generator after that."""
    rng = np.random.default_rng(number)
    kind, solid = random_solid(rng, kind)
    fragments = fracture(solid, pieces or random_count(rng), rng)
    return kind, worn(fragments, wear or Wear.random(rng), rng), rng


def prepare(folder: Path, count: int, watch: Callable[[int, int], None], first: int = 0) -> list[Path]:
    """Clouds of objects first … first + count − 1, in files of `folder`; those that are there stay.

    Several processes share the work. What is made depends on the number of an object only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.npz" for number in range(first, first + count)]
    missing = [path for path in paths if not path.exists()]
    watch(count - len(missing), count)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), initializer=_alone) as pool:
        for done, future in enumerate(as_completed([pool.submit(_prepare, path) for path in missing])):
            future.result()
            watch(count - len(missing) + done + 1, count)
    return paths


def _alone() -> None:
    import torch

    torch.set_num_threads(1)


def _prepare(path: Path) -> None:
    _, fragments, rng = broken(int(path.stem))
    cloud_of(fragments, rng).save(path)
