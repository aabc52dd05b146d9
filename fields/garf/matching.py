"""Ways in which two fragments may fit, from their breaks.

Two break points that face each other, and the directions in which their breaks run, say how one fragment must lie for them to be
mates: one guess for every pair of points whose descriptors agree. Thousands of guesses are looked at coarsely, the best settle
on the other break, and what speaks for and against the best of those is written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import roma
import torch
from torch import Tensor

from fields.core import NearestTable, aligned, support
from fields.garf.clouds import Cloud, closeness, cloud_of, hopeless, object_scale
from fields.garf.contact import Patch, Surface, beside, evidence
from fields.garf.encoder import FractureEncoder, Seen
from fields.garf.fragment import Fragment, Samples, sample
from fields.garf.invariants import symmetric
from fields.geometry.rigid import inverse, move, pose_of

_EVEN = 20_000
"""Points on the surfaces of all fragments together."""
_BREAK = 2000
"""Points on the break of each, about."""
_OFFERED = 250
"""Of these are offered to be matched."""
_GUESSES = 1500
"""Pairs of points that are tried, of two fragments."""
_PROBES = 64
"""Break points that a guess is judged by."""
_SETTLING = 600
"""And what is left of them settles by."""
_SETTLED = 60
"""Guesses that may settle."""
CLOSELY = (0.012, 0.008)
"""How far a counterpart may be, step by step, where fragments lie about where they belong."""


class Fit(NamedTuple):
    """Fragment `b`, moved by `pose` into the frame of `a`."""

    a: int
    b: int
    pose: Tensor
    """(4, 4)."""
    evidence: Tensor
    """What speaks for it and against it: see `fields.garf.contact.EVIDENCE`."""


@dataclass
class Break:
    """What a fragment offers to be matched: its surface, and some of its break points in particular."""

    surface: Surface
    points: Tensor
    """(B, 3)."""
    normals: Tensor
    """(B, 3)."""
    along: Tensor
    """(B, 3) unit, across the normals: the direction in which the break runs there."""
    lock: Tensor
    """(B, D) what each is, see `fields.garf.encoder`."""
    key: Tensor
    """(B, D) what each wants."""

    def moved(self, pose: Tensor) -> Break:
        """After a rigid motion (4, 4)."""
        turn, old = pose[:3, :3].T, self.surface
        surface = Surface(move(pose, old.points), old.normals @ turn, old.broken, old.area)
        return Break(surface, move(pose, self.points), self.normals @ turn, self.along @ turn, self.lock, self.key)

    def without(self, used: Tensor, taken: Tensor) -> Break:
        """Leaves out points of the surface (P,), and of those that are offered (B,)."""
        old, kept = self.surface, ~taken
        surface = Surface(old.points[~used], old.normals[~used], old.broken[~used], old.area[~used])
        return Break(surface, self.points[kept], self.normals[kept], self.along[kept], self.lock[kept], self.key[kept])

    def unbroken(self) -> Break:
        """With nothing to be matched."""
        old, none = self.surface, slice(0)
        surface = Surface(old.points, old.normals, torch.zeros_like(old.broken), old.area)
        return Break(surface, self.points[none], self.normals[none], self.along[none], self.lock[none], self.key[none])

    @classmethod
    def joined(cls, parts: list[Break]) -> Break:
        """Parts of one body, in one frame, as one."""
        surfaces = [part.surface for part in parts]
        surface = Surface(
            *(torch.cat([getattr(s, name) for s in surfaces]) for name in ("points", "normals", "broken", "area"))
        )
        names = ("points", "normals", "along", "lock", "key")
        return cls(surface, *(torch.cat([getattr(part, name) for part in parts]) for name in names))


def look(
    fragments: list[Fragment], encoder: FractureEncoder, rng: np.random.Generator
) -> tuple[Cloud, Seen, list[Break]]:
    """Points of fragments as networks see them, what the encoder says of these, and what the fragments offer to be matched."""
    cloud = cloud_of(fragments, rng, closer=closeness(fragments))
    seen = encoder(cloud)
    breaks = breaks_of(fragments, cloud, seen, rng)
    for i in hopeless(fragments):
        breaks[i] = breaks[i].unbroken()
    return cloud, seen, breaks


def breaks_of(fragments: list[Fragment], cloud: Cloud, seen: Seen, rng: np.random.Generator) -> list[Break]:
    """Fragments, in the unit of a cloud of theirs, with what the encoder says of it."""
    from scipy.spatial import cKDTree

    closer = (object_scale(fragments) / cloud.scale) ** 2
    even, many = (sample(fragments, int(n * closer), rng, n // 100) for n in (_EVEN, 4 * _EVEN))
    found = []
    for i, fragment in enumerate(fragments):
        mine = torch.nonzero(cloud.fragment == i)[:, 0]
        known = cKDTree(placed(cloud.points[mine], cloud.normals[mine]))

        def labelled(samples: Samples, i: int = i, mine: Tensor = mine, known: cKDTree = known) -> tuple[Tensor, ...]:
            at = samples.of(i)
            points = torch.from_numpy(samples.points[at] / cloud.scale).float()
            normals = torch.from_numpy(samples.normals[at]).float()
            index = torch.from_numpy(known.query(placed(points, normals), 3, workers=-1)[1])
            near = mine[index.clamp(max=len(mine) - 1)]
            return points, normals, seen.break_logit[near].mean(1) > 0, near[:, 0]

        points, normals, broken, _ = labelled(even)
        more, more_normals, more_broken, like = labelled(many)
        chosen = torch.nonzero(more_broken)[:, 0][:: max(1, int(more_broken.sum()) // _BREAK)]
        patch = float(fragment.areas.sum()) / cloud.scale**2 / len(points)
        weight = patch * int(broken.sum()) / max(len(chosen), 1)
        surface = Surface(
            torch.cat([points[~broken], more[chosen]]), torch.cat([normals[~broken], more_normals[chosen]]),
            torch.arange(int((~broken).sum()) + len(chosen)) >= int((~broken).sum()),
            torch.cat([torch.full((int((~broken).sum()),), patch), torch.full((len(chosen),), weight)]),
        )  # fmt: skip
        offered = chosen[:: max(1, len(chosen) // _OFFERED)]
        p, n = more[offered], more_normals[offered]
        found.append(Break(surface, p, n, _along(surface, p, n), seen.lock[like[offered]], seen.key[like[offered]]))  # fmt: skip
    return found


def placed(points: Tensor, normals: Tensor) -> np.ndarray:
    """(N, 6): what lies in another direction is further away, so that the narrow break of a thin wall is not taken for the wall."""
    return torch.cat([points, 0.05 * normals], 1).numpy()


def _along(surface: Surface, points: Tensor, normals: Tensor) -> Tensor:
    if not len(points):
        return points
    sums, _ = surface.breaks.cells.moments(surface.breaks.normals, points, normals, (0.06,))
    second = symmetric(sums[:, 0, 5:11])
    across = torch.eye(3) - normals[:, :, None] * normals[:, None]
    return torch.linalg.eigh(across @ second @ across)[1][..., -1]


def guesses(a: Break, b: Break, most: int = _GUESSES) -> Tensor:
    """(H, 4, 4) motions of b into the frame of a, two for each of the likeliest pairs of points: a break runs both ways.

    Every point of either has a say: the few that fit it best.
    """
    likeness = torch.cat([a.lock, a.key], 1) @ torch.cat([b.key, b.lock], 1).T
    # How much better than others of its row and of its column: a point that likes all of them says little.
    sharp = 12 * likeness
    likeness = sharp.log_softmax(0) + sharp.log_softmax(1)
    wanted = torch.zeros_like(likeness)
    for axis in (0, 1):
        few = max(2, most // 2 // likeness.shape[1 - axis])
        wanted.scatter_(axis, likeness.topk(min(few, likeness.shape[axis]), axis)[1], 1)
    i, j = torch.nonzero(wanted, as_tuple=True)
    side = torch.linalg.cross(a.normals[i], a.along[i])
    poses = []
    for sign in (1, -1):
        frame_a = torch.stack([a.normals[i], sign * a.along[i], sign * side], -1)
        frame_b = torch.stack([-b.normals[j], b.along[j], torch.linalg.cross(-b.normals[j], b.along[j])], -1)
        turn = frame_a @ frame_b.transpose(1, 2)
        poses.append(pose_of(turn, a.points[i] - torch.einsum("hij,hj->hi", turn, b.points[j])))
    return torch.cat(poses)


def agreement(a: Surface, b: Surface, poses: Tensor, tolerance: float, probes: int = _PROBES) -> Tensor:
    """(H,) how much of the breaks and rims finds its counterpart as b is posed, from both sides, in areas of break."""
    total = torch.zeros(len(poses))
    for target, source, way in ((a, b, poses), (b, a, inverse(poses))):
        total += source.break_area * (support(way, _patches(target, source, probes), tolerance) @ _SHARES)
    return total


_SHARES = torch.tensor([1.0, 0.5])
"""What break has to say, and what its rim."""


def _patches(target: Surface, source: Surface, count: int) -> list[tuple[NearestTable, Tensor, Tensor]]:
    return [(target.breaks.near, *source.breaks.some(count)), (target.rim.near, *source.rim.some(count))]


def fits(a: int, b: int, breaks: list[Break], keep: int = 4) -> list[Fit]:
    """The best ways in which fragment b may fit a."""
    one, two = breaks[a], breaks[b]
    if min(len(one.points), len(two.points)) < 8:
        return []
    poses = guesses(one, two)
    p, q = one.surface, two.surface
    for probes, count in ((_PROBES // 4, 5 * _SETTLED), (_PROBES, _SETTLED)):  # most are nonsense, and look it
        poses = poses[agreement(p, q, poses, 0.015, probes).topk(min(count, len(poses)))[1]]
    poses = aligned(poses, _patches(p, q, 2 * _PROBES), (0.03, 0.03, 0.02, 0.02, 0.012, 0.012))
    poses = inverse(aligned(inverse(poses), _patches(q, p, 2 * _PROBES), (0.012, 0.008)))
    fine = agreement(p, q, poses, 0.004)
    poses = poses[fine.argsort(descending=True)]
    kept = poses[_different(poses, two.points.mean(0), keep)]
    settled = aligned(kept, _patches(p, q, _SETTLING), (0.012, 0.012, 0.008, 0.008))
    return [Fit(a, b, *both) for both in zip(settled, evidence(p, q, settled), strict=True)]


def _different(poses: Tensor, middle: Tensor, most: int) -> list[int]:
    """The first of the poses (H, 4, 4) that are not much the same as one before: turned by 11°, or moved by 0.03."""
    turn, place = poses[:, :3, :3].flatten(1), move(poses, middle)
    same = ((turn @ turn.T - 1) / 2 >= 0.98) & (torch.cdist(place, place) <= 0.03)
    kept: list[int] = []
    for k, like in enumerate(same.tolist()):
        if not any(like[other] for other in kept):
            kept.append(k)
        if len(kept) == most:
            break
    return kept


Posed = list[tuple[Surface, Tensor]]
"""Surfaces, each at a pose (4, 4)."""


def settle(moving: Posed, others: Posed, radii: tuple[float, ...] = CLOSELY, steps: int = 3) -> Tensor:
    """The motion (4, 4) by which some fragments settle as one, breaks and rims on those of others."""
    total, reach = torch.eye(4), 2 * max(radii)
    near = [[other for other in others if beside(*one, *other, reach)] for one in moving]
    for radius in radii:
        for _ in range(steps):
            found = [
                _pull(patch, total @ pose, around, radius)
                for (surface, pose), around in zip(moving, near, strict=True)
                for patch in (surface.breaks, surface.rim)
                if around
            ]
            if not found:
                return total
            x, target, gap, weight = (torch.cat(parts) for parts in zip(*found, strict=True))
            if len(x) < 6:
                return total
            motion = plane_step(x, target, gap, weight)
            total = motion @ total
            if float((motion - torch.eye(4)).abs().max()) < 1e-5:
                break
    return total


def _pull(patch: Patch, pose: Tensor, others: Posed, radius: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points of a patch in the world (N, 3), the normals of their nearest counterparts, their gaps along these, and how much each counts."""
    points, normals = patch.some(_SETTLING)
    world, facing = move(pose, points), normals @ pose[:3, :3].T
    best = torch.full((len(world),), radius)
    gap, normal = torch.zeros(len(world)), torch.zeros_like(world)
    for surface, where in others:
        other = surface.breaks if patch.facing < 0 else surface.rim
        local = move(inverse(where), world)
        low, high = surface.box
        rows = torch.nonzero(((local >= low - radius) & (local <= high + radius)).all(-1))[:, 0]
        if not len(rows) or not len(other.points):
            continue
        index, distance = (found[:, 0] for found in other.cells.knn(local[rows], 1, radius))
        target = other.normals[index.clamp(min=0)]
        good = (
            (index >= 0)
            & (patch.facing * ((target @ where[:3, :3].T) * facing[rows]).sum(-1) > 0.5)
            & (distance < best[rows])
        )
        rows, index, target = rows[good], index[good], target[good]
        best[rows] = distance[good]
        gap[rows] = ((local[rows] - other.points[index]) * target).sum(-1)
        normal[rows] = target @ where[:3, :3].T
    found = normal.any(-1)
    return world[found], normal[found], gap[found], (1 - (best[found] / radius) ** 2) ** 2


def plane_step(x: Tensor, target: Tensor, gap: Tensor, weight: Tensor) -> Tensor:
    """The small motion (4, 4) that closes gaps (N,) of points x (N, 3) along normals (N, 3) best."""
    middle = (weight[:, None] * x).sum(0) / weight.sum().clamp(min=1e-9)
    rows = torch.cat([torch.linalg.cross(x - middle, target), target], -1)
    weighted = rows * weight[:, None]
    matrix = weighted.T @ rows
    scale = matrix.diagonal().mean().clamp(min=1e-6)
    matrix = matrix + 1e-3 * scale * torch.eye(6)  # what slides along a flat break stays
    step = torch.linalg.solve(matrix, -weighted.T @ gap)
    turn = roma.rotvec_to_rotmat(step[:3].clamp(-0.3, 0.3))
    return pose_of(turn, middle + step[3:] - turn @ middle)
