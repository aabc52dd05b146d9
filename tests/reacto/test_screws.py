"""Twists and rigid motions, against the matrix exponential and against geometry."""

import math

import pytest
import torch

from fields.geometry.rigid import inverse, move
from fields.reacto.field import ArticulatedField
from fields.reacto.kinds import joint_of
from fields.reacto.screws import cross_matrix, exponential, left_jacobian, prismatic, rescaled, revolute


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-5, 1e-3, 1.0, 3.1])
def test_it_is_the_matrix_exponential(size):
    twist = torch.randn(50, 6, dtype=torch.float64)
    twist[:, :3] *= size / twist[:, :3].norm(dim=-1, keepdim=True)
    generator = torch.zeros(50, 4, 4, dtype=torch.float64)
    generator[:, :3, :3], generator[:, :3, 3] = cross_matrix(twist[:, :3]), twist[:, 3:]
    torch.testing.assert_close(exponential(twist), torch.linalg.matrix_exp(generator), atol=1e-12, rtol=1e-9)


def test_the_left_jacobian_is_the_derivative():
    twist = torch.randn(7, 6, dtype=torch.float64)
    small = 1e-6 * torch.randn(7, 6, dtype=torch.float64)
    moved = exponential((left_jacobian(twist) @ small[..., None])[..., 0]) @ exponential(twist)
    torch.testing.assert_close(
        moved, exponential(twist + small), atol=1e-10, rtol=0
    )  # the square of the step, and some


def test_gradients_also_where_nothing_moves():
    twist = torch.randn(4, 6, dtype=torch.float64)
    twist[0], twist[1, :3] = 0, 0
    assert torch.autograd.gradcheck(exponential, twist.requires_grad_())


def test_turning_about_an_axis_keeps_it_and_sliding_moves_along_it():
    axis, point = torch.nn.functional.normalize(torch.randn(20, 3), dim=-1), torch.randn(20, 3)
    torch.testing.assert_close(
        move(exponential(1.3 * revolute(axis, point)), point + 0.7 * axis), point + 0.7 * axis, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(move(exponential(1.3 * prismatic(axis)), point), point + 1.3 * axis, atol=1e-6, rtol=0)
    pose = exponential(torch.randn(20, 6))
    torch.testing.assert_close(move(inverse(pose), move(pose, point)), point, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["revolute", "prismatic", "screw"])
def test_what_a_joint_is_called(kind):
    axis, point = torch.nn.functional.normalize(torch.randn(3), dim=0), torch.randn(3)
    twist = {"revolute": revolute(axis, point), "prismatic": prismatic(axis),
             "screw": revolute(axis, point) + 0.4 * prismatic(axis)}[kind]  # fmt: skip
    middle = point + 0.5 * axis
    joint = joint_of(2.5 * twist, torch.linspace(0, 0.4, 50), 0, 1, middle, 2.0)
    assert joint.kind == kind and joint.limits[1] == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(joint.axis, axis, atol=1e-5, rtol=0)
    torch.testing.assert_close(joint.pivot, middle, atol=1e-4, rtol=0)
    assert joint.pitch == pytest.approx(0.4 if kind == "screw" else 0.0, abs=1e-5)


def two_parts() -> ArticulatedField:
    torch.manual_seed(0)
    part = {"aabb": [-1, -0.4, -0.3, 1, 0.4, 0.3], "resolution": [16, 10, 8], "near": 0.0, "far": math.inf, "density_rank": 4,
            "appearance_rank": 4, "feature_dim": 6, "hidden": 16, "density_shift": 0.5, "distance_scale": 1.0, "frequencies": 1}  # fmt: skip
    field = ArticulatedField(parts=[part, part], parents=[-1, 0], times=[0, 1, 2], aabb=[-2, -3, -3, 4, 3, 3])
    for own in field.parts:
        for factor in own.density_grid.parameters():
            factor.data += 1.0
    field.frames[1, :3, 3] = torch.tensor([0.3, 0.9, 0.5])
    hinge, middle = revolute(torch.tensor([0.0, 0, 1]), torch.tensor([-1.0, 0.4, 0])), torch.tensor([1.0, 0, 0])
    field.twists.data[1] = rescaled(hinge, torch.tensor(1 / 3), -middle / 3)
    torch.testing.assert_close(field.screws()[1], hinge, atol=1e-6, rtol=0)
    field.states.data[1] = torch.tensor([0.0, 0.6, 1.0])
    return field


def rays(n: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    origins = 4 * torch.nn.functional.normalize(torch.randn(n, 3), dim=-1)
    return origins, torch.nn.functional.normalize(torch.randn(n, 3) * 0.6 - origins, dim=-1)


def test_a_part_that_moves_looks_as_one_that_is_moved_around():
    """What is seen of a lone part in another pose is what a camera that moved the other way sees of it at rest."""
    field = two_parts()
    field.parts[0].occupied[:] = False
    origins, directions = rays()
    with torch.no_grad():
        pose = exponential(0.6 * field.screws()[1])
        back = inverse(pose)
        with field.in_state(field.states[:, 1]):
            moved = field.render_rays(origins, directions)
        still = field.render_rays(move(back, origins), directions @ back[:3, :3].T)
    assert 0.05 < moved.opacity.mean() < 0.9
    # Rays that just pass a knot end on either side of it, by rounding.
    assert ((moved.rgb - still.rgb).abs().amax(-1) < 1e-3).float().mean() > 0.99


def test_the_nearer_part_hides_the_other_and_light_is_not_made():
    field = two_parts()
    origins, directions = rays()
    with torch.no_grad():
        both = field.render_rays(origins, directions)
        alone = []
        for b in (0, 1):
            before = field.parts[1 - b].occupied.clone()
            field.parts[1 - b].occupied[:] = False
            alone.append(field.render_rays(origins, directions))
            field.parts[1 - b].occupied[:] = before
    # Depths add up: what passes both is what passes the one and the other.
    through = (1 - alone[0].opacity) * (1 - alone[1].opacity)
    torch.testing.assert_close(1 - both.opacity, through, atol=1e-4, rtol=0)
    solid = (alone[0].opacity > 0.999) & (alone[1].opacity > 0.999)
    first = torch.minimum(alone[0].depth, alone[1].depth)[solid]
    apart = (alone[0].depth - alone[1].depth).abs()[solid] > 0.5
    assert apart.sum() > 20
    assert ((both.depth[solid] - first).abs()[apart] < 0.1).float().mean() > 0.95


def test_pictures_pull_at_the_motion():
    field = two_parts()
    origins, directions = rays(200)
    poses = field.poses(field.states.mT)[torch.arange(200) % 3]
    field.render_posed(origins, directions, poses).rgb.square().mean().backward()
    assert field.twists.grad[1].abs().max() > 0 and field.states.grad[1].abs().max() > 0
    assert all(torch.isfinite(p.grad).all() for p in field.parameters() if p.grad is not None)


def test_states_between_frames_and_beyond():
    field = two_parts()
    for k, time in enumerate(field.times):
        torch.testing.assert_close(field.states_at(time), field.states[:, k].detach(), atol=1e-6, rtol=0)
    assert 0.6 < float(field.states_at(1.5)[1]) < 1.0
    torch.testing.assert_close(field.states_at(99.0), field.states[:, -1].detach())
