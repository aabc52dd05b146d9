"""What the verifier learns from: joints of objects of which it is known how they were, right ones and wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from multiprocessing import get_context

import roma
import torch
from torch import Tensor

from fields.garf.assembly import relax
from fields.garf.contact import EVIDENCE
from fields.garf.judging import Judge, Poses
from fields.garf.matching import CLOSELY, Fit, fits, look
from fields.garf.model import Garf
from fields.garf.objects import broken
from fields.geometry.rigid import inverse, move, pose_of

_FIRST = 500_004
"""Number of the first object, which has two pieces; those after it have more, up to twenty. Those that the encoder has learned from would look better than they are."""
_RIGHT, _WRONG = (3.0, 0.015), (8.0, 0.04)
"""Joints that are off by less, degrees and sizes of the object, are right; by more, wrong; between, neither."""
_GROUPS = 8
"""Of fragments, that are tried against each other, of an object."""
_ADDED = 4
"""Fragments of the smaller group, at most."""
_CLOSE = EVIDENCE.index("close")
_FEW = 8
"""Objects for which other processes are not worth starting."""

Example = tuple[Tensor, Tensor, bool]
"""The evidence, `SIDES`, and whether the joint was right."""


def learn_joints(model: Garf, count: int, watch: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Tries the fragments of broken objects against each other, two and two and in groups, and has the verifier learn from which joints were
    right.

    Several processes share the work. What is learned depends on the number of objects only.
    """
    numbers = range(_FIRST, _FIRST + count)
    rows: list[Example] = []

    def gather(every: Iterable[list[Example]]) -> None:
        for done, found in enumerate(every):
            rows.extend(found)
            watch(done + 1, count)

    if count < _FEW:
        gather(examples(model, number) for number in numbers)
    else:
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _begin, (model,)) as pool:
            gather(pool.map(_examples, numbers))
    evidence, sides, right = zip(*rows, strict=True)
    model.verifier.fit(torch.stack(evidence), torch.stack(sides), torch.tensor(right))


_model: Garf
"""Of a process that helps."""


def _begin(model: Garf) -> None:
    global _model
    torch.set_num_threads(1)
    _model = model


def _examples(number: int) -> list[Example]:
    return examples(_model, number)


@torch.no_grad()
def examples(model: Garf, number: int) -> list[Example]:
    """Joints of object `number`, in two to twenty pieces: the best ways in which any two fragments may fit, and what some of these do to
    groups that are assembled already."""
    _, whole, rng = broken(number, 2 + number % 19)
    torch.manual_seed(number)
    turns = roma.random_rotmat(len(whole))
    home = dict(enumerate(pose_of(turns.mT, torch.zeros(len(turns), 3))))
    fragments = [f.moved(inverse(home[i]).double().numpy()) for i, f in enumerate(whole)]
    _, _, breaks = look(fragments, model.encoder, rng)
    judge = Judge.of([b.surface for b in breaks], model.verifier)
    ways = [fit for a, b in combinations(home, 2) for fit in fits(a, b, breaks)]
    known = [(fit, right) for fit in ways if (right := _right(fit, judge, home)) is not None]
    touching = [(fit, right) for fit, right in known if fit.evidence[0] > 0]
    pairs = [(fit.evidence, judge.sides([fit.a], [fit.b]), right) for fit, right in touching]
    return pairs + _of_groups(judge, home, known, random.Random(number))


def _right(fit: Fit, judge: Judge, home: Poses) -> bool | None:
    truth, middle = inverse(home[fit.a]) @ home[fit.b], judge.surfaces[fit.b].points.mean(0)
    angle = float(torch.rad2deg(roma.rotmat_geodesic_distance(fit.pose[:3, :3], truth[:3, :3])))
    away = float((move(fit.pose, middle) - move(truth, middle)).norm())
    if angle < _RIGHT[0] and away < _RIGHT[1]:
        return True
    return False if angle > _WRONG[0] or away > _WRONG[1] else None


def _of_groups(judge: Judge, home: Poses, known: list[tuple[Fit, bool]], draw: random.Random) -> list[Example]:
    """Groups that hang together, as they are after settling, and others beside them: where the right ways lead, and the wrong ones that look best."""
    surfaces = judge.surfaces
    settled = relax(surfaces, home, max(home, key=lambda i: surfaces[i].whole_area), (0.03, *CLOSELY))
    beside: dict[int, list[int]] = {i: [] for i in home} if len(home) > 2 else {}
    for i, j in combinations(beside, 2):
        if judge.seen({i: settled[i]}, {j: settled[j]}, torch.eye(4))[0][0] > 1e-3:
            beside[i].append(j)
            beside[j].append(i)
    known = sorted(known, key=lambda one: -float(one[0].evidence[_CLOSE]))
    rows = []
    for _ in range(_GROUPS if beside else 0):
        first = _grown(draw.choice(list(home)), set(home), draw.randint(1, len(home) - 1), beside, draw)
        rest = set(home) - set(first)
        second = _grown(draw.choice(sorted(rest)), rest, draw.randint(1, min(len(rest), _ADDED)), beside, draw)
        a, b = ({i: settled[i] for i in members} for members in (first, second))
        between = [(f, truth) for f, truth in known if (f.a in a and f.b in b) or (f.a in b and f.b in a)]
        right, wrong = ([fit for fit, r in between if r is truth] for truth in (True, False))
        for fit, truth in [(f, True) for f in draw.sample(right, min(2, len(right)))] + [(f, False) for f in wrong[:3]]:
            i, j, pose = (fit.a, fit.b, fit.pose) if fit.a in a else (fit.b, fit.a, inverse(fit.pose))
            start = a[i] @ pose @ inverse(b[j])
            evidence, sides = judge.seen(a, b, judge.settled(a, b, start))
            if evidence[0] > 0:
                rows.append((evidence, sides, truth))
    return rows


def _grown(first: int, allowed: set[int], size: int, beside: dict[int, list[int]], draw: random.Random) -> list[int]:
    """Up to so many fragments that hang together."""
    members = [first]
    while len(members) < size:
        further = sorted({j for i in members for j in beside[i] if j in allowed and j not in members})
        if not further:
            break
        members.append(draw.choice(further))
    return members
