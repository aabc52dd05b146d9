"""Broken objects to learn from, made up or of a file, and prepared once: clouds in a folder."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from fields.errors import DataError
from fields.garf.clouds import cloud_of
from fields.garf.fracturing import fracture, random_count
from fields.garf.fragment import Fragment
from fields.garf.hdf5 import object_names, read_object
from fields.garf.solids import random_solid
from fields.garf.wear import Wear, worn

HELD_OUT = 1_000_000
"""Objects of numbers from here on are for measuring."""
_MOST = 20
"""Pieces of an object of a file, as published."""


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
    return _prepared([folder / f"{number}.npz" for number in range(first, first + count)], _make_up, watch)


def prepare_from(file: Path, folder: Path, count: int, watch: Callable[[int, int], None]) -> list[Path]:
    """Clouds of objects that an HDF5 file (see `fields.garf.hdf5`) has for training, of two to twenty pieces; at most `count`, drawn the same way
    each time. They lie in a folder of the file's name in `folder`.

    Raises:
        DataError: not such a file, or a damaged one.
    """
    names = object_names(file, "train", _MOST)
    if not names:
        raise DataError(f"{file}: no objects of 2 to {_MOST} pieces for training. Give another file.")
    random.Random(0).shuffle(names)
    paths = [folder / file.stem / f"{name.replace('/', _SLASH)}.npz" for name in names[:count]]
    return _prepared(paths, partial(_look_up, file), watch)


_SLASH = "~"
"""In the name of a file."""


def _prepared(paths: list[Path], make: Callable[[Path], None], watch: Callable[[int, int], None]) -> list[Path]:
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    missing = [path for path in paths if not path.exists()]
    watch(len(paths) - len(missing), len(paths))
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), initializer=_alone) as pool:
        for done, future in enumerate(as_completed([pool.submit(make, path) for path in missing])):
            future.result()
            watch(len(paths) - len(missing) + done + 1, len(paths))
    return paths


def _alone() -> None:
    import torch

    torch.set_num_threads(1)


def _make_up(path: Path) -> None:
    _, fragments, rng = broken(int(path.stem))
    cloud_of(fragments, rng).save(path)


def _look_up(file: Path, path: Path) -> None:
    name = path.stem.replace(_SLASH, "/")
    cloud_of(read_object(file, name), np.random.default_rng(zlib.crc32(name.encode()))).save(path)
