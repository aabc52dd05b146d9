"""`fields train reacto` and `fields articulate` on the demo, and what is wrong with videos."""

import json
import math
import shutil
import struct
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from fields.apps.common import open_run
from fields.apps.viewer.joints import JointsPanel
from fields.apps.viewer.viewer import Subject, Viewer
from fields.benchmarks.articulated.__main__ import make
from fields.benchmarks.articulated.objects import laptop
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from fields.io.run import scene_of, world_from_input
from fields.methods import shipped
from fields.reacto.flow import estimate_flow, read_flow, write_flow
from fields.reacto.kinds import joints_of
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
    options = ("--resolution", 48, "--density", 2000, "--device", "cpu")
    assert run("articulate", trained, "--out", tmp_path, *options) == 0
    (file,) = tmp_path.glob("*.urdf")
    robot = ET.parse(file).getroot()
    (joint,) = robot.findall("joint")
    axis = np.array([float(v) for v in joint.find("axis").get("xyz").split()])
    assert joint.get("type") == "revolute" and abs(axis[0]) > 0.999
    limit = joint.find("limit")
    assert float(limit.get("upper")) - float(limit.get("lower")) == pytest.approx(np.radians(105), rel=0.05)
    true = (0.32 * 0.22 * 0.016, 0.32 * 0.22 * 0.008)  # cubic metres of base and lid
    for link, volume in zip(robot.findall("link"), true, strict=True):
        mass = float(link.find("inertial/mass").get("value"))
        assert 0.5 < mass / (2000 * volume) < 4  # thin slabs that have hardly begun to be learned are too thick
        about = link.find("inertial/inertia")
        inertia = np.array([[float(about.get("i" + "".join(sorted(a + b)))) for a in "xyz"] for b in "xyz"])
        turning = np.linalg.eigvalsh(inertia)
        assert turning[0] > 0 and turning[0] + turning[1] >= turning[2]  # of any body
        assert (tmp_path / link.find("visual/geometry/mesh").get("filename")).stat().st_size > 10_000
    assert iio.imread(tmp_path / "motion.mp4").shape[0] == 21
    assert len(json.loads((tmp_path / "joints.json").read_text())["joints"][0]["states"]) == 21


def test_the_animation_moves_as_the_field_does(trained, tmp_path):
    """Every vertex, at some moments: by the nodes of the file, and by the poses of the field."""
    assert run("articulate", trained, "--out", tmp_path, "--resolution", 48, "--device", "cpu") == 0
    data = (tmp_path / "motion.glb").read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    tree, binary = json.loads(data[20 : 20 + length]), data[28 + length :]

    def values(accessor: int) -> np.ndarray:
        about = tree["accessors"][accessor]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[about["type"]]
        start = tree["bufferViews"][about["bufferView"]]["byteOffset"]
        return np.frombuffer(binary, "<f4", about["count"] * width, start).reshape(-1, width).astype(float)

    _, field = open_run(trained, "cpu")
    similarity = np.linalg.inv(world_from_input(trained).numpy())
    (channel,) = tree["animations"][0]["channels"]  # one hinge turns, and nothing else moves
    turns = values(tree["animations"][0]["samplers"][channel["sampler"]]["output"])
    times = values(tree["animations"][0]["samplers"][channel["sampler"]]["input"])[:, 0]
    np.testing.assert_allclose(times, (np.array(field.times) - field.times[0]) / 10, atol=1e-6)
    base, lid = (node["translation"] for node in tree["nodes"])
    own = values(tree["meshes"][1]["primitives"][0]["attributes"]["POSITION"])
    rest = field.poses(torch.zeros(2)).detach().double().numpy()[1]
    for k in (0, 7, 20):
        by_file = Rotation.from_quat(turns[k]).apply(own) + lid + base
        pose = field.poses(field.states[:, k]).detach().double().numpy()[1]
        moved = similarity @ pose @ np.linalg.inv(rest) @ np.linalg.inv(similarity)
        by_field = (own + lid + base) @ moved[:3, :3].T + moved[:3, 3]
        np.testing.assert_allclose(by_file, by_field, atol=1e-5 * np.ptp(own))  # float32 of poses and of the file


