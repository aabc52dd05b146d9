"""How well new materials stand for real ones: ``python -m fields.benchmarks.materials OUT --measured NETWORKS.npz``.

Ours and the baselines learn from training rows, draw as many materials as there are references, and are compared with these: by reflectances and by
pictures. Training rows themselves are the yardstick: nothing that learned from them can be expected to come closer.

Two protocols. `paper`: references are rows drawn at random, as published; near copies of each, its channels in other orders, stay in training.
`by_material`: a fifth of the materials is kept from training with all that is made of them; references are made of these alone, and fitted by themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fields.io.atomic import write_json
from fields.io.images import contact_sheet, write_image
from fields.neumadiff.baselines import BASELINES, from_log_table, log_table
from fields.neumadiff.config import NeumadiffConfig
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
from fields.neumadiff.network import Networks
from fields.neumadiff.preview import preview
from fields.neumadiff.rows import Rows, labelled, of_measured
from fields.neumadiff.training import MaterialTraining
from fields.relighting.develop import develop

Draw = Callable[[Rows, int, torch.Generator], Networks]
"""Of training rows and a count: new materials."""
Fit = Callable[[Tensor], Rows]
"""Of the numbers of some materials: rows made of these alone."""

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


def paper(fit: Fit, materials: int, count: int, generator: torch.Generator) -> tuple[Rows, Rows]:
    """Training rows and `count` references: of all rows, whatever they are made of."""
    rows = fit(torch.arange(materials))
    order = torch.randperm(len(rows), generator=generator)
    return rows[order[count:]], rows[order[:count]]


def by_material(
    fit: Fit, materials: int, count: int, generator: torch.Generator, held_out: float = 0.2
) -> tuple[Rows, Rows]:
    """Training rows and up to `count` references that have no material in common.

    Args:
        held_out: share of the materials that references are made of.
    """
    order = torch.randperm(materials, generator=generator)
    kept = round(held_out * materials)
    references = fit(order[:kept])
    return fit(order[kept:]), references[torch.randperm(len(references), generator=generator)[:count]]


PROTOCOLS = {"paper": paper, "by_material": by_material}


def drawn(training: Rows, count: int, ours: Mapping[str, Draw], seed: int) -> dict[str, Materials]:
    """By each baseline on weights and on tables, and by ours."""

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    found = {
        f"{name}, weights" if name in ON_TABLES else name: Materials.of(
            replace(training.networks, weights=draw(training.weights, count, generator()))
        )
        for name, draw in BASELINES.items()
    }
    table = log_table(training.networks(measuring_angles()))
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


def run(fit: Fit, materials: int, ours: Mapping[str, Draw], out: Path, count: int = 120, seed: int = 0) -> None:
    """Both protocols: prints a table for each, and writes it and pictures of what was drawn to a folder."""
    for protocol, split in PROTOCOLS.items():
        training, kept = split(fit, materials, count, torch.Generator().manual_seed(seed))
        references, samples = Materials.of(kept.networks), drawn(training, len(kept), ours, seed)
        results = evaluate(training.networks, references, samples)
        print(f"\n{protocol}: {len(training)} training rows, {len(kept)} references\n\n{table(results)}", flush=True)
        write_json(out / f"{protocol}.json", [asdict(result) for result in results])
        for name, materials_drawn in ({"references": references} | samples).items():
            if materials_drawn.pictures is not None:
                shown = materials_drawn.pictures[:_SHOWN].nan_to_num()
                sheet = contact_sheet(shown, [""] * len(shown), columns=8)
                write_image(out / protocol / f"{name.replace(' ', '_').replace(',', '')}.png", sheet)


def diffusion(config: NeumadiffConfig) -> Draw:
    """Ours: learns from the rows, and draws without being told anything."""

    def draw(rows: Rows, count: int, generator: torch.Generator) -> Networks:
        training = MaterialTraining(config, rows, generator.initial_seed())
        for i in range(config.iterations):
            training.step(i)
        training.finish()
        return training.model.float().eval().draw(count, generator=generator)

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--measured", type=Path, required=True, help="networks of measured materials")
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--iterations", type=int, default=NeumadiffConfig.iterations)
    arguments = parser.parse_args()
    config = NeumadiffConfig(measured=str(arguments.measured), iterations=arguments.iterations)
    networks, categories, names = labelled(arguments.measured, config.source)

    def fit(which: Tensor) -> Rows:
        """With as many blends for each material as all have."""
        file = arguments.out / f"{len(which)}-of-{len(networks)}.safetensors"
        if not file.exists():
            some, blends = which.tolist(), round(config.blends * len(which) / len(networks))
            of = [categories[k] for k in some], [names[k] for k in some]
            of_measured(networks[which], *of, blends, config.fit_iterations, lambda done, total: None).save(file)
        return Rows.load(file)

    run(fit, len(networks), {"ours": diffusion(config)}, arguments.out, arguments.count)


if __name__ == "__main__":
    main()
