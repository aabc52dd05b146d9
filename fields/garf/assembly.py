"""From ways in which pairs fit to one assembled object: groups of fragments grow by the joint that is most likely right.

A joint is judged as what it does to whole groups: a fragment that closes a ring touches two neighbours at once, and one that is
put in the wrong place runs into others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from fields.garf.contact import EVIDENCE, Surface, evidence
from fields.garf.matching import Break, Fit, fits, settle
from fields.garf.verifier import Verifier
from fields.geometry.rigid import inverse

Poses = dict[int, Tensor]
"""Fragments of a group, and their poses (4, 4) in its frame."""


@dataclass
class Assembly:
    """Where fragments belong, as far as that was found."""

    poses: Tensor
    """(P, 4, 4) from each fragment's frame to that of the first of its group."""
    group: list[int]
    """Which group each fragment is in; group 0 has the anchor."""
    joints: dict[tuple[int, int], float] = field(default_factory=dict)
    """Pairs that touch, and how likely each joint is right by itself."""


_HOPELESS = -5.0
"""Log-odds from which on a joint is not looked at again."""
_AGREED = 0.3
"""Likelihood below which groups are not joined, whatever all of their joints say together."""
TOLD = 0.018
"""Likelihood below which two fragments beside each other are not called a joint."""
ROUNDS = (3.0, 1.0, 0.0, 0.0)
"""Log-odds below which nothing is joined, round by round: what is sure first, for groups show more break than fragments."""


@torch.no_grad()
def assemble(breaks: list[Break], verifier: Verifier, anchor: int) -> Assembly:
    """Puts fragments together: finds how any two bodies may fit, joins the likeliest, and looks again at the larger bodies."""
    surfaces = [b.surface for b in breaks]
    bodies: list[Poses] = [{i: torch.eye(4)} for i in range(len(breaks))]
    known: dict[tuple[frozenset[int], frozenset[int]], list[Fit]] = {}
    for least in ROUNDS:
        if len(bodies) == 1:
            break
        shown = [merged(body, breaks) for body in bodies]
        ways: dict[tuple[frozenset[int], frozenset[int]], list[Fit]] = {}
        for a, b in combinations(range(len(bodies)), 2):
            key = frozenset(bodies[a]), frozenset(bodies[b])
            found = known[key] if key in known else fits(a, b, shown)
            ways[key] = [fit._replace(a=a, b=b) for fit in found]
        known = ways

        def agreed(a: Poses, b: Poses, move: Tensor, bodies: list[Poses] = bodies) -> bool:
            return likelihood(surfaces, verifier, _members(a, bodies), _members(b, bodies), move) > _AGREED

        every = [fit for found in ways.values() for fit in found]
        groups = _joined([b.surface for b in shown], every, verifier, least, agreed)
        if len(groups) < len(bodies):
            grown = [_members(group, bodies) for group in groups]
            bodies = [relax(surfaces, body, _first(surfaces, body, anchor)) for body in grown]
    return _finished(surfaces, verifier, bodies, anchor)


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


def _joined(
    surfaces: list[Surface],
    fits: list[Fit],
    verifier: Verifier,
    least: float,
    agreed: Callable[[Poses, Poses, Tensor], bool],
) -> list[Poses]:
    """Joins bodies, the likeliest joint first, to groups that look right together and to `agreed` as well."""
    breaks = torch.tensor([min(surfaces[f.a].break_area, surfaces[f.b].break_area) for f in fits])
    alone = verifier(torch.stack([f.evidence for f in fits]), breaks) if fits else breaks
    # Most ways are wrong, and look it.
    likely = alone.argsort(descending=True)[: 6 * len(surfaces)].tolist()
    fits = [fits[k] for k in likely if alone[k] > _HOPELESS]
    groups: dict[int, Poses] = {i: {i: torch.eye(4)} for i in range(len(surfaces))}
    home = list(range(len(surfaces)))
    judged: dict[int, tuple[tuple[int, int], float, Tensor]] = {}
    while len(groups) > 1:
        best: tuple[float, int, int, Tensor, int] | None = None
        for k, fit in enumerate(fits):
            a, b = home[fit.a], home[fit.b]
            if a == b:
                continue
            sizes = len(groups[a]), len(groups[b])
            if k not in judged or (judged[k][0] != sizes and judged[k][1] > _HOPELESS):
                move = groups[a][fit.a] @ fit.pose @ inverse(groups[b][fit.b])
                judged[k] = sizes, judge(surfaces, verifier, groups[a], groups[b], move), move
            if best is None or judged[k][1] > best[0]:
                best = judged[k][1], a, b, judged[k][2], k
        if best is None or best[0] < least:
            break
        _, a, b, move, k = best
        if not agreed(groups[a], groups[b], move):
            judged[k] = judged[k][0], -torch.inf, move
            continue
        groups[a] |= {i: move @ pose for i, pose in groups.pop(b).items()}
        home = [a if g == b else g for g in home]
        groups[a] = relax(surfaces, groups[a], _first(surfaces, groups[a], -1))
    return list(groups.values())


@torch.no_grad()
def judge(surfaces: list[Surface], verifier: Verifier, a: Poses, b: Poses, move: Tensor) -> float:
    """Log-odds that group b, moved, belongs to group a."""
    total = torch.zeros(len(EVIDENCE))
    touched: tuple[set[int], set[int]] = (set(), set())
    for i in a:
        for j in b:
            seen = evidence(surfaces[i], surfaces[j], inverse(a[i]) @ move @ b[j])
            total += seen
            if seen[0] > 0:
                touched[0].add(i)
                touched[1].add(j)
    if not touched[0]:
        return -torch.inf
    breaks = min(sum(surfaces[i].break_area for i in side) for side in touched)
    return float(verifier(total, torch.tensor(breaks, dtype=total.dtype)))


def likelihood(surfaces: list[Surface], verifier: Verifier, a: Poses, b: Poses, move: Tensor) -> float:
    """How likely it is that at least one joint between fragments of group a and those of group b, moved, is right.

    Much that hardly fits adds up to what looks like a joint of groups; it is none unless some two of the fragments fit.
    """
    wrong = 1.0
    for i in a:
        for j in b:
            wrong *= 1 - _probability(judge(surfaces, verifier, {i: a[i]}, {j: b[j]}, move))
    return 1 - wrong


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-max(log_odds, -50.0)))


def relax(
    surfaces: list[Surface], poses: Poses, fixed: int, radii: tuple[float, ...] = (0.012, 0.008), sweeps: int = 2
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
    return anchor if anchor in members else max(members, key=lambda i: float(surfaces[i].area.sum()))


def _finished(surfaces: list[Surface], verifier: Verifier, bodies: list[Poses], anchor: int) -> Assembly:
    ordered = sorted(bodies, key=lambda body: (anchor not in body, -len(body)))
    result = Assembly(torch.eye(4).repeat(len(surfaces), 1, 1), [0] * len(surfaces))
    for number, members in enumerate(ordered):
        back = inverse(members[_first(surfaces, members, anchor)])
        for i, pose in members.items():
            result.poses[i], result.group[i] = back @ pose, number
        for i in members:
            for j in (j for j in members if j > i):
                sure = likelihood(surfaces, verifier, {i: result.poses[i]}, {j: result.poses[j]}, torch.eye(4))
                if sure > TOLD:
                    result.joints[i, j] = sure
    return result
