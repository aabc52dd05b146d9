"""Light inside a ball, whose ways and walks are known, and the solid that a training starts from."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from fields.relighting.environment import Environment
from fields.relighting.field import TransferField
from fields.relighting.interior import ALBEDOS, Interior
from fields.relighting.lights import Light
from fields.relighting.transfer import Illumination
from fields.tensorf.shape import LevelSet

RADIUS, EXTINCTION = 0.5, 6.0
SUN = Light("directional", (1.0, 1.0, 1.0), direction=(0.0, 1.0, 0.0))


@pytest.fixture(scope="module")
def ball() -> Interior:
    at = torch.arange(48) * 0.025 - 0.5875
    distance = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).norm(dim=-1)
    solid = ((RADIUS - distance) / 0.025 + 0.5).clamp(0, 1)
    return Interior(solid, torch.full((3,), -0.5875), 0.025, EXTINCTION)


def way_out(points: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """(N,): from inside the ball to its surface."""
    along = (points * directions).sum(-1)
    return (along.square() + RADIUS**2 - points.square().sum(-1)).clamp(min=0).sqrt() - along


def test_ways_through_a_ball_are_chords(ball):
    generator = torch.Generator().manual_seed(0)
    points = (
        normalize(torch.randn(500, 3, generator=generator), dim=-1) * 0.45 * torch.rand(500, 1, generator=generator)
    )
    towards = normalize(torch.randn(500, 3, generator=generator), dim=-1)
    wanted = way_out(points, towards)
    error = ball.way(points, towards) - wanted
    assert error.abs().mean() < 0.25 * ball.spacing and error.abs().max() < 1.5 * ball.spacing
    near = ball.way(points, towards, far=torch.full((500,), 0.1))  # a lamp inside
    assert near.max() < 0.1 + ball.spacing


@pytest.mark.parametrize("order", range(len(ALBEDOS)))
def test_what_leaves_is_what_walks_bring(ball, order):
    """Against a walk backwards from the eye, of 20 000 walkers on each of a few rays: within a twentieth of the brightest."""
    albedo = ALBEDOS[order]
    generator = torch.Generator().manual_seed(1)
    fluence = ball.fluence(ball.entering(Illumination.of(SUN))[:, :1])
    eyes = torch.tensor([[0.0, 2.0, 0.3], [2.0, 0.0, 0.2], [0.1, -2.0, 0.0], [1.2, 1.2, 1.2]])
    directions = normalize(0.1 * torch.randn(4, 3, generator=generator) - eyes, dim=-1)
    places, ends = ball.places_along(eyes, directions)
    found = ball.reach(places, ends).of(fluence[:, 0] + fluence[:, 1 + order])[:, 0]
    walked = torch.stack([_walk(e, d, albedo, generator) for e, d in zip(eyes, directions, strict=True)])
    assert walked.max() > 3 * walked.min()  # from lit and from dark sides
    assert (found - walked).abs().max() < 0.05 * walked.max()


def _walk(eye: torch.Tensor, direction: torch.Tensor, albedo: float, generator: torch.Generator) -> torch.Tensor:
    n = 20_000
    along = -(eye * direction).sum()
    half = (RADIUS**2 - (eye.square().sum() - along**2)).sqrt()
    points, directions = (eye + (along - half) * direction).expand(n, 3), direction.expand(n, 3)
    alive, weight, total = torch.ones(n, dtype=torch.bool), 1.0, torch.zeros(n)
    up = torch.tensor(SUN.direction).expand(n, 3)
    for _ in range(200):
        step = -torch.rand(n, generator=generator).clamp(min=1e-12).log() / EXTINCTION
        alive = alive & (step < way_out(points, directions))
        if not alive.any():
            break
        points = torch.where(alive[:, None], points + step[:, None] * directions, points)
        total += alive * weight * torch.exp(-EXTINCTION * way_out(points, up)) / (4 * math.pi)
        directions = normalize(torch.randn(n, 3, generator=generator), dim=-1)
        weight *= albedo
    return total.mean()


def test_a_uniform_sky_comes_out_at_most_as_bright(ball):
    """And nearly so where nothing is lost on the way."""
    eyes = normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(2)), dim=-1) * 2
    places, ends = ball.places_along(eyes, -eyes / 2)
    orders = ball.reach(places, ends).of(ball.uniform)
    white = orders[:, 0] + orders[:, 2]
    assert white.max() < 1 and white.min() > 0.75
    sky = ball.fluence(ball.entering(Illumination.of(Environment.constant((1.0, 1.0, 1.0)))))
    same = ball.reach(places, ends).of(sky[..., 0])
    assert torch.allclose(same, orders, rtol=1e-3, atol=1e-5)


def test_a_lamp_nearby_lights_its_own_side(ball):
    lamp = Light("point", (0.04, 0.04, 0.04), position=(0.7, 0.0, 0.0))  # of irradiance 1 on the surface
    entering = ball.entering(Illumination.of(lamp))
    right, left = ball.places[:, 0] > 0.45, ball.places[:, 0] < -0.45
    assert 0.4 < entering[right].mean() < 1 and entering[left].mean() < 0.01


def test_a_training_starts_as_the_solid_its_silhouettes_allow():
    field = TransferField(
        aabb=[-1.0] * 3 + [1.0] * 3, resolution=[40] * 3, near=0.0, far=10.0, density_rank=8, cells=300
    )
    at = (torch.arange(40) + 0.5) / 20 - 1
    distance = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).norm(dim=-1)
    shape = LevelSet(field, 8.0, 2 / 39)
    torch.manual_seed(0)
    shape.fill(distance < 0.6, torch.Generator().manual_seed(0))
    directions = normalize(torch.randn(300, 3), dim=-1)
    with torch.no_grad():
        level = [field.level(r * directions) for r in (0.45, 0.75)]
        found = field.transfer(-2 * directions, directions, around=False)
    assert (level[0] > 0).float().mean() > 0.99 and (level[1] < 0).float().mean() > 0.99
    assert (found.opacity > 0.99).all()
    assert ((-2 + found.depth / found.opacity) + 0.6).abs().max() < 0.1  # two knots
    assert (found.slope * -directions).sum(-1).median() > 0.95
    penalty = shape.penalty(1.0, 1.0, torch.Generator().manual_seed(0))
    penalty.backward()
    assert 0 < float(penalty) < 1 and all(p.grad.isfinite().all() for p in field.density_grid.parameters())
    field.extinction.fill_(EXTINCTION)
    inside = field.inside()
    assert abs(float(inside.filled.sum()) * inside.spacing**3 / (4 / 3 * math.pi * 0.6**3) - 1) < 0.1
    assert field.inside() is inside
    with torch.no_grad():
        field.density_grid.factors[0].mul_(1.01)
    assert field.inside() is not inside
