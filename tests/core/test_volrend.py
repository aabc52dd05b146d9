import pytest
import torch
from torch.library import opcheck

from fields.core import (
    accumulate_along_rays,
    crossings,
    pack_info,
    render_weight_from_alpha,
    render_weight_from_density,
    rises,
    weights,
)
from fields.core._ref import weights as ref
from fields.errors import ShapeError
from tests.core.op_tester import OpTester


def ragged(n):
    """Ascending ray indices of n samples over rays of which some have none."""
    rays = max(1, n // 7)
    return torch.sort(torch.randint(rays, (n,))).values, rays + 2


class TestWeightsFromDensity(OpTester):
    def op(self, t_starts, t_ends, sigmas, rays, n):
        return render_weight_from_density(t_starts, t_ends, sigmas, ray_indices=rays, n_rays=n)

    def twin(self, t_starts, t_ends, sigmas, rays, n):
        return ref.weights_from_density(t_starts, t_ends, sigmas, pack_info(rays, n))

    def inputs(self, dtype, n):
        rays, count = ragged(n)
        t = torch.rand(n, dtype=dtype)
        lengths = torch.rand(n, dtype=dtype) * 0.5
        return (
            t.requires_grad_(),
            (t.detach() + lengths).requires_grad_(),
            (torch.rand(n, dtype=dtype) * 3).requires_grad_(),
            rays,
            count,
        )


class TestWeightsFromAlpha(OpTester):
    def op(self, alphas, rays, n):
        return render_weight_from_alpha(alphas, ray_indices=rays, n_rays=n)

    def twin(self, alphas, rays, n):
        return ref.weights_from_alpha(alphas, pack_info(rays, n))

    def inputs(self, dtype, n):
        rays, count = ragged(n)
        alphas = torch.rand(n, dtype=dtype)
        alphas[torch.rand(n) < 0.2] = 1.0  # opaque samples are where naive gradients divide by zero
        return alphas.requires_grad_(), rays, count


class TestAccumulate(OpTester):
    cases = ({"width": 3}, {"width": 1}, {"width": 0})

    def op(self, weights, values, rays, n, width):
        return accumulate_along_rays(weights, values, rays, n)

    def twin(self, weights, values, rays, n, width):
        return ref.accumulate(weights, values, pack_info(rays, n))

    def inputs(self, dtype, n, width):
        rays, count = ragged(n)
        values = torch.randn(n, width, dtype=dtype, requires_grad=True) if width else None
        return torch.rand(n, dtype=dtype, requires_grad=True), values, rays, count


def test_worked_by_hand():
    """Opacities ½, 1, ½ on one ray: the second is opaque, so the third is dark and its own gradient zero."""
    alphas = torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    weights, trans = render_weight_from_alpha(alphas, ray_indices=torch.zeros(3, dtype=torch.long), n_rays=1)
    assert weights.tolist() == [0.5, 0.5, 0.0] and trans.tolist() == [1.0, 0.5, 0.0]
    (weights * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    # w₃ = (1 − a₁)(1 − a₂)a₃, so ∂/∂a₂ = ½·10 − ½·½·100, although 1 − a₂ is 0.
    assert alphas.grad.tolist() == [1.0 - 10.0, 5.0 - 25.0, 0.0]


def test_weights_and_remaining_light_add_up_to_one():
    rays, n = ragged(500)
    t = torch.rand(500)
    weights, _, alphas = render_weight_from_density(t, t + 0.1, torch.rand(500) * 20, ray_indices=rays, n_rays=n)
    opacity = accumulate_along_rays(weights, None, rays, n)[:, 0]
    left = torch.ones(n).scatter_reduce(0, rays, 1 - alphas, "prod")
    torch.testing.assert_close(opacity + left, torch.ones(n))


def test_batched_equals_packed():
    alphas, values = torch.rand(5, 9), torch.randn(5, 9, 4)
    rays = torch.arange(5).repeat_interleave(9)
    weights, trans = render_weight_from_alpha(alphas)
    flat = render_weight_from_alpha(alphas.flatten(), ray_indices=rays, n_rays=5)
    torch.testing.assert_close((weights.flatten(), trans.flatten()), flat)
    torch.testing.assert_close(
        accumulate_along_rays(weights, values), accumulate_along_rays(weights.flatten(), values.flatten(0, 1), rays, 5)
    )


def test_prefix_transmittance_scales():
    alphas, prefix = torch.rand(2, 4), torch.rand(2, 4)
    weights, trans = render_weight_from_alpha(alphas, prefix_trans=prefix)
    plain = render_weight_from_alpha(alphas)
    torch.testing.assert_close((weights, trans), (plain[0] * prefix, plain[1] * prefix))


def test_opcheck():
    rays, n = ragged(20)
    packed = pack_info(rays, n)
    leaf = lambda: torch.rand(20, requires_grad=True)  # noqa: E731
    opcheck(weights._from_density.overload, (leaf(), leaf(), leaf(), packed))
    opcheck(weights._from_alpha.overload, (leaf(), packed))
    opcheck(weights._accumulate.overload, (leaf(), torch.rand(20, 2, requires_grad=True), packed))


def test_packed_samples_need_their_packing():
    with pytest.raises(ShapeError, match="packed_info"):
        render_weight_from_alpha(torch.rand(5))


@pytest.mark.parametrize("seed", range(3))
def test_rises(seed):
    counts = torch.randint(0, 6, (20,), generator=torch.Generator().manual_seed(seed))
    rays = torch.repeat_interleave(torch.arange(20), counts)
    values = torch.rand(len(rays), dtype=torch.float64, requires_grad=True)
    expected, before = [], {}
    for value, ray in zip(values.tolist(), rays.tolist(), strict=True):
        expected.append(max(0.0, value - before.get(ray, 0.0)))
        before[ray] = value
    torch.testing.assert_close(rises(values, rays), torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda v: rises(v, rays), values)
    assert len(rises(values[:0], rays[:0])) == 0
    with pytest.raises(ShapeError, match="must be"):
        rises(values, rays[:-1])


def test_crossings_are_where_light_is_lost_in_the_mean():
    """Against steps a thousand times as fine; half-way where there is nothing before, and where next to nothing is lost."""
    levels = torch.tensor([-9.0, -2.0, 3.0, 2.0, -4.0, 30.0, -30.0, 1.0, -60.0, -50.0], dtype=torch.float64)
    rays = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
    found = crossings(levels, rays)
    assert found[[0, 3, 4, 6, 8, 9]].tolist() == [0.5] * 6
    for k in (1, 2, 5, 7):
        along = torch.linspace(0, 1, 1001, dtype=torch.float64)
        left = torch.sigmoid(-torch.lerp(levels[k - 1], levels[k], along))
        middle = ((along[1:] + along[:-1]) / 2 * (left[:-1] - left[1:])).sum() / (left[0] - left[-1])
        assert float(found[k]) == pytest.approx(float(middle), abs=1e-4)
    with pytest.raises(ShapeError, match="must be"):
        crossings(levels, rays[1:])
