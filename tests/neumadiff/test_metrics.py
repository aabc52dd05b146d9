"""Distances against slow sums and other libraries; measures of sets by hand."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fields.neumadiff.angles import cosines
from fields.neumadiff.metrics import (
    REFLECTANCE,
    ciede2000,
    compare,
    dissimilarity,
    measuring_angles,
    negative_psnr,
    novelty,
    nrmse,
    reflectance_distances,
    spacing,
)  # fmt: skip
from fields.neumadiff.network import DIALECTS, MERL_UNITS, Networks

UNITS = torch.tensor(MERL_UNITS)


@pytest.fixture(scope="module")
def measured():
    """The published networks of MERL's materials."""
    path = Path(os.environ.get("FIELDS_DATA", "")) / "brdf" / "nbrdf_weights.npz"
    if not path.is_file():
        pytest.skip("needs $FIELDS_DATA/brdf/nbrdf_weights.npz")
    with np.load(path, allow_pickle=False) as file:
        weights, source = torch.from_numpy(file["weights"]), file["source"]
    return Networks(weights[torch.from_numpy(source == "merl")], DIALECTS["sztrajman"])


def random_values(count, seed=0):
    return torch.rand(count, len(measuring_angles()), 3, generator=torch.Generator().manual_seed(seed)) * 5


def random_pictures(count, seed=0, size=24):
    return torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(seed))


def test_angles_are_above_the_surface_and_half_of_them_bins():
    angles = measuring_angles()
    assert angles.shape == (4096, 3) and torch.stack(cosines(angles)).min() > 0
    scaled = torch.stack([(angles[:2048, 0] * (2 / math.pi)).sqrt() * 90, angles[:2048, 1] * (180 / math.pi), angles[:2048, 2] * (180 / math.pi)], 1)  # fmt: skip
    assert (scaled - scaled.round()).abs().max() < 1e-4
    # As many in each tenth of θh as bins there are above the surface, to a percent of all.
    bins = torch.cartesian_prod(torch.arange(90), torch.arange(90), torch.arange(0, 180, 5)).double()
    every = torch.stack(
        [(bins[:, 0] / 90) ** 2 * math.pi / 2, bins[:, 1] * math.pi / 180, bins[:, 2] * math.pi / 180], 1
    )
    above = bins[torch.stack(cosines(every)).amin(0) > 0]
    # Whole numbers, for a tenth ends at every ninth of them: 8.99999 would fall into the tenth before.
    share, wanted = (torch.histc(v.round(), 10, 0, 90) / len(v) for v in (scaled[:, 0], above[:, 0].float()))
    assert (share - wanted).abs().max() < 0.01
    assert len(angles[2048:].unique(dim=0)) == 2048


@pytest.mark.parametrize("measure", REFLECTANCE)
def test_distances_are_means(measure):
    some, others = random_values(3), random_values(2, seed=1)
    cosine = cosines(measuring_angles())[0][:, None]
    found = reflectance_distances(some, others, measure)
    for i, a in enumerate(some):
        for j, b in enumerate(others):
            wanted = {
                "log1p-cos": lambda v: (1 + cosine * v).log(),
                "log-cos (paper)": lambda v: (1.1 + cosine * v / UNITS).log()[:2048] * 0.762299,
                "log (paper)": lambda v: (1.1 + v / UNITS).log()[:2048] * 0.762299,
                "L1 (paper)": lambda v: (v / UNITS)[:2048] * 0.762299,
            }[measure]
            assert float(found[i, j]) == pytest.approx(float((wanted(a) - wanted(b)).abs().mean()), rel=1e-4)


def test_what_is_not_finite_is_far_away():
    values = random_values(4)
    values[1, 7] = math.nan
    values[2, 9] = math.inf
    distances = reflectance_distances(values, values)
    assert distances[1:3].isinf().all() and distances[:, 1:3].isinf().all() and distances[::3, ::3].isfinite().all()


def test_distances_over_the_angles_are_those_over_the_table(measured):
    """Of real materials: 2,048 bins stand for all of them, and 4,096 angles for ten times as many."""
    some = measured[::16]
    values = some(measuring_angles())
    bins = torch.cartesian_prod(torch.arange(90), torch.arange(0, 90, 3), torch.arange(0, 180, 6)).double()
    angles = torch.stack(
        [(bins[:, 0] / 90) ** 2 * math.pi / 2, bins[:, 1] * math.pi / 180, bins[:, 2] * math.pi / 180], 1
    )
    light, eye = cosines(angles)
    above = (light > 0) & (eye > 0)
    table = torch.log(1.1 + some(angles[above].float()) / UNITS * light[above, None].float()) * above.double().mean()
    wanted = torch.cdist(table.flatten(1), table.flatten(1), p=1) / table[0].numel()
    found = reflectance_distances(values, values, "log-cos (paper)")
    assert torch.allclose(found, wanted.float(), rtol=0.03)  # both are subsets; 1 % is typical


