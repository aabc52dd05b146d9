"""Lens models against scalar formulas written from their papers' definitions, and against their own
inverses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields.data import Cameras
from fields.data.lenses import PANORAMAS, Lens, brown, brown4, radial6

W, H, F = 640, 480, 450.0

OPENCV = [-0.28, 0.09, 1e-3, -7e-4, -0.012]
RATIONAL = [0.5, 0.2, 5e-4, -5e-4, 0.01, 0.75, 0.3, 0.02]
CASES = {
    "opencv": (Lens.OPENCV, [0.0578, -0.0805, -9.8e-4, 1.6e-4]),
    "opencv five": (Lens.OPENCV, OPENCV),
    "rational": (Lens.OPENCV, RATIONAL),
    "thin prism": (Lens.OPENCV, [-0.1, 0.02, 1e-3, 1e-3, 0, 0, 0, 0, 2e-3, -1e-3, 1e-3, 5e-4, 3e-3]),
    "fisheye": (Lens.FISHEYE, [0.03, -0.012, 0, 0, 0.004, 0, 0, 0, 0, 0, 0, 0, -8e-4]),
    "thin prism fisheye": (Lens.FISHEYE, [0.03, -0.01, 1e-3, -1e-3, 2e-3, 0, 0, 0, 1e-3, 0, -1e-3, 0, 1e-4]),
    "fisheye624": (
        Lens.FISHEYE624,
        [0.02, -0.01, 4e-3, -1e-3, 2e-4, -1e-5, 1e-3, -5e-4, 1e-3, 1e-4, -1e-3, 1e-4],
    ),
    "fov": (Lens.FOV, [0.9]),
    "panorama": (Lens.EQUIRECTANGULAR, []),
    "stereo panorama": (Lens.STEREO_PANORAMA, [0.032]),
    "vr180": (Lens.VR180, [-0.032]),
    "orthographic": (Lens.ORTHOGRAPHIC, []),
}


def camera(lens: Lens, distortion: list[float], n: int = 1) -> Cameras:
    fx, fy = {**dict.fromkeys(PANORAMAS, (W / 2, H)), Lens.ORTHOGRAPHIC: (90.0, 95.0)}.get(lens, (F, 1.02 * F))
    off = 0 if lens in PANORAMAS else 4  # a panorama's columns wrap around at its borders
    pose = Cameras.look_at([1.0, 2, 3], [0, 0, 0.3], focal=1, width=W, height=H).world_from_camera
    values = {"fx": fx, "fy": fy, "cx": W / 2 + off, "cy": H / 2 - off, "width": W, "height": H}
    return Cameras(
        pose.expand(n, 4, 4), **{k: torch.tensor(v) for k, v in values.items()},
        model=torch.full((n,), int(lens)), distortion=torch.tensor([distortion] * n).view(n, -1),
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_projection_inverts_rays(name):
    c = camera(*CASES[name])
    xy = torch.rand(2000, 2) * torch.tensor([float(W), 0.9 * H]) + torch.tensor([0, 0.05 * H])  # a panorama has poles
    index = torch.zeros(2000, dtype=torch.int64)
    o, d = c.rays(index, xy)
    assert torch.allclose(d.norm(dim=-1), torch.ones(2000), atol=1e-5)
    back, _ = c.project(index, o + 3 * d)
    # Single precision of the coordinates: 640 px * 2^-23 * a few operations. Worst measured: 5e-4 px.
    assert (back - xy).abs().max() < 2e-3


def test_known_answer_opencv():
    """OpenCV's documentation, evaluated by hand for x = 0.3, y = -0.2."""
    k1, k2, p1, p2, k3, k4, k5, k6 = RATIONAL
    x, y = 0.3, -0.2
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    assert_projects(Lens.OPENCV, RATIONAL, (x, y, 1.0), (u, v))


def test_known_answer_fisheye():
    """theta_d = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8), past 90 degrees too."""
    k1, k2, k3, k4 = 0.03, -0.012, 0.004, -8e-4
    for x, y, z in ((0.3, -0.2, 1.0), (1.0, 0.5, -0.1)):
        r = math.hypot(x, y)
        t = math.atan2(r, z)
        td = t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8)
        assert_projects(Lens.FISHEYE, [k1, k2, 0, 0, k3, 0, 0, 0, 0, 0, 0, 0, k4], (x, y, z), (td * x / r, td * y / r))


def test_known_answer_thin_prism_fisheye():
    """COLMAP's THIN_PRISM_FISHEYE: equidistant first, then radial, tangential and prism terms in those
    coordinates."""
    k1, k2, p1, p2, k3, k4, sx, sy = 0.03, -0.01, 1e-3, -2e-3, 2e-3, 1e-4, 1e-3, -3e-3
    x, y = 0.4, 0.7
    r = math.hypot(x, y)
    t = math.atan(r)
    a, b = t * x / r, t * y / r
    s = a * a + b * b
    radial = k1 * s + k2 * s**2 + k3 * s**3 + k4 * s**4
    u = a + a * radial + 2 * p1 * a * b + p2 * (s + 2 * a * a) + sx * s
    v = b + b * radial + 2 * p2 * a * b + p1 * (s + 2 * b * b) + sy * s
    assert_projects(Lens.FISHEYE, [k1, k2, p1, p2, k3, 0, 0, 0, sx, 0, sy, 0, k4], (x, y, 1.0), (u, v))


