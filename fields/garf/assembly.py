"""From ways in which pairs fit to one assembled object: groups of fragments grow by the joint that is most likely right.

A joint is judged as what it does to whole groups: a fragment that closes a ring touches two neighbours at once, and one that is
put in the wrong place runs into others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fields.garf.contact import Surface
from fields.garf.judging import Judge, Poses
from fields.garf.matching import CLOSELY, Break, Fit, fits, settle
from fields.garf.verifier import Verifier
from fields.geometry.rigid import inverse


class Place(NamedTuple):
    """Where a group may belong beside that of the anchor."""

    group: int
    pose: np.ndarray
    """(4, 4) float64, from the frame of the group to that of the anchor."""
    confidence: float
    """How likely that is right, by itself: not much, or the group would be there."""


@dataclass
class Assembly:
    """Where fragments belong, as far as that was found."""

    poses: Tensor
    """(P, 4, 4) from each fragment's frame to that of the first of its group."""
    group: list[int]
    """Which group each fragment is in; group 0 has the anchor."""
    joints: dict[tuple[int, int], float] = field(default_factory=dict)
    """Pairs that touch, and how likely each joint is right."""
    met: float = 0.0
    """Share of the break of the anchor's group that has found its counterpart: what has none may want a fragment that is missing."""
    perhaps: list[Place] = field(default_factory=list)
    """Where groups may belong that do not hang together with the anchor, the likeliest place of each first."""


_HOPELESS = -5.0
"""Log-odds from which on a joint is not looked at again."""
_AGREED = 0.08
"""Likelihood below which groups are not joined, whatever all of their joints say together."""
TOLD = 0.018
"""Likelihood below which two fragments beside each other are not called a joint."""
PLACES = 3
"""Told of each group that hangs together with nothing."""
_LOOKED_AT = 8
"""Joints that are judged anew after each step: the likeliest."""
ROUNDS = (3.0, 1.0, 0.0, -1.0, -2.0)
"""Log-odds below which nothing is joined, round by round: what is sure first, for groups show more break than fragments."""


@torch.no_grad()
def assemble(breaks: list[Break], verifier: Verifier, anchor: int) -> Assembly:
    """Puts fragments together: finds how any two bodies may fit, joins the likeliest, and looks again at the larger bodies."""
    surfaces = [b.surface for b in breaks]
    judge = Judge.of(surfaces, verifier)
    bodies: list[Poses] = [{i: torch.eye(4)} for i in range(len(breaks))]
    memory = _Memory(breaks)
    for least in ROUNDS:
        if len(bodies) == 1:
            break
        shown, ways = memory.look(bodies)

        def agreed(a: Poses, b: Poses, move: Tensor, bodies: list[Poses] = bodies) -> bool:
            return judge.likelihood(_members(a, bodies), _members(b, bodies), move) > _AGREED

        groups = _joined(replace(judge, surfaces=[b.surface for b in shown]), ways, least, agreed)
        if len(groups) < len(bodies):
            bodies = [_settled(surfaces, group, bodies, anchor) for group in groups]
    likely = {
        (i, j): judge.likelihood({i: body[i]}, {j: body[j]}, torch.eye(4))
        for body in bodies
        for i, j in combinations(sorted(body), 2)
    }
    joints = {pair: sure for pair, sure in likely.items() if sure > TOLD}
    bodies = [part for body in bodies for part in _held(surfaces, body, joints, anchor)]
    return _finished(judge, bodies, joints, anchor, *memory.look(bodies))


def _held(surfaces: list[Surface], body: Poses, joints: Iterable[tuple[int, int]], anchor: int) -> list[Poses]:
    """What of a body still hangs together by joints: as a large one settles, some come undone. Each part in the frame of its first."""
    beside: dict[int, set[int]] = {i: set() for i in body}
    for i, j in joints:
        if i in body:
            beside[i].add(j)
            beside[j].add(i)
    left, parts = set(body), []
    while left:
        part, new = set(), {min(left)}
        while new:
            part |= new
            new = {j for i in new for j in beside[i]} - part
        left -= part
        members = {i: pose for i, pose in body.items() if i in part}
        back = inverse(members[_first(surfaces, members, anchor)])
        parts.append({i: back @ pose for i, pose in members.items()})
    return parts


@dataclass
class _Memory:
    """What was found about bodies that are still as they were."""

    breaks: list[Break]
    looks: dict[frozenset[int], Break] = field(default_factory=dict)
    ways: dict[tuple[frozenset[int], frozenset[int]], list[Fit]] = field(default_factory=dict)

    def look(self, bodies: list[Poses]) -> tuple[list[Break], list[Fit]]:
        """Bodies as if they were fragments, and the ways in which any two of them may fit."""
        keys = [frozenset(body) for body in bodies]
        self.looks = {
            key: self.looks.get(key) or merged(body, self.breaks) for key, body in zip(keys, bodies, strict=True)
        }
        shown, ways = list(self.looks.values()), {}
        for a, b in combinations(range(len(bodies)), 2):
            key = keys[a], keys[b]
            found = self.ways[key] if key in self.ways else fits(a, b, shown)
            ways[key] = [fit._replace(a=a, b=b) for fit in found]
        self.ways = ways
        return shown, [fit for found in ways.values() for fit in found]


def _settled(surfaces: list[Surface], group: Poses, bodies: list[Poses], anchor: int) -> Poses:
    """The fragments of a group of bodies after they have settled, in the frame of the first; but where it is what it was."""
    members = _members(group, bodies)
    if len(group) == 1:
        return members
    first = _first(surfaces, members, anchor)
    back = inverse(members[first])
    return {i: back @ pose for i, pose in relax(surfaces, members, first).items()}


