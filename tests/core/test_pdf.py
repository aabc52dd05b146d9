import pytest
import torch
from torch.library import opcheck

from fields.core import (
    PropNetEstimator,
    RayIntervals,
    RaySamples,
    get_proposal_requires_grad_fn,
    importance_sampling,
    pdf,
    render_transmittance_from_density,
    searchsorted,
)
from fields.core._ref import pdf as ref
from fields.errors import ShapeError


def test_importance_sampling_by_hand():
    """Two rays of two and three edges; uniform distributions, so that new edges divide the old range evenly."""
    intervals = RayIntervals(torch.tensor([0.0, 1, 0, 1, 2]), torch.tensor([[0, 2], [2, 3]]))
    edges, samples = importance_sampling(intervals, torch.tensor([0.0, 0.5, 0, 0.5, 1]), 2)
    torch.testing.assert_close(edges.vals, torch.tensor([[0, 0.5, 1], [0, 1, 2]]))
    torch.testing.assert_close(samples.vals, torch.tensor([[0.25, 0.75], [0.5, 1.5]]))


def test_importance_sampling_packed_by_hand():
    intervals = RayIntervals(torch.tensor([0.0, 1, 0, 1, 2]), torch.tensor([[0, 2], [2, 3]]))
    edges, samples = importance_sampling(intervals, torch.tensor([0.0, 1, 0, 0, 1]), torch.tensor([1, 2]))
    torch.testing.assert_close(samples.vals, torch.tensor([0.5, 1.25, 1.75]))
    torch.testing.assert_close(edges.vals, torch.tensor([0.0, 1, 1, 1.5, 2]))
    assert edges.packed_info.tolist() == [[0, 2], [2, 3]] and samples.packed_info.tolist() == [[0, 1], [1, 2]]
    assert edges.ray_indices.tolist() == [0, 0, 1, 1, 1] and samples.ray_indices.tolist() == [0, 1, 1]
    assert edges.is_left.tolist() == [True, False, True, True, False]
    assert edges.is_right.tolist() == [False, True, False, True, True]


def test_searchsorted_by_hand():
    keys = RayIntervals(torch.tensor([0.0, 1, 0, 1, 2]), torch.tensor([[0, 2], [2, 3]]))
    left, right = searchsorted(keys, RayIntervals(torch.tensor([0.5, 1.5, 2.5]), torch.tensor([[0, 1], [1, 2]])))
    assert left.tolist() == [0, 3, 3] and right.tolist() == [1, 4, 4]
    batched = searchsorted(RaySamples(torch.tensor([[0.0, 1, 2]])), RaySamples(torch.tensor([[-1.0, 0, 1.5, 9]])))
    assert batched[0].tolist() == [[0, 0, 1, 1]] and batched[1].tolist() == [[0, 1, 2, 2]]


@pytest.mark.parametrize("stratified", [False, True])
def test_samples_follow_the_distribution(stratified):
    """A quarter of the samples where a quarter of the probability lies; edges ascend and enclose the samples."""
    edges = torch.rand(50, 33, dtype=torch.float64).sort(-1).values
    cdfs = torch.cat([torch.zeros(50, 1), torch.rand(50, 32).cumsum(-1)], -1).double()
    cdfs = cdfs / cdfs[:, -1:]
    new, samples = importance_sampling(RayIntervals(edges), cdfs, 1000, stratified)
    left, _ = searchsorted(RayIntervals(edges), samples)
    share = torch.zeros(50, 32, dtype=torch.float64).scatter_add_(1, left, torch.full_like(samples.vals, 1e-3))
    assert (share - cdfs.diff(dim=-1)).abs().max() < 2.001e-3  # a stratum at either end of an interval
    assert (new.vals.diff(dim=-1) >= 0).all()
    assert (new.vals[:, :-1] <= samples.vals).all() and (samples.vals <= new.vals[:, 1:]).all()
    assert (new.vals >= edges[:, :1]).all() and (new.vals <= edges[:, -1:]).all()


def random_packing(rays: int, least: int):
    counts = torch.randint(least, 9, (rays,))
    return torch.stack([counts.cumsum(0) - counts, counts], -1)


