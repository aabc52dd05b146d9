"""Damages files of every kind that is read, and says which readers do not answer with one clear error.

python -m fields.benchmarks.fuzz                                all targets, 500 inputs each
python -m fields.benchmarks.fuzz slim run --inputs 5000
python -m fields.benchmarks.fuzz --coverage slim --seconds 60   guided by which lines are reached: pip install atheris
"""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fields.apps.common import parse
from fields.benchmarks.fuzz.running import SECONDS, Finding, run
from fields.benchmarks.fuzz.targets import TARGETS
from tyro.conf import Positional

from fields.errors import ConfigError, FieldsError


@dataclass
class Options:
    targets: Annotated[tuple[str, ...], Positional] = ()
    """Which readers; all by default."""
    inputs: int = 500
    """Of each."""
    first: int = 0
    """Seed of the first: the same seeds damage the same files in the same way."""
    seconds: float = SECONDS
    """That an input may take; of --coverage: that the search takes."""
    coverage: str | None = None
    """A single reader, to be searched with atheris."""
    out: Path = Path("runs/fuzz")
    """Folder for the inputs that something was found with."""


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "fields.benchmarks.fuzz", (__doc__ or "").splitlines()[0])
    names = (options.coverage,) if options.coverage else options.targets or tuple(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        raise ConfigError(f"There is no target {unknown[0]!r}. Targets: {', '.join(TARGETS)}.")
    if options.coverage:
        from fields.benchmarks.fuzz.coverage import search

        search(options.coverage, options.seconds, options.out)
    failed = 0
    for name in names:
        began, places = time.perf_counter(), {}  # type: ignore[var-annotated]
        for found in run(name, range(options.first, options.first + options.inputs), options.seconds):
            if found is not None:
                places.setdefault((found.kind, found.where or re.sub(r"[\d.]+", "#", found.what)), []).append(found)
        failed += len(places)
        print(
            f"{name:24} {options.inputs} inputs, {time.perf_counter() - began:.0f} s, {len(places)} findings",
            flush=True,
        )
        for one, *more in places.values():
            print(
                f"  {one.kind} at {one.where or '?'}: {one.what}  [{_kept(options.out / name, one)}, and {len(more)} more]",
                flush=True,
            )
    return 1 if failed else 0


def _kept(folder: Path, found: Finding) -> Path:
    file = folder / f"{found.seed}-{Path(found.file).name}"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(found.data)
    return file


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FieldsError as error:
        sys.exit(f"error: {error}")