def test_the_viewer_moves_joints(trained):
    config, field = open_run(trained, "cpu")
    cameras = scene_of(trained, config, None).train.cameras
    viewer = Viewer(Subject("laptop", field, config, cameras), port=7391, own_thread=False)
    try:
        (panel,) = (tab for tab in viewer.tabs_shown if isinstance(tab, JointsPanel))
        panel.time.value = field.times[12]
        torch.testing.assert_close(field.posed, field.poses(field.states[:, 12]), atol=1e-5, rtol=0)
        panel.sliders[0].value = panel.sliders[0].max
        (joint,) = joints_of(field)
        turned = field.posed[1, :3, :3] @ field.poses(field.states[:, 12])[1, :3, :3].mT
        angle = math.degrees(math.acos((float(turned.trace()) - 1) / 2))
        assert angle == pytest.approx(panel.sliders[0].max - math.degrees(float(joint.states[12])), abs=0.1)
        panel.parts.value = True
        assert field.labelled
    finally:
        viewer.stop()


def test_flow_is_estimated_where_there_is_none():
    """Of a pattern that turns by three degrees, with a stripe of it hidden in the second picture."""
    rng, size = np.random.default_rng(0), 160
    pattern = gaussian_filter(rng.random((size, size, 3)), (2.5, 2.5, 0))
    pattern = np.clip(0.5 + 12 * (pattern - 0.5), 0, 1)
    turn = Rotation.from_euler("z", 3, degrees=True).as_matrix()[:2, :2]
    y, x = np.mgrid[:size, :size]
    centred = np.stack([x, y], -1) - (size - 1) / 2
    source = (centred @ turn + (size - 1) / 2)[..., ::-1]  # where a pixel of the second picture comes from
    second = np.stack([map_coordinates(pattern[..., c], np.moveaxis(source, -1, 0), order=1) for c in range(3)], -1)
    inside = np.linalg.norm(centred, axis=-1) < 60
    shown = inside & ~((x > 90) & (x < 100))
    images = [
        (np.concatenate([p, m[..., None]], -1) * 255).astype(np.uint8) for p, m in ((pattern, inside), (second, shown))
    ]
    (moved, known), _ = estimate_flow(*images)
    true = centred @ turn.T - centred
    goal = centred + true + (size - 1) / 2
    hidden = (goal[..., 0] > 91) & (goal[..., 0] < 99)
    assert (known & hidden).sum() <= 0.02 * hidden.sum() and known[inside & ~hidden].mean() > 0.6
    assert np.median(np.linalg.norm(moved - true, axis=-1)[known]) < 0.1


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


def test_too_few_frames(video, capsys):
    for split, keep in (("train", 2), ("test", 1)):
        file = video / f"transforms_{split}.json"
        data = json.loads(file.read_text())
        file.write_text(json.dumps(data | {"frames": data["frames"][:keep]}))
    assert "2 frames" in complaint(video, capsys)


def test_more_parts_than_there_are(video, capsys):
    assert "2 parts move against each other, not 4" in complaint(video, capsys, "--parts", 4)


def test_a_camera_that_stands_still(video, capsys):
    for split in ("train", "test"):
        file = video / f"transforms_{split}.json"
        data = json.loads(file.read_text())
        for frame in data["frames"]:
            frame["transform_matrix"] = data["frames"][0]["transform_matrix"]
        file.write_text(json.dumps(data))
    assert "at one place" in complaint(video, capsys)


def test_pictures_from_all_sides_are_no_video(capsys):
    assert "not found in the next" in complaint(shipped("assets") / "demo", capsys)


def test_nothing_moves(tmp_path, capsys):
    """The laptop again, with a hinge that is stuck."""
    stuck = laptop()
    stuck = replace(stuck, joints=[replace(joint, low=60, high=60) for joint in stuck.joints])
    make(stuck, tmp_path / "video", "ci", "noise", 0, lambda done, of: None)
    assert "nothing in it moves" in complaint(tmp_path / "video", capsys)


def test_a_mask_of_another_shape(video, capsys):
    file = video / "transforms_train.json"
    data = json.loads(file.read_text())
    for frame in data["frames"]:
        frame["mask_path"] = "mask.png"
    file.write_text(json.dumps(data))
    iio.imwrite(video / "mask.png", np.pad(np.full((30, 40), 255, np.uint8), 10))
    assert "60 × 50" in complaint(video, capsys)


def test_more_parts_than_one_is_asked_for(video, capsys):
    assert "at least two" in complaint(video, capsys, "--parts", 1)
