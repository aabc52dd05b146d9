"""Putting fragments by hand: one that is let go about where it belongs settles on the breaks around it, and is judged there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.garf.assembly import TOLD
from fields.garf.confidence import of_places
from fields.garf.fragment import Fragment, about_middle
from fields.garf.judging import Judge, Poses
from fields.garf.matching import look, settle
from fields.garf.reassembly import Joint, Reassembly
from fields.garf.solidity import overlaps, solids_of

_RADII = (0.12, 0.06, 0.03, 0.02, 0.012, 0.008)
"""How far a counterpart may be, step by step, in sizes of the object."""
_STARTS = (2, 1, 0)
"""Where among these to start: what is near first, for from further away a break may be drawn to one that is not its own."""
_SURE = 3.0
"""Log-odds from which on nothing further away is tried."""


def put(found: Reassembly, i: int, pose: np.ndarray, joints: Sequence[Joint] = ()) -> Reassembly:
    """The reassembly with fragment `i` at another pose (4, 4), where it has these joints and no others. What was known of the whole is not any
    more."""
    poses = found.world_from_fragment.copy()
    poses[i] = pose
    kept = sorted([*(j for j in found.joints if i not in (j.a, j.b)), *joints], key=lambda j: (j.a, j.b))
    group = _groups(len(poses), kept, found.anchor)
    confidence = of_places({(j.a, j.b): j.confidence for j in kept}, group, found.anchor, found.calibration)
    return replace(
        found, world_from_fragment=poses, group=group, confidence=confidence, joints=kept, met=0.0, perhaps=[]
    )


def _groups(count: int, joints: list[Joint], anchor: int) -> list[int]:
    """Which fragments hang together: the anchor's group is 0, others follow, the larger first."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = [j.a for j in joints], [j.b for j in joints]
    _, label = connected_components(coo_matrix((np.ones(len(joints)), ends), (count, count)), directed=False)
    sizes = np.bincount(label)
    order = sorted(range(len(sizes)), key=lambda k: (k != label[anchor], -sizes[k]))
    return [order.index(k) for k in label]


@dataclass
class Settler:
    """What has to be known of fragments to let one settle on the others."""

    judge: Judge
    """Of surfaces in sizes of the object."""
    solids: list[Any]
    """See `solids_of`."""
    scale: float
    """The object's size, in the unit of the fragments."""
    back: np.ndarray
    """(P, 4, 4) from where the surfaces are to where the fragments are: see `about_middle`."""

    @classmethod
    @torch.no_grad()
    def of(cls, fragments: list[Fragment], model: Any, seed: int = 0) -> Settler:
        """Looks at the fragments, which takes a second or two; `model` as of `fields.garf.reassembly.load_model`."""
        rng = np.random.default_rng(seed)
        near, back = about_middle(fragments)
        cloud, _, breaks = look(near, model.encoder, rng)
        judge = Judge.of([b.surface for b in breaks], model.verifier)
        return cls(judge, solids_of(fragments), cloud.scale, back)

    @torch.no_grad()
    def snap(self, found: Reassembly, i: int) -> Reassembly:
        """Lets fragment `i` settle from where it is, on all others; where it fits none of them it stays, without joints."""
        home = self.back[found.anchor]
        poses = torch.from_numpy(np.linalg.inv(home) @ found.world_from_fragment @ self.back)
        poses[:, :3, 3] /= self.scale
        others: Poses = {j: pose.float() for j, pose in enumerate(poses) if j != i}
        pose = self._settled(i, poses[i].float(), others)
        world = pose.double().numpy()
        world[:3, 3] *= self.scale
        world = home @ world @ np.linalg.inv(self.back[i])
        placed = put(found, i, world)
        joints = []
        for j, other in others.items():
            sure = self.judge.likelihood({j: other}, {i: pose}, torch.eye(4))
            if sure > TOLD:
                joints.append(
                    Joint(min(i, j), max(i, j), self.judge.verifier.of_joints(sure), self._overlap(placed, i, j))
                )
        return put(placed, i, world, joints) if joints else put(found, i, found.world_from_fragment[i])

    def _settled(self, i: int, start: Tensor, others: Poses) -> Tensor:
        """The likeliest pose of those that are reached from `start`, looking further and further for counterparts."""
        around = [(self.judge.surfaces[j], pose) for j, pose in others.items()]
        best, most = start, -math.inf
        for first in _STARTS:
            pose = settle([(self.judge.surfaces[i], start)], around, _RADII[first:], steps=8) @ start
            odds = self.judge(others, {i: pose}, torch.eye(4))
            if odds > most:
                best, most = pose, odds
            if most > _SURE:
                break
        return best

    def _overlap(self, found: Reassembly, i: int, j: int) -> float:
        """See `Joint.overlap`."""
        both = [self.solids[i], self.solids[j]]
        if None in both:
            return math.nan
        shared, _ = overlaps(both, found.world_from_fragment[[i, j]]).get((0, 1), (0.0, None))
        return shared / min(solid.volume() for solid in both)
