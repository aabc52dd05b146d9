"""What the videos of known truth are made of, and what their measures can say."""

import pytest
import torch
from fields.benchmarks.articulated import ceiling
from fields.benchmarks.articulated.noise import Noise

from fields.geometry.rigid import move
from fields.methods import shipped
from fields.reacto.evaluation import Truth
from fields.reacto.scene import load_scene


def test_noise_is_as_large_as_it_says_and_of_what_it_says_only():
    image = torch.zeros(40, 40, 4)
    image[10:30, 10:30] = 0.7
    moved, pose, middle = torch.zeros(200, 200, 2), torch.eye(4, dtype=torch.float64), torch.tensor([0.0, 0, -5])
    none = Noise((), 0)
    assert none.image(image) is image and none.flow(moved) is moved and none.pose(pose, middle) is pose
    noise = Noise(("mask", "flow", "pose"), 0)
    widths = [float(noise.image(image)[20, :, 3].count_nonzero()) for _ in range(400)]
    assert set(widths) == {16, 18, 20, 22, 24} and 0.6 < widths.count(20) / 400 < 0.8
    off = noise.flow(moved).norm(dim=-1)
    assert off.median() == pytest.approx(0.5 * 1.18, rel=0.1)  # of two coordinates
    assert 0.02 < (off > 5).float().mean() < 0.06
    shifts = torch.stack([move(noise.pose(pose, middle).float(), middle) - middle for _ in range(400)])
    assert shifts.std() == pytest.approx(0.05, rel=0.15)  # the object is turned about itself


def test_the_truth_itself_is_nearly_perfect_and_less_so_the_more_it_is_off():
    truth = Truth.beside(load_scene(shipped("assets") / "demo-reacto"))
    assert 0.5 < truth.seen.float().mean() < 0.95  # the underside is not
    exact, rough = (ceiling.ceiling(truth, off, torch.Generator().manual_seed(0)) for off in (0.0, 0.005))
    assert exact["chamfer"] < 0.1 < rough["chamfer"] and exact["part_iou"] > rough["part_iou"]
    assert exact["f1"] == pytest.approx(1, abs=1e-3)


def test_a_video_without_truth_is_said_to_have_none(tmp_path, capsys):
    assert ceiling.main([str(shipped("assets") / "demo")]) == 2
    assert "no joints.json" in capsys.readouterr().err
