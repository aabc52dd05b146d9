"""``fields sweep SWEEP.yaml``: many scenes with many methods, here or on a Ray cluster, and one table of all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fields.apps.common import parse
from tyro.conf import Positional


@dataclass
class Options:
    sweep: Annotated[str, Positional]
    """YAML file, or the name of one that comes with the package."""
    data: Path | None = None
    """Folder that holds the scenes. Default: that of the file."""
    out: Path | None = None
    """Where a run folder for each trial goes, and the results. All machines must see it. Default: runs/SWEEP."""
    address: str | None = None
    """Of a Ray cluster, auto for the one this machine is in. Default: workers on this machine."""
    workers: int | None = None
    """How many trials at once on this machine. Default: as many as have a core, or as many cores as each asks for."""


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "fields sweep", "Trains every scene with every method, and compares.")

    from fields.apps.sweep import engine, report
    from fields.apps.sweep.plan import Sweep, shipped_sweeps
    from fields.apps.sweep.table import Table

    from fields.errors import ConfigError
    from fields.io.atomic import write_json

    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"--workers is {options.workers}; it must be at least 1.")
    file = shipped_sweeps().get(options.sweep, Path(options.sweep))
    sweep = Sweep.of(file, options.data)
    out = options.out or Path("runs") / file.stem
    engine.require_same(out, sweep)
    write_json(out / "sweep.json", {trial.name: trial.arguments for trial in sweep.trials})
    with Table(sweep.trials) as table:
        standings = engine.run(sweep, out, options.address, options.workers, table.show)
    rows = report.rows_of(sweep, out, standings)
    report.write(sweep, out, rows, file.stem)
    print((out / "results.md").read_text())
    failed = sum(row["state"] != "done" for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} trained   (table in {out / 'results.csv'})")
    print(f"Next: open {out / 'report.html'}" + (f"; the same command tries the {failed} again" if failed else ""))
    return 1 if failed else 0
