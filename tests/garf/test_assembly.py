"""From breaks to joints, with truth that is known."""

import math

import numpy as np
import pytest
import roma
import torch

from fields.garf.assembly import _held
from fields.garf.clouds import cloud_of, object_scale
from fields.garf.contact import EVIDENCE, Surface, evidence
from fields.garf.fracturing import fracture
from fields.garf.fragment import Fragment, sample
from fields.garf.invariants import COUNT, invariants
from fields.garf.matching import plane_step, settle
from fields.garf.metrics import reassembly_errors
from fields.garf.solidity import overlaps, pushed_apart, solids_of
from fields.garf.solids import random_solid
from fields.garf.verifier import SIDES, Verifier
from fields.garf.wear import Wear, worn
from fields.geometry.rigid import inverse, move, pose_of

manifold3d = pytest.importorskip("manifold3d")


def halves(seed: int = 3, kind: str = "stone") -> list[Fragment]:
    rng = np.random.default_rng(seed)
    return fracture(random_solid(rng, kind)[1], 2, rng)


def surface(fragment: Fragment, scale: float, seed: int = 0, count: int = 8000) -> Surface:
    samples = sample([fragment], count, np.random.default_rng(seed))
    area = float(fragment.areas.sum()) / scale**2 / count
    return Surface(
        torch.from_numpy(samples.points / scale).float(), torch.from_numpy(samples.normals).float(),
        torch.from_numpy(fragment.partner[samples.face] >= 0), torch.full((count,), area),
    )  # fmt: skip


def turned(angle: float, axis=(0.0, 0.0, 1.0), shift=(0.0, 0.0, 0.0)) -> torch.Tensor:
    pose = torch.eye(4)
    pose[:3, :3] = roma.rotvec_to_rotmat(math.radians(angle) * torch.tensor(axis))
    pose[:3, 3] = torch.tensor(shift)
    return pose


def test_invariants_do_not_care_how_a_fragment_lies():
    torch.manual_seed(0)
    points = torch.randn(2000, 3, dtype=torch.float64)
    normals = torch.nn.functional.normalize(points, dim=-1)
    points = normals * 0.3
    turn = roma.random_rotmat(1, dtype=torch.float64)[0]
    one = invariants(points, normals, points[:50], normals[:50])
    two = invariants(points @ turn.T + 0.7, normals @ turn.T, points[:50] @ turn.T + 0.7, normals[:50] @ turn.T)
    assert one.shape == (50, COUNT)
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_invariants_of_a_sphere_by_hand():
    """Radius R, seen within r: the mean height over the tangent plane is −r²/4R of a cap, as its area is even in height."""
    k = torch.arange(200_000, dtype=torch.float64)
    z = 1 - (2 * k + 1) / len(k)
    angle = k * math.pi * (3 - math.sqrt(5))
    normals = torch.stack([(1 - z**2).sqrt() * angle.cos(), (1 - z**2).sqrt() * angle.sin(), z], 1)
    radius, reach = 0.5, 0.12
    found = invariants(radius * normals, normals, radius * normals[5000:5010], normals[5000:5010])
    height, slope = found[:, 3 * 10 + 1], found[:, 3 * 10 + 7]
    # Heights of a cap are even between 0 and r²/2R; normals lean as far.
    torch.testing.assert_close(height, torch.full((10,), -reach / (4 * radius)), atol=1e-3, rtol=0)
    torch.testing.assert_close(slope, torch.full((10,), reach**2 / (4 * radius**2)), atol=1e-3, rtol=0)
    assert (found[:, -1] == 1).all(), "a ball of radius 0.5 has no other side within 0.12"