def test_pictures_against_skimage():
    from skimage.color import deltaE_ciede2000, rgb2lab
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    some, others = random_pictures(2), random_pictures(3, seed=1) * 0.5
    found = nrmse(some, others), negative_psnr(some, others), dissimilarity(some, others), ciede2000(some, others)
    for i, a in enumerate(some.double().numpy()):
        for j, b in enumerate(others.double().numpy()):
            like = structural_similarity(a, b, win_size=3, data_range=1, channel_axis=2)
            colour = deltaE_ciede2000(rgb2lab(a), rgb2lab(b))[2::4, 2::4].mean()
            wanted = (
                np.linalg.norm(a - b) / np.linalg.norm(b),
                -peak_signal_noise_ratio(b, a, data_range=1),
                1 - like,
                colour,
            )
            for matrix, value in zip(found, wanted, strict=True):
                assert float(matrix[i, j]) == pytest.approx(value, rel=1e-3)


def test_equal_pictures_are_as_near_as_can_be():
    pictures = random_pictures(3)
    assert nrmse(pictures, pictures).diagonal().max() < 1e-3  # cdist takes differences of squares
    assert negative_psnr(pictures, pictures).diagonal().max() < -55
    assert dissimilarity(pictures, pictures).diagonal().max() < 1e-5
    assert ciede2000(pictures, pictures).diagonal().max() < 1e-5


def test_black_around_a_ball_does_not_count():
    pictures = random_pictures(2, size=32)
    framed = torch.nn.functional.pad(pictures, (0, 0, 32, 32, 32, 32))
    assert torch.allclose(ciede2000(framed, framed), ciede2000(pictures, pictures), atol=1e-4)


def test_by_hand():
    """Three references at 0, 1 and 5, three samples at 0.2, 0.9 and 9 on a line."""
    references, samples = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.2], [0.9], [9.0]])
    found = compare(
        *(torch.cdist(a, b) for a, b in ((references, references), (references, samples), (samples, samples)))
    )
    assert found.mmd == pytest.approx((0.2 + 0.1 + 4.0) / 3)
    assert found.coverage == 1.0
    # Nearest of 0: 0.2 (other), of 1: 0.9 (other), of 5: 1 and 9 (both at 4). Of 0.2: 0, of 0.9: 1, of 9: 5 (all other).
    assert (found.accuracy_references, found.accuracy_samples) == pytest.approx((0.5 / 3, 0.0))
    assert found.accuracy == pytest.approx(0.5 / 6) and found.failed == 0


def test_the_same_set_twice():
    distances = torch.cdist(*[torch.rand(9, 3, generator=torch.Generator().manual_seed(0))] * 2, compute_mode="donot_use_mm_for_euclid_dist")  # fmt: skip
    found = compare(distances, distances, distances)
    assert (found.mmd, found.coverage, found.accuracy) == (0, 1, 0)


def test_draws_from_one_distribution_are_not_told_apart():
    sets = [torch.randn(400, 2, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    near, cross, far = (torch.cdist(*pair) for pair in ((sets[0], sets[0]), (sets[0], sets[1]), (sets[1], sets[1])))
    assert compare(near, cross, far).accuracy == pytest.approx(0.5, abs=0.06)  # three standard errors of 800 draws
    moved = torch.cdist(sets[0], sets[1] + 20)
    assert compare(near, moved, far).accuracy == 1
    assert compare(near, moved, far).coverage < 0.05


def test_failures_cover_nothing_and_are_told_apart():
    references, samples = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.1], [math.nan]])
    matrices = [torch.cdist(a, b).nan_to_num(math.inf, math.inf) for a, b in ((references, references), (references, samples), (samples, samples))]  # fmt: skip
    found = compare(*matrices)
    assert found.failed == 0.5 and found.coverage == 0.5
    assert found.accuracy_samples == 0.5  # 0.1 is next to 0; the other one is recognised
    nothing = compare(matrices[0], torch.full((2, 2), math.inf), torch.full((2, 2), math.inf))
    assert (nothing.mmd, nothing.coverage, nothing.failed, nothing.accuracy) == (math.inf, 0, 1, 1)


def test_copies_are_seen():
    training = torch.tensor([[0.0], [1.0], [2.5], [4.0]])
    typical = spacing(torch.cdist(training[1:], training), torch.arange(1, 4))
    assert typical == 1.5  # of 1, 1.5 and 1.5
    found = novelty(torch.cdist(torch.tensor([[2.5], [0.4]]), training), typical)
    assert torch.allclose(found.nearest, torch.tensor([0.0, 0.4])) and found.row.tolist() == [2, 0]
    assert torch.allclose(found.ratio, found.nearest / 1.5)
