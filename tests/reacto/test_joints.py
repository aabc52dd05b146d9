"""Joints from tracks of points that move as a joint lets them."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from fields.geometry.rigid import move
from fields.reacto.adjustment import adjust
from fields.reacto.following import filled
from fields.reacto.joints import find_parts
from fields.reacto.parts import poses_of
from fields.reacto.screws import exponential, prismatic, revolute
from fields.reacto.tracks import Tracks

FRAMES, FOCAL = 20, 200.0


def tracked(
    motions: list[torch.Tensor],
    counts: list[int],
    noise: float = 0.0,
    reach: int = 2,
    hidden: range = range(0),
    flat: float = 1.0,
) -> tuple[Tracks, torch.Tensor]:
    """Points of parts with these poses (T, 4, 4), seen by a camera that goes around them, in frames up to `reach` apart; and their parts.
    All parts but the first are hidden in some frames; all are so flat."""
    turn = torch.arange(FRAMES) * 2 * math.pi / FRAMES
    eyes = torch.stack([3 * turn.cos(), 3 * turn.sin(), 1.2 + 0.6 * (2 * turn).sin()], -1)
    frame, seen, directions, origins, part = [], [], [], [], []
    for b, (poses, count) in enumerate(zip(motions, counts, strict=True)):
        points = 0.5 * torch.randn(count, 3) * torch.tensor([1, flat, 1])
        first = torch.randint(FRAMES, (count,))
        offsets = torch.tensor([0, *range(1, reach + 1), *range(-reach, 0)])
        when = first[:, None] + offsets
        there = (when >= 0) & (when < FRAMES)
        if b:
            there &= ~torch.isin(when, torch.tensor(hidden))
        when = when.clamp(0, FRAMES - 1)
        along = normalize(move(poses[when], points[:, None].expand(-1, len(offsets), 3)) - eyes[when], dim=-1)
        along = normalize(along + noise / FOCAL * torch.randn_like(along), dim=-1)
        frame.append(when), seen.append(there), origins.append(eyes[when]), directions.append(along)
        part.append(torch.full((count,), b))
    return Tracks(*(torch.cat(v) for v in (frame, seen, origins, directions)), FOCAL), torch.cat(part)


def swing(high: float, cycles: float = 1.5) -> torch.Tensor:
    return high * (1 - torch.cos(2 * math.pi * cycles * torch.arange(FRAMES) / FRAMES)) / 2


STILL = torch.eye(4).expand(FRAMES, 4, 4)


def test_points_are_found_where_they_are():
    pose = exponential(torch.randn(FRAMES, 6))
    tracks, _ = tracked([pose], [200])
    points, off = tracks.triangulate(pose)
    assert off.max() < 0.02 and tracks.misfit(pose).max() < 0.02  # float32, at 200 pixels
    assert tracks.misfit(STILL).median() > 10
    own = move(pose[tracks.frame[:, 0]], points)
    ray = normalize(own - tracks.origins[:, 0], dim=-1)
    torch.testing.assert_close(ray, tracks.directions[:, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("slides", "noise"), [(False, 0.3), (True, 0.0)])
def test_one_joint(slides, noise):
    axis, point = normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0), torch.tensor([0.2, 0.1, -0.3])
    twist = prismatic(axis) if slides else revolute(axis, point)
    states = swing(0.6 if slides else 1.5)
    tracks, _ = tracked([STILL, exponential(states[:, None] * twist)], [900, 300], noise)
    found = find_parts(tracks, FRAMES, 5, torch.Generator().manual_seed(0))
    assert len(found) == 2 and found[1].parent == 0
    w, v = found[1].twist[:3], found[1].twist[3:]
    assert float(w.norm()) == pytest.approx(0.0 if slides else 1.0, abs=1e-4)
    angle = math.degrees(math.acos(min(1.0, abs(float((v if slides else w) @ axis)))))
    assert angle < (1.0 if noise else 0.2)
    if not slides:
        off = torch.linalg.cross(torch.linalg.cross(w, v) - point, axis).norm()
        assert off < (0.02 if noise else 0.003)
    span = found[1].states.max() - found[1].states.min()
    assert float(span) == pytest.approx(float(states.max()), rel=0.03)


def test_a_joint_on_a_part_that_moves():
    """A chain: its second axis goes along with the first part, and no single axis explains it."""
    first, second = (
        revolute(torch.tensor([0.0, 0, 1]), torch.tensor([0.3, 0, 0])),
        revolute(torch.tensor([1.0, 0, 0]), torch.tensor([0, 0.4, 0])),
    )
    outer = exponential(swing(1.2)[:, None] * first)
    inner = outer @ exponential(swing(1.5, cycles=1.0)[:, None] * second)
    tracks, _ = tracked([STILL, outer, inner], [700, 300, 300])
    found = find_parts(tracks, FRAMES, 5, torch.Generator().manual_seed(0))
    assert [part.parent for part in found] == [-1, 0, 1]
    assert all(part.states[0] == 0 for part in found)  # joints are where they are in the first frame
    for part, joint in zip(found[1:], (first, second), strict=True):
        way = torch.sign(part.twist[:3] @ joint[:3])
        torch.testing.assert_close(way * part.twist, joint, atol=2e-3, rtol=0)  # of what float32 sees 200 pixels away
    misfit = torch.stack([tracks.misfit(pose) for pose in poses_of(found, FRAMES)])
    assert (misfit.amin(0) < 0.5).float().mean() > 0.98


def test_two_drawers_on_one_axis_are_two():
    """Each frame alone may show one or the other; tracks over several frames show only one."""
    slide = prismatic(torch.tensor([0.0, -1, 0]))
    states = torch.stack([swing(0.6), swing(0.5, cycles=1.0)])
    tracks, part = tracked([STILL, *exponential(states[..., None] * slide)], [700, 300, 250], reach=4)
    found = find_parts(tracks, FRAMES, 5, torch.Generator().manual_seed(0))
    assert [one.parent for one in found] == [-1, 0, 0]
    misfit = torch.stack([tracks.misfit(pose) for pose in poses_of(found, FRAMES)])
    said = misfit.argmin(0)
    for b in (1, 2):  # few tracks are so short that both explain them
        assert (said[part == b].bincount(minlength=3).max() / (part == b).sum()) > 0.9


def test_a_part_that_is_hidden_for_a_while_is_one():
    """No track says how far it moved there: its shape does."""
    axis, point = torch.tensor([0.0, 0, 1]), torch.tensor([0.3, 0, 0])
    states = swing(1.5, cycles=1.0)
    moving = exponential(states[:, None] * revolute(axis, point))
    tracks, _ = tracked([STILL, moving], [900, 900], hidden=range(8, 12), flat=0.01)
    lines: list[str] = []
    found = find_parts(tracks, FRAMES, 5, torch.Generator().manual_seed(0), lines.append)
    assert len(found) == 2, lines
    seen = [k for k in range(FRAMES) if k not in range(8, 12)]
    way = torch.sign(found[1].twist[:3] @ axis)
    off = way * found[1].states[seen] - states[seen]
    assert (off - off.median()).abs().max() < math.radians(1)  # over half a unit, what it is thick by


def test_adjusting_finds_the_axis_from_near_it():
    twist = revolute(normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0), torch.tensor([0.2, 0.1, -0.3]))
    states = swing(1.5)
    tracks, _ = tracked([exponential(states[:, None] * twist)], [300], reach=4)
    near, off = twist + 0.05 * torch.randn(6), states + 0.03 * torch.randn(FRAMES)
    found, moves = adjust(tracks, near, off, 0.1, 8)
    torch.testing.assert_close(found, twist / twist[:3].norm(), atol=2e-4, rtol=0)  # float32 of the sightings
    torch.testing.assert_close(moves - moves[0], states - states[0], atol=5e-4, rtol=0)


def test_what_stands_still_has_one_part():
    tracks, _ = tracked([STILL], [1000], noise=0.3)
    assert len(find_parts(tracks, FRAMES, 5, torch.Generator().manual_seed(0))) == 1


def test_what_is_hidden_at_an_end_goes_on_ever_slower_and_no_farther_than_it_was_seen():
    """A lid that opens and closes, not seen in the first and last frames; and one that was seen once."""
    states = swing(1.0, 1.5)
    known = torch.zeros(FRAMES, dtype=torch.bool)
    known[3:-3] = True
    found = filled(torch.where(known, states, 7.0), known)
    assert torch.equal(found[known], states[known])
    off = (found - states).abs()
    assert off[0] < 0.1 * (states[3] - states[0]).abs()  # if it rested at once: the whole of it
    assert off[-1] < 0.6 * (states[-4] - states[-1]).abs()  # where it got faster while it was hidden
    assert found.min() >= states[known].min() and found.max() <= states[known].max()
    assert torch.equal(filled(torch.arange(4.0), torch.tensor([False, True, False, False])), torch.ones(4))
