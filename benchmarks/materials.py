"""How well new materials stand for real ones: ``python -m fields.benchmarks.materials OUT``.

Ours and the baselines learn from training rows, draw as many materials as there are references, and are compared with these: by reflectances and by
pictures. Training rows themselves are the yardstick: nothing that learned from them can be expected to come closer.

Two protocols. `paper`: references are rows drawn at random, as published; near copies of each, its channels in other orders, stay in training.
`by_material`: a fifth of the materials is kept from training with all that was made of them, blends too; references are made of these alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fields.io.atomic import write_json
from fields.io.images import contact_sheet, write_image
from fields.neumadiff.baselines import BASELINES, from_log_table, log_table
from fields.neumadiff.metrics import (
    PICTURES,
    REFLECTANCE,
    Comparison,
    compare,
    measuring_angles,
    novelty,
    reflectance_distances,
    spacing,
)
from fields.neumadiff.network import DIALECTS, ORDERS, Networks, permuted
from fields.neumadiff.preview import preview
from fields.relighting.develop import develop

Protocol = Literal["paper", "by_material"]
Draw = Callable[[Networks, int, torch.Generator], Networks]
"""Of training rows and a count: new materials."""

ON_TABLES = ("PCA + Gaussian", "PCA + mixture")
"""Baselines that learn logarithms of reflectances as well. There are no pictures of what they draw."""
_SIZE = 64  # of pictures; the paper's are of 256
_SHOWN = 16
_TYPICAL = 240  # rows whose nearest others say what is typical


@dataclass
class Materials:
    """Materials as they are compared."""

    values: Tensor
    """(N, 4096, 3) reflectances at `measuring_angles`."""
    pictures: Tensor | None = None
    """(N, H, W, 3) sRGB, or none."""

    @classmethod
    def of(cls, networks: Networks) -> Materials:
        return cls(networks(measuring_angles()), develop(preview(networks, size=_SIZE)))

    def distances(self, others: Materials) -> dict[str, Tensor]:
        """(N, M) by each measure."""
        found = {name: reflectance_distances(self.values, others.values, name) for name in REFLECTANCE}
        if self.pictures is not None and others.pictures is not None:
            found |= {name: distance(self.pictures, others.pictures) for name, distance in PICTURES.items()}
        return found


@dataclass
class Result:
    """Of one way of drawing materials."""

    name: str
    comparisons: dict[str, Comparison]
    """By measure."""
    nearest: float
    """Median distance to the nearest training row, log1p-cos."""
    nearest_ratio: float
    """The same over what is typical between training rows."""


def split(
    parents: Tensor, protocol: Protocol, count: int, generator: torch.Generator, held_out: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Numbers of training rows, and of up to `count` references.

    Args:
        parents: (R, P) numbers of the materials that each row was made of; one of them several times where there are fewer.
        held_out: share of the materials that `by_material` keeps from training. Blends with one parent on either side are on none.
    """
    if protocol == "paper":
        order = torch.randperm(len(parents), generator=generator)
        return order[count:], order[:count]
    materials = parents.unique()
    kept = materials[torch.randperm(len(materials), generator=generator)[: round(held_out * len(materials))]]
    touched = torch.isin(parents, kept)
    training, references = (~touched.any(1)).nonzero()[:, 0], touched.all(1).nonzero()[:, 0]
    return training, references[torch.randperm(len(references), generator=generator)[:count]]


def drawn(training: Networks, count: int, ours: Mapping[str, Draw], seed: int) -> dict[str, Materials]:
    """By each baseline on weights and on tables, and by ours."""

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    found = {
        f"{name}, weights" if name in ON_TABLES else name: Materials.of(
            Networks(draw(training.weights, count, generator()), training.dialect)
        )
        for name, draw in BASELINES.items()
    }
    table = log_table(training(measuring_angles()))
    for name in ON_TABLES:
        found[f"{name}, tables"] = Materials(from_log_table(BASELINES[name](table, count, generator())))
    return found | {name: Materials.of(draw(training, count, generator())) for name, draw in ours.items()}


def evaluate(training: Networks, references: Materials, samples: Mapping[str, Materials]) -> list[Result]:
    """All of them against the references."""
    known = training(measuring_angles())
    some = torch.arange(0, len(known), max(1, len(known) // _TYPICAL))
    typical = spacing(reflectance_distances(known[some], known), some)
    own, results = references.distances(references), []
    for name, materials in samples.items():
        cross, within = references.distances(materials), materials.distances(materials)
        new = novelty(reflectance_distances(materials.values, known), typical)
        results.append(
            Result(
                name,
                {measure: compare(own[measure], cross[measure], within[measure]) for measure in cross},
                float(new.nearest.median()),
                float(new.ratio.median()),
            )
        )
    return results


def table(results: list[Result]) -> str:
    """Markdown, a column for each way of drawing."""
    rows = [["", "", *(r.name for r in results)], ["---"] * (len(results) + 2)]
    figures = {
        "MMD": lambda c: f"{c.mmd:.4g}",
        "COV %": lambda c: f"{100 * c.coverage:.1f}",
        "1-NNA %": lambda c: f"{100 * c.accuracy:.1f}",
    }
    for figure, text in figures.items():
        for measure in (*REFLECTANCE, *PICTURES):
            cells = (text(r.comparisons[measure]) if measure in r.comparisons else "–" for r in results)
            rows.append([figure, measure, *cells])
    main = next(iter(REFLECTANCE))
    rows.append(["failed %", "", *(f"{100 * r.comparisons[main].failed:.1f}" for r in results)])
    rows.append(["nearest training row", main, *(f"{r.nearest:.4f}" for r in results)])
    rows.append(["over the typical", "", *(f"{r.nearest_ratio:.2f}" for r in results)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def run(rows: Networks, parents: Tensor, ours: Mapping[str, Draw], out: Path, count: int = 120, seed: int = 0) -> None:
    """Both protocols: prints a table for each, and writes it and pictures of what was drawn to a folder."""
    for protocol in get_args(Protocol):
        learned, kept = split(parents, protocol, count, torch.Generator().manual_seed(seed))
        training, references = rows[learned], Materials.of(rows[kept])
        samples = drawn(training, len(kept), ours, seed)
        results = evaluate(training, references, samples)
        print(f"\n{protocol}: {len(learned)} training rows, {len(kept)} references\n\n{table(results)}", flush=True)
        write_json(out / f"{protocol}.json", [asdict(result) for result in results])
        for name, materials in ({"references": references} | samples).items():
            if materials.pictures is not None:
                shown = materials.pictures[:_SHOWN].nan_to_num()
                sheet = contact_sheet(shown, [""] * len(shown), columns=8)
                write_image(out / protocol / f"{name.replace(' ', '_').replace(',', '')}.png", sheet)


def published_rows() -> tuple[Networks, Tensor]:
    """MERL's materials as they were published, in six orders of their channels, and their parents. They have no common start: weights of
    one say little of another's."""
    path = Path(os.environ["FIELDS_DATA"]) / "brdf" / "nbrdf_weights.npz"
    with np.load(path, allow_pickle=False) as file:
        weights = torch.from_numpy(file["weights"][file["source"] == "merl"])
    rows = torch.cat([permuted(weights, order) for order in ORDERS])
    return Networks(rows, DIALECTS["sztrajman"]), torch.arange(len(weights)).repeat(len(ORDERS))[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=120)
    arguments = parser.parse_args()
    run(*published_rows(), {}, arguments.out, arguments.count)


if __name__ == "__main__":
    main()
