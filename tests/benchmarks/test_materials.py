"""Splits that keep apart what belongs together, and a whole comparison of made-up materials."""

import json

import pytest
import torch
from fields.benchmarks import materials

from fields.neumadiff.baselines import BASELINES, training_rows
from fields.neumadiff.network import WEIGHTS, Networks, permuted


def made_up(count, seed=0):
    """Materials that are not all alike: weights of random networks, in six orders of channels, and blends of neighbours."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(count, WEIGHTS, generator=generator) * 0.25
    base = torch.cat([base, (base + base.roll(1, 0)) / 2])
    number = torch.arange(count)
    parents = torch.cat([torch.stack([number, number], 1), torch.stack([number, number.roll(1)], 1)])
    return Networks(torch.cat([base, permuted(base, (2, 1, 0))])), torch.cat([parents, parents])


def test_the_paper_draws_rows():
    _, parents = made_up(20)
    training, references = materials.split(parents, "paper", 30, torch.Generator().manual_seed(0))
    assert len(references) == 30
    assert torch.equal(torch.cat([training, references]).sort().values, torch.arange(80))


@pytest.mark.parametrize("seed", range(5))
def test_nothing_of_a_held_out_material_is_learned_from(seed):
    _, parents = made_up(20)
    training, references = materials.split(parents, "by_material", 1000, torch.Generator().manual_seed(seed))
    held_out = parents[references].unique()
    assert len(held_out) == 4  # a fifth
    assert not torch.isin(parents[training], held_out).any()
    # All that is made of them alone is there, and blends across are nowhere.
    assert len(references) == torch.isin(parents, held_out).all(1).sum() >= 8
    across = torch.isin(parents, held_out).any(1) & ~torch.isin(parents, held_out).all(1)
    assert len(training) + len(references) + across.sum() == len(parents)
    few = materials.split(parents, "by_material", 3, torch.Generator().manual_seed(seed))[1]
    assert len(few) == 3 and torch.isin(few, references).all()


def test_everything_is_compared(tmp_path, monkeypatch, capsys):
    short = {"VAE": lambda *a: BASELINES["VAE"](*a, steps=50)}
    monkeypatch.setattr(materials, "BASELINES", BASELINES | short)
    spread = torch.rand(256, 3, generator=torch.Generator().manual_seed(1))  # pictures of a kind, for a moment's work
    monkeypatch.setattr(materials, "preview", lambda networks, size: networks(spread).unflatten(1, (16, 16)))

    def broken(training, count, generator):
        weights = training_rows(training.weights, count, generator)
        weights[0] = torch.nan
        return Networks(weights, training.dialect)

    rows, parents = made_up(24)
    materials.run(rows, parents, {"ours": broken}, tmp_path, count=8)
    printed = capsys.readouterr().out
    for protocol in ("paper", "by_material"):
        results = {result["name"]: result for result in json.loads((tmp_path / f"{protocol}.json").read_text())}
        assert len(results) == 8 and f"{protocol}: " in printed and (tmp_path / protocol / "ours.png").exists()
        copies, ours = results["training rows"], results["ours"]
        assert copies["nearest_ratio"] == 0
        assert ours["comparisons"]["log1p-cos"]["failed"] == ours["comparisons"]["1 − SSIM"]["failed"] == 1 / 8
        assert set(results["PCA + Gaussian, tables"]["comparisons"]) < set(copies["comparisons"])
        for result in results.values():
            assert all(0 <= c["coverage"] <= 1 and 0 <= c["accuracy"] <= 1 for c in result["comparisons"].values())
