import math

import pytest
import torch

from fields.data import Cameras
from fields.errors import ShapeError
from tests.data.scenes import ring


def test_convention_opengl_and_pixel_centres():
    """At the origin, unrotated: the middle of the image looks along -Z, right is +X, up is +Y."""
    c = Cameras(torch.eye(4)[None], *(torch.tensor(x) for x in (10.0, 10.0, 2.0, 1.5, 4, 3)))
    xy = torch.tensor([[2.0, 1.5], [3.0, 1.5], [2.0, 0.5]])
    o, d = c.rays(torch.zeros(3, dtype=torch.int64), xy)
    assert (o == 0).all()
    n = math.hypot(1, 0.1)
    expected = torch.tensor([[0, 0, -1], [0.1 / n, 0, -1 / n], [0, 0.1 / n, -1 / n]])
    assert torch.allclose(d, expected, atol=1e-7)
    _, first = c.image_rays(0)
    assert first.shape == (3, 4, 3)
    assert torch.allclose(first[0, 0], torch.nn.functional.normalize(torch.tensor([-0.15, 0.1, -1.0]), dim=0))


def test_look_at_puts_the_target_in_the_middle_and_up_up():
    c = Cameras.look_at([[3.0, 1, 2], [0, 0, 5], [0, 0, -5]], [0.0, 0, 0.5], fov_x=1.0, width=40, height=30)
    assert torch.allclose(torch.det(c.world_from_camera), torch.ones(3), atol=1e-6)
    i = torch.arange(3)
    xy, depth = c.project(i, torch.tensor([[0.0, 0, 0.5]]).expand(3, 3))
    assert torch.allclose(xy, torch.tensor([20.0, 15.0]).expand(3, 2), atol=1e-4)
    assert torch.allclose(depth[1:], torch.tensor([4.5, 5.5]))
    above, _ = c[0].project(i[:1], torch.tensor([[0.0, 0, 0.6]]))
    assert above[0, 1] < 15 and abs(float(above[0, 0]) - 20) < 1e-4
    half = 0.5 * 40 / float(c.fx[0])
    assert abs(2 * math.atan(half) - 1.0) < 1e-6


def test_batches_select_move_and_concatenate():
    c = ring(5)
    assert len(c[2]) == 1 and len(c[-1]) == 1 and len(c[1:4]) == 3 and len(c[torch.tensor([0, 4])]) == 2
    assert torch.equal(c[[1, 3]].centres, c.centres[[1, 3]])
    assert torch.equal(Cameras.cat([c[:2], c[2:]]).centres, c.centres)
    assert len(c[:0]) == 0 and len(c.to("cpu")) == 5
    with pytest.raises(IndexError):
        c[5]


def test_downscaling_keeps_rays():
    """The centre of a reduced pixel is the centre of the block it averages."""
    c = ring(1, width=41, height=30)
    half = c.downscaled(2)
    assert (int(half.width), int(half.height)) == (20, 15)
    zero = torch.zeros(1, dtype=torch.int64)
    _, fine = c.rays(zero, torch.tensor([[7.0, 5.0]]))  # corner shared by pixels 6, 7 and 4, 5
    _, coarse = half.rays(zero, torch.tensor([[3.5, 2.5]]))
    assert torch.allclose(fine, coarse, atol=1e-6)
    assert torch.allclose(c.image_rays(0, downscale=2)[1][2, 3], coarse[0], atol=1e-6)


def test_rays_and_projection_invert_each_other_and_are_unit():
    c = ring(7)
    index, xy = torch.randint(7, (500,)), torch.rand(500, 2) * torch.tensor([40.0, 30.0])
    o, d = c.rays(index, xy)
    assert torch.allclose(d.norm(dim=-1), torch.ones(500), atol=1e-6)
    t = 1 + 5 * torch.rand(500, 1)
    back, depth = c.project(index, o + t * d)
    assert (back - xy).abs().max() < 1e-4
    assert torch.allclose(depth, (t[:, 0] * (d * c.forward[index]).sum(-1)), atol=1e-5)


def test_points_behind_a_pinhole_do_not_project():
    c = ring(1)
    xy, depth = c.project(torch.zeros(1, dtype=torch.int64), c.centres - c.forward)
    assert xy.isnan().all() and float(depth) < 0


def test_gradient_reaches_the_pose():
    c = ring(3)
    pose = c.world_from_camera.clone().requires_grad_()
    moving = Cameras(pose, c.fx, c.fy, c.cx, c.cy, c.width, c.height)
    index, xy = torch.tensor([0, 1, 2, 1]), torch.rand(4, 2) * 30
    o, d = moving.rays(index, xy)
    w = torch.randn(4, 3)
    (grad,) = torch.autograd.grad((o * w).sum() + (d * w).sum(), pose)
    assert torch.allclose(grad[1, :3, 3], w[1] + w[3])  # origins are the last column
    step = torch.zeros_like(pose)
    step[2, 0, 1] = 1e-3
    with torch.no_grad():
        values = [(Cameras(pose + s * step, *k(c)).rays(index, xy)[1] * w).sum() for s in (-1, 1)]
    assert torch.allclose(grad[2, 0, 1], (values[1] - values[0]) / 2e-3, atol=2e-3)  # float32 differences


def k(c: Cameras):
    return c.fx, c.fy, c.cx, c.cy, c.width, c.height


def test_no_rays_and_no_cameras():
    c = ring(2)
    o, d = c.rays(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2))
    assert o.shape == d.shape == (0, 3)
    assert len(Cameras(torch.zeros(0, 4, 4), *(torch.zeros(0) for _ in range(6)))) == 0


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"world_from_camera has shape \(4, 4\)"):
        Cameras(torch.eye(4), *(torch.tensor(1.0) for _ in range(6)))
    with pytest.raises(ShapeError, match="fx has shape"):
        Cameras(torch.eye(4)[None], torch.ones(2), *(torch.tensor(1.0) for _ in range(5)))
