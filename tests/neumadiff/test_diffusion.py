import math

import pytest
import torch
from torch.testing import assert_close

from fields.neumadiff.config import NeumadiffConfig
from fields.neumadiff.denoiser import DenoiserConfig, denoiser
from fields.neumadiff.diffusion import Schedule, ddim, guided
from fields.neumadiff.model import MaterialModel
from fields.neumadiff.network import WEIGHTS
from fields.neumadiff.picture_encoder import DIM, PictureEncoder, Sight
from fields.neumadiff.rows import Rows
from fields.neumadiff.statistics import NAMES
from fields.neumadiff.training import Lessons, MaterialTraining
from fields.neumadiff.whitening import Whitening


def exactly(points: torch.Tensor, schedule: Schedule):
    """What noised vectors were, in the mean, where all vectors are these points: known in closed form."""

    def denoise(x, t):
        left = schedule.left[t][:, None]
        away = (x[:, None] - left.sqrt()[..., None] * points).square().sum(-1)
        share = torch.softmax(-away / (2 * (1 - left)), -1)
        return share @ points

    return denoise


def test_the_schedule_ends_in_noise_and_the_released_one_does_not():
    assert Schedule.cosine(200).left[-1] < 1e-4 and Schedule.cosine(200).left[0] == 1
    assert float(Schedule.linear(100).left[-1]) == pytest.approx(0.364, abs=1e-3)
    for schedule in (Schedule.cosine(200), Schedule.linear(100)):
        assert (schedule.left.diff() < 0).all()


def test_two_points_come_out_of_noise():
    """And as often the one as the other: of 2000, three standard deviations are 67."""
    torch.manual_seed(0)
    points = torch.tensor([[3.0, 1.0], [-2.0, 0.5]])
    schedule = Schedule.cosine(200)
    drawn = ddim(exactly(points, schedule), schedule, torch.randn(2000, 2), 50)
    nearest = torch.cdist(drawn, points)
    assert nearest.amin(1).quantile(0.99) < 0.02
    assert 900 < (nearest.argmin(1) == 0).sum() < 1100


def test_the_released_sampler_draws_something_else():
    torch.manual_seed(0)
    schedule, noise = Schedule.linear(100), torch.randn(64, 2)

    def denoise(x, t):
        return 0.8 * x

    assert not torch.allclose(ddim(denoise, schedule, noise, 100), ddim(denoise, schedule, noise, 100, as_released=True), atol=1e-3)  # fmt: skip


def test_a_step_by_hand():
    """Half of the variance is left: x₀ = 1 in x = 2 leaves noise (2 − √½) / √½; in one step to the end that noise is gone."""
    schedule = Schedule(torch.tensor([1.0, 0.5]))
    assert_close(ddim(lambda x, t: torch.ones_like(x), schedule, torch.full((1, 1), 2.0), 1), torch.ones(1, 1))
    middle = Schedule(torch.tensor([1.0, 0.75, 0.5]))
    seen = []

    def denoise(x, t):
        seen.append(x)
        return torch.ones_like(x)

    ddim(denoise, middle, torch.full((1, 1), 2.0), 2)
    noise = (2 - math.sqrt(0.5)) / math.sqrt(0.5)
    assert_close(seen[1], torch.full((1, 1), math.sqrt(0.75) + 0.5 * noise))


def test_guidance():
    with_condition, without = torch.randn(2, 5)
    assert_close(guided(with_condition, without, 0.0), with_condition)
    assert_close(guided(with_condition, without, -1.0), without)


@pytest.mark.parametrize("kind", ["residual", "tensors", "whole"])
def test_every_network_learns_one_vector_by_heart(kind):
    """And says it whatever the noise; tolerance: 150 steps of Adam."""
    torch.manual_seed(0)
    network = denoiser(DenoiserConfig(kind, 96, 2, 4))
    wanted, time, conditions = torch.randn(1, WEIGHTS), torch.randn(8, 96), torch.randn(8, 3, 96)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(150):
        loss = (network(torch.randn(8, WEIGHTS), time, conditions) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_the_published_size():
    """86 293 248 parameters, without what is ours: the conditions, and the time's own network in place of 257 numbers."""
    model = MaterialModel("paper", ["metal"])
    ours = sum(p.numel() for part in (model.conditions, model.time) for p in part.parameters())
    assert sum(p.numel() for p in model.parameters()) - ours == pytest.approx(86_293_248, rel=0.005)
    with torch.no_grad():
        said = model(torch.randn(2, WEIGHTS), torch.tensor([1, 100]), {}, torch.zeros(2, 3, dtype=torch.bool))
    assert said.shape == (2, WEIGHTS) and said.isfinite().all()


@pytest.mark.parametrize("size", ["cpu", "small"])
def test_sizes_for_smaller_machines_draw(size):
    model = MaterialModel(size, ["metal", "plastic"]).eval()
    wanted = {"category": torch.tensor([0.0, 1]), "statistics": torch.zeros(len(NAMES))}
    drawn = model.draw(2, wanted, steps=3, generator=torch.Generator().manual_seed(0))
    assert drawn.weights.shape == (2, WEIGHTS) and drawn.weights.isfinite().all()
    again = model.draw(2, wanted, steps=3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn.weights, again.weights)


@pytest.mark.parametrize("by", [Whitening.of_each, Whitening.by_directions])
def test_whitening_and_back(by):
    """Weights of a few directions and one that never varies come back as they were; tolerance: rounding of float32 at weights of a few tens."""
    torch.manual_seed(0)
    weights = torch.randn(400, 12) @ torch.randn(12, WEIGHTS) + torch.randn(WEIGHTS)
    weights[:, 30:40] = 0.25
    whitening = by(weights)
    white = whitening(weights)
    assert_close(whitening.back(white), weights, atol=2e-4, rtol=1e-4)
    assert_close(white[:, whitening.varies].std(0), torch.ones(int(whitening.varies.sum())), atol=5e-3, rtol=0)
    assert whitening.width == (12 if by == Whitening.by_directions else WEIGHTS)


def test_what_is_drawn_by_directions_stays_among_them():
    """Whatever noise is turned into weights, it has none in directions that no material has."""
    torch.manual_seed(0)
    weights = torch.randn(400, 12) @ torch.randn(12, WEIGHTS)
    whitening = Whitening.by_directions(weights)
    drawn = whitening.back(100 * torch.randn(50, 12))
    assert torch.linalg.matrix_rank(torch.cat([weights, drawn]).double(), rtol=1e-5) == 12


def test_going_on_gives_the_same_bits():
    """Two iterations, or one, put away and taken up again, and one more."""
    torch.manual_seed(0)
    weights = torch.randn(40, 5) @ torch.randn(5, WEIGHTS)
    kinds = ["metal", "plastic"] * 20
    rows = Rows(weights, kinds, [[kind] for kind in kinds], torch.zeros(40, 2, dtype=torch.long), torch.randn(40, len(NAMES)))  # fmt: skip
    lessons = Lessons(rows, Sight(PictureEncoder().requires_grad_(False), torch.randn(40, 2, DIM)))
    config = NeumadiffConfig(iterations=4, batch=8)
    whole = MaterialTraining(config, lessons, 0)
    whole.step(0)
    kept = {name: tensor.clone() for name, tensor in whole.state()[0].items()}
    again = MaterialTraining.resume(config, lessons, 0, kept, {})
    for training in (whole, again):
        training.step(1)
    one, other = whole.state()[0], again.state()[0]
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
