import json
import sys

import pytest
from fields.benchmarks import transfer

from tests.commands import run


def test_a_run_is_measured(tmp_path, monkeypatch):
    """Wide bounds, for a few iterations: a solid that is where the true one is, and gives no more light than it gets."""
    out = tmp_path / "run"
    assert (
        run("train", "relighting", "--out", out, "--iterations", 60, "--rays", 512, "--cells", 300, "--device", "cpu")
        == 0
    )
    monkeypatch.setattr(sys, "argv", ["transfer", str(out), "--size", "48"])
    transfer.main()
    facts = json.loads((out / "transfer.json").read_text())
    shape, furnace = facts["shape"], facts["furnace"]
    for way in ("to", "from"):
        assert 0 < shape[f"{way} the true surface"] < 0.05 * shape["diagonal"]
    assert 0.9 < shape["solid"] <= 1
    assert min(furnace["mean"]) > 0 and furnace["largest"] <= 1 + 1e-4
    assert 0 < facts["reciprocity"]["mean"] <= facts["reciprocity"]["largest"] < 1
    assert facts["times"]["rays"] > 48**2 * 0.05 and min(facts["times"].values()) > 0
    assert facts["megabytes"] == pytest.approx((out / "model.safetensors").stat().st_size / 1e6)
