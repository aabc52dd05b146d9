"""What a sweep found: one table as CSV and Markdown, and a page with plots and renderings side by side."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fields.apps.sweep.engine import Standing, run_folder
from fields.apps.sweep.plan import Sweep, Trial

from fields.errors import CheckpointError
from fields.io.atomic import read_json, write_atomically

_FACTS = ("iterations", "train_seconds", "parameters", "file_bytes", "peak_memory_bytes", "render_seconds_per_image", "device", "seed")  # fmt: skip
_STYLE = """body{font:15px sans-serif;max-width:1100px;margin:2em auto}table{border-collapse:collapse;margin:1em 0}
td,th{padding:3px 12px;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}
.best{font-weight:bold}.published{color:#777}.failed{color:#b00}figure{margin:6px 0}img{max-width:100%}"""


def rows_of(sweep: Sweep, out: Path, standings: dict[str, Standing]) -> list[dict[str, Any]]:
    """A row for each trial, with the same columns in the same order: those of a trial that failed are empty."""
    found = []
    for trial in sweep.trials:
        standing = standings[trial.name]
        row = {"trial": trial.name, "scene": trial.scene, "method": trial.method} | trial.varied
        row |= {"state": standing.state, "starts": standing.starts or None, "reason": standing.reason}
        if standing.state == "done":
            try:
                metrics = read_json(run_folder(out, trial) / "metrics.json")
                row |= metrics["results"] | {key: metrics.get(key) for key in _FACTS}
            except (CheckpointError, KeyError, TypeError) as error:
                row |= {"state": "failed", "reason": f"{error}. All machines must see the folder of --out."}
        found.append(row)
    columns = [key for key in dict.fromkeys(key for row in found for key in row) if any(r.get(key) is not None for r in found)]  # fmt: skip
    return [{key: row.get(key) for key in columns} for row in found]


def write(sweep: Sweep, out: Path, rows: list[dict[str, Any]], title: str) -> None:
    """results.csv, results.md and report.html."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    for name, content in {
        "results.csv": text.getvalue(),
        "results.md": _markdown(sweep, rows, title),
        "report.html": _page(sweep, out, rows, title),
    }.items():
        write_atomically(out / name, lambda file, content=content: file.write_text(content))  # type: ignore[misc]


def _table(sweep: Sweep, rows: Sequence[dict[str, Any]], figure: str) -> list[tuple[str, dict[str, float]]]:
    """Ways to train, published ones first, and what each gave by scene."""
    ways: dict[str, dict[str, float]] = {}
    for trial, row in zip(sweep.trials, rows, strict=True):
        way = " ".join([trial.method, *(f"{key}={value}" for key, value in trial.varied.items())])
        value = row.get(figure)
        ways.setdefault(way, {}).update({} if value is None else {trial.scene: value})
    published = sweep.published.items() if figure == "psnr" else ()
    return [*published, *ways.items()]


def _scenes(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(trial.scene for trial in sweep.trials))


def _mean(values: dict[str, float], scenes: list[str]) -> float | None:
    """As published, or over all scenes, or nothing: means of different scenes are not to be compared."""
    if "mean" in values:
        return values["mean"]
    return sum(values[s] for s in scenes) / len(scenes) if all(s in values for s in scenes) else None


def _markdown(sweep: Sweep, rows: list[dict[str, Any]], title: str) -> str:
    scenes, lines = _scenes(sweep), [f"# {title}"]
    for figure in ("psnr", "ssim", "parameters", "train_seconds"):
        table = _table(sweep, rows, figure)
        if not any(values for _, values in table):
            continue
        lines += [
            "",
            f"## {_name(figure)}",
            "",
            f"| | {' | '.join([*scenes, 'mean'])} |",
            "|---" * (len(scenes) + 2) + "|",
        ]
        for way, values in table:
            cells = [*(values.get(scene) for scene in scenes), _mean(values, scenes)]
            lines.append(f"| {way} | {' | '.join(_shown(figure, cell) for cell in cells)} |")
    if failed := [row for row in rows if row["state"] != "done"]:
        lines += [
            "",
            "## Not trained",
            "",
            *(f"* {row['trial']}: {row.get('reason') or row['state']}" for row in failed),
        ]
    return "\n".join(lines) + "\n"


def _name(figure: str) -> str:
    return {"psnr": "PSNR, dB", "ssim": "SSIM", "parameters": "Parameters, M", "train_seconds": "Training, seconds"}[figure]  # fmt: skip


def _shown(figure: str, value: float | None) -> str:
    if value is None:
        return "–"
    return {"psnr": "{:.2f}", "ssim": "{:.4f}", "parameters": "{:.2f}", "train_seconds": "{:.0f}"}[figure].format(
        value / 1e6 if figure == "parameters" else value
    )


def _page(sweep: Sweep, out: Path, rows: list[dict[str, Any]], title: str) -> str:
    scenes, parts = _scenes(sweep), []
    for figure in ("psnr", "ssim", "parameters", "train_seconds"):
        table = _table(sweep, rows, figure)
        if not any(values for _, values in table):
            continue
        best = min if figure in ("parameters", "train_seconds") else max
        ours = [values for way, values in table if way not in sweep.published]
        means = [mean for values in ours if (mean := _mean(values, scenes)) is not None]
        top = [best((v[s] for v in ours if s in v), default=None) for s in scenes] + [best(means, default=None)]
        body = "".join(
            f"<tr{' class=published' if way in sweep.published else ''}><td>{html.escape(way)}</td>"
            + "".join(
                f"<td{' class=best' if value is not None and value == least else ''}>{_shown(figure, value)}</td>"
                for value, least in zip([*(values.get(s) for s in scenes), _mean(values, scenes)], top, strict=True)
            )
            + "</tr>"
            for way, values in table
        )
        head = "".join(f"<th>{html.escape(scene)}</th>" for scene in [*scenes, "mean"])
        parts.append(f"<h2>{_name(figure)}</h2><table><tr><th></th>{head}</tr>{body}</table>")
    if any("psnr" in row and row["psnr"] is not None for row in rows):
        parts += [f"<h2>Quality for size and time</h2>{_image(_plot(sweep, rows))}"]
    parts.append("<h2>Side by side</h2><p>Truth, rendering, error (0 to 0.2), depth.</p>")
    for scene in scenes:
        trials = [trial for trial in sweep.trials if trial.scene == scene]
        shown = _in_common([run_folder(out, trial) / "renders" for trial in trials])
        parts.append(f"<h3>{html.escape(scene)}{f', {html.escape(shown)}' if shown else ''}</h3>")
        parts += [_figure(out, trial, shown) for trial in trials]
    columns = list(rows[0])
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr{'' if row['state'] == 'done' else ' class=failed'}>"
        + "".join(f"<td>{'' if row[c] is None else html.escape(_plain(row[c]))}</td>" for c in columns)
        + "</tr>"
        for row in rows
    )
    parts.append(f"<h2>All trials</h2><div style='overflow-x:auto'><table><tr>{head}</tr>{body}</table></div>")
    return f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>{''.join(parts)}\n"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _in_common(folders: list[Path]) -> str | None:
    """A test view that as many trials as possible have rendered."""
    names = [file.name for folder in folders for file in sorted(folder.glob("*.png"))]
    return max(names, key=names.count, default=None)


def _figure(out: Path, trial: Trial, shown: str | None) -> str:
    """The picture stays where it is: the page and the runs beside it are one folder."""
    if shown is None or not (run_folder(out, trial) / "renders" / shown).is_file():
        return f"<p class=failed>{html.escape(trial.name)}: no rendering</p>"
    source = html.escape(f"{trial.name}/renders/{shown}")
    return (
        f'<figure><img loading=lazy src="{source}" alt=""><figcaption>{html.escape(trial.name)}</figcaption></figure>'
    )


def _image(content: bytes) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(content).decode()}" alt="">'


def _plot(sweep: Sweep, rows: list[dict[str, Any]]) -> bytes:
    """PSNR over parameters and over training time, a colour for each method, a mark for each scene."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    figure = Figure(figsize=(11, 4), layout="tight")
    FigureCanvasAgg(figure)
    methods = list(dict.fromkeys(trial.method for trial in sweep.trials))
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    over: list[tuple[str, str, Callable[[float], float]]] = [
        ("parameters", "parameters, M", lambda n: n / 1e6), ("train_seconds", "training, seconds", float)
    ]  # fmt: skip
    for axis, (key, label, scaled) in zip(figure.subplots(1, 2, sharey=True), over, strict=True):
        for i, method in enumerate(methods):
            for k, scene in enumerate(_scenes(sweep)):
                points = [
                    (scaled(row[key]), row["psnr"])
                    for row in rows
                    if row["method"] == method and row["scene"] == scene and row.get("psnr") is not None
                ]
                if points:
                    axis.scatter(*zip(*points, strict=True), color=colours[i % 10], marker="osD^vP*X<>"[k % 10], label=f"{method}, {scene}")  # fmt: skip
        axis.set(xlabel=label, xscale="log")
        least, most = axis.get_xlim()
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if most > 5 * least else MaxNLocator(5))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("PSNR of test views, dB")
    figure.axes[1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110)
    return picture.getvalue()
