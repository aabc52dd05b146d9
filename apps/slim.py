"""``fields slim RUN``: one trained field as a file of any size; ``fields slim upgrade``: a small one made larger."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fields.apps.common import Progress, open_run, parse
from tyro.conf import Positional

_ENOUGH_PIXELS = 60_000  # of an image that tells the best level


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
    best: bool = False
    """The level that is best on training images that `fields train --views` left out: with few images, late ranks may
    hold floaters."""
    curve: bool = False
    """Measure every level on the held-out images: curve.csv and curve.png beside the file, and figures in it."""
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
    from fields.slimmerf import container
    from fields.slimmerf.config import number_of_bytes

    if sum([options.budget is not None, options.psnr is not None, options.best]) > 1:
        raise ConfigError("--budget, --psnr and --best each say how large: give one of them.")
    budget = None if options.budget is None else number_of_bytes(options.budget)
    data, out, in_16_bits = _whole(options)
    slim = container.read(data)
    rows = _rows(options, slim)
    if options.curve and not options.best and len(slim.chunks) == len(slim.table):  # --best looks at other images
        data = container.described(slim, rows)
        slim = container.read(data)
    level = len(slim.chunks)
    if budget is not None:
        level = container.levels_within(slim, budget)
    if options.psnr is not None:
        level = next((i for i, row in enumerate(rows, 1) if row["psnr"] >= options.psnr), 0)
        if not level:
            best = max(row["psnr"] for row in rows)
            raise ConfigError(
                f"--psnr {options.psnr:g}: no level reaches it, the best has {best:.2f} dB. Ask for less."
            )
    if options.best:
        level = max(range(len(rows)), key=lambda i: rows[i]["psnr"]) + 1
    out = options.out or out
    size = container.cut(data, level, out)
    if options.curve:
        _write_curve(out, slim, rows)
    score = f", {rows[level - 1]['psnr']:.2f} dB" if rows else ""
    print(
        f"{out}: {size} bytes ({size / 1e6:.3f} MB, {size / 2**20:.3f} MiB), {level} of {len(slim.table)} levels{score}"
    )
    if options.best:
        print(f"All {len(rows)} levels together: {rows[-1]['psnr']:.2f} dB on the same images.")
    if in_16_bits:
        print(f"All numbers of the run in 16 bits, as the paper counts: {in_16_bits} bytes")
    print(f"Next: fields eval {out}")
    return 0


def _whole(options: Options) -> tuple[bytes, Path, int]:
    """All levels; where they go unless told otherwise; and the bytes that the paper would count, of a run."""
    from fields.errors import ConfigError
    from fields.paths import from_json
    from fields.slimmerf import container
    from fields.slimmerf.field import SlimmeRF
    from fields.slimmerf.gauge import put_in_order
    from fields.slimmerf.slim import DEFAULT_STEPS, load_config, sixteen_bits, slim_path, to_slim
    from fields.tensorf.field import TensoRF

    run = options.run
    if not 0.01 <= options.coarser <= 100:
        raise ConfigError(f"--coarser is {options.coarser:g}; it can be 0.01 to 100.")
    if run.is_file() and (options.rank is not None or options.coarser != 1):
        raise ConfigError(f"{run}: --rank and --coarser need the run folder. Cut a file by --budget or --psnr.")
    if run.is_file():
        config = load_config(run)
        if config["note"]:
            print(config["note"], file=sys.stderr)
        return container.bytes_of(run), slim_path(run, config), 0
    config, field = open_run(run, "cpu")
    if not isinstance(field, TensoRF):
        raise ConfigError(f"{run}: a run of {config['method']}. Give one of slimmerf or tensorf-vm.")
    if options.rank is not None and not 1 <= options.rank <= (have := field.density_grid.channels // 3):
        raise ConfigError(f"--rank {options.rank}: the run has the ranks 1 to {have}.")
    bases = None
    if not isinstance(field, SlimmeRF) and field.density_grid.layout == "vm":
        bases = put_in_order(field, from_json(config["scene"]["cameras"]))
    data = to_slim(field, DEFAULT_STEPS.times(options.coarser), config, options.rank, bases=bases)
    return data, slim_path(run, config), sixteen_bits(field)


def _rows(options: Options, slim) -> list[dict[str, Any]]:
    """PSNR and SSIM of every level, where somebody asks for them: from the file, if they are in it, or measured now."""
    if not (options.curve or options.best or options.psnr is not None):
        return []
    known = slim.table[: len(slim.chunks)]
    if not options.best and all(type(row.get("psnr")) is float for row in known):
        return [{k: row[k] for k in ("psnr", "ssim") if k in row} for row in known]

    from fields.io.run import scene_of
    from fields.slimmerf.slim import from_slim
    from fields.training.evaluation import evaluate

    scene = scene_of(options.run, slim.model, options.data, _small_enough(slim.model) if options.best else None)
    split = _left_out(options, slim, scene) if options.best else scene.test if len(scene.test) else scene.train
    rows = []
    with Progress("slim") as progress:
        for level in range(1, len(slim.chunks) + 1):
            results = evaluate(from_slim(slim, level), scene, split).results
            rows.append({k: round(v, 4) for k, v in results.items() if v is not None})
            progress.step(level, len(slim.chunks))
    return rows


def _small_enough(model: dict[str, Any]) -> int:
    """What to reduce images by, in all, so that many levels can be compared on them: floaters stay what they are."""
    scene = model.get("scene", {})
    already = scene.get("downscale", 1)
    sizes = scene.get("cameras", {})
    pixels = max((w * h for w, h in zip(sizes.get("width", []), sizes.get("height", []), strict=True)), default=1)
    return already * max(1, round((pixels / _ENOUGH_PIXELS) ** 0.5))


def _left_out(options: Options, slim, scene):
    """Up to four of the training images that the run was not trained on."""
    from fields.errors import ConfigError

    trained = set(slim.model.get("scene", {}).get("images", scene.train.names))
    left = [i for i, name in enumerate(scene.train.names) if name not in trained]
    if not left:
        raise ConfigError(
            f"{options.run}: was trained on all images. --best needs some that `fields train --views` left out."
        )
    return scene.train.select(left[len(left) // 8 :: -(-len(left) // 4)])


def _write_curve(out: Path, slim, rows: list[dict[str, Any]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from fields.io.atomic import write_atomically

    sizes = [row["end"] for row in slim.table]
    lines = [",".join(["level", "bytes", *rows[0]])]
    for level, (size, row) in enumerate(zip(sizes, rows, strict=False), 1):
        lines.append(",".join([str(level), str(size), *(f"{value:.6g}" for value in row.values())]))
    write_atomically(out.with_name("curve.csv"), lambda file: file.write_text("\n".join(lines) + "\n"))
    figure = Figure(figsize=(6, 4), layout="tight")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    axis.plot([size / 1e6 for size in sizes[: len(rows)]], [row["psnr"] for row in rows], "o-", color="#2a6f97")
    axis.set(xlabel="MB of the file that are read", ylabel="PSNR on held-out images, dB")
    axis.spines[["top", "right"]].set_visible(False)
    write_atomically(out.with_name("curve.png"), lambda file: figure.savefig(file, dpi=120))


def _upgrade(options: Upgrade) -> int:
    from fields.slimmerf import container

    out = options.out or options.small
    slim = container.upgrade(options.small, options.rest, out)
    print(f"{out}: {len(slim.chunks)} of {len(slim.table)} levels")
    print(f"Next: fields eval {out}")
    return 0
