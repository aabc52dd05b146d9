"""What the diffusion model learns from: networks fitted to materials, and what is known of each."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.errors import DataError
from fields.io.atomic import read_tensors, write_tensors
from fields.neumadiff.angles import Reflectance
from fields.neumadiff.config import NeumadiffConfig
from fields.neumadiff.fitting import Many, fit_together
from fields.neumadiff.made_up import made_up
from fields.neumadiff.nbrdf import read_metadata, read_networks
from fields.neumadiff.network import DIALECTS, ORDERS, WEIGHTS, Networks, permuted
from fields.neumadiff.statistics import Statistics, statistics
from fields.neumadiff.words import captions


@dataclass
class Rows:
    """R materials of one dialect and scale, see `fields.neumadiff.statistics.SCALES`."""

    weights: Tensor
    """(R, 675)."""
    categories: list[str]
    captions: list[list[str]]
    """What each may be called."""
    parents: Tensor
    """(R, 2) numbers of the materials that it comes of: one twice, but of blends."""
    statistics: Tensor
    """(R, 16), see `fields.neumadiff.statistics.Statistics.vector`."""
    dialect: str = "reciprocal"
    scale: str = "physical"

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, which: Tensor) -> Rows:
        """Some of them, by number."""
        numbers = which.tolist()
        return replace(
            self, weights=self.weights[which], categories=[self.categories[k] for k in numbers],
            captions=[self.captions[k] for k in numbers], parents=self.parents[which], statistics=self.statistics[which],
        )  # fmt: skip

    @property
    def networks(self) -> Networks:
        return Networks(self.weights, DIALECTS[self.dialect])

    def save(self, path: Path) -> None:
        tensors = {"weights": self.weights, "parents": self.parents, "statistics": self.statistics}
        write_tensors(
            path,
            tensors,
            {"categories": self.categories, "captions": self.captions, "dialect": self.dialect, "scale": self.scale},
        )

    @classmethod
    def load(cls, path: Path) -> Rows:
        tensors, plain = read_tensors(path)
        try:
            rows = cls(
                tensors["weights"], plain["categories"], plain["captions"], tensors["parents"], tensors["statistics"],
                plain["dialect"], plain["scale"],
            )  # fmt: skip
        except KeyError as missing:
            raise DataError(f"{path}: has no {missing}: not a file of materials. Remove it, and it is made again.") from None  # fmt: skip
        if rows.weights.shape[1:] != (WEIGHTS,) or len({len(rows.categories), len(rows.captions), len(rows)}) != 1:
            raise DataError(f"{path}: its materials and words do not belong together. Remove it, and it is made again.")
        return rows


def in_all_colours(networks: Networks, categories: list[str], names: list[tuple[str, ...]], parents: Tensor) -> Rows:
    """Every material in the six orders of its channels. Words follow the colours that come out; a name like gold stays with gold only."""
    weights, kinds, called, every, of = [], [], [], [], []
    for order in ORDERS:
        weights.append(permuted(networks.weights, order))
        found = statistics(Networks(weights[-1], networks.dialect))
        of.append(found.vector)
        every.append(parents)
        kinds += categories
        called += _words(found, categories, names if order == (0, 1, 2) else [()] * len(names))
    return Rows(torch.cat(weights), kinds, called, torch.cat(every), torch.cat(of))


def _words(found: Statistics, categories: list[str], names: list[tuple[str, ...]]) -> list[list[str]]:
    widths = found.half_width.tolist()
    return [
        captions(seen, width, category, own)
        for seen, width, category, own in zip(found.seen, widths, categories, names, strict=True)
    ]


def of_made_up(count: int, iterations: int, watch: Callable[[int, int], None]) -> Rows:
    """`count` made-up materials in six colour orders each."""
    known = made_up(count)
    networks = fit_together(known.materials, count, iterations=iterations, watch=watch)
    return in_all_colours(networks, known.categories, known.names, torch.arange(count)[:, None].expand(-1, 2))


@dataclass
class Blended:
    """Mixtures of two materials each: weight · first + (1 − weight) · second."""

    materials: Reflectance
    pairs: Tensor
    """(B, 2) numbers of materials."""
    weight: Tensor
    """(B,)."""

    def __getitem__(self, which: Any) -> Blended:
        """Some of them."""
        return Blended(self.materials, self.pairs[which], self.weight[which])

    def __call__(self, angles: Tensor) -> Tensor:
        first, second = self.materials(angles)[self.pairs].unbind(1)
        return torch.lerp(second, first, self.weight[:, None, None])


def of_measured(
    materials: Many, categories: list[str], names: list[str], blends: int, iterations: int, watch: Callable[[int, int], None]
) -> Rows:  # fmt: skip
    """Materials that were measured, and `blends` mixtures of any two of them with weights of 0.3 to 0.7, in six colour orders each."""
    count, rng = len(categories), np.random.default_rng(0)
    pairs = torch.from_numpy(np.array([rng.choice(count, 2, replace=False) for _ in range(blends)]).reshape(-1, 2))
    parents = torch.cat([torch.arange(count)[:, None].expand(-1, 2), pairs])
    both = Blended(
        materials, parents, torch.cat([torch.ones(count), torch.from_numpy(rng.uniform(0.3, 0.7, blends)).float()])
    )
    networks = fit_together(both, count + blends, iterations=iterations, watch=watch)
    mixed = [f"{categories[i]} {categories[j]}" if categories[i] != categories[j] else categories[i] for i, j in pairs]
    rows = in_all_colours(networks, categories + mixed, [(n,) for n in names] + [()] * blends, parents)
    return replace(rows, scale="merl")


def gathered(config: NeumadiffConfig, folder: Path, watch: Callable[[int, int], None]) -> Rows:
    """What a model of these settings learns from: kept in the folder, where it is made if it is missing."""
    if config.measured is None:
        file = folder / f"made-up-{config.materials}-{config.fit_iterations}.safetensors"
    else:
        measured = Path(config.measured)
        file = folder / f"{measured.stem}-{config.source}-{config.blends}-{config.fit_iterations}.safetensors"
    if file.exists():
        return Rows.load(file)
    if config.measured is None:
        rows = of_made_up(config.materials, config.fit_iterations, watch)
    else:
        networks, categories, names = labelled(measured, config.source)
        rows = of_measured(networks, categories, names, config.blends, config.fit_iterations, watch)
    folder.mkdir(parents=True, exist_ok=True)
    rows.save(file)
    return rows


def labelled(path: Path, source: str) -> tuple[Networks, list[str], list[str]]:
    """Networks of a file that come of one database, their categories and names.

    Categories are those of a labels.csv beside the file (columns name, category), else of its metadata, else one for all.

    Raises:
        DataError: see `read_networks`; or there is none of that database.
    """
    networks, names = read_networks(path)
    known = read_metadata(path)
    sources = known.get("source", [source] * len(names))
    labels = path.parent / "labels.csv"
    if labels.is_file():
        with labels.open(newline="") as lines:
            table = {row["name"]: row["category"] for row in csv.DictReader(lines)}
        categories = [table.get(name, "material") for name in names]
    else:
        categories = known.get("categories", ["material"] * len(names))
    chosen = [k for k, one in enumerate(sources) if one == source]
    if not chosen:
        raise DataError(f"{path}: has no material of {source!r}; it has {', '.join(sorted(set(sources)))}. Choose with --source.")  # fmt: skip
    # As prose has them: metallic-paint is two words.
    return (
        networks[chosen],
        [categories[k].replace("-", " ") for k in chosen],
        [names[k].replace("-", " ") for k in chosen],
    )
