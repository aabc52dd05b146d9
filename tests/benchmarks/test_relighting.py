"""Contenders of relighting: what they are made of, and that each of them can be trained and measured."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from fields.benchmarks import relighting
from torch.nn.functional import normalize

from fields.methods import shipped
from fields.relighting.basis import fibonacci_sphere

LIGHTS = fibonacci_sphere(32)


def test_a_light_among_the_others_is_found_as_the_mixture_that_it_is() -> None:
    """Directions are not linear on the sphere, so the weights are those of the plane through three lights: exact but for rounding."""
    for seed in range(20):
        wanted = normalize(torch.randn(3, generator=torch.Generator().manual_seed(seed)), dim=0)
        weights = relighting.between(LIGHTS, wanted)
        assert (weights >= 0).all() and float(weights.sum()) == pytest.approx(1, abs=1e-6)
        assert int((weights > 0).sum()) <= 3
        assert torch.allclose(normalize(weights @ LIGHTS, dim=0), wanted, atol=1e-5)


@pytest.mark.parametrize("weigh", [relighting.nearest, relighting.between])
def test_a_light_that_is_known_is_copied(weigh) -> None:
    for i in (0, 13, 31):
        assert torch.allclose(weigh(LIGHTS, LIGHTS[i]), torch.eye(32)[i], atol=1e-5)


def test_harmonics_are_orthonormal() -> None:
    """Within 1 %: lobes of sharpness 8 hold 0.3 of degree 4, so what they add of degrees above 8 is small."""
    basis = relighting.Harmonics(25, 64, 8.0)
    directions = fibonacci_sphere(5000)
    values = basis.lobes(directions) @ basis.matrix().T
    gram = values.T @ values * (4 * torch.pi / len(directions))
    assert torch.allclose(gram, torch.eye(25), atol=0.01)


def test_all_of_them_are_trained_and_measured(tmp_path, monkeypatch, capsys) -> None:
    """A few iterations each, on the embedded set; nothing but the floor is as good as it gets."""
    demo = shipped("assets") / "demo-relighting"
    monkeypatch.setattr(sys, "argv", ["relighting", str(demo), "--iterations", "12", "--out", str(tmp_path)])
    relighting.main()
    rows = json.loads((tmp_path / "relighting.json").read_text())["rows"]
    assert [row["contender"] for row in rows] == ["noise floor", *relighting.TRAINED, *relighting.COPIED]
    floor = rows[0]["figures"]["olat"]
    for row in rows[1 : 1 + len(relighting.TRAINED)]:
        assert 5 < row["figures"]["olat"] < floor
    assert (tmp_path / "demo-relighting.png").stat().st_size > 10_000
    assert "| conditioned |" in capsys.readouterr().out
