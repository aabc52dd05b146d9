"""What the verifier learns from: joints of objects of which it is known how they were, right ones and wrong; then, whole assemblies of such."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
import roma
import torch
from torch import Tensor

from fields.garf.assembly import relax
from fields.garf.confidence import AS_THOUGHT, RIGHT, Calibration, displaced, of_places
from fields.garf.contact import EVIDENCE
from fields.garf.fragment import Fragment
from fields.garf.judging import Judge, Poses
from fields.garf.matching import CLOSELY, Fit, fits, look
from fields.garf.model import Garf
from fields.garf.objects import broken
from fields.garf.reassembly import reassemble
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

Found = TypeVar("Found")

Example = tuple[Tensor, Tensor, bool]
"""The evidence, `SIDES`, and whether the joint was right."""


def learn_joints(model: Garf, count: int, watch: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Tries the fragments of broken objects against each other, two and two and in groups, and has the verifier learn from which joints were
    right; then has it put as many others together, to learn how sure it may be of what it has done.

    Several processes share the work. What is learned depends on the number of objects only.
    """
    numbers = range(_FIRST, _FIRST + count)
    rows = [row for rows in _of_each(examples, model, numbers, lambda done: watch(done, 2 * count)) for row in rows]
    evidence, sides, right = zip(*rows, strict=True)
    model.verifier.fit(torch.stack(evidence), torch.stack(sides), torch.tensor(right))
    calibrate(model, count, lambda done: watch(count + done, 2 * count))


def calibrate(model: Garf, count: int, watch: Callable[[int], None] = lambda done: None) -> None:
    """Has the verifier learn how often what stands in an assembly is right, from `count` objects that it has not learned joints from."""
    model.verifier.joints.copy_(torch.tensor(AS_THOUGHT))
    numbers = range(_FIRST + count, _FIRST + 2 * count)
    standing = _of_each(assembled, model, numbers, watch)
    told = Calibration.of([joint for one in standing for joint in one.joints])
    places = [place for one in standing for place in one.places(told)]
    model.verifier.joints.copy_(torch.tensor(told))
    model.verifier.places.copy_(torch.tensor(Calibration.of(places)))


def _of_each(
    what: Callable[[Garf, int], Found], model: Garf, numbers: range, watch: Callable[[int], None]
) -> list[Found]:
    results: list[Found] = []

    def gather(every: Iterable[Found]) -> list[Found]:
        for found in every:
            results.append(found)
            watch(len(results))
        return results

    if len(numbers) < _FEW:
        return gather(what(model, number) for number in numbers)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _begin, (model,)) as pool:
        return gather(pool.map(partial(_helping, what), numbers))


_model: Garf
"""Of a process that helps."""


def _begin(model: Garf) -> None:
    global _model
    torch.set_num_threads(1)
    _model = model


def _helping(what: Callable[[Garf, int], Found], number: int) -> Found:
    return what(_model, number)


def _scattered(number: int) -> tuple[list[Fragment], Poses, np.random.Generator]:
    """Object `number` in two to twenty pieces, turned at random; where they came from; and the generator after that."""
    _, whole, rng = broken(number, 2 + number % 19)
    torch.manual_seed(number)
    turns = roma.random_rotmat(len(whole))
    home = dict(enumerate(pose_of(turns.mT, torch.zeros(len(turns), 3))))
    return [f.moved(inverse(home[i]).double().numpy()) for i, f in enumerate(whole)], home, rng


@torch.no_grad()
def examples(model: Garf, number: int) -> list[Example]:
    """Joints of object `number`, in two to twenty pieces: the best ways in which any two fragments may fit, and what some of these do to
    groups that are assembled already."""
    fragments, home, rng = _scattered(number)
    _, _, breaks = look(fragments, model.encoder, rng)
    judge = Judge.of([b.surface for b in breaks], model.verifier)
    ways = [fit for a, b in combinations(home, 2) for fit in fits(a, b, breaks)]
    known = [(fit, right) for fit in ways if (right := _right(fit, judge, home)) is not None]
    touching = [(fit, right) for fit, right in known if fit.evidence[0] > 0]
    pairs = [(fit.evidence, judge.sides([fit.a], [fit.b]), right) for fit, right in touching]
    return pairs + _of_groups(judge, home, known, random.Random(number))


@dataclass
class Standing:
    """What an assembly says, and what of it is true."""

    joints: list[tuple[float, bool]]
    """How likely each was thought by itself, and whether it is right."""
    pairs: list[tuple[int, int]]
    group: list[int]
    anchor: int
    right: list[bool]
    """Of each fragment, whether it is where it belongs beside the anchor."""

    def places(self, told: Calibration) -> list[tuple[float, bool]]:
        """How likely each fragment that hangs together with the anchor is right, if joints are as likely as they are told, and whether it is."""
        joints = {pair: told(likely) for pair, (likely, _) in zip(self.pairs, self.joints, strict=True)}
        confidence = of_places(joints, self.group, self.anchor)
        return [(confidence[i], self.right[i]) for i, group in enumerate(self.group) if group == 0 and i != self.anchor]


def assembled(model: Garf, number: int) -> Standing:
    """What becomes of object `number`, in two to twenty pieces."""
    fragments, home, _ = _scattered(number)
    found = reassemble(fragments, model)
    true = torch.stack(list(home.values())).double().numpy()
    size = float(np.ptp(np.concatenate([f.moved(p).vertices for f, p in zip(fragments, true, strict=True)]), 0).max())

    def right(i: int, j: int) -> bool:
        return all(
            displaced(fragments[b], *(np.linalg.inv(p[a]) @ p[b] for p in (found.world_from_fragment, true)))
            < RIGHT * size
            for a, b in ((i, j), (j, i))
        )

    joints = [joint for joint in found.joints if found.group[joint.a] == 0]
    return Standing(
        [(joint.confidence, right(joint.a, joint.b)) for joint in joints], [(joint.a, joint.b) for joint in joints],
        found.group, found.anchor, [right(found.anchor, i) for i in range(len(fragments))],
    )  # fmt: skip


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
