"""`fields brdf` as a user runs it, on the model that comes with the package."""

import json

import numpy as np
import pytest
import torch

from fields.io.images import write_image
from fields.neumadiff.files import read_materials
from fields.neumadiff.made_up import made_up
from fields.neumadiff.merl import Table, write_merl
from fields.neumadiff.nbrdf import read_networks
from fields.neumadiff.statistics import reciprocity_error, statistics
from fields.neumadiff.synthesis import agrees, load_model, synthesize
from fields.neumadiff.words import hue_off
from tests.commands import run


@pytest.fixture(scope="module")
def red(tmp_path_factory):
    folder = tmp_path_factory.mktemp("red")
    assert run("brdf", "synthesize", "--text", "red plastic", "--count", "3", "--no-binary", "--out", folder) == 0
    return folder


def test_red_plastic_is_red_and_plastic(red):
    networks, names = read_networks(red / "materials.nbrdf.npz")
    found = statistics(networks)
    assert names == ["red-plastic-0", "red-plastic-1", "red-plastic-2"] and (red / "sheet.png").stat().st_size > 10_000
    assert (hue_off(found.hue()[0], 36) < 25).all() and (found.highlight_saturation < 0.2).all()
    assert reciprocity_error(networks).max() < 1e-6
    said = json.loads((red / "materials.json").read_text())
    assert said["text"] == "red plastic" and said["drawn"] >= 3 and set(said["materials"]) == set(names)


def test_the_same_seed_draws_the_same():
    one, other, another = (synthesize("metal", 2, seed=seed).networks.weights for seed in (4, 4, 5))
    assert torch.equal(one, other) and not torch.equal(one, another)


@pytest.mark.parametrize(
    ("text", "count"), [("green metal", 4), ("rough dark rubber", 4), ("mirror", 1), ("blue fabric", 4), ("", 4)]
)
def test_what_is_drawn_is_what_was_asked_for(text, count):
    found = synthesize(text, count)
    assert len(found.networks) == count and 0 < found.accepted <= 1
    assert agrees(text, found.statistics, "physical").all()
    assert found.statistics.albedo.max() <= 1.0


def test_a_material_is_drawn_like_another():
    """Asked for the statistics of polished gold it draws what is polished, and yellow more than not."""
    gold = made_up(1).materials
    gold.base[:], gold.width[:], gold.sheen[:] = 0, 0.05, 0
    gold.specular[:] = torch.tensor([[[0.7, 0.5, 0.2], [0.0, 0, 0]]])
    found = synthesize("", 4, like=statistics(gold), check=False)
    assert found.statistics.half_width.median() < 5
    assert (hue_off(found.statistics.hue()[0], 85) < 40).float().mean() > 0.5


def test_render_convert_evaluate_and_fit(red, tmp_path, capfd):
    file = red / "materials.nbrdf.npz"
    assert run("brdf", "render", file, "--shape", "knob", "--size", "64", "--out", tmp_path / "sheet.png") == 0
    assert run("brdf", "evaluate", file, "--against", file) == 0
    assert "red" in capfd.readouterr().out
    assert run("brdf", "convert", file, tmp_path / "red.binary", "--index", "1") == 0
    assert run("brdf", "fit", tmp_path / "red.binary", "--iterations", "40", "--out", tmp_path / "again.nbrdf.npz") == 0
    table, names = read_materials(tmp_path / "red.binary")
    assert names == ["red"]
    drawn, _ = read_networks(file)
    albedo = statistics(table).albedo, statistics(drawn).albedo[1:2]
    torch.testing.assert_close(*albedo, atol=0.02, rtol=0.05)  # a table has bins a degree wide
    assert len(read_networks(tmp_path / "again.nbrdf.npz")[0]) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["synthesize", "--text", "of the"], "no word of it is known"),
        (["synthesize", "--text", "red xyzzy"], "xyzzy is not known"),
        (["synthesize", "--category", "cheese"], "no category"),
        (["synthesize", "--count", "0"], "--count 0"),
        (["synthesize", "--image", "nowhere.png"], "nowhere.png"),
        (["render", "nowhere.binary"], "nowhere.binary"),
        (["render", "picture.png"], "not a file of materials"),
        (["fit", "nowhere.npz"], "nowhere.npz"),
        (["dance"], "it has"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments, says, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run("brdf", *arguments) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith("error: ") and says in error and "Traceback" not in error


def test_a_hostile_table_is_refused(tmp_path, capfd):
    file = tmp_path / "huge.binary"
    file.write_bytes(np.array([1000, 1000, 1000], "<i4").tobytes() + b"\0" * 64)
    assert run("brdf", "render", file) == 2 and "huge.binary" in capfd.readouterr().err


def test_training_by_the_command(tmp_path):
    run_folder = tmp_path / "run"
    short = ["--materials", "12", "--fit-iterations", "40", "--picture-iterations", "2", "--iterations", "20", "--batch", "8"]  # fmt: skip
    assert run("train", "neumadiff", *short, "--out", run_folder) == 0
    picture = tmp_path / "picture.png"
    write_image(picture, torch.rand(40, 50, 3))
    assert run("brdf", "synthesize", "--image", picture, "--count", "2", "--no-check", "--no-binary", "--model", run_folder, "--out", tmp_path / "some") in (0, 2)  # fmt: skip
    assert load_model(run_folder).modalities[-1] == "image"


def test_a_table_survives_the_command(tmp_path):
    table = Table.of(made_up(1).materials)
    write_merl(tmp_path / "one.binary", table)
    assert run("brdf", "convert", tmp_path / "one.binary", tmp_path / "two.binary") == 0
    assert statistics(read_materials(tmp_path / "two.binary")[0]).albedo.isfinite().all()
