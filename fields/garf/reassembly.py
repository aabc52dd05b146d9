"""Fragments in, an assembled object out: what `fields reassemble` does, as a function."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fields.errors import ConfigError
from fields.garf.assembly import Place, assemble
from fields.garf.confidence import AS_THOUGHT, Calibration, of_places
from fields.garf.fragment import Fragment, about_middle
from fields.garf.matching import look, placed
from fields.garf.reading import load_fragments
from fields.garf.solidity import pushed_apart, solids_of
from fields.methods import shipped


@dataclass
class Joint:
    """Two fragments that touch."""

    a: int
    b: int
    confidence: float
    """How likely the joint is right."""
    overlap: float = 0.0
    """Volume that both claim, as a share of the smaller one's; not a number where one is not closed."""


@dataclass
class Reassembly:
    """Where fragments belong. All coordinates are in the unit and frame of the anchor's file."""

    fragments: list[Fragment]
    """As they were given."""
    anchor: int
    """The fragment that stays where it is: the largest."""
    world_from_fragment: np.ndarray
    """(P, 4, 4) float64. Fragments of another group than the anchor's stand in a frame of their own."""
    group: list[int]
    """Which fragments hang together; 0 are those that hang together with the anchor."""
    confidence: list[float]
    """How likely each fragment is where it belongs relative to the anchor, or to the first of its group."""
    joints: list[Joint]
    seconds: float = 0.0
    broken: list[np.ndarray] = field(default_factory=list)
    """For each fragment how likely each of its triangles is break, (F,)."""
    met: float = 0.0
    """Share of the break of what hangs together with the anchor that has found its counterpart. The rest wants fragments that are missing, or is
    worn."""
    perhaps: list[Place] = field(default_factory=list)
    """Where groups may belong that do not hang together with the anchor; poses, as all here, in the unit of the fragments."""
    calibration: Calibration = AS_THOUGHT
    """Of confidences, see `of_places`."""

    def assembled(self) -> list[Fragment]:
        """The fragments where they belong."""
        return [f.moved(pose) for f, pose in zip(self.fragments, self.world_from_fragment, strict=True)]

    def guessed(self) -> np.ndarray:
        """(P, 4, 4) `world_from_fragment`, with every group where it belongs most likely, however unlikely that is; at the middle of the
        anchor's where nothing speaks for any place."""
        poses = self.world_from_fragment.copy()
        placed = self.assembled()

        def middle(number: int) -> np.ndarray:
            return np.mean([f.middle for f, group in zip(placed, self.group, strict=True) if group == number], 0)

        for number in range(1, max(self.group) + 1):
            members = [i for i, group in enumerate(self.group) if group == number]
            place = next((place.pose for place in self.perhaps if place.group == number), None)
            if place is None:
                place = np.eye(4)
                place[:3, 3] = middle(0) - middle(number)
            poses[members] = place @ poses[members]
        return poses


def load_model(path: str | Path | None = None) -> Any:
    """A trained model from a run folder; by default the one that comes with the package."""
    from fields.garf.model import Garf
    from fields.io.run import load

    model = load(path or shipped("assets") / "garf")
    if not isinstance(model, Garf):
        raise ConfigError(f"{path}: not a model that reassembles. `fields train garf` makes one.")
    return model


@torch.no_grad()
def reassemble(fragments: str | Path | list[Fragment], model: Any = None, *, seed: int = 0) -> Reassembly:
    """Puts fragments of one broken object together; closed ones that overlap are taken out of each other.

    Args:
        fragments: 2 to 100, in any poses and any unit, as long as it is the same for all; or a folder of them.
        model: of `load_model`; by default that which comes with the package.
        seed: of the points that are looked at. The same seed gives the same poses.

    Raises:
        DataError: see `load_fragments`.
    """
    began = time.perf_counter()
    if not isinstance(fragments, list):
        fragments = load_fragments(Path(fragments))
    model = model or load_model()
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    given = fragments
    fragments, back = about_middle(given)
    cloud, seen, breaks = look(fragments, model.encoder, rng)
    anchor = int(np.argmax([f.areas.sum() for f in fragments]))
    found = assemble(breaks, model.verifier, anchor)
    poses = found.poses.double().numpy()
    poses[:, :3, 3] *= cloud.scale
    solids = solids_of(fragments)
    joints = [Joint(a, b, p) for (a, b), p in sorted(found.joints.items())]
    for number in range(max(found.group) + 1):
        members = [i for i, group in enumerate(found.group) if group == number]
        if len(members) < 2:
            continue
        fixed = members.index(anchor) if anchor in members else 0
        poses[members], left = pushed_apart([solids[i] for i in members], poses[members], fixed)
        for joint in (j for j in joints if found.group[j.a] == number):
            pair = members.index(joint.a), members.index(joint.b)
            both = [solids[joint.a], solids[joint.b]]
            joint.overlap = math.nan if None in both else left.get(pair, 0.0) / min(s.volume() for s in both)
    calibration = model.verifier.of_places
    confidence = of_places(found.joints, found.group, anchor, calibration)
    broken = [_of_faces(f, cloud, seen.break_logit, i) for i, f in enumerate(fragments)]
    # Each group stays about where the file of one of its fragments has it.
    homes = back[[anchor if number == 0 else found.group.index(number) for number in range(max(found.group) + 1)]]
    places = []
    for place in found.perhaps:
        place.pose[:3, 3] *= cloud.scale
        places.append(place._replace(pose=homes[0] @ place.pose @ np.linalg.inv(homes[place.group])))
    seconds = time.perf_counter() - began
    return Reassembly(
        given,
        anchor,
        homes[found.group] @ poses @ np.linalg.inv(back),
        found.group,
        confidence,
        joints,
        seconds,
        broken,
        found.met,
        places,
        calibration,
    )


def _of_faces(fragment: Fragment, cloud: Any, logit: torch.Tensor, i: int) -> np.ndarray:
    """What is nearest to the middle of a triangle, in place and direction, says whether it is break."""
    from scipy.spatial import cKDTree

    mine = cloud.fragment == i
    middles = torch.from_numpy(fragment.corners.mean(1) / cloud.scale)
    known = cKDTree(placed(cloud.points[mine], cloud.normals[mine]))
    return (
        logit[mine].sigmoid().numpy()[known.query(placed(middles, torch.from_numpy(fragment.normals)), workers=-1)[1]]
    )
