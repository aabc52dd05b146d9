"""Fragments put by hand, and the files they are read from and written to."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import roma
import torch

from fields.errors import DataError
from fields.garf.clouds import object_scale
from fields.garf.fragment import Fragment
from fields.garf.objects import broken
from fields.garf.reassembly import Joint, Reassembly, load_model
from fields.garf.results import as_json, laid_out, read_results, standing, write_fragments, write_poses
from fields.garf.snapping import Settler, put
from fields.garf.wear import Wear

pytest.importorskip("manifold3d")


def scattered(number: int = 2_000_100, pieces: int = 4) -> Reassembly:
    """A vase in millimetres whose fragments lie in frames of their own, and where they belong."""
    torch.manual_seed(0)
    _, whole, _ = broken(number, pieces, "vase", Wear())
    poses, fragments = np.tile(np.eye(4), (pieces, 1, 1)), []
    for pose in poses[1:]:
        pose[:3, :3] = roma.random_rotmat(1)[0].double().numpy()
        pose[:3, 3] = 300 * torch.randn(3).double().numpy()
    for i, (pose, piece) in enumerate(zip(poses, whole, strict=True)):
        vertices = (1000 * piece.vertices - pose[:3, 3]) @ pose[:3, :3]
        fragments.append(Fragment(f"sherd {i}", vertices, piece.faces))
    joints = [Joint(i, i + 1, 0.9) for i in range(pieces - 1)]
    shares = [np.linspace(0, 1, len(f.faces)) for f in fragments]
    return Reassembly(fragments, 0, poses, [0] * pieces, [0.9**i for i in range(pieces)], joints, 1.0, shares)


@pytest.fixture(scope="module")
def whole() -> Reassembly:
    return scattered()


@pytest.fixture(scope="module")
def settler(whole) -> Settler:
    return Settler.of(whole.fragments, load_model())


def off(whole: Reassembly, found: Reassembly, i: int) -> tuple[float, float]:
    """Degrees, and shares of the object's size at the fragment's middle."""
    between = np.linalg.inv(whole.world_from_fragment[i]) @ found.world_from_fragment[i]
    middle = whole.fragments[i].middle
    away = between[:3, :3] @ middle + between[:3, 3] - middle
    cosine = (np.trace(between[:3, :3]) - 1) / 2
    return math.degrees(math.acos(np.clip(cosine, -1, 1))), float(np.linalg.norm(away)) / object_scale(whole.fragments)


def displaced(whole: Reassembly, i: int, degrees: float, share: float) -> Reassembly:
    """Turned about the fragment's middle, and moved."""
    axis, way = torch.nn.functional.normalize(torch.randn(2, 3, dtype=torch.float64), dim=-1)
    turn = roma.rotvec_to_rotmat(math.radians(degrees) * axis).numpy()
    pose = whole.world_from_fragment[i].copy()
    middle = pose[:3, :3] @ whole.fragments[i].middle + pose[:3, 3]
    pose[:3, :3] = turn @ pose[:3, :3]
    pose[:3, 3] = turn @ (pose[:3, 3] - middle) + middle + share * object_scale(whole.fragments) * way.numpy()
    return put(whole, i, pose)


@pytest.mark.parametrize("i", [1, 2, 3])
@pytest.mark.parametrize(("degrees", "share"), [(8.0, 0.03), (8.0, 0.08)])
def test_a_fragment_that_is_let_go_nearby_snaps_to_its_place(whole, settler, i, degrees, share):
    loose = displaced(whole, i, degrees, share)
    assert off(whole, loose, i) == pytest.approx((degrees, share))
    assert standing(loose, i) == "fits nowhere" and not [j for j in loose.joints if i in (j.a, j.b)]
    found = settler.snap(loose, i)
    angle, shift = off(whole, found, i)
    assert angle < 0.5 and shift < 0.002
    sure = [joint for joint in found.joints if i in (joint.a, joint.b)]
    assert max(joint.confidence for joint in sure) > 0.9 and found.group[i] == 0
    # Two thousandths of the size, over all of a break, would be a hundredth of a fragment.
    assert all(joint.overlap < 0.01 for joint in sure)
    others = [j for j in range(4) if j != i]
    assert np.array_equal(found.world_from_fragment[others], whole.world_from_fragment[others])


def test_what_fits_nothing_around_it_stays_where_it_was_let_go(whole, settler):
    loose = displaced(whole, 2, 40.0, 2.0)
    found = settler.snap(loose, 2)
    assert np.array_equal(found.world_from_fragment, loose.world_from_fragment)
    assert standing(found, 2) == "fits nowhere"


def test_who_is_taken_out_leaves_those_behind_who_hung_on_it(whole):
    assert whole.group == [0, 0, 0, 0]
    left = put(whole, 1, np.eye(4))
    assert left.group == [0, 2, 1, 1] and [(j.a, j.b) for j in left.joints] == [(2, 3)]
    assert left.confidence == pytest.approx(
        [1, 1, 1, 0.9], abs=1e-3
    )  # of the first of each group, 1; thousands of draws
    again = put(left, 1, whole.world_from_fragment[1], [Joint(0, 1, 0.5)])
    assert again.group == [0, 0, 1, 1] and again.confidence[1] == pytest.approx(0.5, abs=1e-3)
    assert whole.group == [0, 0, 0, 0], "what was is not changed"


def test_a_reassembly_survives_its_files(whole, tmp_path):
    whole = replace(whole, joints=[Joint(0, 1, 0.5, math.nan), Joint(1, 2, 0.25, 1e-5)], group=[0, 0, 0, 1])
    write_poses(tmp_path, whole)
    write_fragments(tmp_path, whole)
    again = read_results(tmp_path)
    assert as_json(again) == as_json(whole) and np.array_equal(again.world_from_fragment, whole.world_from_fragment)
    for one, two in zip(whole.fragments, again.fragments, strict=True):
        assert one.name == two.name and np.array_equal(one.corners, two.corners)
    for one, two in zip(whole.broken, again.broken, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-3)  # half precision
    beside = laid_out(again).assembled()
    assert beside[3].vertices[:, 0].min() > max(f.vertices[:, 0].max() for f in beside[:3])


def damages():
    yield "no poses", lambda said: said.pop("world_from_fragment")
    yield "a fragment less", lambda said: said["world_from_fragment"].pop("sherd 1")
    yield "one that is not there", lambda said: said["joints"][0].update(a="sherd 9")
    yield "not a pose", lambda said: said["world_from_fragment"].update({"sherd 1": [1, 2, 3]})
    yield "not a number", lambda said: said["world_from_fragment"].update({"sherd 1": np.full((4, 4), np.nan).tolist()})
    yield "a group that is skipped", lambda said: said["group"].update({"sherd 3": 5})


@pytest.mark.parametrize(("what", "damage"), list(damages()), ids=lambda value: value if isinstance(value, str) else "")
def test_damaged_files_are_refused(whole, tmp_path, what, damage):
    write_poses(tmp_path, whole)
    with pytest.raises(DataError, match=r"fragments\.safetensors: no such file"):
        read_results(tmp_path)
    write_fragments(tmp_path, whole)
    said = json.loads((tmp_path / "poses.json").read_text())
    damage(said)
    (tmp_path / "poses.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match="damaged"):
        read_results(tmp_path)
