"""From fragments in any poses to what the flow makes of them."""

import random
from dataclasses import replace

import pytest
import roma
import torch

from fields.errors import ConfigError
from fields.garf.clouds import cloud_of
from fields.garf.denoiser import Denoiser
from fields.garf.matching import breaks_of
from fields.garf.model import SIZES, Garf
from fields.garf.objects import broken
from fields.garf.presentation import Presented, Remembered, chosen_points, own_frames, presented
from fields.garf.reassembly import load_model
from fields.garf.sampling import motions, sampled, scores
from fields.geometry.rigid import move


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = load_model()
    model.denoiser = Denoiser(SIZES["cpu"][1])
    return model.eval()


@pytest.fixture(scope="module")
def bowl():
    return broken(2_000_004, 3, "bowl")[1:]


@pytest.fixture(scope="module")
def cloud(bowl):
    return cloud_of(*bowl, 1200)


def placed(batch: Presented, translation: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """The points that are shown, (B, N, 3), where such poses (P, 3), (P, 3, 3) put them."""
    _, points, _, size = batch.shown
    of = batch.tokens.fragment
    return torch.einsum("bnij,bnj->bni", rotation[of], points * size[of][..., None]) + translation[of]


@pytest.mark.parametrize("draw", [None, random.Random(0)])
def test_convention_presented_poses_give_the_object_back(model, cloud, draw):
    """Points in [−1, 1]³ times their size, posed, and taken back to the given frame: where they were."""
    batch = presented([Remembered.of(model, cloud)] * 2, len(cloud.points), draw)
    found = placed(batch, batch.translation, batch.rotation)
    for k in range(2):
        torch.testing.assert_close(move(batch.given[k], found[k]), cloud.points, atol=1e-3, rtol=0)  # half precision
    assert batch.shown[1].abs().max() <= 1
    first = int(torch.bincount(cloud.fragment).argmax())
    torch.testing.assert_close(batch.rotation[first], torch.eye(3), atol=1e-5, rtol=0)
    assert batch.anchor[first] and not batch.translation[first].any()
    assert int(batch.anchor.sum()) == 2 if draw is None else int(batch.anchor.sum()) > 2


def test_motions_do_to_given_fragments_what_poses_do_to_presented_ones(model, cloud):
    torch.manual_seed(0)
    batch = presented([Remembered.of(model, cloud)] * 2, len(cloud.points), None)
    t, r = torch.randn(len(batch.anchor), 3), roma.random_rotmat(len(batch.anchor))
    found, moved = placed(batch, t, r), motions(batch, t, r).unflatten(0, (2, -1))
    for k in range(2):
        want = move(batch.given[k], found[k])
        torch.testing.assert_close(move(moved[k][cloud.fragment], cloud.points), want, atol=1e-3, rtol=0)


def test_frames_of_their_own_do_not_care_how_fragments_were_given(cloud):
    torch.manual_seed(0)
    turn, shift = roma.random_rotmat(cloud.pieces), torch.randn(cloud.pieces, 3)
    points = (turn[cloud.fragment] @ cloud.points[..., None])[..., 0] + shift[cloud.fragment]
    middle, axes = own_frames(cloud)
    other_middle, other_axes = own_frames(replace(cloud, points=points))
    torch.testing.assert_close(other_axes, turn @ axes, atol=1e-3, rtol=0)
    torch.testing.assert_close(other_middle, (turn @ middle[..., None])[..., 0] + shift, atol=1e-4, rtol=0)
    assert torch.allclose(torch.linalg.det(axes), torch.ones(cloud.pieces))


def test_every_fragment_is_seen_and_breaks_most():
    torch.manual_seed(0)
    fragment = torch.arange(3).repeat_interleave(torch.tensor([900, 90, 10]))
    likely = (torch.arange(1000) % 2).float()
    index = chosen_points(fragment, likely, 100)
    assert len(index) == 100 and len(chosen_points(fragment, likely, 24)) == 24 and (fragment[index].diff() >= 0).all()
    assert torch.bincount(fragment[index], minlength=3).min() >= 8
    assert likely[index].mean() > 0.7  # 1.15 : 0.15 would be 0.88
    assert torch.equal(chosen_points(fragment, likely, 1000), torch.arange(1000))


def test_samples_are_rigid_differ_and_leave_the_anchor(model, cloud):
    torch.manual_seed(0)
    poses = sampled(model, cloud, candidates=3, steps=2, tokens=200)
    anchor = torch.bincount(cloud.fragment).argmax()
    torch.testing.assert_close(poses[:, anchor], torch.eye(4).repeat(3, 1, 1), atol=1e-5, rtol=0)
    turn = poses[..., :3, :3]
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand_as(turn), atol=1e-4, rtol=0)
    assert not torch.allclose(poses[0], poses[1], atol=0.1)
    with pytest.raises(ConfigError, match="no flow"):
        sampled(load_model(), cloud)


def test_what_fits_scores_best(model, bowl):
    fragments, rng = bowl
    cloud = cloud_of(fragments, rng)
    surfaces = [b.surface for b in breaks_of(fragments, cloud, model.encoder(cloud), rng)]
    right = torch.eye(4).repeat(3, 1, 1)
    apart, inside = right.clone(), right.clone()
    apart[1, 0, 3], inside[1:, :3, 3] = 5.0, -0.05
    fitting, nothing, bad = scores(surfaces, torch.stack([right, apart, inside])).tolist()
    assert fitting > 0.02 > nothing and fitting > bad


def test_the_published_size_samples(cloud):
    """One step and one of 500 points; all 5000 in 21 take minutes."""
    torch.manual_seed(0)
    poses = sampled(Garf("paper").eval(), cloud, candidates=1, steps=1, tokens=500)
    assert poses.shape == (1, cloud.pieces, 4, 4) and poses.isfinite().all()
