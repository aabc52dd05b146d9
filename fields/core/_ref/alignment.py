"""Plain-PyTorch twin of ``fields.core.alignment``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def aligned(poses: Tensor, patches: Sequence[Any], tolerances: Sequence[float]) -> Tensor:
    middle = torch.cat([sources for _, sources, _ in patches]).mean(0)
    for tolerance in tolerances:
        found = [_matched(poses, patch, tolerance) for patch in patches]
        x, target, gap, weight = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        centre = poses[:, :3, :3] @ middle + poses[:, :3, 3]
        poses = torch.stack([_step(*one) for one in zip(poses, centre, x, target, gap, weight, strict=True)])
    return poses


def support(poses: Tensor, patches: Sequence[Any], tolerance: float) -> Tensor:
    return torch.stack([_matched(poses, patch, tolerance)[3].mean(1).nan_to_num() for patch in patches], 1)


def _matched(poses: Tensor, patch: Any, tolerance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sources (H, S, 3) as they lie, the normals of their counterparts, their gaps along these (H, S), and their weights."""
    table, sources, normals = patch
    x = torch.einsum("hij,sj->hsi", poses[:, :3, :3], sources) + poses[:, None, :3, 3]
    facing = torch.einsum("hij,sj->hsi", poses[:, :3, :3], normals)
    index = _nearest(table, x)
    if not len(table.points):
        return x, facing, x[..., 0], torch.zeros_like(x[..., 0])
    target, offset = table.normals[index.clamp(min=0)], x - table.points[index.clamp(min=0)]
    gap = (offset * target).sum(-1)
    agree = table.facing * (target * facing).sum(-1)
    counts = (index >= 0) & (agree > 0.5) & ((offset * offset).sum(-1) - gap * gap < table.reach**2)
    return x, target, gap, counts * (1 - (gap / tolerance) ** 2).clamp(min=0) * agree


def _nearest(table: Any, x: Tensor) -> Tensor:
    """Indices (…,) of the points nearest to x (…, 3), −1 where the table says that none is near."""
    at, shape = (x - table.low) / table.cell, torch.tensor(table.table.shape, device=x.device)
    inside = ((at >= 0) & (at < shape)).all(-1)
    a, b, c = torch.where(inside[..., None], at, 0).long().unbind(-1)
    index = torch.where(inside, table.table[a, b, c].long(), -1)
    while len(table.points):
        near = torch.cat([index[..., None], table.around[index].long()], -1)
        best = (x[..., None, :] - table.points[near]).square().sum(-1).argmin(-1, keepdim=True)
        better = torch.where(index < 0, -1, near.gather(-1, best)[..., 0])
        if torch.equal(better, index):
            break
        index = better
    return index


def contacts(
    target: Any, labels: Tensor, sources: Tensor, normals: Tensor, marks: Tensor, area: Tensor, poses: Tensor, reach: float
) -> Tensor:  # fmt: skip
    x = sources @ poses[:, :3, :3].mT + poses[:, None, :3, 3]
    index = _nearest(target, x)
    if not len(target.points):
        return poses.new_zeros(len(poses), 9)
    offset, m = x - target.points[index], target.normals[index]
    near = (index >= 0) & (offset.norm(dim=-1) <= reach)
    gap, dot = (offset * m).sum(-1).abs() / reach, (m * (normals @ poses[:, :3, :3].mT)).sum(-1)
    both, neither = marks & labels[index], ~marks & ~labels[index]
    touching, level = both & (dot < -0.5), (dot > 0.9) & (gap < 0.2)
    rows = [
        touching, touching & (gap < 1 / 3), touching & (gap < 1 / 8) & (dot < -0.9), touching * gap**2, touching * (1 + dot),
        neither & level, neither & ~level & (dot > -0.5), torch.where(both, dot > 0.5, dot < -0.5),
        neither & (dot > 0.5) & (offset.norm(dim=-1) < reach / 3),
    ]  # fmt: skip
    return torch.stack([(near * row * area).sum(1) for row in rows], 1)


def _step(pose: Tensor, centre: Tensor, x: Tensor, target: Tensor, gap: Tensor, weight: Tensor) -> Tensor:
    rows = torch.cat([torch.linalg.cross(x - centre, target), target], -1)
    matrix = rows.T @ (weight[:, None] * rows)
    mean = matrix.diagonal().mean()
    if not mean > 0:
        return pose
    turn, shift = torch.linalg.solve(
        matrix + 1e-3 * mean * torch.eye(6).to(x), -(rows * (weight * gap)[:, None]).sum(0)
    ).split(3)
    turn = turn.clamp(-0.3, 0.3)
    zero = torch.zeros_like(turn[0])
    cross = torch.stack([zero, -turn[2], turn[1], turn[2], zero, -turn[0], -turn[1], turn[0], zero]).view(3, 3)
    motion = torch.eye(4).to(x)
    motion[:3, :3] = torch.linalg.matrix_exp(cross)
    motion[:3, 3] = centre + shift - motion[:3, :3] @ centre
    return motion @ pose
