"""``fields slim RUN``: one trained field as a file of any size; ``fields slim upgrade``: a small one made larger."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fields.apps.common import Progress, open_run, parse
from tyro.conf import Positional


@dataclass
class Options:
    run: Annotated[Path, Positional]
    """Run folder of slimmerf or tensorf-vm, or a .slim file to cut further."""
    out: Path | None = None
    """The file to write; default: exports/SCENE.slim in the run folder."""
    budget: str | None = None
    """At most so many bytes: 500KB, 1MB, 1MiB."""
    rank: int | None = None
    """Put only the first so many ranks into the file, of a run."""
    psnr: float | None = None
    """The smallest level that reaches this on held-out images, dB."""
    curve: bool = False
    """Measure every level on the held-out images: curve.csv and curve.png beside the file."""
    coarser: float = 1.0
    """Round so many times coarser at the finest, or finer (below 1)."""
    data: Path | None = None
    """Scene folder, where it is no longer where it was trained from."""


@dataclass
class Upgrade:
    small: Annotated[Path, Positional]
    """A .slim file that ends early."""
    rest: Annotated[Path, Positional]
    """The bytes it lacks, or a longer file of the same model."""
    out: Path | None = None
    """Default: the small file itself."""


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["upgrade"]:
        return _upgrade(parse(arguments[1:], Upgrade, "fields slim upgrade", "Adds to a .slim file what it lacks."))
    options = parse(arguments, Options, "fields slim", "Writes a trained field as a .slim file of any size.")

    from fields.errors import ConfigError
    from fields.io.run import results_folder
    from fields.slimmerf import container

    if options.budget is not None and options.psnr is not None:
        raise ConfigError("--budget and --psnr each say how large: give one of them.")
    budget = _bytes(options.budget) if options.budget else None
    data, name = _whole(options)
    slim = container.read(data)
    rows = _measure(options, slim) if options.curve or options.psnr is not None else []
    level = len(slim.chunks)
    if budget is not None:
        level = sum(row["end"] <= budget for row in slim.table[:level])
        if not level:
            least = slim.table[0]["end"]
            raise ConfigError(f"--budget {options.budget}: the first level takes {least} bytes. Allow more.")
    if options.psnr is not None:
        level = next((row["level"] for row in rows if row["psnr"] >= options.psnr), 0)
        if not level:
            best = max(row["psnr"] for row in rows)
            raise ConfigError(
                f"--psnr {options.psnr:g}: no level reaches it, the best has {best:.2f} dB. Ask for less."
            )
    out = options.out or results_folder(options.run) / "exports" / f"{name}.slim"
    size = container.cut(data, level, out)
    if options.curve:
        _write_curve(out, rows)
    score = f", {rows[level - 1]['psnr']:.2f} dB" if rows else ""
    print(
        f"{out}: {size} bytes ({size / 1e6:.3f} MB, {size / 2**20:.3f} MiB), {level} of {len(slim.table)} levels{score}"
    )
    print(f"Next: fields eval {out}")
    return 0


def _whole(options: Options) -> tuple[bytes, str]:
    """All levels, and the scene's name."""
    from fields.errors import ConfigError
    from fields.slimmerf import container
    from fields.slimmerf.slim import DEFAULT_STEPS, to_slim
    from fields.tensorf.field import TensoRF

    if not 0.01 <= options.coarser <= 100:
        raise ConfigError(f"--coarser is {options.coarser:g}; it can be 0.01 to 100.")
    if options.run.is_file() and (options.rank is not None or options.coarser != 1):
        raise ConfigError(f"{options.run}: --rank and --coarser need the run folder. Cut a file by --budget or --psnr.")
    if options.run.is_file():
        if note := container.read(options.run).note:
            print(note, file=sys.stderr)
        return container.bytes_of(options.run), options.run.stem
    config, field = open_run(options.run, "cpu")
    if not isinstance(field, TensoRF):
        raise ConfigError(f"{options.run}: a run of {config['method']}. Give one of slimmerf or tensorf-vm.")
    if options.rank is not None and not 1 <= options.rank <= (have := field.density_grid.channels // 3):
        raise ConfigError(f"--rank {options.rank}: the run has the ranks 1 to {have}.")
    name = Path(config.get("scene", {}).get("path", options.run)).name
    return to_slim(field, DEFAULT_STEPS.times(options.coarser), config, options.rank), name


def _measure(options: Options, slim) -> list[dict]:
    """Bytes and figures of every level."""
    from fields.io.run import scene_of
    from fields.slimmerf.slim import from_slim
    from fields.training.evaluation import evaluate

    scene = scene_of(options.run, slim.model, options.data)
    split = scene.test if len(scene.test) else scene.train
    rows = []
    with Progress("slim") as progress:
        for level in range(1, len(slim.chunks) + 1):
            results = evaluate(from_slim(slim, level), scene, split).results
            row = {"level": level, "bytes": slim.table[level - 1]["end"]}
            rows.append(row | {k: v for k, v in results.items() if v is not None})
            progress.step(level, len(slim.chunks))
    return rows


def _write_curve(out: Path, rows: list[dict]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from fields.io.atomic import write_atomically

    lines = [
        ",".join(rows[0]),
        *(",".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in r.values()) for r in rows),
    ]
    write_atomically(out.with_name("curve.csv"), lambda file: file.write_text("\n".join(lines) + "\n"))
    figure = Figure(figsize=(6, 4), layout="tight")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    axis.plot([r["bytes"] / 1e6 for r in rows], [r["psnr"] for r in rows], "o-", color="#2a6f97")
    axis.set(xlabel="MB of the file that are read", ylabel="PSNR on held-out images, dB")
    axis.spines[["top", "right"]].set_visible(False)
    write_atomically(out.with_name("curve.png"), lambda file: figure.savefig(file, dpi=120))


def _bytes(text: str) -> int:
    """A size as a person writes it."""
    import re

    from fields.errors import ConfigError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|B|[kM]i?B)", text.strip(), re.IGNORECASE)
    if not found:
        raise ConfigError(f"--budget is {text!r}; write bytes, 500KB, 1.5MB or 1MiB.")
    units = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "kib": 2**10, "mib": 2**20}
    return int(float(found[1]) * units[found[2].lower()])


def _upgrade(options: Upgrade) -> int:
    from fields.slimmerf import container

    out = options.out or options.small
    slim = container.upgrade(options.small, options.rest, out)
    print(f"{out}: {len(slim.chunks)} of {len(slim.table)} levels")
    print(f"Next: fields eval {out}")
    return 0
