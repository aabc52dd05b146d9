"""How likely it is that groups of fragments belong together as they are posed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from fields.garf.contact import EVIDENCE, Surface, beside, evidence
from fields.garf.matching import Fit, settle
from fields.garf.verifier import Verifier
from fields.geometry.rigid import inverse

Poses = dict[int, Tensor]
"""Fragments of a group, and their poses (4, 4) in its frame."""


@dataclass
class Judge:
    """Says how likely joints of one object are right."""

    surfaces: list[Surface]
    """Of its fragments, or of bodies of some of them."""
    verifier: Verifier
    usual: float
    """Area of break that a fragment of the object has, in the mean."""
    fragments: int

    @classmethod
    def of(cls, surfaces: list[Surface], verifier: Verifier) -> Judge:
        """Of an object's fragments."""
        return cls(surfaces, verifier, sum(s.break_area for s in surfaces) / len(surfaces), len(surfaces))

    def seen(self, a: Poses, b: Poses, move: Tensor) -> tuple[Tensor, Tensor]:
        """The evidence (len(EVIDENCE),), and `SIDES` (4,), of group b, moved, beside group a."""
        total = torch.zeros(len(EVIDENCE))
        touched: tuple[set[int], set[int]] = (set(), set())
        moved = {j: move @ pose for j, pose in b.items()}
        for i, j in product(a, b):
            if not beside(self.surfaces[i], a[i], self.surfaces[j], moved[j]):
                continue
            found = evidence(self.surfaces[i], self.surfaces[j], inverse(a[i]) @ moved[j])
            total += found
            if found[0] > 0:
                touched[0].add(i)
                touched[1].add(j)
        return total, self.sides(*touched)

    def sides(self, *sides: Iterable[int]) -> Tensor:
        """`SIDES` (4,) of sides that consist of these fragments."""
        areas = [[(self.surfaces[i].break_area, self.surfaces[i].whole_area) for i in side] for side in sides]
        least = torch.tensor([[sum(part) for part in zip(*side, strict=True)] or [0.0, 0.0] for side in areas]).amin(0)
        return torch.cat([least, torch.tensor([self.usual, self.fragments])])

    @torch.no_grad()
    def __call__(self, a: Poses, b: Poses, move: Tensor) -> float:
        """Log-odds that group b, moved, belongs to group a."""
        total, sides = self.seen(a, b, move)
        return float(self.verifier(total, sides)) if total[0] > 0 else -torch.inf

    @torch.no_grad()
    def alone(self, fits: list[Fit]) -> list[float]:
        """Log-odds that these are right, each by itself."""
        if not fits:
            return []
        sides = torch.stack([self.sides([fit.a], [fit.b]) for fit in fits])
        return self.verifier(torch.stack([fit.evidence for fit in fits]), sides).tolist()

    def likelihood(self, a: Poses, b: Poses, move: Tensor) -> float:
        """How likely it is that at least one joint between fragments of group a and those of group b, moved, is right.

        Much that hardly fits adds up to what looks like a joint of groups; it is none unless some two of the fragments fit.
        """
        wrong = 1.0
        for i, j in product(a, b):
            wrong *= 1 - _probability(self({i: a[i]}, {j: b[j]}, move))
        return 1 - wrong

    def settled(self, a: Poses, b: Poses, move: Tensor) -> Tensor:
        """`move` (4, 4) of group b after it has settled on group a, as one."""
        moving = [(self.surfaces[j], move @ pose) for j, pose in b.items()]
        return settle(moving, [(self.surfaces[i], pose) for i, pose in a.items()], steps=2) @ move


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-max(log_odds, -50.0)))