def test_what_belongs_together_has_evidence_and_what_does_not_has_not():
    a, b = halves()
    scale = object_scale([a, b])
    one, two = surface(a, scale), surface(b, scale, 1)
    at_home = dict(zip(EVIDENCE, evidence(one, two, torch.eye(4)).tolist(), strict=True))
    crack = 2 * a.areas[a.partner >= 0].sum() / scale**2
    assert at_home["touching"] == pytest.approx(crack, rel=0.05) and at_home["close"] > 0.9 * at_home["touching"]
    assert at_home["fitting"] > 0.6 * at_home["touching"]
    assert at_home["inside"] < 0.02 * crack and at_home["doubled"] < 0.1 * crack
    away = evidence(one, two, turned(0, shift=(0.05, 0.05, 0.05)))
    assert away[2] < 0.1 * at_home["fitting"]
    assert not evidence(one, two, turned(0, shift=(3.0, 0, 0))).any()
    back = evidence(two, one, torch.eye(4))
    torch.testing.assert_close(back, torch.tensor(list(at_home.values())), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["stone", "vase", "eggshell"])
def test_a_fragment_settles_where_it_broke_off(kind):
    a, b = halves(5, kind)
    scale = object_scale([a, b])
    one, two = surface(a, scale), surface(b, scale, 1)
    middle = two.breaks.points.mean(0)
    start = turned(2.0, (0.6, 0.0, 0.8))
    start[:3, 3] += middle - move(start, middle) + 0.005
    found = settle([(two, start)], [(one, torch.eye(4))], (0.03, 0.02, 0.012, 0.008), steps=6) @ start
    # Both are sampled at random, 0.01 apart; what is left is a tenth of that.
    assert (move(found, two.points) - two.points).norm(dim=-1).max() < 4e-3


def test_plane_step_closes_gaps_exactly_where_it_can():
    torch.manual_seed(0)
    x, normal = torch.rand(60, 3), torch.nn.functional.normalize(torch.randn(60, 3), dim=-1)
    motion = turned(0.5, (0.0, 0.6, 0.8), (0.01, -0.02, 0.005))
    gap = ((x - move(motion, x)) * normal).sum(-1)
    torch.testing.assert_close(plane_step(x, normal, gap, torch.ones(60)), motion, atol=2e-4, rtol=0)


def test_the_verifier_is_a_calibrated_judge():
    torch.manual_seed(0)
    n = 4000
    strength = torch.randn(n)
    right = torch.rand(n) < (3 * strength).sigmoid()
    rows = 0.01 + 0.005 * torch.rand(n, len(EVIDENCE))
    rows[:, 2] = 10.0 ** (-3 + 0.5 * strength)
    sides = torch.tensor([0.05, 0.2, 0.05, 4.0]) * (1 + 0.1 * torch.rand(n, len(SIDES)))
    verifier = Verifier()
    verifier.fit(rows, sides, right)
    said = verifier(rows, sides).sigmoid().detach()
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        some = (said >= low) & (said < low + 0.2)
        # A share of at least 200 draws is within 0.1 of its mean, three standard deviations.
        assert some.sum() > 200 and abs(float(said[some].mean() - right[some].float().mean())) < 0.1


def test_what_has_come_undone_is_no_longer_one_group():
    """0 - 1, and 2 alone, and 3 - 4: each part in the frame of its anchor or largest, and where it was relative to that."""
    torch.manual_seed(0)
    surfaces = [Surface(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, dtype=torch.bool), torch.tensor([float(k)])) for k in range(5)]  # fmt: skip
    body = dict(enumerate(pose_of(roma.random_rotmat(5), torch.randn(5, 3))))
    parts = _held(surfaces, body, [(0, 1), (3, 4), (8, 9)], anchor=0)
    assert [sorted(part) for part in parts] == [[0, 1], [2], [3, 4]]
    for part, first in zip(parts, (0, 2, 4), strict=True):
        assert torch.allclose(part[first], torch.eye(4), atol=1e-6)
        for i, pose in part.items():
            assert torch.allclose(body[first] @ pose, body[i], atol=1e-5)


