"""The trials of a sweep while they train: a table that lives where the output is a terminal, else a line for each change."""

from __future__ import annotations

import sys
import time

from fields.apps.sweep.engine import Standing
from fields.apps.sweep.plan import Trial

_MOST = 30  # rows; those that wait longest are counted


class Table:
    def __init__(self, trials: list[Trial]) -> None:
        from rich.console import Console
        from rich.live import Live

        self.trials, self.said = trials, {}  # type: tuple[list[Trial], dict[str, tuple[str, int, int]]]
        self.console, self.began = Console(stderr=True), time.monotonic()
        self.live = Live(console=self.console, auto_refresh=False)

    def __enter__(self) -> Table:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def show(self, standings: dict[str, Standing]) -> None:
        if self.console.is_terminal:
            self.live.update(self._drawn(standings), refresh=True)
            return
        for name, standing in standings.items():
            what = standing.state, standing.starts, standing.since
            if what != self.said.get(name, ("waiting", 0, 0)):
                self.said[name] = what
                print(f"{name}: {_told(standing)}", file=sys.stderr, flush=True)

    def _drawn(self, standings: dict[str, Standing]):
        from rich.progress_bar import ProgressBar
        from rich.table import Table as Grid

        ended = [s for s in standings.values() if s.state in ("done", "failed")]
        passed = time.monotonic() - self.began
        grid = Grid(title=f"{len(ended)} of {len(self.trials)} trials, {passed / 60:.0f} min", title_style="bold")
        for column in ("trial", "", "", "PSNR, dB", "worker"):
            grid.add_column(column, justify="right" if column == "PSNR, dB" else "left")
        order = {"training": 0, "failed": 1, "done": 2, "waiting": 3}
        names = sorted(standings, key=lambda name: order[standings[name].state])
        for name in names[:_MOST]:
            one = standings[name]
            bar = ProgressBar(one.total or 1, one.total or 1 if one.state == "done" else one.done, width=20)
            psnr = "" if one.psnr is None else f"{one.psnr:.2f}"
            grid.add_row(name, bar, _told(one), psnr, one.worker)
        if len(names) > _MOST:
            grid.add_row(f"and {len(names) - _MOST} more", "", "", "", "")
        return grid


def _told(standing: Standing) -> str:
    again = f", taken up again after {standing.since} iterations" if standing.starts > 1 else ""
    return f"failed: {standing.reason}" if standing.state == "failed" else f"{standing.state}{again}"
