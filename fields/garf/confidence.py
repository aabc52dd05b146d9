"""How sure a reassembly may be of itself, in shares of what turned out right.

The verifier says how likely a joint is right by itself. One that stands in an assembly was chosen among hundreds, and agrees with others: it
is right far more often. A fragment's joints, on the other hand, are wrong together where a whole group is in the wrong place. So both are
said as often as they were right in assemblies of objects that are known (Platt 1999).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fields.garf.fragment import Fragment

RIGHT = 0.02
"""A fragment is right that is displaced by less, in sizes of the object."""
_SURE = 1e-6
"""Of nothing it is surer than by this."""
_DRAWS = 4096
"""Of which joints hold."""


class Calibration(NamedTuple):
    """From what is thought to what turned out, in log-odds."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, likely: float) -> float:
        """Probability, of one."""
        likely = min(max(likely, _SURE), 1 - _SURE)
        return 1 / (1 + math.exp(-self.slope * math.log(likely / (1 - likely)) - self.offset))

    @classmethod
    def of(cls, known: Sequence[tuple[float, bool]]) -> Calibration:
        """Learned from how likely things were thought, and whether they were right; as thought where there are none."""
        if not known:
            return cls()
        likely, right = zip(*known, strict=True)
        p = torch.tensor(likely).double().clamp(_SURE, 1 - _SURE)
        x = torch.stack([p.logit(), torch.ones_like(p)], 1)
        slope, offset = regression(x, torch.tensor(right), torch.tensor([1e-3, 1e-3])).tolist()
        return cls(slope, offset)


AS_THOUGHT = Calibration()


def regression(x: Tensor, right: Tensor, penalty: Tensor) -> Tensor:
    """Weights (K,) of the logistic regression of bool (N,) on x (N, K), less `penalty` (K,) / 2 times their squares: Newton's method, to the end."""
    ridge, y = penalty.double().diag(), right.double()
    w = x.new_zeros(x.shape[1])
    for _ in range(30):
        p = (x @ w).sigmoid()
        w = w + torch.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + ridge, x.T @ (y - p) - ridge @ w)
    return w


def of_places(
    joints: dict[tuple[int, int], float], group: list[int], anchor: int, told: Calibration = AS_THOUGHT
) -> list[float]:
    """How likely each fragment is right: that a chain of right joints leads to the anchor, or to the first of its group, and what `told` makes of it.

    That is the reliability of a network, and is found by drawing which joints hold: to within a hundredth.
    """
    firsts = {anchor if number == 0 else group.index(number) for number in set(group)}
    draw = np.random.default_rng(0)
    # As many of each joint hold as should, so that what hangs on one joint is as likely as that.
    holds = {
        pair: draw.permutation(_DRAWS) + 0.5 < likely * _DRAWS for pair, likely in joints.items()
    }  # fmt: skip
    reached = np.zeros((len(group), _DRAWS), bool)
    reached[list(firsts)] = True
    while True:
        before = reached.sum()
        for (i, j), hold in holds.items():
            either = (reached[i] | reached[j]) & hold
            reached[i] |= either
            reached[j] |= either
        if reached.sum() == before:
            break
    likely = reached.mean(1).clip(0.5 / _DRAWS, 1 - 0.5 / _DRAWS)
    return [1.0 if i in firsts else told(float(p)) for i, p in enumerate(likely)]


def displaced(fragment: Fragment, found: np.ndarray, true: np.ndarray) -> float:
    """How far it is from its place, in the mean over its vertices and in its unit; both (4, 4)."""
    return float(np.linalg.norm(fragment.moved(found).vertices - fragment.moved(true).vertices, axis=1).mean())
