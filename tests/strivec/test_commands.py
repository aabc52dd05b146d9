"""The real commands on the embedded demo."""

import json
import shutil

import pytest
import torch

import fields
from tests.commands import run

SHORT = ["--iterations", "120", "--downscale", "4", "--device", "cpu", "--config", "fast", "--parameters", "150k",
         "--geometry-iterations", "80", "--geometry-cells", str(48**3)]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "vase"
    assert run("train", "strivec", "--out", out, *SHORT) == 0
    return out


def test_it_keeps_the_budget_and_learns(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert 100_000 < metrics["parameters"] <= 150_000
    assert metrics["results"]["psnr"] > 17  # a white image has 13 dB


def test_moved_and_loaded_elsewhere_it_renders_the_same_bits(trained, tmp_path):
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(trained, moved)
    pictures = []
    for folder in (trained, moved):
        assert run("render", folder, "--frames", 2, "--size", 40, 30, "--out", folder / "look", "--device", "cpu") == 0
        pictures.append((folder / "look" / "rgb" / "0001.png").read_bytes())
    assert pictures[0] == pictures[1]
    assert run("export", moved, "--points", tmp_path / "vase.ply", "--device", "cpu") == 0
    field = fields.load(moved)
    camera = fields.orbit(3, size=(24, 24))
    assert torch.equal(fields.render(field, camera, 1).rgb, fields.render(fields.load(trained), camera, 1).rgb)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--parameters", "1k"], "parameters is 1000: too few for"),
        (["--parameters", "many"], "write a number, 250k or 2M"),
        (["--geometry", "points"], "has no sparse points"),
        (["--geometry", "nowhere.ply"], "nowhere.ply"),
        (["--geometry", "{far}"], "no geometry found"),
        (["--config", "best"], "no such preset"),
    ],
)
def test_what_cannot_be_trained_says_so_in_one_line(options, words, tmp_path, capsys):
    far = tmp_path / "far.ply"
    far.write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n90 90 90\n"
    )
    options = [o.format(far=far) for o in options]
    out = tmp_path / "run"
    assert run("train", "strivec", "--out", out, *SHORT, *options) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and words in said
    assert not out.exists()