def test_what_is_seen_from_closer_is_as_part_of_something_larger():
    """Four times the surface: twice as large in its own unit, by four times as many points."""
    pieces = halves()
    plain, closer = (cloud_of(pieces, np.random.default_rng(0), 1000, factor) for factor in (1.0, 4.0))
    assert len(plain.points) == 1000 and len(closer.points) == 4000
    assert closer.scale == pytest.approx(plain.scale / 2)
    # Of one fragment, between random points of its surface: to within two in a hundred.
    sizes = [float(np.ptp(c.points[c.fragment == 0].numpy(), 0).max()) for c in (plain, closer)]
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.02)


def test_metrics_by_hand():
    points = [torch.rand(3000, 3, dtype=torch.float64) - 0.5 for _ in range(3)]
    points = [p - p.mean(0) for p in points]
    true = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    perfect = reassembly_errors(points, true, true, 0)
    assert perfect["rmse_r"] == perfect["geodesic"] == perfect["rmse_t"] == perfect["chamfer"] == 0
    assert perfect["part_accuracy_strict"] == perfect["solved"] == 1
    found = true.clone()
    found[1] = turned(30.0).double()
    found[2, :3, 3] = torch.tensor([0.3, 0.0, 0.0])
    errors = reassembly_errors(points, found, true, 0)
    # One axis of three is off by 30°, for one fragment of three.
    assert errors["rmse_r"] == pytest.approx(30 / math.sqrt(3) / 3) and errors["geodesic"] == pytest.approx(10)
    assert errors["geodesic_rest"] == pytest.approx(15) and errors["rmse_t"] == pytest.approx(0.3 / math.sqrt(3) / 3)
    assert errors["part_accuracy"] == pytest.approx(2 / 3) and errors["part_accuracy_strict"] == pytest.approx(1 / 3)
    assert errors["part_accuracy_strict_rest"] == 0 and errors["solved"] == 0


def test_overlapping_solids_are_pushed_apart():
    a, b = halves()
    solids = solids_of([a, b])
    poses = np.tile(np.eye(4), (2, 1, 1))
    assert sum(v for v, _ in overlaps(solids, poses).values()) < 1e-6 * a.volume
    out = (b.areas * (b.partner >= 0)) @ b.normals
    poses[1, :3, 3] = 0.003 * out / np.linalg.norm(out)
    before = overlaps(solids, poses)[0, 1][0]
    after, left = pushed_apart(solids, poses, fixed=0)
    assert before > 1e-3 * b.volume and left.get((0, 1), 0.0) < 1e-4 * b.volume
    assert np.array_equal(after[0], np.eye(4)) and np.linalg.norm(after[1, :3, 3]) < 0.004
    assert solids_of([Fragment("open", a.vertices, a.faces[1:])]) == [None]


def test_wear_takes_from_breaks_only():
    pieces = halves()
    after = worn(pieces, Wear(erosion=0.004), np.random.default_rng(0))
    for old, new in zip(pieces, after, strict=True):
        assert new.volume < old.volume
        kept = np.setdiff1d(old.faces[old.partner < 0], old.faces[old.partner >= 0])
        assert np.array_equal(old.vertices[kept], new.vertices[kept])
        moved_by = np.linalg.norm(new.vertices - old.vertices, axis=1)[np.unique(old.faces[old.partner >= 0])]
        assert 0.002 < moved_by.mean() < 0.01
    assert worn(pieces, Wear(), np.random.default_rng(0))[0].volume == pytest.approx(pieces[0].volume)


def test_clouds_survive_their_file(tmp_path):
    cloud = cloud_of(halves(), np.random.default_rng(0))
    cloud.save(tmp_path / "a.npz")
    again = type(cloud).load(tmp_path / "a.npz")
    assert (
        torch.equal(cloud.points, again.points)
        and torch.equal(cloud.partner, again.partner)
        and again.scale == cloud.scale
    )
    torch.testing.assert_close(cloud.invariants, again.invariants, atol=1e-3, rtol=1e-3)  # half precision
    torch.testing.assert_close(inverse(turned(30.0)) @ turned(30.0), torch.eye(4))
