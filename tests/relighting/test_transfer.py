"""What a transfer field promises whatever it has learned: linear, never negative, never more light out than in."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fields
from fields.errors import ConfigError
from fields.relighting import brdf
from fields.relighting.basis import LightBasis, fibonacci_sphere
from fields.relighting.environment import STUDIOS, Environment
from fields.relighting.field import TransferField
from fields.relighting.image import TransferImage
from fields.relighting.lights import Light
from fields.relighting.solve import solve
from fields.relighting.stage import Stage
from fields.relighting.transfer import Illumination

CAMERA = fields.orbit(3, radius=3.0, up=(0.0, 1.0, 0.0), size=(24, 20))


def some_field(seed: int = 0, diffuse: bool = True, extinction: float = 0.0) -> TransferField:
    """A ball of a random material: everything about it is drawn, and strongly."""
    torch.manual_seed(seed)
    field = TransferField(aabb=[-1.0] * 3 + [1.0] * 3, resolution=[24] * 3, near=0.0, far=10.0, density_rank=3,
                          appearance_rank=8, hidden=32, diffuse=diffuse, density_shift=0.0, cells=200)  # fmt: skip
    with torch.no_grad():
        at = torch.linspace(-1, 1, 24)
        ball = 30 * (0.4 - (at[:, None] ** 2 + at[None] ** 2))
        for k, factor in enumerate(field.density_grid.factors):
            factor.zero_()
            if k % 2 == 0:
                factor[..., 0], factor[..., 1] = ball / 3, -10 / 3
            else:
                factor[..., 0], factor[..., 1] = 1.0, (at**2)[:, None].expand_as(factor)[..., 0]
        for factor in field.appearance_grid.factors:
            factor.mul_(8)
        for parameter in field.decoder.parameters():
            parameter.mul_(3)
        field.basis.logits.add_(2 * torch.randn_like(field.basis.logits))
        field.extinction.fill_(extinction)
    return field.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=[0.0, 5.0], ids=["learned", "inside"])
def field(request) -> TransferField:
    return some_field(extinction=request.param)


@pytest.fixture(scope="module")
def view(field) -> TransferImage:
    image = TransferImage.of(field, CAMERA)
    assert 60 < len(image.pixels.unique()) < 480 and float(image.rays.opacity.max()) > 0.99
    return image


def noise(seed: int, dtype: torch.dtype = torch.float32) -> Environment:
    """A map of random, mostly dark pixels."""
    generator = torch.Generator().manual_seed(seed)
    return Environment(torch.rand(16, 32, 3, generator=generator, dtype=dtype) ** 8)


def in_double(view: TransferImage) -> TransferImage:
    rays = view.rays.map(lambda values: values.double() if values.is_floating_point() else values)
    return replace(view, rays=rays, field=copy.deepcopy(view.field).double())


# ---------------------------------------------------------------------------------------- linear


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 4), st.floats(0, 4))
def test_light_adds_up(view, seed, a, b):
    """Maps and lights of every kind, in float32 to a few of its roundings."""
    one, other = noise(seed), noise(seed + 1)
    lamp = Light("directional", (2.0, 1.0, 0.5), direction=tuple(fibonacci_sphere(7)[seed % 7].tolist()))
    bulb = Light("point", (9.0, 9.0, 9.0), position=(1.5, 2.0, 1.0))
    both = Illumination.of(one.scaled(a), other.scaled(b), lamp, bulb)
    together = view.relight(both)
    apart = a * view.relight(Illumination.of(one)) + b * view.relight(Illumination.of(other))
    apart = apart + view.relight(Illumination.of(lamp)) + view.relight(Illumination.of(bulb))
    assert (together - apart).abs().max() < 1e-5 * together.max()


def test_light_adds_up_in_double(view):
    view = in_double(view)
    one, other = noise(1, torch.float64), noise(2, torch.float64)
    together = view.relight(Illumination.of(Environment(3 * one.radiance + 0.7 * other.radiance)))
    apart = 3 * view.relight(Illumination.of(one)) + 0.7 * view.relight(Illumination.of(other))
    assert (together - apart).abs().max() < 1e-12 * together.max()


def test_no_light_is_black_and_no_light_is_negative(view):
    assert view.relight(Illumination.of(Environment.constant((0.0, 0.0, 0.0)))).abs().max() == 0
    assert view.relight(Illumination()).abs().max() == 0
    for seed in range(5):
        for part in view.lit(Illumination.of(noise(seed))):
            assert part.min() >= 0


def test_colours_do_not_mix(view):
    red = view.relight(Illumination.of(Environment.constant((1.0, 0.0, 0.0))))
    assert red[..., 0].max() > 0.05 and red[..., 1:].abs().max() == 0


# ---------------------------------------------------------------------------------------- energy


@pytest.mark.parametrize("extinction", [0.0, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_nothing_gives_more_than_it_gets(seed, extinction):
    """In the furnace: under uniform light of radiance 1 nothing shines brighter. The sky is looked at in 128 directions, which
    may weigh a cosine by a few parts in a hundred too much; what is scattered and mirrored is exact to the table of albedos."""
    view = TransferImage.of(some_field(seed, extinction=extinction), CAMERA, seed % 3)
    parts = view.lit(Illumination.of(Environment.constant((1.0, 1.0, 1.0))))
    assert (parts.scattered + parts.reflected).max() < 1 + 2e-3
    assert parts.total.max() < 1.03


def test_soft_lights_are_lights_of_radiance_one():
    """Each row of the light matrix integrates to one, so that responses are albedos."""
    basis = LightBasis(24, 64, 16.0)
    strength = Environment.constant((1.0, 1.0, 1.0)).project(basis.axes, basis.sharpness)
    assert torch.allclose(basis.matrix() @ strength, torch.ones(24, 3), atol=1e-5)
    assert basis.matrix().min() >= 0


def test_the_table_of_albedos_is_the_integral_of_the_lobe():
    """By a plain sum over 200 000 directions, which is good to a percent for a lobe of this width."""
    light = fibonacci_sphere(200_000)
    normal = torch.tensor([0.0, 0.0, 1.0])
    for n_v, width in ((0.9, 0.3), (0.5, 0.5), (0.25, 0.8), (0.7, 0.15)):
        view = torch.tensor([math.sqrt(1 - n_v * n_v), 0.0, n_v])
        lobe, rise = brdf.ggx(normal, view, light, torch.tensor(width))
        wanted = (4 * math.pi * lobe.mean(), 4 * math.pi * (lobe * rise).mean())
        found = brdf.albedo(torch.tensor([n_v]), torch.tensor([width]))
        assert abs(found[0] - wanted[0]) < 0.01 and abs(found[1] - wanted[1]) < 0.01


def test_a_lobe_is_reciprocal():
    """Divided by the cosine of the light, it is the same when eye and light change places."""
    torch.manual_seed(0)
    up = torch.tensor([0.0, 0.0, 1.0])
    one, other = (torch.nn.functional.normalize(torch.rand(100, 3) + 0.05 * up, dim=-1) for _ in range(2))
    width = torch.rand(100)
    there, back = brdf.ggx(up, one, other, width)[0], brdf.ggx(up, other, one, width)[0]
    assert torch.allclose(there * one[:, 2], back * other[:, 2], rtol=1e-4)


# ---------------------------------------------------------------------------------------- one light, many ways


def test_a_lamp_far_away_is_a_direction(view):
    direction = tuple(fibonacci_sphere(11)[3].tolist())
    far = 1e4
    sun = view.relight(Illumination.of(Light("directional", (1.0, 1.0, 1.0), direction=direction)))
    lamp = Light("point", (far**2,) * 3, position=tuple(far * v for v in direction))
    assert (view.relight(Illumination.of(lamp)) - sun).abs().max() < 1e-3 * sun.max()


def test_a_small_sun_in_a_map_is_a_direction():
    """Scattered light sees no difference between a lamp of one degree and a direction; the mirror blurs a map by a lobe that is
    only about a GGX lobe."""
    view = TransferImage.of(some_field(), CAMERA)
    direction = tuple(fibonacci_sphere(11)[4].tolist())
    kappa = 5000.0
    peak = 3.0 / (2 * math.pi / kappa)
    sun = Illumination.of(Light("directional", (3.0,) * 3, direction=direction))
    spot = Illumination.of(Environment.spherical_gaussians([(direction, kappa, (peak,) * 3)], height=512))
    one, other = view.lit(sun).scattered, view.lit(spot).scattered
    assert (one - other).abs().max() < 0.01 * one.max()


def test_a_wide_lamp_in_a_map_is_many_directions():
    """To the interior, whose sky has 128 directions, each as wide as a lobe of κ = 32: one of κ = 3 becomes one of 2.74."""
    view = TransferImage.of(some_field(extinction=5.0), CAMERA)
    axis, kappa = fibonacci_sphere(11)[4], 3.0
    lamp = Illumination.of(Environment.spherical_gaussians([(axis.tolist(), kappa, (1.0,) * 3)]))
    directions = fibonacci_sphere(300)
    radiance = torch.exp(2.743 * (directions @ axis - 1))
    radiance = radiance * (2 * math.pi / kappa) / radiance.sum()
    lights = [
        Light("directional", (float(r),) * 3, direction=tuple(d.tolist()))
        for d, r in zip(directions, radiance, strict=True)
        if r > 1e-6
    ]
    wide, many = view.lit(lamp).scattered, view.lit(Illumination.of(*lights)).scattered
    assert (wide - many).abs().max() < 0.03 * many.max()


def test_a_stage_lights_as_its_lights_do(field, view):
    """What training computes for all lights at once."""
    lights = [
        Light("directional", (3.0, 2.0, 1.0), direction=(0.0, 1.0, 0.0)),
        Light("point", (5.0, 5.0, 5.0), position=(2.0, 1.0, 0.5)),
        Light("sg", (1.0, 2.0, 3.0), direction=(1.0, 0.0, 0.0), kappa=20.0),
    ]
    stage = Stage(lights, field.basis, torch.zeros(3))
    which = torch.arange(3).expand(len(view.pixels), 3)
    scattered = stage.scattered(view.rays, which)
    if (inside := field.inside()) is not None:
        leaving, uniform = stage.leaving(view.rays, which, inside)
        scattered = scattered + view.rays.through(leaving * stage.tint[which][..., None, :], uniform)
    towards, _ = stage.arriving(view.rays.point, which)
    visible = torch.stack([field.visibility(view.rays.point, view.rays.normal, towards[:, j]) for j in range(3)], 1)
    surface = stage.surface(view.rays, which, visible)
    opacity = view.rays.opacity[:, None]
    for j, light in enumerate(lights):
        parts = view.lit(Illumination.of(light))
        assert torch.allclose(opacity * scattered[:, j], parts.scattered, atol=1e-6, rtol=1e-4)
        if light.kind != "sg":  # a lamp with a size is mirrored as a map is
            assert torch.allclose(opacity * surface[:, j], parts.reflected + parts.direct, atol=1e-6, rtol=1e-4)


def test_turning_the_light_and_the_eye_is_turning_nothing(field):
    """A map turned by a quarter, seen from a camera turned by a quarter of a field that is round, were it not for its colours."""
    light = Illumination.of(STUDIOS["studio"]())
    whole = light.turned(360.0, torch.zeros(3))
    view = TransferImage.of(field, CAMERA)
    assert torch.allclose(view.relight(light), view.relight(whole), atol=1e-5)
    east = Illumination.of(Light("directional", (1.0,) * 3, direction=(1.0, 0.0, 0.0)))
    turned = east.turned(90.0, torch.zeros(3)).lights[0].direction
    assert torch.allclose(
        torch.tensor(turned), torch.tensor([0.0, 0.0, -1.0]), atol=1e-6
    )  # counter-clockwise from above


# ---------------------------------------------------------------------------------------- as a field, and back


def test_relit_fields_share_everything_and_render_what_the_transfer_image_says(field):
    lit = fields.relight(field, STUDIOS["sunset"](), exposure=2.0)
    assert lit is not field and lit.density_grid is field.density_grid and field.exposure == 1.0
    image = fields.render(lit, CAMERA, 1, background=torch.zeros(3))
    view = TransferImage.of(field, CAMERA, 1)
    opacity = view.image(view.rays.opacity)
    colour = lit.developed(view.lit(lit.illumination), view.rays.opacity[:, None])
    # Faint pixels have no transfer; and at edges a transfer image has many rays, a rendering one.
    middles = view.image((view.weights == 1).float()) == 1
    assert middles.sum() > 40
    shown = opacity * view.image(colour)
    assert torch.allclose(image.rgb[middles[..., 0]], shown[middles[..., 0]], atol=2e-3)
    with pytest.raises(ConfigError, match="baked in"):
        fields.relight(torch.nn.Linear(1, 1), "studio")


def test_the_light_of_a_picture_is_found_again(view):
    """From one picture: relit by what was found, another looks the same. Lobes cannot be sharper than they are."""
    truth = Environment.spherical_gaussians(
        [((1, 1, 0.5), 16.0, (3, 2, 1)), ((-1, 0.2, 0), 16.0, (0.5, 1, 2))], ambient=0.1
    )
    photograph = view.relight(Illumination.of(truth))
    found = solve(view, photograph)
    again = view.relight(Illumination.of(found))
    assert found.radiance.min() >= 0
    assert (again - photograph).square().mean() < 0.05**2 * photograph.square().mean()
