"""No two solids in one place: overlaps of assembled fragments, exactly, and pushing them apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from fields.errors import DataError
from fields.garf.fracturing import origins, solid_of
from fields.garf.fragment import Fragment

TOLERATED = 1e-4
"""Overlap of a joint, as a share of the volume of the smaller fragment."""


def solids_of(fragments: list[Fragment]) -> list[Any]:
    """A manifold3d.Manifold of each fragment in its own frame; None for one that is not closed."""
    solids = []
    for fragment in fragments:
        try:
            solids.append(solid_of(fragment.vertices, fragment.faces).as_original())
        except DataError:
            solids.append(None)
    return solids


def overlaps(solids: list[Any], poses: np.ndarray) -> dict[tuple[int, int], tuple[float, np.ndarray]]:
    """Pairs of fragments (P, 4, 4) that share space: how much, and the way (3,) in which the second leaves the first soonest.

    The surface of what they share is partly the first one's; it leaves along the mean normal of that part, by the volume over
    its area.
    """
    placed = [None if s is None else s.transform(p[:3]) for s, p in zip(solids, poses, strict=True)]
    boxes = [np.full((2, 3), np.nan) if s is None else np.array(s.bounding_box()).reshape(2, 3) for s in placed]
    found = {}
    for i, a in enumerate(placed):
        for j in range(i + 1, len(placed)):
            b = placed[j]
            if a is None or b is None or (boxes[i][1] < boxes[j][0]).any() or (boxes[j][1] < boxes[i][0]).any():
                continue
            shared = a ^ b
            if (volume := shared.volume()) <= 0:
                continue
            mesh = shared.to_mesh64()
            corners = np.asarray(mesh.vert_properties)[:, :3][np.asarray(mesh.tri_verts).astype(np.int64)]
            first = origins(mesh) == solids[i].original_id()
            p, q, r = corners[first].transpose(1, 0, 2)
            normal = np.cross(q - p, r - p).sum(0) / 2
            area = float(np.linalg.norm(normal))
            found[i, j] = volume, normal / area * (volume / area) if area > 0 else np.zeros(3)
    return found


def pushed_apart(
    solids: list[Any], poses: np.ndarray, fixed: int, rounds: int = 12
) -> tuple[np.ndarray, dict[tuple[int, int], float]]:
    """Poses (P, 4, 4) after small translations that take fragments out of each other, and the overlaps that are left.

    Nothing is moved by more than it has to: a round whose overlaps are larger in sum than those before is not kept.
    """
    best, poses = poses, poses.copy()
    least = np.inf
    left: dict[tuple[int, int], float] = {}
    for _ in range(rounds):
        now = overlaps(solids, poses)
        total = sum(volume for volume, _ in now.values())
        if total < least:
            best, least, left = poses.copy(), total, {pair: volume for pair, (volume, _) in now.items()}
        too_much = {
            pair: way for pair, (volume, way) in now.items()
            if volume > 0.5 * TOLERATED * min(solids[k].volume() for k in pair)
        }  # fmt: skip
        if not too_much:
            break
        moves = np.zeros((len(poses), 3))
        for (i, j), way in too_much.items():
            share = 0.0 if i == fixed else 1.0 if j == fixed else 0.5
            moves[i] -= share * way
            moves[j] += (1 - share) * way
        poses[:, :3, 3] += moves
    return best, left
