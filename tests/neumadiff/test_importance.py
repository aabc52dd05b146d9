import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fields.neumadiff.angles import half_difference
from fields.neumadiff.energy import Conserving, albedo, look_up, node_angles
from fields.neumadiff.importance import LUMINANCE, Sampler
from fields.neumadiff.network import DIALECTS, Networks

MATERIALS = ["chrome", "aluminium", "alumina-oxide", "black-phenolic", "blue-metallic-paint", "green-plastic", "violet-acrylic", "pearl-paint", "white-fabric", "polyurethane-foam"]  # fmt: skip
"""From mirror to fabric."""


def lambert(angles):
    return torch.full((1, len(angles), 3), 1 / math.pi)


def eyes(degrees, count):
    tilt, turn = math.radians(degrees), 0.7
    return torch.tensor([math.sin(tilt) * math.cos(turn), math.sin(tilt) * math.sin(turn), math.cos(tilt)]).expand(count, 3)  # fmt: skip


@pytest.fixture(scope="module")
def material():
    import os
    from pathlib import Path

    path = Path(os.environ.get("FIELDS_DATA", "")) / "brdf" / "nbrdf_weights.npz"
    if not path.is_file():
        pytest.skip("FIELDS_DATA names no folder with measured materials in brdf/nbrdf_weights.npz")
    with np.load(path) as file:
        weights, names = torch.from_numpy(file["weights"]), file["name"].tolist()
    return lambda name: Networks(weights[[names.index(name)]], DIALECTS["sztrajman"])


def unruly(seed):
    weights = torch.randn(1, 675, generator=torch.Generator().manual_seed(seed)) * 0.5
    return Networks(weights, DIALECTS["reciprocal"])


def expected_counts(sampler, wo, edges, turns, fine=32):
    """Integrals of the density over rings about the mirrored eye, (E − 1, T), and those rings of directions (N, 3)."""
    u = (torch.arange((len(edges) - 1) * fine, dtype=torch.float64) + 0.5) / fine
    low = u.long()
    alpha = torch.lerp(edges[low], edges[low + 1], u - low)
    thick = (edges[low + 1] - edges[low]) / fine
    turn = (torch.arange(turns * fine, dtype=torch.float64) + 0.5) * (2 * math.pi / (turns * fine))
    sine = alpha.sin()[:, None]
    rings = torch.stack(torch.broadcast_tensors(sine * turn.cos(), sine * turn.sin(), alpha.cos()[:, None]), -1)
    directions = (rings.view(-1, 3) @ about_mirror(wo).double()).float()
    density = sampler.pdf(directions, wo[0].expand_as(directions)).double().view(len(u), -1)
    cells = density * sine * thick[:, None] * (2 * math.pi / (turns * fine))
    return cells.view(len(edges) - 1, fine, turns, fine).sum((1, 3))


def about_mirror(wo):
    """Rows: two directions across, and the mirrored eye."""
    mirrored = torch.stack([-wo[0, 0], -wo[0, 1], wo[0, 2]])
    across = torch.nn.functional.normalize(torch.linalg.cross(mirrored, torch.tensor([0.3, 0.5, 0.1])), dim=0)
    return torch.stack([across, torch.linalg.cross(mirrored, across), mirrored])


def check_density(sampler, degrees, count=60_000):
    """Draws fall where the density says, by χ² at 10⁻⁴, and it integrates to one. Rings grow from 0.01° to all around."""
    from scipy.stats import chi2

    wo = eyes(degrees, count)
    wi, density = sampler.sample(wo, torch.rand(count, 3))
    assert (density > 0).float().mean() > 0.9999
    assert_close(wi.norm(dim=1), torch.ones(count), atol=1e-5, rtol=0)
    edges = torch.cat([torch.zeros(1), torch.logspace(-3.7, math.log10(math.pi), 40)]).double()
    edges[-1], turns = math.pi, 12
    expected = expected_counts(sampler, wo, edges, turns)
    # Half a percent: what the steps of the table and the horizon cost a sum of half a million directions.
    assert abs(expected.sum() - 1) < 5e-3
    x, y, z = (wi @ about_mirror(wo).T).double().unbind(1)
    ring = torch.searchsorted(edges, torch.atan2(torch.hypot(x, y), z).clamp(1e-9, math.pi - 1e-9)) - 1
    place = ring * turns + ((torch.atan2(y, x) % (2 * math.pi)) / (2 * math.pi) * turns).long().clamp(max=turns - 1)
    found = torch.bincount(place, minlength=expected.numel()).double()
    wanted = expected.flatten() / expected.sum() * count
    many = wanted >= 10
    found, wanted = (torch.cat([v[many], v[~many].sum()[None]]) for v in (found, wanted))
    # Of what is wanted half a percent may be the sum's fault, and no draw's.
    statistic = ((found - wanted) ** 2 / (wanted + (5e-3 * wanted) ** 2)).sum()
    assert chi2.sf(float(statistic), int(many.sum())) > 1e-4


@pytest.mark.parametrize("name", MATERIALS)
def test_draws_follow_the_density(material, name):
    sampler = Sampler.of(material(name))
    for degrees in (3, 50, 82):
        check_density(sampler, degrees)


