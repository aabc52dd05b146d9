"""Ways in which two fragments may fit, from what their points want.

Correspondences are consistent where the motion of one would carry the other along; a consistent set votes for the sets its
members are in (second-order spatial compatibility, Chen et al. 2022), which finds a dozen right ones among hundreds of wrong ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fields.garf.contact import Contact, Surface, contact, inverse, moved

_OFF = 0.03
"""How far apart correspondences may be after the motion: they are about as far apart as the samples."""
_ARM = 0.06
"""A normal counts as a second point this far along it."""


class Fit(NamedTuple):
    """Fragment or group `b`, moved by `pose` into the frame of `a`."""

    a: int
    b: int
    pose: Tensor
    """(4, 4)."""
    contact: Contact


def hypotheses(p: Tensor, n: Tensor, q: Tensor, m: Tensor, weight: Tensor, most: int = 6) -> Tensor:
    """Rigid motions (H, 4, 4) that carry many points q onto their p, best first.

    Args:
        p, n: (M, 3) points and normals of one fragment.
        q, m: (M, 3) of the other, in the order of correspondence: mates face each other.
        weight: (M,) positive trust.
    """
    if len(p) < 3:
        return p.new_empty(0, 4, 4)
    offset_p, offset_q = p[:, None] - p[None], q[:, None] - q[None]
    stretch = (offset_p.norm(dim=-1) - offset_q.norm(dim=-1)).abs()
    tilt = (n @ n.T - m @ m.T).abs()
    height = (torch.einsum("abk,ak->ab", offset_p, n) + torch.einsum("abk,ak->ab", offset_q, m)).abs()
    fits = ((stretch < _OFF) & (tilt < 0.4) & (height < _OFF)).to(p)
    fits.fill_diagonal_(0)
    second = fits * ((fits * weight) @ fits)
    found: list[tuple[float, Tensor]] = []
    for seed in second.sum(1).argsort(descending=True)[:: max(1, len(p) // 200)][:40].tolist():
        votes = second[seed].clone()
        votes[seed] = votes.max() + 1e-9
        chosen = votes.argsort(descending=True)[:16]
        chosen = chosen[votes[chosen] > 0]
        if len(chosen) < 3:
            continue
        pose = p.new_zeros(0)
        for _ in range(3):
            pose = rigid(q[chosen], m[chosen], p[chosen], n[chosen], weight[chosen])
            good = (moved(q, pose) - p).norm(dim=-1) < _OFF
            good &= ((m @ pose[:3, :3].T) * n).sum(-1) < -0.6
            if good.sum() < 3:
                break
            chosen = torch.nonzero(good)[:, 0]
        else:
            # What matters is how much surface agrees: correspondences side by side say the same thing.
            cells = torch.unique((p[chosen] / _OFF).floor().long(), dim=0)
            found.append((len(cells) + 1e-3 * float(weight[chosen].sum()), pose))
    found.sort(key=lambda f: -f[0])
    kept: list[Tensor] = []
    middle = q.mean(0)
    for _, pose in found:
        if all(_apart(pose, other, middle) for other in kept):
            kept.append(pose)
        if len(kept) == most:
            break
    return torch.stack(kept) if kept else p.new_empty(0, 4, 4)


def _apart(one: Tensor, other: Tensor, middle: Tensor) -> bool:
    angle = ((one[:3, :3] * other[:3, :3]).sum() - 1) / 2
    return bool(angle < 0.97) or bool((moved(middle[None], one) - moved(middle[None], other)).norm() > 0.04)


def rigid(q: Tensor, m: Tensor, p: Tensor, n: Tensor, weight: Tensor) -> Tensor:
    """The motion (4, 4) that carries points q onto p and normals m onto −n best (Kabsch; a normal is a point on an arm)."""
    q, p = torch.cat([q, q + _ARM * m, q - _ARM * m]), torch.cat([p, p - _ARM * n, p + _ARM * n])
    w = weight.repeat(3)[:, None]
    middle_q, middle_p = (w * q).sum(0) / w.sum(), (w * p).sum(0) / w.sum()
    u, _, vt = torch.linalg.svd(((q - middle_q) * w).T @ (p - middle_p))
    flip = torch.ones(3).to(q)
    flip[2] = torch.det(u @ vt).sign()
    rotation = vt.T @ torch.diag(flip) @ u.T
    pose = torch.eye(4).to(q)
    pose[:3, :3], pose[:3, 3] = rotation, middle_p - rotation @ middle_q
    return pose


def settle(a: Surface, b: Surface, pose: Tensor, radii: tuple[float, ...] = (0.05, 0.03, 0.02, 0.012, 0.008)) -> Tensor:
    """`pose` after breaks of b have settled on those of a: point-to-plane ICP, with a radius that shrinks."""
    step = max(1, len(b.break_points) // 800)
    points, normals = b.break_points[::step], b.break_normals[::step]
    for radius in radii:
        for _ in range(4):
            x, facing = moved(points, pose), normals @ pose[:3, :3].T
            index, distance = a.breaks.knn(x, 1, radius)
            index = index[:, 0]
            target = a.break_normals[index.clamp(min=0)]
            good = (index >= 0) & ((target * facing).sum(-1) < -0.5)
            if good.sum() < 6:
                return pose
            x, target, goal = x[good], target[good], a.break_points[index[good]]
            motion = plane_step(x, goal, target, (1 - (distance[good, 0] / radius) ** 2) ** 2)
            pose = motion @ pose
            if float((motion - torch.eye(4).to(motion)).abs().max()) < 1e-5:
                break
    return pose


def plane_step(x: Tensor, goal: Tensor, normal: Tensor, weight: Tensor) -> Tensor:
    """The small motion (4, 4) that brings points x (N, 3) nearest to the planes through `goal`."""
    middle = x.mean(0)
    rows = torch.cat([torch.linalg.cross(x - middle, normal), normal], 1)
    off = ((goal - x) * normal).sum(-1)
    weighted = rows * weight[:, None]
    matrix = weighted.T @ rows
    matrix += torch.eye(6).to(x) * 1e-4 * matrix.diagonal().mean()  # what slides along a flat break stays
    solution = torch.linalg.solve(matrix, weighted.T @ off)
    return _motion(solution[:3], solution[3:], middle)


def _motion(turn: Tensor, shift: Tensor, about: Tensor) -> Tensor:
    import roma

    pose = torch.eye(4).to(turn)
    pose[:3, :3] = roma.rotvec_to_rotmat(turn)
    pose[:3, 3] = about + shift - pose[:3, :3] @ about
    return pose


def fits(a: int, b: int, surfaces: list[Surface], poses: Tensor, keep: int) -> list[Fit]:
    """The best of the ways (H, 4, 4) in which b may fit a, settled and judged."""
    found = []
    for pose in poses:
        settled = settle(surfaces[a], surfaces[b], pose)
        settled = inverse(settle(surfaces[b], surfaces[a], inverse(settled), (0.012, 0.008)))
        found.append(Fit(a, b, settled, contact(surfaces[a], surfaces[b], settled)))
    found.sort(key=lambda f: -f.contact.score)
    return found[:keep]
