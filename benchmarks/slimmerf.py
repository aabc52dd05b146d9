"""SlimmeRF's figures: `python -m fields.benchmarks.slimmerf gap --out FOLDER`.

gap     what cutting costs: PSNR of one trained field cut to r ranks, against fields of r ranks trained for themselves
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from fields.benchmarks.strivec import SCENES, scenes, trained

from fields.io.atomic import write_json
from fields.methods import method
from fields.slimmerf.field import cut
from fields.training.evaluation import evaluate


def gap(names: list[str], iterations: int, seed: int) -> Iterator[dict]:
    """Rows of every way to train, scene and number of ranks: a quarter, a half, and all of the preset's."""
    for scene in scenes(names):
        config = method("slimmerf").configure("fast", real=scene.real)
        ranks, each = config.density_rank, config.appearance_rank // config.density_rank
        for growth in ("nested", "clock", "paper"):
            chosen = dataclasses.replace(config, growth=growth)
            field, whole = trained("slimmerf", chosen, scene, seed, iterations)
            for r in range(1, ranks + 1):
                score = evaluate(cut(field, r, each * r), scene, scene.test).results
                print(f"  {growth} cut to {r}: {score['psnr']:.2f} dB", flush=True)
                yield whole | score | {"training": growth, "ranks": r}
        plain = method("tensorf-vm").configure("fast", real=scene.real)
        for r in (ranks, ranks // 2, ranks // 4):
            alone = dataclasses.replace(plain, density_rank=r, appearance_rank=each * r)
            yield trained("tensorf-vm", alone, scene, seed, iterations)[1] | {"training": "alone", "ranks": r}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["gap"])
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), choices=list(SCENES))
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("slimmerf"))
    arguments = parser.parse_args()
    rows: list[dict] = []
    for row in gap(arguments.scenes, arguments.iterations, arguments.seed):
        rows.append(row)
        write_json(arguments.out / "slimmerf_gap.json", {"iterations": arguments.iterations, "rows": rows})


if __name__ == "__main__":
    main()
