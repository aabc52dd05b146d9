"""What a surface looks like around a point, in numbers that no rotation changes.

Break and original surface differ in roughness and in the edge between them, at any orientation; a small network that has
to learn that from coordinates spends itself on rotations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fields.core import VoxelHash

RADII = (0.015, 0.03, 0.06, 0.12)
"""Of the neighbourhoods, in sizes of the object."""
PER_RADIUS = 10
COUNT = PER_RADIUS * len(RADII) + 1


def invariants(points: Tensor, normals: Tensor, queries: Tensor, facing: Tensor, scale: float = 1.0) -> Tensor:
    """Rotation-invariant statistics of one fragment's surface around queries on it.

    Args:
        points, normals: (P, 3) the surface, densely; normals are unit and outwards.
        queries, facing: (Q, 3) points on it and their normals n.
        scale: size of the whole object, in the unit of the points; see `fields.garf.pose.object_scale`.
    Returns:
        (Q, COUNT) float32, about in [−1, 1]. For each radius, of the neighbours that face as the query does: their share;
        mean and deviation of their height over the tangent plane; how far their centre is to the side; deviations along the
        principal axes of their positions (3); 1 − mean of m·n, and deviations along the two principal axes of their normals m.
        Last, the thickness of the wall.
    """
    radii = torch.tensor(RADII, device=points.device) * scale
    sums, behind = VoxelHash(points, float(radii[2])).moments(normals, queries, facing, radii.tolist())
    r, n = radii[None, :, None], facing[:, None]
    count = sums[..., 1:2].clamp(min=1)
    centre, normal = sums[..., 2:5] / count / r, sums[..., 11:14] / count
    spread = _covariance(sums[..., 5:11] / count / r**2, centre)
    height = (centre * n).sum(-1, keepdim=True)
    roughness = torch.einsum("qa,qrab,qb->qr", facing, spread, facing).clamp(min=0).sqrt()[..., None]
    bent = _deviations(_covariance(sums[..., 14:20] / count, normal))[..., 1:]
    each = torch.cat([
        sums[..., 1:2] / sums[..., :1].clamp(min=1), height, roughness, (centre - height * n).norm(dim=-1, keepdim=True),
        _deviations(spread), 1 - (normal * n).sum(-1, keepdim=True), bent,
    ], -1)  # fmt: skip
    thickness = (behind / radii[-1]).clamp(max=1)[:, None]
    return torch.cat([each.flatten(1), thickness], 1).float()


def _covariance(second: Tensor, mean: Tensor) -> Tensor:
    """(…, 3, 3) from second moments (…, 6) xx, xy, xz, yy, yz, zz and means (…, 3)."""
    return symmetric(second) - mean[..., None] * mean[..., None, :]


def symmetric(six: Tensor) -> Tensor:
    """(…, 3, 3) from (…, 6) xx, xy, xz, yy, yz, zz."""
    return six[..., [0, 1, 2, 1, 3, 4, 2, 4, 5]].unflatten(-1, (3, 3))


def _deviations(covariance: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt()
