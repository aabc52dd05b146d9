"""Radiance maps: whose axes they are in, that power stays what it is, and what lobes see of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fields.errors import DataError
from fields.relighting import equirectangular
from fields.relighting.environment import STUDIOS, Environment, lobe_integral
from fields.relighting.pyramid import LADDER, Rungs

quick = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def _one_thread():
    """Work here is small: where cores are shared, threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_map(height=24, seed=0, dtype=torch.float64):
    """Noise with a sun of one pixel."""
    generator = torch.Generator().manual_seed(seed)
    radiance = torch.rand(height, 2 * height, 3, generator=generator, dtype=torch.float64)
    radiance[height // 3, height] = torch.tensor([8.7e4, 8e4, 7e4])
    return radiance.to(dtype)


def random_directions(count, seed=0):
    normals = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(normals, dim=-1)


def random_rotation(seed=0):
    return torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


def brute_force(environment, axes, kappa):
    """The sum as it is defined, pixel by pixel."""
    d = environment.directions().double().view(-1, 3)
    power = (environment.radiance.double() * environment.solid_angles()[:, None, None]).view(-1, 3)
    return torch.stack([torch.exp(kappa * (d @ axis.double() - 1)) @ power for axis in axes])


def saved(path, radiance):
    np.save(path, radiance.numpy())
    return path


def a_sky(height=512):
    """Something like a real map: smooth, with a small sun and a few lamps."""
    d = equirectangular.directions(height)
    radiance = 0.2 + 0.1 * d[..., 1:2] + torch.zeros(3)
    for i, axis in enumerate(random_directions(4)):
        radiance = radiance + torch.exp(200 * (d @ axis - 1))[..., None] * torch.tensor([1.0, 2.0, 0.5 * i])
    radiance[height // 3, height] = 8.7e4
    return Environment(radiance.float())


# ------------------------------------------------------------------------------------ axes


def test_convention_directions():
    """Row 0 at the zenith; the left edge at −Z, a quarter at +X, the middle at +Z."""
    d = Environment(torch.zeros(180, 360, 3)).directions()
    half = math.radians(0.5)  # pixels are of one degree, and their centres half a degree from edges
    torch.testing.assert_close(d[89, 0], torch.tensor([half, half, -1.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(d[89, 90], torch.tensor([1.0, half, half]), atol=1e-4, rtol=0)
    torch.testing.assert_close(d[89, 180], torch.tensor([-half, half, 1.0]), atol=1e-4, rtol=0)
    assert d[0, :, 1].min() > 0.9999 and d[-1, :, 1].max() < -0.9999


# The spot of three.js' map is pixel (213, 597) of 512 × 1024: θ = 75.059°, φ = 210.059°, hence
# sin θ = 0.96619, cos θ = 0.25783, sin φ = −0.50088, cos φ = −0.86552; by hand, from the table in `Environment.load`.
SPOT = {
    "yup": (-0.48395, 0.25783, 0.83626),
    "mitsuba": (-0.48395, 0.25783, 0.83626),
    "zup": (-0.83626, -0.48395, 0.25783),
    "blender": (0.83626, -0.48395, 0.25783),
}


@pytest.mark.parametrize("frame", SPOT)
def test_convention_frames(data_dir, frame):
    path = data_dir / "envmaps" / "spot1Lux.hdr"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    environment = Environment.load(path, frame)
    place = int(environment.radiance.sum(-1).argmax())
    direction = environment.directions().view(-1, 3)[place]
    # Mitsuba's rows are up to half a pixel from ours, 0.18°; ours are exact to the digits above.
    torch.testing.assert_close(direction, torch.tensor(SPOT[frame]), atol=2e-3 if frame == "mitsuba" else 2e-5, rtol=0)
    assert environment.sample(direction[None])[0].tolist() == pytest.approx(
        environment.radiance.view(-1, 3)[place].tolist(), rel=0.01
    )


@pytest.mark.parametrize("frame", SPOT)
def test_convention_frames_of_a_small_map(tmp_path, frame):
    """The same with a map that is made here, in every direction."""
    height = 8
    radiance = torch.arange(height * 2 * height * 3, dtype=torch.float32).view(height, 2 * height, 3)
    environment = Environment.load(saved(tmp_path / "a.npy", radiance), frame)
    theta, phi = (torch.arange(height) + 0.5) * math.pi / height, (torch.arange(2 * height) + 0.5) * math.pi / height
    theta, phi = torch.meshgrid(theta, phi, indexing="ij")
    x, y, z = theta.sin() * phi.sin(), theta.cos(), -theta.sin() * phi.cos()
    written = {"yup": (x, y, z), "mitsuba": (x, y, z), "zup": (-z, x, y), "blender": (z, x, y)}[frame]
    seen = environment.sample(torch.stack(written, -1).view(-1, 3)).view_as(radiance)
    if frame == "mitsuba":  # row r at π r / 7, and linear between: this map is linear in rows
        radiance = radiance[:1] + (theta / math.pi * 7 * 2 * height * 3)[..., None]
    # Interpolated at the centres of pixels, whose places float32 has to 1e-6 of the height of 8.
    torch.testing.assert_close(seen, radiance, atol=2e-3, rtol=0)
    assert torch.det(environment.world_from_map) == pytest.approx(1)


def test_convention_turned():
    """Counter-clockwise from above: +Z to +X to −Z, and for frames with z up +X to +Y. Pixels stay."""
    environment = Environment(torch.zeros(4, 8, 3))
    towards = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64).T
    expected = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64).T
    torch.testing.assert_close(environment.turned(90).world_from_map @ towards, expected)
    up = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)  # of a map in Blender's axes
    turned = Environment(environment.radiance, up).turned(90)
    torch.testing.assert_close(
        turned.world_from_map @ up.T @ towards[:, 1], torch.tensor([0.0, 1, 0], dtype=torch.float64)
    )
    assert turned.radiance is environment.radiance


def test_turning_there_and_back():
    environment = a_sky(64)
    axes, rotation = random_directions(9), random_rotation()
    moved = environment.moved(rotation)
    # Rotations are kept in double precision, results in single.
    torch.testing.assert_close(
        moved.project(axes @ rotation.T, 16.0), environment.project(axes, 16.0), atol=0, rtol=1e-5
    )
    torch.testing.assert_close(moved.sample(axes @ rotation.T), environment.sample(axes), atol=1e-6, rtol=1e-5)
    seen = [
        e.blurred().lookup(d, Rungs.of(torch.full((9,), 50.0)))
        for e, d in ((moved, axes @ rotation.T), (environment, axes))
    ]
    torch.testing.assert_close(*seen, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(environment.turned(77).turned(-77).directions(), environment.directions())


# ------------------------------------------------------------------------------------ power


@pytest.mark.parametrize("height", [1, 2, 7, 512])
def test_solid_angles(height):
    theta = torch.linspace(0, math.pi, height + 1, dtype=torch.float64).cos()
    angles = Environment(torch.zeros(height, 2 * height, 3)).solid_angles()
    torch.testing.assert_close(angles, math.pi / height * (theta[:-1] - theta[1:]), atol=1e-14, rtol=1e-9)
    assert float(angles.sum()) * 2 * height == pytest.approx(4 * math.pi, rel=1e-14)


def test_power_by_hand():
    """A map of 2 rows: each of its 8 pixels is π/2."""
    radiance = torch.zeros(2, 4, 3)
    radiance[1, 2] = torch.tensor([1.0, 2.0, 3.0])
    assert Environment(radiance).power().tolist() == pytest.approx([math.pi / 2, math.pi, 3 * math.pi / 2])
    assert Environment.constant((1, 2, 3)).scaled(0.5).power().tolist() == pytest.approx(
        [2 * math.pi, 4 * math.pi, 6 * math.pi]
    )


@quick
@given(st.integers(1, 40), st.integers(1, 60))
def test_resizing_keeps_power(height, new):
    before = Environment(random_map(height).float())
    after = before.resized(new)
    assert after.radiance.shape == (new, 2 * new, 3) and after.radiance.min() >= 0
    # Work is in double precision; what is kept is float32, whose rounding of the sun is 6e-8 of the power.
    torch.testing.assert_close(after.power(), before.power(), atol=0, rtol=1e-6)


def test_resizing_averages():
    radiance = random_map(12)
    angles = equirectangular.solid_angles(12)[:, None, None]
    blocks = (radiance * angles).view(4, 3, 8, 3, 3).sum((1, 3)) / (angles.view(4, 3).sum(1) * 3)[:, None, None]
    torch.testing.assert_close(Environment(radiance).resized(4).radiance, blocks, atol=1e-10, rtol=1e-10)
    again = Environment(radiance).resized(36).resized(12).radiance
    torch.testing.assert_close(again, radiance, atol=1e-9, rtol=1e-9)  # of 8.7e4, in double precision


def test_the_sun_of_the_quarry_keeps_its_power(data_dir):
    path = data_dir / "envmaps" / "quarry_01_1k.hdr"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    quarry = Environment.load(path)
    for height in (256, 100, 16, 8):
        torch.testing.assert_close(quarry.resized(height).power(), quarry.power(), atol=0, rtol=1e-6)


# ------------------------------------------------------------------------------------ lobes


@pytest.mark.parametrize("kappa", [0.5, 4.0, 16.0, 64.0, 1024.0, 3000.0])
def test_projection_is_the_sum_over_pixels(kappa):
    environment, axes = a_sky(), random_directions(20)
    axes[0] = environment.directions()[512 // 3, 512]  # into the sun
    axes[1], axes[2] = torch.tensor([0.0, 1, 0]), torch.tensor([0.0, -1, 0])
    rotation = random_rotation(1)
    found = environment.moved(rotation).project((axes @ rotation.T).float(), kappa).double()
    summed = brute_force(environment, axes, kappa)
    # At the poles pixels are not points: κ/12 · (π/512)² is 0.3 % at κ = 1024 (1 % at 3000), and 5e-5 at 16. Elsewhere, float32.
    assert ((found - summed).abs() / summed)[3:].max() < 2e-4
    assert ((found - summed).abs() / summed).max() < max(1e-3, kappa * 4e-6)


@pytest.mark.parametrize("height", [4, 16, 250, 512])
@pytest.mark.parametrize("kappa", [1.0, 16.0, 1024.0, 1e5])
def test_projection_of_a_constant(height, kappa):
    """Is the lobe's integral, also for maps that are coarser than the lobe."""
    axes = torch.cat([random_directions(5), torch.tensor([[0.0, 1, 0]])])
    found = Environment(torch.ones(height, 2 * height, 3, dtype=torch.float64)).project(axes, kappa)
    torch.testing.assert_close(found / lobe_integral(kappa), torch.ones(6, 3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_projection_of_a_gaussian():
    """Two lobes have a closed integral: 2π (exp(q) − exp(−q)) / q · exp(−κ − λ), q = |κa + λb|."""
    a, b = random_directions(2)
    environment = Environment.spherical_gaussians([(a.tolist(), 30.0, (1.0, 2.0, 3.0))])
    q = (30 * a + 16 * b).norm()
    exact = float(2 * math.pi / q * (torch.exp(q - 46) - torch.exp(-q - 46)))
    found = environment.project(b[None], 16.0)[0]
    assert found.tolist() == pytest.approx([exact, 2 * exact, 3 * exact], rel=1e-5)  # float32 pixels


def test_narrow_gaussians_keep_their_power():
    """A lamp narrower than the pixels of the map is not lost between them."""
    for kappa in (10.0, 1e3, 1e5, 1e8):
        power = Environment.spherical_gaussians([((0.3, 2, -0.1), kappa, (1, 1, 1))], height=64).power()
        # Sums over pixels as wide as the lobe's standard deviation; measured: 2e-4 at worst, near the pole.
        assert float(power[0]) == pytest.approx(lobe_integral(kappa), rel=2e-3)


@pytest.mark.parametrize("sharpness", LADDER)
def test_blur_is_the_normalised_sum(sharpness):
    environment = a_sky()
    directions = random_directions(80)
    # Around the sun and at the poles too.
    directions[:40] = torch.nn.functional.normalize(
        environment.directions()[512 // 3, 512] + 0.2 * directions[:40], dim=-1
    )
    directions[40], directions[41] = torch.tensor([0.0, 1, 0]), torch.tensor([0.0, -1, 0])
    found = environment.blurred().lookup(directions, Rungs.of(torch.full((80,), sharpness))).double()
    summed = brute_force(environment, directions, sharpness) / lobe_integral(sharpness)
    # Levels are exact at the centres of their pixels (next test). Between those, of which there are 2.5 to a standard deviation, the
    # bilinear peak is 2 · (π/8)² / 8 = 4 % too low.
    assert (found - summed).abs().max() / summed.max() < 0.045
    assert ((found - summed).abs() / summed)[
        42:
    ].median() < 0.01  # all over the sphere; measured: 0.4 % at λ = 4, 1e-3 from 16 up


@pytest.mark.parametrize("sharpness", LADDER)
def test_blur_is_exact_where_it_is_stored(sharpness):
    environment = Environment(a_sky().radiance.double())
    height = round(8 * math.sqrt(sharpness))
    rows = torch.tensor([0, 1, height // 3, height // 2, height - 1])
    directions = equirectangular.directions(height)[rows, rows * 2].contiguous()
    found = environment.blurred().lookup(directions, Rungs.of(torch.full((5,), sharpness, dtype=torch.float64)))
    ones = Environment(torch.ones(512, 1024, 3, dtype=torch.float64))
    summed = brute_force(environment, directions, sharpness) / brute_force(ones, directions, sharpness)
    # A Gaussian has ended at 6.5 standard deviations: 1e-9 of the sun's image.
    torch.testing.assert_close(found, summed, atol=float(summed.max()) * 1e-8, rtol=1e-8)


@pytest.mark.parametrize("height", [8, 250, 512])
def test_blur_of_a_constant_is_one(height):
    pyramid = Environment(torch.ones(height, 2 * height, 3)).blurred()
    d = random_directions(500).float()
    sharpness = torch.logspace(-2, 5, 500)
    torch.testing.assert_close(pyramid.lookup(d, Rungs.of(sharpness)), torch.ones(500, 3), atol=1e-6, rtol=0)


def test_lookup_has_no_seam():
    """Across the left edge and over the poles it is as smooth as elsewhere; between levels it is linear in log λ."""
    environment = a_sky(128)
    pyramid = environment.blurred()
    for a, b in [
        ((-1e-4, 0.2, -1.0), (1e-4, 0.2, -1.0)),
        ((1e-4, 1.0, 0), (-1e-4, 1.0, 0)),
        ((0, -1.0, 1e-4), (0, -1.0, -1e-4)),
    ]:
        d = torch.nn.functional.normalize(torch.tensor([a, b]), dim=-1)
        for sharpness in LADDER:
            left, right = pyramid.lookup(d, Rungs.of(torch.full((2,), sharpness)))
            # 2e-4 rad apart, where nothing changes by more than √λ ≤ 32 of its peak in one.
            torch.testing.assert_close(left, right, atol=1e-2 * float(left.max()), rtol=0)
    d = random_directions(1).expand(3, 3)
    low, middle, high = pyramid.lookup(d, Rungs.of(torch.tensor([16.0, 32.0, 64.0])))
    torch.testing.assert_close(middle, (low + high) / 2)
    assert torch.equal(*pyramid.lookup(d[:2], Rungs.of(torch.tensor([1e4, 1024.0]))))


WORK = {
    "power": lambda e: e.power(),
    "resized": lambda e: e.resized(5).radiance,
    "sample": lambda e: e.sample(random_directions(6)),
    "project": lambda e: e.project(random_directions(6), 16.0),
    "project sharply": lambda e: e.project(random_directions(6), 5000.0),
    "blurred": lambda e: e.blurred().lookup(
        random_directions(6), Rungs.of(torch.logspace(0, 4, 6, dtype=torch.float64))
    ),
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize(("a", "b"), [(0.3, 3.7), (0.0, 1.9), (1e-6, 4.0)])
def test_everything_is_linear(work, a, b):
    f = WORK[work]
    one, two = random_map(16, 1), random_map(16, 2)
    mixed, apart = f(Environment(a * one + b * two)), a * f(Environment(one)) + b * f(Environment(two))
    assert (mixed - apart).abs().max() <= 1e-12 * apart.abs().max()
    assert not f(Environment(torch.zeros_like(one))).any()


# ------------------------------------------------------------------------------------ files, names


def test_studios():
    for name, make in STUDIOS.items():
        environment = make()
        assert environment.radiance.shape == (256, 512, 3) and environment.radiance.min() > 0.04, name
    sun = torch.nn.functional.normalize(torch.tensor([[0.8, 0.35, 0.5]]), dim=-1)
    # 150 + the sky's 0.3 exp(2 (0.35 / length − 1)) + 0.05; the map is bilinear in pixels a sixth of the sun's width.
    assert float(STUDIOS["sunset"]().sample(sun)[0, 0]) == pytest.approx(150.14, rel=0.02)


def test_maps_that_are_none(tmp_path):
    path = saved(tmp_path / "a.npy", torch.ones(6, 10, 3))
    for frame, match in (("yup", r"10 × 6 pixels; an environment map is twice"), ("maya", r"'maya' is no frame")):
        with pytest.raises(DataError, match=match) as caught:
            Environment.load(path, frame)
        assert str(caught.value).count("\n") == 1


def test_eight_bits_are_refused_unless_asked_for(tmp_path):
    Image.fromarray(np.full((4, 8, 3), 188, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="8 bits"):
        Environment.load(tmp_path / "a.png")
    radiance = Environment.load(tmp_path / "a.png", ldr_ok=True).radiance
    assert float(radiance.mean()) == pytest.approx(0.5029, abs=1e-4)  # sRGB 188 is about half as bright as white


def test_alpha_is_dropped(tmp_path):
    assert Environment.load(saved(tmp_path / "a.npy", torch.ones(4, 8, 4))).radiance.shape == (4, 8, 3)
