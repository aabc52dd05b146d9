"""SlimmeRF's figures: `python -m fields.benchmarks.slimmerf {gap,rate} --out FOLDER`.

gap     what cutting costs: PSNR of one trained field cut to r ranks, against fields of r ranks trained for themselves
rate    PSNR over bytes: of every level of one file, against fields trained and coded for each size, the paper's training,
        a tensorf-vm cut by index, and general compression of 16-bit numbers

Trained fields stay in FOLDER: what is there is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import lzma
from collections.abc import Iterator
from pathlib import Path

import torch
from fields.benchmarks.strivec import SCENES, scenes, trained

from fields.data.scene import Scene
from fields.errors import DataError
from fields.io.atomic import write_json
from fields.io.run import load, save_field
from fields.methods import method
from fields.paths import to_json
from fields.slimmerf import container
from fields.slimmerf.field import cut
from fields.slimmerf.gauge import put_in_order
from fields.slimmerf.slim import DEFAULT_STEPS, from_slim, to_slim
from fields.tensorf.field import TensoRF
from fields.training.evaluation import evaluate

ALONE = (2, 4, 8)
TRAININGS = ("nested", "clock", "paper")
BUDGETS = (50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000)
COARSER = (16, 8, 4, 2, 1, 0.5)


def field_of(scene: Scene, training: str, ranks: int, arguments: argparse.Namespace) -> TensoRF:
    """slimmerf trained in one of its ways, or tensorf-vm ("alone") of so many ranks, from the folder or newly trained."""
    name = "tensorf-vm" if training == "alone" else "slimmerf"
    config = method(name).configure("fast", real=scene.real)
    each = config.appearance_rank // config.density_rank
    config = dataclasses.replace(config, density_rank=ranks, appearance_rank=each * ranks)
    if training != "alone":
        config = dataclasses.replace(config, growth=training)
    folder = arguments.out / f"{scene.name}-{training}-{ranks}-{arguments.iterations}-{arguments.seed}"
    if not (folder / "config.json").exists():
        try:
            field, _ = trained(name, config, scene, arguments.seed, arguments.iterations)
        except (
            DataError
        ):  # two ranks of the cape never form: the L1 prior, a mean over all factors, weighs more for few
            config = dataclasses.replace(config, l1=tuple(weight * ranks / 8 for weight in config.l1))
            field, _ = trained(name, config, scene, arguments.seed, arguments.iterations)
        save_field(folder, field, name, dataclasses.asdict(config.scaled(arguments.iterations)), {})
    return load(folder)  # type: ignore[return-value]


def score(field: TensoRF, scene: Scene) -> dict:
    return {k: round(v, 4) for k, v in evaluate(field, scene, scene.test).results.items() if v is not None}


def show(row: dict) -> dict:
    print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return row


# ---------------------------------------------------------------------------------------- gap


def gap(scene: Scene, arguments: argparse.Namespace) -> Iterator[dict]:
    """Every way to train and number of ranks."""
    for training in TRAININGS:
        field = field_of(scene, training, 8, arguments)
        for r in range(1, 9):
            yield {"scene": scene.name, "training": training, "ranks": r} | score(cut(field, r, 3 * r), scene)
    for r in ALONE:
        yield {"scene": scene.name, "training": "alone", "ranks": r} | score(
            field_of(scene, "alone", r, arguments), scene
        )


# ---------------------------------------------------------------------------------------- rate


def half_bytes(field: TensoRF) -> bytes:
    """All numbers in 16 bits and a bit per occupancy cell: what the paper counts (its section 3.3), but for the pickle."""
    numbers = torch.cat([p.detach().flatten() for p in field.parameters()]).half()
    return numbers.numpy().tobytes() + bytes(-(-field.occupied.numel() // 8))


def rate(scene: Scene, arguments: argparse.Namespace) -> Iterator[dict]:
    """Points of every curve."""

    def point(curve: str, size: int, field: TensoRF, **facts) -> dict:
        return {"scene": scene.name, "curve": curve, **facts, "bytes": size} | score(field, scene)

    run = {"schema": 1, "method": "slimmerf", "scene": {"cameras": to_json(scene.train.cameras)}}
    nested = field_of(scene, "nested", 8, arguments)
    slim = container.read(to_slim(nested, DEFAULT_STEPS, run))
    for level in range(1, len(slim.table) + 1):
        yield point("one file", slim.table[level - 1]["end"], from_slim(slim, level), level=level)
    for ranks in ALONE:
        alone = field_of(scene, "alone", ranks, arguments)
        put_in_order(alone, scene.train.cameras)
        for coarser in COARSER:
            data = to_slim(alone, DEFAULT_STEPS.times(coarser), run | {"method": "tensorf-vm"}, layers=1)
            yield point("alone, coded", len(data), from_slim(container.read(data)), ranks=ranks, coarser=coarser)
    for curve, training in (
        ("paper", "paper"),
        ("clock", "clock"),
        ("tensorf-vm cut by index", "alone"),
        ("nested", "nested"),
    ):
        whole = field_of(scene, training, 8, arguments)
        for r in ALONE:
            field = cut(whole, r, 3 * r)
            yield point(f"{curve}, 16 bits", len(half_bytes(field)), field, ranks=r)
            if curve == "nested":
                size = len(lzma.compress(half_bytes(field), preset=9))
                yield point("nested, 16 bits, LZMA", size, field, ranks=r)


def table(rows: list[dict]) -> list[str]:
    """The best of every curve within every budget, in Markdown."""
    lines = [
        "| scene | curve | " + " | ".join(f"{b / 1e6:g} MB" for b in BUDGETS) + " |",
        "|---|---" + "|---:" * len(BUDGETS) + "|",
    ]
    for scene, curve in dict.fromkeys((row["scene"], row["curve"]) for row in rows):
        of_curve = [row for row in rows if (row["scene"], row["curve"]) == (scene, curve)]
        best = [max((r["psnr"] for r in of_curve if r["bytes"] <= b), default=None) for b in BUDGETS]
        lines.append(f"| {scene} | {curve} | " + " | ".join("" if b is None else f"{b:.2f}" for b in best) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["gap", "rate"])
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), choices=list(SCENES))
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("slimmerf"))
    arguments = parser.parse_args()
    for what in arguments.what:
        rows: list[dict] = []
        for scene in scenes(arguments.scenes):
            for row in {"gap": gap, "rate": rate}[what](scene, arguments):
                rows.append(show(row))
                write_json(arguments.out / f"slimmerf_{what}.json", {"iterations": arguments.iterations, "rows": rows})
        if what == "rate":
            print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