def _members(group: Poses, bodies: list[Poses]) -> Poses:
    """The fragments of a group of bodies, in the group's frame."""
    return {i: frame @ pose for k, frame in group.items() for i, pose in bodies[k].items()}


def merged(body: Poses, breaks: list[Break]) -> Break:
    """A body as if it were one fragment: break that has found its counterpart is no longer shown."""
    if len(body) == 1:
        ((i, pose),) = body.items()
        return breaks[i] if torch.equal(pose, torch.eye(4)) else breaks[i].moved(pose)
    parts = []
    for i, pose in body.items():
        one = breaks[i]
        used, taken = torch.zeros_like(one.surface.broken), torch.zeros(len(one.points), dtype=torch.bool)
        for j in (j for j in body if j != i):
            between = inverse(body[j]) @ pose
            used |= one.surface.broken & breaks[j].surface.breaks.met_by(
                one.surface.points, one.surface.normals, between
            )
            taken |= breaks[j].surface.breaks.met_by(one.points, one.normals, between)
        parts.append(one.without(used, taken).moved(pose))
    return Break.joined(parts)


def _joined(judge: Judge, fits: list[Fit], least: float, agreed: Callable[[Poses, Poses, Tensor], bool]) -> list[Poses]:
    """Joins bodies, the likeliest joint first, to groups that look right together and to `agreed` as well."""
    surfaces = judge.surfaces
    # Most ways are wrong, and look it.
    ways = [_Way(fit, odds, fit.pose) for fit, odds in zip(fits, judge.alone(fits), strict=True) if odds > _HOPELESS]
    ways = sorted(ways, key=lambda way: -way.odds)[: 6 * len(surfaces)]
    groups: dict[int, Poses] = {i: {i: torch.eye(4)} for i in range(len(surfaces))}
    home = list(range(len(surfaces)))
    while len(groups) > 1:
        ways = [way for way in ways if home[way.fit.a] != home[way.fit.b] and way.odds > _HOPELESS]
        ways.sort(key=lambda way: -way.odds)
        for way in ways[:_LOOKED_AT]:
            a, b = groups[home[way.fit.a]], groups[home[way.fit.b]]
            if way.sizes != (len(a), len(b)):
                way.move = a[way.fit.a] @ way.fit.pose @ inverse(b[way.fit.b])
                way.sizes, way.odds = (len(a), len(b)), judge(a, b, way.move)
                if way.odds > _HOPELESS:
                    # Joints drift: what closes a ring fits at its other end only after the group has settled as one.
                    move = judge.settled(a, b, way.move)
                    odds = judge(a, b, move)
                    if odds > way.odds:
                        way.move, way.odds = move, odds
        best = max(ways[:_LOOKED_AT], key=lambda way: way.odds, default=None)
        if best is None or best.odds < least:
            break
        one, other = home[best.fit.a], home[best.fit.b]
        if not agreed(groups[one], groups[other], best.move):
            best.odds = -torch.inf
            continue
        groups[one] |= {i: best.move @ pose for i, pose in groups.pop(other).items()}
        home = [one if g == other else g for g in home]
        groups[one] = relax(surfaces, groups[one], _first(surfaces, groups[one], -1))
    return list(groups.values())


@dataclass
class _Way:
    """A fit, and what it would do to the groups that the two bodies are in."""

    fit: Fit
    odds: float
    """Logarithm of the odds that it is right, for groups of `sizes`."""
    move: Tensor
    """(4, 4) from the frame of the second group to that of the first."""
    sizes: tuple[int, int] = (1, 1)


def relax(
    surfaces: list[Surface], poses: Poses, fixed: int, radii: tuple[float, ...] = CLOSELY, sweeps: int = 2
) -> Poses:
    """A group settles together: one fragment after the other on all of its neighbours."""
    poses = dict(poses)
    for radius in radii:
        for _ in range(sweeps):
            for i in (i for i in poses if i != fixed):
                others = [(surfaces[j], pose) for j, pose in poses.items() if j != i]
                poses[i] = settle([(surfaces[i], poses[i])], others, (radius,), steps=1) @ poses[i]
    return poses


def _first(surfaces: list[Surface], members: Poses, anchor: int) -> int:
    """The fragment whose frame is the group's: the anchor, or the largest."""
    return anchor if anchor in members else max(members, key=lambda i: surfaces[i].whole_area)


def _finished(
    judge: Judge, bodies: list[Poses], joints: dict[tuple[int, int], float], anchor: int, shown: list[Break], ways: list[Fit]
) -> Assembly:  # fmt: skip
    order = sorted(range(len(bodies)), key=lambda k: (anchor not in bodies[k], -len(bodies[k])))
    result = Assembly(torch.eye(4).repeat(len(judge.surfaces), 1, 1), [0] * len(judge.surfaces))
    for number, k in enumerate(order):
        for i, pose in bodies[k].items():
            result.poses[i], result.group[i] = pose, number
    result.joints = {pair: judge.verifier.of_joints(sure) for pair, sure in joints.items()}
    whole = order[0]
    if there := sum(judge.surfaces[i].break_area for i in bodies[whole]):
        result.met = 1 - shown[whole].surface.break_area / there
    for number, k in enumerate(order[1:], 1):
        moves = [f.pose if f.a == whole else inverse(f.pose) for f in ways if {f.a, f.b} == {whole, k}]
        places = [Place(number, m.double().numpy(), judge.likelihood(bodies[whole], bodies[k], m)) for m in moves]
        result.perhaps += sorted(places, key=lambda place: -place.confidence)[:PLACES]
    return result
