"""Plain-PyTorch twin of ``fields.core.neighbours``: all distances, then a stable sort or sums."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def morton_encode(cells: Tensor) -> Tensor:
    keys = torch.zeros_like(cells[:, 0])
    for bit in range(21):
        for axis in range(3):
            keys |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return keys


def morton_decode(keys: Tensor) -> Tensor:
    cells = torch.zeros(len(keys), 3, dtype=torch.int64, device=keys.device)
    for bit in range(21):
        for axis in range(3):
            cells[:, axis] |= (keys >> (3 * bit + axis) & 1) << bit
    return cells


def _sorted_distances(points: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    distances = (queries[:, None] - points[None]).norm(dim=-1).nan_to_num(nan=torch.inf)
    return torch.sort(distances, dim=-1, stable=True)


def knn(points: Tensor, queries: Tensor, k: int, max_radius: float) -> Tensor:
    distances, indices = _sorted_distances(points, queries)
    found = torch.full((len(queries), k), -1, dtype=torch.int64, device=points.device)
    have = min(k, len(points))
    good = distances[:, :have].isfinite() & (distances[:, :have] <= max_radius)
    found[:, :have] = torch.where(good, indices[:, :have], found[:, :have])
    return found


def radius(points: Tensor, queries: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    distances, indices = _sorted_distances(points, queries)
    within = distances <= radius
    return indices[within], within.sum(-1)


def moments(
    points: Tensor, normals: Tensor, queries: Tensor, facing: Tensor, radii: Sequence[float]
) -> tuple[Tensor, Tensor]:
    d = points[None] - queries[:, None]
    distance, height = d.norm(dim=-1), (d * facing[:, None]).sum(-1)
    agree = facing @ normals.T > 0
    upper = torch.triu_indices(3, 3)
    m = normals[None].expand_as(d)
    terms = torch.cat(
        [d, (d[..., None] * d[..., None, :])[..., *upper], m, (m[..., None] * m[..., None, :])[..., *upper]], -1
    )
    rows = []
    for radius in radii:
        within = distance <= radius
        both = (within & agree).to(points)
        rows.append(torch.cat([within.sum(-1, keepdim=True).to(points), both.sum(-1, keepdim=True), torch.einsum("qp,qpt->qt", both, terms)], -1))  # fmt: skip
    opposite = ~agree & (height < 0) & (2 * height**2 >= distance**2) & (distance <= radii[-1])
    behind = (
        torch.where(opposite, distance, torch.inf).amin(-1)
        if len(points)
        else queries.new_full((len(queries),), torch.inf)
    )
    return torch.stack(rows, 1).nan_to_num(nan=0.0), behind
