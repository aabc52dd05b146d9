import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from fields.errors import DataError
from fields.neumadiff.angles import cosines, directions, half_difference
from fields.neumadiff.fitting import spread_angles
from fields.neumadiff.network import DIALECTS, WEIGHTS, Networks, dialect, permuted


def pairs(count):
    """Directions to light and eye, above the surface."""
    both = normalize(torch.randn(2, count, 3, dtype=torch.float64), dim=-1)
    both[..., 2].abs_()
    return both


def test_directions_and_back():
    wi, wo = pairs(10_000)
    angles = half_difference(wi, wo)
    assert_close(half_difference(*directions(angles)), angles, atol=1e-9, rtol=0)
    assert_close(cosines(angles), (wi[:, 2], wo[:, 2]))
    assert (angles[:, 0] <= math.pi / 2).all() and (angles[:, 2] >= 0).all() and (angles[:, 2] < 2 * math.pi).all()


def test_turning_the_surface_about_its_normal_changes_nothing():
    wi, wo = pairs(500)
    turn = torch.tensor([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]], dtype=torch.float64)
    assert_close(half_difference(wi @ turn.T, wo @ turn.T), half_difference(wi, wo))


def test_by_hand():
    """Light straight above, eye 60° down: the half vector is 30° from both. Light and eye together: no difference."""
    eye = torch.tensor([[math.sin(math.pi / 3), 0, 0.5]]).double()
    up = torch.tensor([[0.0, 0, 1]]).double()
    assert_close(half_difference(up, eye)[0, :2], torch.tensor([math.pi / 6, math.pi / 6]).double())
    assert_close(half_difference(eye, eye)[0, :2], torch.tensor([math.pi / 3, 0]).double(), atol=1e-7, rtol=0)


def test_the_reciprocal_dialect_does_not_know_light_from_eye():
    wi, wo = pairs(2000)
    networks = Networks(0.3 * torch.randn(5, WEIGHTS, dtype=torch.float64))
    there = networks(half_difference(wi, wo))
    assert_close(networks(half_difference(wo, wi)), there, atol=1e-9, rtol=1e-9)
    mirrored = torch.tensor([1.0, -1, 1], dtype=torch.float64)
    assert_close(networks(half_difference(wi * mirrored, wo * mirrored)), there, atol=1e-9, rtol=1e-9)
    assert there.std() > 0.01
    other = Networks(networks.weights, DIALECTS["sztrajman"])
    assert not torch.allclose(other(half_difference(wo, wi)), other(half_difference(wi, wo)))


@pytest.mark.parametrize("name", DIALECTS)
def test_changing_colours_in_weights_changes_them_in_what_is_seen(name):
    networks = Networks(0.3 * torch.randn(4, WEIGHTS), Dialect_without_units(name))
    angles = spread_angles(300)
    for order in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
        changed = Networks(permuted(networks.weights, order), networks.dialect)
        assert torch.equal(changed(angles), networks(angles)[..., list(order)])


def Dialect_without_units(name):
    from dataclasses import replace

    return replace(DIALECTS[name], units=(1.0, 1.0, 1.0))


def test_nothing_is_negative_and_nothing_overflows():
    networks = Networks(30 * torch.randn(8, WEIGHTS))
    reflected = networks(spread_angles(500))
    assert (reflected >= 0).all() and reflected.isfinite().all()


def test_an_unknown_dialect():
    with pytest.raises(DataError, match="reciprocal, sztrajman, m3ashy"):
        dialect("latin")


@pytest.mark.skipif("FIELDS_DATA" not in os.environ, reason="FIELDS_DATA names no folder with measured materials")
def test_published_values():
    """Blue metallic paint, as two groups have fitted it; in the last digit that they give."""
    folder = Path(os.environ["FIELDS_DATA"]) / "brdf"
    known = np.load(folder / "nbrdf_weights.npz", allow_pickle=False)
    k = list(known["name"]).index("blue-metallic-paint")
    networks = Networks(torch.from_numpy(known["weights"][k : k + 1]), DIALECTS["sztrajman"])
    angles = torch.tensor([[theta, 0.2, math.pi / 2] for theta in (0, 0.1, 0.3, 1.0)])
    expected = [[0.11645, 0.11929, 0.33752], [0.08356, 0.07942, 0.21768], [0.01815, 0.01548, 0.03817], [0.00190, 0.00146, 0.00365]]  # fmt: skip
    assert_close(networks(angles)[0], torch.tensor(expected), atol=1.1e-5, rtol=0)
