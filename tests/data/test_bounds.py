import math

import torch

from fields.data import Cameras, load_scene
from fields.data.bounds import choose_bounds, focus, frustum_points
from tests.data import scenes


def test_focus_is_where_the_axes_meet():
    eye = torch.randn(20, 3, dtype=torch.float64) * 3
    target = torch.tensor([1.0, -2, 0.5], dtype=torch.float64)
    point, distance, converges = focus(Cameras.look_at(eye, target, focal=50, width=40, height=30))
    assert torch.allclose(point, target, atol=1e-4) and converges
    assert abs(distance - float((eye - target).norm(dim=-1).median())) < 1e-4


def test_parallel_and_outward_cameras_have_no_focus():
    eye = torch.tensor([[x, y, 0.0] for x in range(3) for y in range(3)])
    assert not focus(Cameras.look_at(eye, eye + torch.tensor([0.0, 5, 0]), focal=50, width=40, height=30))[2]
    a = torch.linspace(0, 6, 20)
    out = torch.stack([a.cos(), a.sin(), 0 * a], -1)
    assert not focus(Cameras.look_at(out, 2 * out, focal=50, width=40, height=30))[2]


def test_a_blender_scene_at_another_scale_gets_its_own_box(tmp_path):
    scenes.write_blender(tmp_path, distance=8.0, focal=90.0)
    s = load_scene(tmp_path)
    assert "visual hull" in s.notes[-1]
    assert (s.aabb[0] < -scenes.RADIUS).all() and (s.aabb[1] > scenes.RADIUS).all()
    assert s.near < 8 - scenes.RADIUS and s.far > 8 + scenes.RADIUS


def test_points_box_ignores_outliers():
    c = scenes.ring(8)
    p = torch.cat([torch.rand(2000, 3) * 2 - 1, torch.full((5, 3), 500.0)])
    b = choose_bounds(c, points=p)
    assert b.aabb.abs().max() < 1.4 and (b.aabb[1] > 0.99).all() and (b.aabb[0] < -0.99).all()
    assert 0.5 < b.near < 3 and 5 < b.far < 8


def test_cameras_alone():
    b = choose_bounds(scenes.ring(20))
    assert torch.allclose(b.aabb, torch.tensor([[-4.03] * 3, [4.03] * 3]), atol=1e-2) and "look at" in b.note
    eye = torch.tensor([[x, 0.0, z] for x in range(4) for z in range(3)])
    ahead = Cameras.look_at(eye, eye + torch.tensor([0.0, 5, 0]), focal=50, width=40, height=30)
    b = choose_bounds(ahead)
    assert b.aabb[1, 1] > 5 and b.aabb[0, 0] < 0 < 3 < b.aabb[1, 0]
    assert math.isfinite(b.near) and 0 < b.near < b.far


def test_frusta_reach_their_depths():
    c = scenes.ring(3)
    p = frustum_points(c, torch.tensor([[1.0, 2.0]] * 3))
    depth = ((p.view(2, 3, 4, 3) - c.centres[None, :, None]) * c.forward[None, :, None]).sum(-1)
    assert torch.allclose(depth[0], torch.ones(3, 4)) and torch.allclose(depth[1], 2 * torch.ones(3, 4))


def test_near_starts_where_views_overlap():
    """A ring of eight cameras: nothing close to one is seen by the others."""
    b = choose_bounds(scenes.ring(8))
    assert 0.3 < b.near <= 0.5 * 4.04
