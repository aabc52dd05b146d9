"""Simple generators: they keep means and covariances, find clusters, and draw the same with the same seed."""

import pytest
import torch

from fields.neumadiff.baselines import (
    BASELINES,
    Components,
    autoencoder,
    fit_mixture,
    from_log_table,
    gaussian,
    jittered,
    log_table,
    mixture,
    training_rows,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def flat_rows(count=400, columns=40, dimensions=4, seed=0):
    """Rows of a plane of few dimensions, its axes of different lengths, away from the origin."""
    generator = seeded(seed)
    axes = torch.randn(dimensions, columns, generator=generator) * torch.arange(1, dimensions + 1)[:, None]
    return torch.randn(count, dimensions, generator=generator) @ axes + torch.randn(columns, generator=generator)


def two_heaps(count=300):
    """Half of the rows around 5, half around −5."""
    rows = torch.randn(count, 6, generator=seeded())
    return rows + torch.where(torch.arange(count) % 2 == 0, 5.0, -5.0)[:, None]


@pytest.mark.parametrize("name", BASELINES)
def test_they_draw_what_the_seed_says(name):
    draw = (lambda *a: autoencoder(*a, steps=20)) if name == "VAE" else BASELINES[name]
    state = torch.random.get_rng_state()
    one, same, other = (draw(flat_rows(), 17, seeded(seed)) for seed in (3, 3, 4))
    assert one.shape == (17, 40) and one.isfinite().all()
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_log_tables():
    values = torch.rand(3, 5, 3, generator=seeded()) * 100
    assert torch.allclose(from_log_table(log_table(values)), values, rtol=1e-5)
    assert from_log_table(torch.full((1, 3), -0.5)).min() == 0


def test_training_rows_are_rows():
    rows = flat_rows()
    drawn = training_rows(rows, 50, seeded())
    assert (torch.cdist(drawn, rows, compute_mode="donot_use_mm_for_euclid_dist").amin(1) == 0).all()
    number = torch.arange(7)
    assert sorted(training_rows(number, 7, seeded()).tolist()) == number.tolist()
    assert (
        torch.bincount(training_rows(number, 17, seeded())).tolist().count(3) == 3
    )  # 17 of 7: all twice, three of them once more
    moved = jittered(rows, 4000, seeded(), amount=0.1) - training_rows(rows, 4000, seeded())
    assert torch.allclose(moved.std(0), 0.1 * rows.std(0), rtol=0.1)  # 4,000 draws: 1 % of standard error


def test_components_are_the_rows():
    """Four directions suffice for rows of four dimensions; there are no others."""
    rows = flat_rows()
    components = Components.of(rows)
    assert components.directions.shape == (4, 40)
    assert torch.allclose(components.rows(components.coordinates), rows, atol=1e-4)
    assert torch.allclose(components.coordinates.T.cov(), torch.eye(4), atol=1e-4)
    wide = Components.of(flat_rows(10, 500, 30), 5)  # more columns than rows
    assert wide.directions.shape == (5, 500)


def test_a_gaussian_keeps_mean_and_covariance():
    rows = flat_rows()
    drawn = gaussian(rows, 20_000, seeded())
    scale = rows.T.cov().diagonal().max()
    assert (drawn.mean(0) - rows.mean(0)).abs().max() < 0.03 * scale.sqrt()  # 20,000 draws: 0.7 % of standard error
    assert (drawn.T.cov() - rows.T.cov()).abs().max() < 0.05 * scale


def test_a_mixture_finds_what_a_gaussian_cannot():
    rows = two_heaps()
    shares, means, covariances = fit_mixture(rows, 2, seeded(1))
    assert torch.allclose(shares, torch.full((2,), 0.5), atol=1e-3)
    assert torch.allclose(means.sort(0).values, torch.tensor([[-5.0], [5.0]]).expand(2, 6), atol=0.3)
    assert torch.allclose(covariances.diagonal(dim1=1, dim2=2), torch.ones(2, 6), atol=0.4)
    between = [(draw(rows, 500, seeded()).mean(1).abs() < 2.5).float().mean() for draw in (mixture, gaussian)]
    assert between[0] < 0.02 < 0.2 < between[1]


def test_a_mixture_of_few_points_does_not_collapse():
    shares, means, covariances = fit_mixture(flat_rows(5, 3, 3), 8, seeded())
    assert shares.sum() == pytest.approx(1) and means.isfinite().all()
    assert torch.linalg.eigvalsh(covariances).min() >= 0.009


def test_an_autoencoder_finds_both_heaps():
    drawn = autoencoder(two_heaps(), 500, seeded(), steps=600, latent=4).mean(1)
    for sign in (1, -1):
        heap = drawn[sign * drawn > 2.5]
        assert len(heap) > 100 and float(heap.mean()) == pytest.approx(sign * 5, abs=1)