@pytest.mark.parametrize("seed", range(3))
def test_draws_of_networks_that_reflect_anyhow(seed):
    check_density(Sampler.of(Conserving.of(unruly(seed))), 40)


@pytest.mark.parametrize("name", MATERIALS)
def test_furnace(material, name):
    """In white light, draws over their density average to the albedo, which is known from elsewhere; and they vary less than those of the cosine.

    Tolerance: four standard errors, and half a percent for the table of the albedo.
    """
    reflectance, count = material(name), 40_000
    sampler, table = Sampler.of(reflectance), albedo(reflectance)[0]
    for row in (2, 24, 48, 58):
        wo = eyes(math.degrees(node_angles()[row]), count)
        wi, density = sampler.sample(wo, torch.rand(count, 3))
        even = torch.rand(count, 2)
        flat = torch.stack([even[:, 0].sqrt() * (6.2832 * even[:, 1]).cos(), even[:, 0].sqrt() * (6.2832 * even[:, 1]).sin(), (1 - even[:, 0]).sqrt()], 1)  # fmt: skip
        with torch.no_grad():
            value = reflectance(half_difference(wi, wo))[0] * (wi[:, 2:] / density[:, None]).where(
                density[:, None] > 0, 0
            )
            by_cosine = reflectance(half_difference(flat, wo))[0] @ torch.tensor(LUMINANCE) * math.pi
        assert_close(
            value.mean(0), table[row], rtol=5e-3 + 4 * float((value.std(0) / value.mean(0)).max()) / 200, atol=0
        )
        spread = (value @ torch.tensor(LUMINANCE)).std() / (table[row] @ torch.tensor(LUMINANCE))
        assert spread < 1.0
        assert spread < max(0.1, 1.05 * float(by_cosine.std() / by_cosine.mean()))


def test_a_mirror_is_found(material):
    """By the cosine's draws it is not: their spread is over ten times the mean, and that of ours a third of it."""
    chrome = material("chrome")
    wo = eyes(45, 20_000)
    wi, density = Sampler.of(chrome).sample(wo, torch.rand(20_000, 3))
    with torch.no_grad():
        value = (chrome(half_difference(wi, wo))[0] @ torch.tensor(LUMINANCE)) * wi[:, 2] / density
    expected = look_up(albedo(chrome), wo[:1, 2])[0, 0] @ torch.tensor(LUMINANCE)
    assert abs(value.mean() / expected - 1) < 0.01
    assert value.std() / expected < 0.5


def test_lambert_is_drawn_as_the_cosine():
    sampler = Sampler.of(lambert)
    assert_close(sampler.diffuse, torch.ones(9))
    wi, density = sampler.sample(eyes(30, 100), torch.rand(100, 3))
    assert_close(density, wi[:, 2] / math.pi)


def test_black_is_drawn_as_the_cosine_too():
    wi, density = Sampler.of(lambda a: torch.zeros(1, len(a), 3)).sample(eyes(30, 100), torch.rand(100, 3))
    assert_close(density, wi[:, 2] / math.pi)


def test_half_vectors_by_hand():
    """All in one bin, seen from above: the density of the half vector is one over its ring's area, that of the light a quarter of it over cos θh."""
    sampler = Sampler(torch.zeros(9), torch.zeros(9, 65))
    sampler.cumulative[:, 41:] = 1
    low, high = (math.pi / 4 * math.expm1(7 * k / 64) / math.expm1(7) for k in (40, 41))
    theta = (low + high) / 2
    wi = torch.tensor([[math.sin(2 * theta), 0.0, math.cos(2 * theta)]])
    expected = 1 / (2 * math.pi * (math.cos(low) - math.cos(high))) / (4 * math.cos(theta))
    assert_close(sampler.pdf(wi, torch.tensor([[0.0, 0, 1]])), torch.tensor([expected]), rtol=1e-4, atol=0)
    drawn, density = sampler.sample(torch.tensor([[0.0, 0, 1]]).expand(50, 3), torch.rand(50, 3))
    tilt = drawn[:, 2].acos() / 2
    assert ((tilt > low - 1e-3) & (tilt < high + 1e-3)).all() and (density > 0).all()


def test_nothing_below_the_surface():
    sampler = Sampler.of(unruly(0))
    up, down = torch.tensor([[0.6, 0.0, 0.8]]), torch.tensor([[0.6, 0.0, -0.8]])
    assert sampler.pdf(up, up) > 0
    assert sampler.pdf(down, up) == sampler.pdf(up, down) == sampler.pdf(down, down) == 0


def test_edges_of_the_numbers_drawn():
    """0, nearly 1, the eye on the normal and on the horizon: unit directions, and densities that are numbers."""
    ends = torch.tensor([0.0, 0.5, 1 - 2**-24])
    u = torch.cartesian_prod(ends, ends, ends)
    for seed in range(3):
        sampler = Sampler.of(unruly(seed))
        for wo in (torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0]), torch.tensor([1.0, 0, 1e-6]), torch.tensor([0.6, 0, 0.8])):  # fmt: skip
            wi, density = sampler.sample(wo.expand(27, 3), u)
            assert_close(wi.norm(dim=1), torch.ones(27), atol=1e-4, rtol=0)
            assert (density >= 0).all() and density.isfinite().all()
