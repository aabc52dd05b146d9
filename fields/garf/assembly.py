"""From ways in which pairs fit to one assembled object: groups of fragments grow by the joint that most break agrees with.

A joint is judged as what it does to whole groups: a fragment that closes a ring touches two neighbours at once, and one that is
put in the wrong place runs into others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fields.garf.contact import Contact, Surface, contact, inverse, moved
from fields.garf.matching import Fit, plane_step

_LEAST = 4e-4
"""Break that two groups must share, in squared sizes of the object: about a disc of 2 % of its size."""


@dataclass
class Assembly:
    """Where fragments belong, as far as that was found."""

    poses: Tensor
    """(P, 4, 4) from each fragment's frame to that of the anchor of its group."""
    group: list[int]
    """Which group each fragment is in; group 0 has the anchor."""
    joints: dict[tuple[int, int], Contact] = field(default_factory=dict)
    """Pairs that touch, and how."""

    @property
    def score(self) -> float:
        return sum(c.score for c in self.joints.values())


def assemble(surfaces: list[Surface], fits: list[Fit], anchor: int) -> Assembly:
    """Joins groups, best joint first, and lets all breaks settle on each other after every join."""
    groups = {i: {i: torch.eye(4).to(surfaces[i].points)} for i in range(len(surfaces))}
    home = list(range(len(surfaces)))
    judged: dict[tuple[int, int, int], tuple[float, Tensor]] = {}
    pool = sorted(range(len(fits)), key=lambda k: -fits[k].contact.score)
    while len(groups) > 1:
        best: tuple[float, int, int, Tensor] | None = None
        tried: dict[tuple[int, int], list[Tensor]] = {}
        for k in pool:
            fit = fits[k]
            a, b = home[fit.a], home[fit.b]
            if a == b:
                continue
            key = (k, len(groups[a]), len(groups[b]))
            if key not in judged:
                move = groups[a][fit.a] @ fit.pose @ inverse(groups[b][fit.b])
                judged[key] = _between(surfaces, groups[a], groups[b], move), move
            score, move = judged[key]
            tried.setdefault((a, b), []).append(move)
            if best is None or score > best[0]:
                best = score, a, b, move
        if best is None or best[0] < _LEAST:
            break
        _, a, b, move = best
        groups[a] |= {i: move @ pose for i, pose in groups.pop(b).items()}
        home = [a if g == b else g for g in home]
        groups[a] = relax(surfaces, groups[a], fixed=anchor if anchor in groups[a] else max(groups[a], key=lambda i: surfaces[i].break_area))
    return _finished(surfaces, groups, anchor)


def _between(surfaces: list[Surface], a: dict[int, Tensor], b: dict[int, Tensor], move: Tensor) -> float:
    """Score of group b, moved, against group a."""
    return sum(
        contact(surfaces[i], surfaces[j], inverse(a[i]) @ move @ b[j]).score for i in a for j in b
    )  # fmt: skip


def relax(
    surfaces: list[Surface], poses: dict[int, Tensor], fixed: int, radii: tuple[float, ...] = (0.02, 0.012, 0.008), sweeps: int = 3
) -> dict[int, Tensor]:
    """All breaks of a group settle on each other together: one fragment after the other on all of its neighbours."""
    poses = dict(poses)
    for radius in radii:
        for _ in range(sweeps):
            for i in poses:
                if i == fixed:
                    continue
                x, goal, normal, weight = _pull(surfaces, poses, i, radius)
                if len(x) >= 6:
                    poses[i] = plane_step(x, goal, normal, weight) @ poses[i]
    return poses


def _pull(surfaces: list[Surface], poses: dict[int, Tensor], i: int, radius: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Break points of fragment i in the world, and the planes of other fragments' break that they should lie on."""
    surface = surfaces[i]
    step = max(1, len(surface.break_points) // 600)
    world, facing = moved(surface.break_points[::step], poses[i]), surface.break_normals[::step] @ poses[i][:3, :3].T
    best = torch.full((len(world),), radius).to(world)
    goal, normal = torch.zeros_like(world), torch.zeros_like(world)
    for j, pose in poses.items():
        if j == i:
            continue
        other = surfaces[j]
        local = moved(world, inverse(pose))
        near = ((local >= other.low - radius) & (local <= other.high + radius)).all(-1)
        if not near.any():
            continue
        rows = torch.nonzero(near)[:, 0]
        index, distance = other.breaks.knn(local[rows], 1, radius)
        index, distance = index[:, 0], distance[:, 0]
        towards = other.break_normals[index.clamp(min=0)] @ pose[:3, :3].T
        good = (index >= 0) & ((towards * facing[rows]).sum(-1) < -0.5) & (distance < best[rows])
        rows, index = rows[good], index[good]
        best[rows], normal[rows] = distance[good], towards[good]
        goal[rows] = moved(other.break_points[index], pose)
    found = normal.any(-1)
    return world[found], goal[found], normal[found], (1 - (best[found] / radius) ** 2) ** 2


def _finished(surfaces: list[Surface], groups: dict[int, dict[int, Tensor]], anchor: int) -> Assembly:
    ordered = sorted(groups.values(), key=lambda g: (anchor not in g, -len(g)))
    poses = torch.eye(4).repeat(len(surfaces), 1, 1).to(surfaces[0].points)
    group = [0] * len(surfaces)
    joints = {}
    for number, members in enumerate(ordered):
        first = anchor if anchor in members else max(members, key=lambda i: surfaces[i].break_area)
        back = inverse(members[first])
        for i, pose in members.items():
            poses[i], group[i] = back @ pose, number
        for i in members:
            for j in members:
                if i < j and (met := contact(surfaces[i], surfaces[j], inverse(poses[i]) @ poses[j])).area > 0:
                    joints[i, j] = met
    return Assembly(poses, group, joints)