def test_known_answer_fov():
    omega, x, y = 0.9, 0.4, -0.3
    r = math.hypot(x, y)
    rd = math.atan(2 * r * math.tan(omega / 2)) / omega
    assert_projects(Lens.FOV, [omega], (x, y, 1.0), (rd * x / r, rd * y / r))


def test_convention_panorama():
    """The middle looks forward, a quarter of the width further is to the right, the top is up."""
    pose = torch.eye(4)[None]
    c = Cameras(pose, *(torch.tensor(v) for v in (100.0, 100.0, 100.0, 50.0, 200, 100)), model=torch.tensor([4]))
    xy = torch.tensor([[100.0, 50], [150, 50], [100, 0], [0, 50]])
    _, d = c.rays(torch.zeros(4, dtype=torch.int64), xy)
    assert torch.allclose(d, torch.tensor([[0.0, 0, -1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]), atol=1e-6)


def test_convention_stereo_eyes_sit_beside_their_rays():
    """Along every ray of the right eye, its origin lies to the right of the camera's centre, at the eye's
    distance."""
    c = camera(Lens.STEREO_PANORAMA, [0.032])
    xy = torch.stack([torch.linspace(0, W, 9), torch.full((9,), H / 2)], -1)
    o, d = c.rays(torch.zeros(9, dtype=torch.int64), xy)
    up = c.world_from_camera[0, :3, 1].expand(9, 3)
    assert torch.allclose(((o - c.centres) * torch.linalg.cross(d, up)).sum(-1), torch.full((9,), 0.032), atol=1e-5)
    o, d = camera(Lens.VR180, [0.032]).rays(torch.zeros(1, dtype=torch.int64), torch.tensor([[W / 2, H / 2]]))
    assert torch.allclose(o - c.centres, 0.032 * c.world_from_camera[:, :3, 0], atol=1e-6)


def test_orthographic_rays_are_parallel():
    c = camera(Lens.ORTHOGRAPHIC, [])
    o, d = c.rays(torch.zeros(2, dtype=torch.int64), torch.tensor([[10.0, 20], [100, 20]]))
    assert torch.allclose(d[0], d[1]) and torch.allclose((o[1] - o[0]).norm(), torch.tensor(1.0), atol=1e-5)


def assert_projects(lens, distortion, point, expected):
    c = camera(lens, distortion)
    p = torch.tensor([point[0], -point[1], -point[2]])  # OpenCV to OpenGL
    world = c.world_from_camera[0, :3, :3] @ p + c.centres[0]
    xy, _ = c.project(torch.zeros(1, dtype=torch.int64), world[None])
    want = [expected[0] * float(c.fx) + float(c.cx), expected[1] * float(c.fy) + float(c.cy)]
    assert torch.allclose(xy[0], torch.tensor(want), atol=1e-3)


@pytest.mark.parametrize("f", [brown, brown4, radial6])
def test_jacobians_are_derivatives(f):
    c = [0.1 * torch.randn(50, dtype=torch.float64) for _ in range(13)]
    if f is brown4:
        c[4:] = [torch.zeros(50, dtype=torch.float64)] * 9
    u, v = (torch.randn(50, dtype=torch.float64).mul(0.4).requires_grad_() for _ in range(2))
    pu, pv, *jacobian = f(u, v, c)
    exact = [g for p in (pu, pv) for g in torch.autograd.grad(p.sum(), (u, v), retain_graph=True)]
    for a, b in zip(jacobian, exact, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    if f is brown4:
        assert torch.allclose(pu, brown(u, v, c)[0], atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.floats(-0.25, 0.4), st.floats(-0.05, 0.1), st.floats(-0.01, 0.01), st.floats(-0.01, 0.01))
def test_newton_reaches_machine_precision(k1, k2, p1, p2):
    """Points first bent, then straightened, come back; where the bent picture is still one-to-one."""
    u, v = (
        x.reshape(-1) for x in torch.meshgrid(*[torch.linspace(-0.8, 0.8, 9, dtype=torch.float64)] * 2, indexing="ij")
    )
    columns = [torch.full_like(u, x) for x in (k1, k2, p1, p2)] + [torch.zeros_like(u)] * 9
    from fields.data.lenses import invert

    bent = brown4(u, v, columns)
    good = (bent[2] * bent[5] - bent[3] * bent[4]) > 0.2
    su, sv = invert(brown4, columns, bent[0], bent[1])
    assert ((su - u).abs() + (sv - v).abs())[good].max() < 1e-8


def test_no_solution_stays_finite():
    """A strong lens has no image beyond a radius; such pixels get some finite direction, not NaN."""
    c = camera(Lens.OPENCV, [-0.6])
    _, d = c.rays(torch.zeros(1, dtype=torch.int64), torch.tensor([[0.0, 0.0]]))
    assert d.isfinite().all()


def test_cameras_of_different_lenses_share_a_batch():
    kinds = [CASES[k] for k in ("opencv five", "fisheye", "panorama", "orthographic", "fov")]
    each = [camera(*k) for k in kinds]
    c = Cameras.cat(each)
    index, xy = torch.randint(len(each), (300,)), torch.rand(300, 2) * torch.tensor([float(W), H])
    o, d = c.rays(index, xy)
    back, _ = c.project(index, o + 2 * d)
    assert (back - xy).abs().max() < 2e-3
    for i, one in enumerate(each):
        m = index == i
        o1, d1 = one.rays(torch.zeros(int(m.sum()), dtype=torch.int64), xy[m])
        assert torch.allclose(o[m], o1) and torch.allclose(d[m], d1, atol=1e-6)
