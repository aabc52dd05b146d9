"""Splits that keep apart what belongs together, and a whole comparison of materials."""

import json

import pytest
import torch
from fields.benchmarks import materials

from fields.neumadiff.baselines import BASELINES, training_rows
from fields.neumadiff.config import NeumadiffConfig
from fields.neumadiff.network import WEIGHTS, Networks, permuted
from fields.neumadiff.rows import Rows
from fields.neumadiff.statistics import statistics


def fit(which):
    """Rows of random networks, in two orders of channels, and of blends of neighbours."""
    generator = torch.Generator().manual_seed(0)
    base = (torch.randn(100, WEIGHTS, generator=generator) * 0.25)[which]
    weights = torch.cat([base, (base + base.roll(1, 0)) / 2])
    weights = torch.cat([weights, permuted(weights, (2, 1, 0))])
    parents = torch.cat([torch.stack([which, which], 1), torch.stack([which, which.roll(1)], 1)]).repeat(2, 1)
    count = len(weights)
    return Rows(weights, ["stone"] * count, [["stone"]] * count, parents, statistics(Networks(weights)).vector)


def test_the_paper_draws_rows():
    training, references = materials.paper(fit, 20, 30, torch.Generator().manual_seed(0))
    assert len(references) == 30
    every = torch.cat([training.weights, references.weights])
    assert torch.equal(every.sort(0).values, fit(torch.arange(20)).weights.sort(0).values)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_of_a_held_out_material_is_learned_from(seed):
    training, references = materials.by_material(fit, 20, 1000, torch.Generator().manual_seed(seed))
    held_out = references.parents.unique()
    assert len(held_out) == 4  # a fifth
    assert not torch.isin(training.parents, held_out).any()
    assert len(training.parents.unique()) == 16
    few = materials.by_material(fit, 20, 3, torch.Generator().manual_seed(seed))[1]
    assert len(few) == 3 and torch.isin(few.parents, held_out).all()


def test_everything_is_compared(tmp_path, monkeypatch, capsys):
    short = {"VAE": lambda *a: BASELINES["VAE"](*a, steps=50)}
    monkeypatch.setattr(materials, "BASELINES", BASELINES | short)
    spread = torch.rand(256, 3, generator=torch.Generator().manual_seed(1))  # pictures of a kind, for a moment's work
    monkeypatch.setattr(materials, "preview", lambda networks, size: networks(spread).unflatten(1, (16, 16)))

    def broken(training, count, generator):
        weights = training_rows(training.weights, count, generator)
        weights[0] = torch.nan
        return Networks(weights)

    of = NeumadiffConfig(iterations=3)
    materials.run(fit, 24, {"ours": materials.diffusion(of), "broken": broken}, tmp_path, count=8)
    printed = capsys.readouterr().out
    for protocol in ("paper", "by_material"):
        results = {result["name"]: result for result in json.loads((tmp_path / f"{protocol}.json").read_text())}
        assert len(results) == 9 and f"{protocol}: " in printed and (tmp_path / protocol / "ours.png").exists()
        copies, broken_ones = results["training rows"], results["broken"]["comparisons"]
        assert copies["nearest_ratio"] == 0 and results["ours"]["nearest_ratio"] > 0
        assert broken_ones["log1p-cos"]["failed"] == broken_ones["1 − SSIM"]["failed"] == 1 / 8
        assert set(results["PCA + Gaussian, tables"]["comparisons"]) < set(copies["comparisons"])
        for result in results.values():
            assert all(0 <= c["coverage"] <= 1 and 0 <= c["accuracy"] <= 1 for c in result["comparisons"].values())
