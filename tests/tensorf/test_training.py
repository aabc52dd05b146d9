"""The training of TensoRF against the same iteration composed of PyTorch operators, and against itself, resumed."""

from dataclasses import replace

import pytest
import torch
from fields.apps.common import demo_scene
from fields.benchmarks import composed

from fields.core import ray_aabb_intersect
from fields.data import load_scene
from fields.methods import method
from fields.tensorf.training import TensorfTraining


@pytest.fixture(scope="module")
def scene():
    return load_scene(demo_scene(), downscale=4)


def small(iterations=60, **changes):
    """The paper's settings on a grid that fits a test."""
    config = method("tensorf-vm").configure("paper").scaled(iterations)
    return replace(config, voxels=(20**3, 28**3), rays=256, density_rank=4, appearance_rank=6, **changes)


def test_loss_and_gradients_are_those_of_the_composed_iteration(scene):
    """Both see the same rays with the same jitter through a half transparent field. The fused path stops at
    transmittance 1e-4 and shades nothing of weight below 1e-4, the composed one only the latter."""
    training = TensorfTraining(small(density_shift=-4.0), scene, 0)
    field, white = training.field, torch.ones(3)
    reference = composed.Iteration(field)
    origins, directions, target = training.pixels.draw(256, white)
    jitter = torch.rand(256)
    rendering = field.render_rays(origins, directions, white, jitter - 0.5)  # its samples are midpoints, theirs ends
    loss = (rendering.rgb.clamp(0, 1) - target).square().mean() + 8e-5 * field.density_grid.l1()
    loss.backward()
    t_min, _, hits = ray_aabb_intersect(origins, directions, field.aabb[None], scene.near, scene.far)
    assert hits.all() and 0.2 < rendering.opacity.mean() < 0.9
    expected = reference.loss(origins, directions, target, jitter, t_min[:, 0])
    expected.backward()
    # 1e-3: a sample at the edge of the box can fall on either side.
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    for grid, (planes, lines) in (
        (field.density_grid, reference.density),
        (field.appearance_grid, reference.appearance),
    ):
        for factor, plane, line in zip(range(3), planes, lines, strict=True):
            for got, want in (
                (grid.factors[2 * factor].grad, plane.grad[0].permute(2, 1, 0)),
                (grid.factors[2 * factor + 1].grad, line.grad[0, :, :, 0].T),
            ):
                # 1e-2: samples at a threshold fall on either side of it by rounding.
                assert (got - want).norm() < 1e-2 * want.norm()


def test_the_twins_train_alike(scene, monkeypatch):
    """What runs where there are no kernels: the same losses, until rounding has grown through Adam's normalisation."""
    config = small(density_shift=-4.0)
    losses = []
    for backend in ("auto", "reference"):
        monkeypatch.setenv("FIELDS_BACKEND", backend)
        training = TensorfTraining(config, scene, 0)
        losses.append([float(training.step(i)["loss"]) for i in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("stop", [20, 45])
def test_resumed_at_any_stage_of_the_papers_schedule_is_bit_for_bit_the_same(scene, stop):
    config = small()
    assert config.occupancy_at[0] < config.occupancy_at[1] < 20 < 45  # before and after the box shrinks
    config = replace(config, occupancy_at=(15, 30), upsample_at=(15, 25, 35), occupancy_threshold=1e-6)
    whole = TensorfTraining(config, scene, 3)
    for i in range(stop):
        whole.step(i)
    tensors, plain = whole.state()
    resumed = TensorfTraining.resume(config, scene, {k: v.clone() for k, v in tensors.items()}, plain)
    for i in range(stop, 60):
        assert whole.step(i) == resumed.step(i)
    want, got = whole.field.state_dict(), resumed.field.state_dict()
    assert want.keys() == got.keys() and all(torch.equal(want[k], got[k]) for k in want)


def test_rays_that_meet_nothing_are_no_longer_drawn(scene):
    training = TensorfTraining(small(), scene, 0)
    field = training.field
    n = field.occupied.shape[0]
    at = (torch.arange(n) + 0.5) * 3 / n - 1.5
    field.occupied = at[:, None, None] ** 2 + at[None, :, None] ** 2 + at[None, None, :] ** 2 < 0.16
    training._focus()
    origins, directions, _ = training.pixels.draw(2000, torch.ones(3))
    nearest = (origins - (origins * directions).sum(-1, keepdim=True) * directions).norm(dim=-1)
    cell = 3 / n * 3**0.5
    assert nearest.max() < 0.4 + cell
    count = len(training.pixels.rows)
    # The ball of radius 0.4 covers this part of the pixels, seen from distance 4; its cells a little more or less.
    part = count / scene.train.images.data.shape[0]
    focal = float(scene.train.cameras.fx[0]) / float(scene.train.cameras.width[0])
    assert part == pytest.approx(torch.pi * (0.4 / 4.0 * focal) ** 2, rel=0.25)


def test_where_nothing_is_reached_all_rays_stay(scene):
    training = TensorfTraining(small(), scene, 0)
    training.field.occupied = torch.zeros_like(training.field.occupied)
    training._focus()
    assert len(training.pixels.rows) == scene.train.images.data.shape[0]
