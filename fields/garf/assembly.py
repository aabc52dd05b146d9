"""From ways in which pairs fit to one assembled object: groups of fragments grow by the joint that is most likely right.

A joint is judged as what it does to whole groups: a fragment that closes a ring touches two neighbours at once, and one that is
put in the wrong place runs into others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fields.garf.contact import EVIDENCE, Surface, evidence, inverse
from fields.garf.matching import Fit, settle
from fields.garf.verifier import Verifier

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
    score: float = 0.0
    """Log-odds of all merges together: what assemblies are ranked by."""


@dataclass
class _Merge:
    score: float
    a: int
    b: int
    move: Tensor


@torch.no_grad()
def assemble(surfaces: list[Surface], fits: list[Fit], verifier: Verifier, anchor: int, least: float = 0.0) -> Assembly:
    """Joins groups, the likeliest joint first, and lets all breaks settle on each other after each.

    Args:
        least: log-odds below which nothing is joined.
    """
    breaks = torch.tensor([min(surfaces[f.a].break_area, surfaces[f.b].break_area) for f in fits])
    alone = verifier(torch.stack([f.evidence for f in fits]), breaks) if fits else breaks
    # Most ways are wrong, and look it.
    fits = [fits[k] for k in alone.argsort(descending=True)[: 8 * len(surfaces)].tolist() if alone[k] > -5]
    groups: dict[int, Poses] = {i: {i: torch.eye(4)} for i in range(len(surfaces))}
    home = list(range(len(surfaces)))
    judged: dict[tuple[int, int, int], _Merge] = {}
    total = 0.0
    while len(groups) > 1:
        best: _Merge | None = None
        for k, fit in enumerate(fits):
            a, b = home[fit.a], home[fit.b]
            if a == b:
                continue
            key = (k, len(groups[a]), len(groups[b]))
            if key not in judged:
                move = groups[a][fit.a] @ fit.pose @ inverse(groups[b][fit.b])
                judged[key] = _Merge(judge(surfaces, verifier, groups[a], groups[b], move), a, b, move)
            if best is None or judged[key].score > best.score:
                best = judged[key]
        if best is None or best.score < least:
            break
        total += best.score
        a, b = best.a, best.b
        groups[a] |= {i: best.move @ pose for i, pose in groups.pop(b).items()}
        home = [a if g == b else g for g in home]
        groups[a] = relax(surfaces, groups[a], _first(surfaces, groups[a], anchor))
    return _finished(surfaces, verifier, groups, anchor, total)


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
    with torch.no_grad():
        return float(verifier(total, torch.tensor(breaks, dtype=total.dtype)))


def relax(surfaces: list[Surface], poses: Poses, fixed: int, radii: tuple[float, ...] = (0.012, 0.008), sweeps: int = 2) -> Poses:
    """A group settles together: one fragment after the other on all of its neighbours."""
    poses = dict(poses)
    for radius in radii:
        for _ in range(sweeps):
            for i in (i for i in poses if i != fixed):
                others = [(surfaces[j], pose) for j, pose in poses.items() if j != i]
                poses[i] = settle(surfaces[i], poses[i], others, (radius,), steps=1)
    return poses


def _first(surfaces: list[Surface], members: Poses, anchor: int) -> int:
    """The fragment whose frame is the group's: the anchor, or the largest."""
    return anchor if anchor in members else max(members, key=lambda i: len(surfaces[i].points))


def _finished(surfaces: list[Surface], verifier: Verifier, groups: dict[int, Poses], anchor: int, score: float) -> Assembly:
    ordered = sorted(groups.values(), key=lambda g: (anchor not in g, -len(g)))
    result = Assembly(torch.eye(4).repeat(len(surfaces), 1, 1), [0] * len(surfaces), score=score)
    for number, members in enumerate(ordered):
        back = inverse(members[_first(surfaces, members, anchor)])
        for i, pose in members.items():
            result.poses[i], result.group[i] = back @ pose, number
        for i in members:
            for j in (j for j in members if j > i):
                logit = judge(surfaces, verifier, {i: result.poses[i]}, {j: result.poses[j]}, torch.eye(4))
                if logit > -4:
                    result.joints[i, j] = 1 / (1 + 2.718281828 ** -logit)
    return result
