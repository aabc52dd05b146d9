import pytest
import torch

from fields.core import march_rays, occupancy_clearance, visible_samples
from fields.core._ref import visible as ref
from fields.errors import ShapeError
from tests.core.test_grids import factors_of

AABB = [-1.0, -0.8, -1.2, 1.0, 0.9, 1.1]


def scene(n, layout, ranks, dtype=torch.float64):
    rays_o = torch.randn(n, 3, dtype=dtype) * 0.3 + torch.tensor([0.0, 0.0, 3.0], dtype=dtype)
    rays_d = torch.nn.functional.normalize(torch.randn(n, 3, dtype=dtype) * 0.3 - torch.tensor([0.0, 0, 1.0]), dim=-1)
    near, far = torch.full((n,), 0.5, dtype=dtype), torch.full((n,), 8.0, dtype=dtype)
    occupied = torch.rand(6, 7, 8) > 0.3
    return rays_o, rays_d, near, far, occupied, torch.tensor(AABB, dtype=dtype), factors_of(layout, ranks, dtype)


SETTINGS = {"shift": -1.0, "scale": 4.0, "threshold": 1e-3, "early_stop": 1e-3}


@pytest.mark.parametrize(("layout", "ranks"), [("vm", (4, 4, 4)), ("cp", (5,)), ("dense", (1,))])
@pytest.mark.parametrize("n", [0, 1, 200])
@pytest.mark.parametrize("level_set", [False, True])
def test_agrees_with_composition(layout, ranks, n, level_set):
    """In float64, where no transmittance of a random scene falls on the other side of a threshold by rounding."""
    *rays, occupied, aabb, factors = scene(n, layout, ranks)
    settings = SETTINGS | ({"scale": 1.0} if level_set else {})
    got = visible_samples(*rays, occupied, aabb, factors, layout, 0.02, **settings, level_set=level_set)
    want = ref.visible_samples(
        *rays, occupancy_clearance(occupied)[None], aabb, [f.detach() for f in factors], layout, 0.02,
        settings["shift"], settings["scale"], SETTINGS["threshold"], SETTINGS["early_stop"], level_set,
    )  # fmt: skip
    for name, value, expected in zip(got._fields, got, want, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
    if n == 200:  # both ways of writing were taken: noted samples, and a second walk where there are too many
        assert (got.packed_info[:, 1] > 16).any() and (
            (got.packed_info[:, 1] > 0) & (got.packed_info[:, 1] <= 16)
        ).any()


def test_looks_no_further_than_is_seen():
    *rays, _, aabb, _ = scene(50, "dense", (1,))
    full = torch.ones(6, 7, 8, dtype=torch.bool)
    solid = torch.full((3, 3, 3, 1), 50.0, dtype=torch.float64)
    got = visible_samples(*rays, full, aabb, [solid], "dense", 0.02, **SETTINGS)
    hits = got.walked > 0
    assert hits.any() and int(got.walked.max()) < 10
    torch.testing.assert_close(got.opacity[hits], torch.ones_like(got.opacity[hits]), rtol=0, atol=1e-3)
    empty = visible_samples(*rays, full, aabb, [-solid], "dense", 0.02, **SETTINGS)
    assert len(empty.x) == 0
    steps = march_rays(*rays, full, aabb, 0.02)[3][:, 1]
    assert torch.equal(empty.walked, steps)


def test_nested_levels_are_refused():
    *rays, occupied, aabb, factors = scene(2, "dense", (1,))
    with pytest.raises(ShapeError, match="one grid"):
        visible_samples(*rays, torch.stack([occupied] * 2), aabb, factors, "dense", 0.1)


def test_a_level_set_is_met_where_it_is():
    """Whatever the angle and the step: half of the light is lost on the surface, and of that of rays which just touch it."""
    n, radius, dtype = 65, 0.6, torch.float64
    axis = torch.linspace(-1, 1, n, dtype=dtype)
    knot = 2 / (n - 1)
    inward = radius - torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).norm(dim=-1)
    steepness = 8 / knot
    rays_o = torch.tensor([0.0, 0.0, 3.0], dtype=dtype).expand(500, 3)
    beside = torch.linspace(0, radius + 3 * knot, 500, dtype=dtype)
    rays_d = torch.stack([beside / 3, torch.zeros_like(beside), -(1 - (beside / 3).square()).sqrt()], -1)
    span = torch.zeros(500, dtype=dtype), torch.full((500,), 6.0, dtype=dtype)
    box = torch.tensor([-1.0, -1, -1, 1, 1, 1], dtype=dtype)
    full = torch.ones(8, 8, 8, dtype=torch.bool)
    for step in (0.8, 0.1):  # knots
        seen = visible_samples(rays_o, rays_d, *span, full, box, [steepness * inward[..., None]], "dense", step * knot,
                               level_set=True)  # fmt: skip
        hits = beside < radius - 2 * knot
        expected = (9 - beside.square()).sqrt() - (radius**2 - beside.square()).clamp(min=0).sqrt()
        # Between knots a sphere is cut off by up to a fortieth of a knot, and rays that graze it see three times of that.
        assert (seen.depth - expected)[hits].abs().max() < 0.08 * knot
        assert (seen.depth - expected)[hits].mean().abs() < 0.02 * knot
        touched = torch.sigmoid(steepness * (radius - beside))
        assert (seen.opacity - touched).abs().max() < 0.05
