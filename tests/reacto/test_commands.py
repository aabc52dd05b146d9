"""`fields train reacto` and `fields articulate` on the demo, and what is wrong with videos."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from fields.methods import shipped
from fields.reacto.flow import read_flow, write_flow
from tests.commands import run

DEMO = shipped("assets") / "demo-reacto"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("reacto") / "laptop"
    assert run("train", "reacto", "--out", out, "--iterations", 120, "--device", "cpu") == 0
    return out


@pytest.mark.timeout(600)
def test_the_joint_is_found_and_the_parts_are_told_apart(trained):
    """The bars of the demo, after a seventh of its training: the joint is known before it."""
    results = json.loads((trained / "metrics.json").read_text())["results"]
    assert results["parts"] == 2 and results["kind"] == 1
    assert results["axis"] < 2 and results["pivot"] < 2  # degrees, hundredths of the size
    assert results["part_iou"] > 0.7 and results["psnr"] > 22


def test_a_urdf_says_what_moves(trained, tmp_path):
    assert run("articulate", trained, "--out", tmp_path, "--resolution", 48, "--device", "cpu") == 0
    (file,) = tmp_path.glob("*.urdf")
    robot = ET.parse(file).getroot()
    (joint,) = robot.findall("joint")
    axis = np.array([float(v) for v in joint.find("axis").get("xyz").split()])
    assert joint.get("type") == "revolute" and abs(axis[0]) > 0.999
    limit = joint.find("limit")
    assert float(limit.get("upper")) - float(limit.get("lower")) == pytest.approx(np.radians(105), rel=0.05)
    for link in robot.findall("link"):
        assert (tmp_path / link.find("visual/geometry/mesh").get("filename")).stat().st_size > 10_000
    assert iio.imread(tmp_path / "motion.mp4").shape[0] == 21
    assert len(json.loads((tmp_path / "joints.json").read_text())["joints"][0]["states"]) == 21


def test_a_run_of_another_method_has_no_joints(tmp_path, capsys):
    assert run("articulate", tmp_path / "nothing") == 2
    assert "config.json" in capsys.readouterr().err


def test_flow_comes_back(tmp_path):
    flow = np.random.default_rng(0).uniform(-500, 500, (7, 9, 2)).astype(np.float32)
    known = np.random.default_rng(1).random((7, 9)) > 0.5
    write_flow(tmp_path / "f.png", flow, known)
    again, there = read_flow(tmp_path / "f.png")
    np.testing.assert_allclose(again, flow, atol=1 / 128 + 1e-4)  # half of a 64th
    assert np.array_equal(there, known)


@pytest.fixture
def video(tmp_path) -> Path:
    shutil.copytree(DEMO, tmp_path / "video")
    return tmp_path / "video"


def complaint(video: Path, capsys, *options) -> str:
    assert run("train", "reacto", "--data", video, "--out", video.parent / "run", "--device", "cpu", *options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and not (video.parent / "run").exists()
    return lines[-1]


def test_an_empty_mask(video, capsys):
    image = iio.imread(video / "rgb" / "00003.png")
    image[..., 3] = 0
    iio.imwrite(video / "rgb" / "00003.png", image)
    assert "00003.png is empty" in complaint(video, capsys)


def test_flow_of_another_size(video, capsys):
    write_flow(video / "flow" / "fw_1" / "00002.png", np.zeros((50, 60, 2)), np.ones((50, 60)))
    assert "60 × 50" in complaint(video, capsys)


def test_flow_that_is_a_picture(video, capsys):
    shutil.copy(video / "rgb" / "00002.png", video / "flow" / "fw_1" / "00002.png")
    assert "not flow" in complaint(video, capsys)


def test_no_flow(video, capsys):
    shutil.rmtree(video / "flow")
    assert "no optical flow" in complaint(video, capsys)


def test_too_few_frames(video, capsys):
    for split, keep in (("train", 2), ("test", 1)):
        file = video / f"transforms_{split}.json"
        data = json.loads(file.read_text())
        file.write_text(json.dumps(data | {"frames": data["frames"][:keep]}))
    assert "2 frames" in complaint(video, capsys)


def test_more_parts_than_one_is_asked_for(video, capsys):
    assert "at least two" in complaint(video, capsys, "--parts", 1)
