"""The real commands, on the embedded demo."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

import fields
from fields.io.hdr import read_linear, write_exr
from fields.io.run import load_config
from fields.methods import shipped
from fields.relighting.environment import Environment
from fields.relighting.scene import load_scene
from fields.relighting.sources import illumination
from tests.commands import run

SHORT = ["--iterations", 60, "--rays", 512, "--cells", 500, "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert run("train", "relighting", "--out", out, *SHORT) == 0
    return out


def test_a_training_learns_from_every_light_and_reports_every_group(trained):
    facts = json.loads((trained / "metrics.json").read_text())
    assert facts["method"] == "relighting" and facts["iterations"] == 60
    assert {"psnr", "ssim", "psnr map"} <= facts["results"].keys()
    assert facts["results"]["psnr"] > 12  # what is black, or of a wrong shape, is at 8
    assert len(facts["per_image"]) == 3 * 4 + 3 * 2 and len(list((trained / "renders").glob("*.png"))) == 18
    again = fields.load(trained)
    assert again.decoder.reflects and load_config(trained)["field"]["exposure"] > 0
    (trained / "metrics.json").unlink()
    assert run("eval", trained, "--device", "cpu") == 0
    assert json.loads((trained / "metrics.json").read_text())["results"] == facts["results"]


def test_going_on_gives_the_same_bits(trained, tmp_path):
    """Stopped in the middle, after the surface has begun to reflect, and resumed."""
    from fields.methods import method
    from fields.relighting.training import RelightingTraining

    scene = load_scene(shipped("assets") / "demo-relighting").with_views(4)
    settings = replace(method("relighting").configure("fast").scaled(24), cells=500, rays=512)
    straight = RelightingTraining(settings, scene, 3)
    for i in range(24):
        straight.step(i)
        if i == 15:
            tensors, plain = straight.state()
            tensors = {k: v.clone() for k, v in tensors.items()}
            plain = json.loads(json.dumps(plain))
    resumed = RelightingTraining.resume(settings, scene, tensors, plain)
    for i in range(16, 24):
        resumed.step(i)
    for key, value in straight.field.state_dict().items():
        assert torch.equal(value, resumed.field.state_dict()[key]), key


@pytest.mark.parametrize("light", ["sunset", "const:1,0.5,0.25", "map", "list"])
def test_relighting_writes_what_the_library_computes(trained, tmp_path, light):
    source = light
    if light == "map":
        source = tmp_path / "map.exr"
        write_exr(source, {"": torch.rand(32, 64, 3) ** 4})
    if light == "list":
        source = tmp_path / "lights.json"
        lamps = [{"type": "directional", "direction": [0, 1, 0], "rgb": [3, 3, 3]},
                 {"type": "point", "position": [1, 1, 1], "rgb": [2, 2, 1]}]  # fmt: skip
        source.write_text(json.dumps(lamps))
    out = tmp_path / "relit"
    assert run("relight", trained, "--light", source, "--write", "exr", "png", "parts", "--exposure", "1", "--size", 48, 40,
               "--out", out, "--device", "cpu") == 0  # fmt: skip
    from fields.io.run import load
    from fields.paths import from_json, orbit_around
    from fields.relighting.image import TransferImage

    field = load(trained)
    cameras = orbit_around(from_json(load_config(trained)["scene"]["cameras"]), field.aabb, 1, size=(48, 40))
    wanted = TransferImage.of(field, cameras).relight(illumination(source))
    image = read_linear(out / "0000.exr")
    assert image.shape == (40, 48, 4)
    assert torch.allclose(image[..., :3], wanted, atol=1e-3 * float(wanted.max()))  # of half precision, and of layers
    facts = json.loads((out / "relight.json").read_text())
    assert facts["exposure_ev"] == 1.0 and len(facts["frames"]) == 1
    with Image.open(out / "0000.png") as picture:
        assert picture.text["exposure_ev"] == "1.000" and picture.size == (48, 40)


def test_a_light_that_goes_around_is_a_film(trained, tmp_path):
    assert run("relight", trained, "--light", "sunset", "--rotate", "0:360:90", "--size", 32, 32, "--write", "mp4", "gbuffer",
               "--background", "env", "--out", tmp_path, "--device", "cpu") == 0  # fmt: skip
    assert len(iio.imread(tmp_path / "relit.mp4")) == 4
    facts = json.loads((tmp_path / "relight.json").read_text())
    assert [f["degrees"] for f in facts["frames"]] == [0, 90, 180, 270]
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_a_photograph_gives_its_light(trained, tmp_path):
    """The first picture of the test cameras is relit, and its light found again: the second looks like it."""
    asked = ["--camera", "test", "--write", "exr", "--exposure", "0", "--device", "cpu"]
    assert run("relight", trained, "--light", "sunset", "--out", tmp_path / "a", *asked) == 0
    assert run("relight", trained, "--solve", tmp_path / "a" / "0000.exr", "--out", tmp_path / "b", *asked) == 0
    one, other = (read_linear(tmp_path / k / "0001.exr")[..., :3] for k in "ab")
    assert (one - other).square().mean() < 0.1 * one.square().mean()


def test_wrong_inputs_are_one_line_each(trained, tmp_path, capsys):
    eight = tmp_path / "eight.png"
    iio.imwrite(eight, np.zeros((16, 32, 3), np.uint8))
    square = tmp_path / "square.exr"
    write_exr(square, {"": torch.ones(16, 16, 3)})
    cut = tmp_path / "cut.exr"
    cut.write_bytes(square.read_bytes()[:-100])
    lights = tmp_path / "lights.json"
    lights.write_text('[{"type": "directional", "rgb": [1, 1, 1]}]')
    for light, word in (("nowhere", "no light"), (eight, "8 bits"), (square, "twice as wide"), (cut, "cut.exr"),
                        (lights, "direction"), ("const:1,2", "three numbers"), (tmp_path / "none.hdr", "does not exist")):  # fmt: skip
        assert run("relight", trained, "--light", light, "--out", tmp_path / "x", "--device", "cpu") == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and word in error
    assert run("relight", trained, "--rotate", "0:10", "--out", tmp_path / "x", "--device", "cpu") == 2
    assert not (tmp_path / "x" / "relight.json").exists()


def test_damaged_captures_are_one_line_each(tmp_path, capsys):
    demo = shipped("assets") / "demo-relighting"

    def broken(name: str, change) -> Path:
        folder = tmp_path / name
        shutil.copytree(demo, folder, ignore=lambda _, names: [n for n in names if n.endswith(".ply")])
        file = folder / "transforms_train.json"
        scene = json.loads(file.read_text())
        change(folder, scene["frames"])
        file.write_text(json.dumps(scene))
        return folder

    def dark(folder: Path, frames: list) -> None:
        write_exr(folder / frames[0]["file_path"], {"": torch.full((96, 96, 4), torch.nan)})

    def small(folder: Path, frames: list) -> None:
        write_exr(folder / frames[1]["file_path"], {"": torch.zeros(48, 48, 4)})

    cases = [
        ("no-light", lambda _, frames: frames[0].pop("light"), "light"),
        ("no-direction", lambda _, frames: frames[0]["light"].pop("direction"), "direction"),
        ("nan", dark, "NaN"),
        ("small", small, "48"),
        ("gone", lambda folder, frames: (folder / frames[0]["file_path"]).unlink(), "does not exist"),
    ]
    for name, change, word in cases:
        folder = broken(name, change)
        assert run("train", "relighting", "--data", folder, "--out", tmp_path / "out", *SHORT) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and word in error, (name, error)


def test_a_map_of_the_demo_is_the_studio_it_was_made_from():
    from fields.relighting.environment import STUDIOS

    there = Environment.load(shipped("assets") / "demo-relighting" / "maps" / "studio.exr")
    assert torch.allclose(there.radiance, STUDIOS["studio"]().radiance, rtol=2e-3)


def test_one_camera_and_many_lights_say_how_a_surface_turns(data_dir, tmp_path):
    """Real photographs of a ball, 16 of 96 lights held out. Least squares gets its normals to 4.3°."""
    ball = data_dir / "relight" / "diligent_ball"
    out = tmp_path / "ball"
    short = ["--iterations", 200, "--rays", 512, "--lights", 24, "--device", "cpu"]
    assert run("train", "relighting", "--data", ball, "--out", out, *short) == 0
    results = json.loads((out / "metrics.json").read_text())["results"]
    assert results["normals"] < 4 and results["psnr"] > 27


def test_broken_normals_are_one_clear_line(tmp_path, capsys):
    demo = tmp_path / "demo"
    shutil.copytree(shipped("assets") / "demo-relighting", demo)
    np.save(demo / "normals" / "short.npy", np.zeros((9, 9, 3), np.float32))
    np.save(demo / "normals" / "nan.npy", np.full((96, 96, 3), np.nan, np.float32))
    text = (demo / "transforms_test.json").read_text()
    for name, message in {
        "short.npy": "9 × 9",
        "nan.npy": "finite",
        "none.exr": "none.exr",
        "c03.png": "npy and .exr",
    }.items():
        (demo / "transforms_test.json").write_text(text.replace("normals/c03.exr", f"normals/{name}"))
        assert run("train", "relighting", "--data", demo, "--out", tmp_path / "out", *SHORT) == 2
        error = capsys.readouterr().err
        assert name in error and message in error and "Traceback" not in error
