"""How far fragments are from where they belong, in the measures of the papers, stated exactly.

Lengths are in longest sides of the assembled object's box. The world is the frame of the anchor, which is where it belongs by
definition; every mean is given with it, as published, and what is new here without.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import roma
import torch
from torch import Tensor

from fields.core import knn

LOOSE, STRICT = 0.01, 1e-4
"""Squared distances: the published threshold of part accuracy, about 7 % of the object, and one of 0.7 %."""


def reassembly_errors(points: list[Tensor], found: Tensor, true: Tensor, anchor: int) -> dict[str, float]:
    """Of one object.

    Args:
        points: for each fragment (N, 3), in its own frame.
        found, true: (P, 4, 4) from each fragment's frame to the anchor's.
        anchor: index of the fragment that both are given relative to.
    Returns:
        rmse_r: degrees; per fragment the root mean square of the differences of Euler angles x, y, z (intrinsic), each the short way
        around, then the mean over fragments: what the papers call RMSE(R). geodesic: mean angle of rotation between the two, degrees.
        rmse_t: per fragment the root mean square over x, y, z, of where its centre comes to lie, then the mean.
        part_accuracy, part_accuracy_strict: share of fragments whose two clouds have a Chamfer distance (sum of both
        means of squared distances) below 0.01, 1e-4. chamfer: the same measure between each fragment's cloud and the whole object's,
        averaged over fragments. solved: 1 where all fragments are right by the strict measure. Names that end in _rest are
        without the anchor.
    """
    from scipy.spatial.transform import Rotation

    found, true = found.double(), true.double()
    euler = [Rotation.from_matrix(t[:, :3, :3].numpy()).as_euler("XYZ", degrees=True) for t in (found, true)]
    off = np.abs(euler[0] - euler[1]) % 360
    rmse_r = np.sqrt((np.minimum(off, 360 - off) ** 2).mean(1))
    geodesic = torch.rad2deg(roma.rotmat_geodesic_distance(found[:, :3, :3], true[:, :3, :3])).numpy()
    clouds = [
        [x.double() @ t[:3, :3].T + t[:3, 3] for x, t in zip(points, poses, strict=True)] for poses in (found, true)
    ]
    rmse_t = np.array([float((a.mean(0) - b.mean(0)).square().mean().sqrt()) for a, b in zip(*clouds, strict=True)])
    distance = np.array([_squared(a, b).mean() + _squared(b, a).mean() for a, b in zip(*clouds, strict=True)])
    all_found, all_true = torch.cat(clouds[0]), torch.cat(clouds[1])
    chamfer = np.array(
        [_squared(a, all_true).mean() + _squared(b, all_found).mean() for a, b in zip(*clouds, strict=True)]
    )
    rest = np.arange(len(points)) != anchor
    results = {
        "rmse_r": rmse_r.mean(), "geodesic": geodesic.mean(), "rmse_t": rmse_t.mean(), "chamfer": chamfer.mean(),
        "part_accuracy": (distance < LOOSE).mean(), "part_accuracy_strict": (distance < STRICT).mean(),
        "part_accuracy_rest": (distance < LOOSE)[rest].mean(), "part_accuracy_strict_rest": (distance < STRICT)[rest].mean(),
        "geodesic_rest": geodesic[rest].mean(), "solved": float((distance < STRICT).all()),
    }  # fmt: skip
    return {name: float(value) for name, value in results.items()}


def mean_of(results: Iterable[dict[str, float]]) -> dict[str, float]:
    """Means over objects."""
    rows = list(results)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """From each point of a to the nearest of b."""
    return knn(b, a, 1)[1][:, 0] ** 2