def test_agrees_with_twin():
    given, n = random_packing(40, 2), torch.randint(0, 7, (40,))
    total = int(given[:, 1].sum())
    keys = torch.rand(total, dtype=torch.float64).cumsum(0)
    cdfs = (torch.rand(total, dtype=torch.float64) * (torch.rand(total) < 0.7)).cumsum(0)  # with level stretches
    drawn = torch.stack([n.cumsum(0) - n, n], -1)
    bounds = torch.where(n > 0, n + 1, n)
    arguments = (
        keys,
        cdfs,
        given,
        drawn,
        bounds.cumsum(0) - bounds,
        torch.rand(40).double(),
        int(n.sum()),
        int(bounds.sum()),
    )
    torch.testing.assert_close(pdf._importance_sampling(*arguments), ref.importance_sampling(*arguments))
    opcheck(
        pdf._importance_sampling.overload,
        arguments,
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )
    rays = torch.randint(40, (500,))
    search = keys, given, keys[given[rays, 0]] + torch.rand(500).double() * 5 - 1, rays
    assert all(map(torch.equal, pdf._search_sorted(*search), ref.search_sorted(*search)))
    opcheck(
        pdf._search_sorted.overload, search, test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def test_nothing_and_wrong_input():
    none = importance_sampling(RayIntervals(torch.empty(0, 3)), torch.empty(0, 3), 4)
    assert none[0].vals.shape == (0, 5) and none[1].vals.shape == (0, 4)
    with pytest.raises(ShapeError, match="cdfs"):
        importance_sampling(RayIntervals(torch.rand(2, 3)), torch.rand(2, 4), 4)
    with pytest.raises(ShapeError, match="two edges"):
        importance_sampling(RayIntervals(torch.rand(2, 1)), torch.rand(2, 1), 4)
    with pytest.raises(ShapeError, match="packed_info"):
        searchsorted(RaySamples(torch.rand(3)), RaySamples(torch.rand(2, 1)))


@pytest.mark.parametrize("sampling_type", ["uniform", "lindisp"])
def test_proposals_learn_where_the_surface_is(sampling_type):
    """A wall at distance 3: a proposal of one parameter per bin learns to bound it, and samples gather there."""
    proposal = torch.zeros(64, requires_grad=True)
    estimator = PropNetEstimator(torch.optim.Adam([proposal], 0.1))

    def wall(t_starts, t_ends):
        return 50.0 * ((t_starts + t_ends) / 2 > 3).float()

    def density(t_starts, t_ends):
        bins = ((t_starts + t_ends) / 2 * 8).long().clamp(0, 63)
        return torch.nn.functional.softplus(proposal)[bins]

    needs_grad, losses = get_proposal_requires_grad_fn(), []
    for i in range(300):
        requires_grad = needs_grad(i)
        t_starts, t_ends = estimator.sampling([density], [48], 24, 8, 0.5, 8.0, sampling_type, True, requires_grad)
        trans, _ = render_transmittance_from_density(t_starts, t_ends, wall(t_starts, t_ends))
        loss = estimator.update_every_n_steps(trans, requires_grad)
        losses += [loss] if requires_grad else []
        assert not estimator.prop_cache
    assert losses[-1] < 0.2 * losses[0]
    t_starts, t_ends = estimator.sampling([density], [48], 24, 2, 0.5, 8.0, sampling_type)
    near = ((t_starts + t_ends) / 2 - 3).abs() < 0.5
    assert near.float().mean() > 0.5  # without a proposal: 13 % of them, or less


def test_proposals_refuse_what_they_cannot_do():
    estimator = PropNetEstimator()
    with pytest.raises(ShapeError, match="lindisp"):
        estimator.sampling([], [], 4, 2, 0.0, 1.0)
    with pytest.raises(ShapeError, match="functions"):
        estimator.sampling([], [3], 4, 2, 0.1, 1.0)
    with pytest.raises(RuntimeError, match="optimizer"):
        estimator.update_every_n_steps(torch.ones(2, 4), requires_grad=True)
