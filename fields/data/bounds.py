"""The box that a field lives in, and how near and far to march, from whatever a scene offers.

A box too large wastes resolution on air; one too small leaves pixels that nothing can explain, which
training then paints onto fog in front of the cameras. So, in this order: what the format says · the known
box of NeRF-synthetic scenes · the visual hull of the masks · the sparse points · where the cameras look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fields.data.cameras import Cameras
from fields.data.images import ImageStore

BLENDER_DISTANCE = 4.03
"""Camera distance of the NeRF-synthetic scenes, whose box is +-1.5, near 2, far 6."""


@dataclass
class Bounds:
    aabb: Tensor
    """(2, 3) float32."""
    near: float
    far: float
    note: str
    """How they were chosen, one sentence."""


def focus(cameras: Cameras) -> tuple[Tensor, float, bool]:
    """The point closest to all viewing axes (3,) float64, the median camera distance to it, and whether it
    is meaningful: most cameras have it in front of them and their axes are not all parallel."""
    o, d = cameras.centres.double().cpu(), cameras.forward.double().cpu()
    point, across = nearest_to_lines(o, d)
    ahead = ((point - o) * d).sum(-1)
    distance = float((point - o).norm(dim=-1).median())
    spread = float(torch.linalg.eigvalsh(across)[0])  # 0 when parallel, 2/3 from all around
    return point, distance, bool((ahead > 0).double().mean() > 0.8) and spread > 2e-3


def nearest_to_lines(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The point (3,) closest to lines (N, 3), (N, 3), and the mean (3, 3) of what projects onto the planes normal to them."""
    eye = torch.eye(3, dtype=origins.dtype, device=origins.device)
    across = eye - directions[:, :, None] * directions[:, None, :]
    # A weak pull towards the mean origin keeps parallel lines solvable.
    a = across.mean(0) + 1e-6 * eye
    b = (across @ origins[:, :, None]).mean(0)[:, 0] + 1e-6 * origins.mean(0)
    return torch.linalg.solve(a, b), across.mean(0)


def choose_bounds(
    cameras: Cameras,
    *,
    images: ImageStore | None = None,
    points: Tensor | None = None,
    given: Tensor | None = None,
    given_note: str = "",
    depth_ranges: Tensor | None = None,
    blender: bool = False,
) -> Bounds:
    """Box, near and far. Args: `points` (P, 3) sparse points, `given` (2, 3) the format's own box, both
    world; `images` with alpha allow a visual hull; `blender` means a NeRF-synthetic scene."""
    centre, distance, converges = focus(cameras)
    if given is not None:
        aabb, note = given.double(), f"box: {given_note}"
    elif blender and converges and abs(distance / BLENDER_DISTANCE - 1) < 0.1 and float(centre.norm()) < 0.5:
        box = torch.tensor([[-1.5] * 3, [1.5] * 3])
        return Bounds(box, 2.0, 6.0, "box ±1.5, near 2, far 6: the standard of NeRF-synthetic scenes")
    else:
        aabb, note = _find_box(cameras, images, points, depth_ranges, centre, distance, converges)
    near, far = near_far_of(cameras, aabb, points, distance if converges else None)
    if depth_ranges is not None:
        near = 0.9 * float(depth_ranges[:, 0].min())
    return Bounds(aabb.float(), near, far, f"{note}; near {near:.3g}, far {far:.3g}")


def _find_box(
    cameras: Cameras,
    images: ImageStore | None,
    points: Tensor | None,
    depth_ranges: Tensor | None,
    centre: Tensor,
    distance: float,
    converges: bool,
) -> tuple[Tensor, str]:
    if converges and images is not None and images.channels == 4 and len(images) == len(cameras):
        box = hull_box(cameras, images, centre, 0.75 * distance)
        if box is not None:
            return box, f"box: visual hull of the masks of {min(len(cameras), 40)} images, padded"
    if points is not None and len(points) >= 50:
        return points_box(points, centre, distance if converges else None), (
            f"box: 1st to 99th percentile of {len(points)} sparse points, padded by 10 %"
        )
    if depth_ranges is not None:
        p = frustum_points(cameras, depth_ranges).double()
        box = torch.stack([p.min(0).values, p.max(0).values])
        return box, "box: what the cameras see within their depth ranges"
    o = cameras.centres.double().cpu()
    if converges:
        # What all cameras look at, with as much around it as lies between it and the cameras.
        half = torch.full((3,), distance, dtype=torch.float64)
        box = torch.stack([centre - half, centre + half])
        return box, "box: around the point the cameras look at, up to their distance"
    lo, hi = o.min(0).values, o.max(0).values
    reach = 4 * max(float((hi - lo).max()), 1e-3)
    ahead = cameras.forward.double().cpu().mean(0) * reach
    corners = torch.stack([lo - 0.1 * reach, hi + 0.1 * reach, lo + ahead - 0.5 * reach, hi + ahead + 0.5 * reach])
    return torch.stack([corners.min(0).values, corners.max(0).values]), (
        "box: in front of the cameras, four times as deep as they are apart (their axes do not meet)"
    )


def points_box(points: Tensor, centre: Tensor, distance: float | None) -> Tensor:
    """(2, 3) robust box of sparse points; a distant background is cut at six camera distances, where a
    finite grid would spend all its resolution."""
    p = points.double().cpu().numpy()
    lo, hi = (torch.from_numpy(x) for x in np.percentile(p, [1, 99], axis=0))
    pad = 0.1 * (hi - lo) + 0.02 * (hi - lo).max()
    lo, hi = lo - pad, hi + pad
    if distance is not None:
        lo, hi = torch.maximum(lo, centre - 6 * distance), torch.minimum(hi, centre + 6 * distance)
    return torch.stack([lo, hi])


def frustum_points(cameras: Cameras, depth_ranges: Tensor) -> Tensor:
    """(N * 8, 3) the corners of every picture, at its nearest and its farthest depth ("z")."""
    index = torch.arange(len(cameras)).repeat_interleave(4)
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).repeat(len(cameras), 1)
    xy = corner * torch.stack([cameras.width, cameras.height], -1)[index]
    o, d = cameras.rays(index, xy)
    along = (d * cameras.forward[index]).sum(-1).clamp_min(0.1)
    return torch.cat([o + d * (depth_ranges[index, k] / along).float()[:, None] for k in (0, 1)])


def near_far_of(cameras: Cameras, aabb: Tensor, points: Tensor | None, distance: float | None) -> tuple[float, float]:
    """near: half the distance of the nearest sparse points, else where other cameras begin to see what one
    sees. far: beyond the box for every camera."""
    o = cameras.centres.double().cpu()
    corners = torch.cartesian_prod(*aabb.double().cpu().T)
    far = 1.25 * float(torch.cdist(o, corners).max())  # test cameras may stand further away
    if points is not None and len(points) >= 50:
        near = 0.5 * _nearest_points(cameras, points)
    else:
        near = 0.8 * _overlap_starts(cameras, far)
    if distance is not None:
        near = min(near, 0.5 * distance)
    return max(near, 1e-3 * far), far


def _nearest_points(cameras: Cameras, points: Tensor) -> float:
    """The 1st percentile, over all views, of the distance of the sparse points inside the picture."""
    keep = points[:: max(1, len(points) // 2000)].float()
    depths = []
    for i in range(0, len(cameras), max(1, len(cameras) // 50)):
        xy, depth = cameras.project(torch.full((len(keep),), i), keep)
        inside = (depth > 0) & _in_picture(cameras, i, xy)
        depths.append((keep[inside] - cameras.centres[i]).norm(dim=-1))
    depth = torch.cat(depths)
    return float(depth.quantile(0.01)) if 0 < len(depth) < 10_000_000 else 0.0


def _overlap_starts(cameras: Cameras, far: float) -> float:
    """Along the viewing axes: from which distance a tenth of the cameras see the point (30th percentile of
    cameras). What is nearer can hardly be told from fog in front of the lens, so it is not marched."""
    some = torch.arange(0, len(cameras), max(1, len(cameras) // 40))
    t = torch.logspace(-3, 0, 40) * far
    probes = cameras.centres[some][:, None] + cameras.forward[some][:, None] * t[:, None]  # (S, T, 3)
    flat, seen = probes.reshape(-1, 3), torch.zeros(probes.shape[0] * probes.shape[1])
    for i in some.tolist():
        xy, depth = cameras.project(torch.full((len(flat),), i), flat)
        inside = (depth > 0) & _in_picture(cameras, i, xy)
        seen += inside.float()
    enough = (seen.view(len(some), -1) >= max(3, 0.1 * len(some))).float()
    first = torch.where(enough.any(-1), t[enough.argmax(-1)], torch.tensor(0.0))
    return float(first.quantile(0.3))


def _in_picture(cameras: Cameras, i: int, xy: Tensor) -> Tensor:
    return (xy >= 0).all(-1) & (xy[:, 0] < cameras.width[i]) & (xy[:, 1] < cameras.height[i])


def hull_box(cameras: Cameras, images: ImageStore, centre: Tensor, half: float, resolution: int = 48) -> Tensor | None:
    """(2, 3) box of the points that every view's alpha allows, or None if nothing is left."""
    some = torch.linspace(0, len(cameras) - 1, min(len(cameras), 40)).round().long()
    axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    grid = torch.cartesian_prod(axis, axis, axis) * half + centre.float()
    against, seen = torch.zeros(len(grid)), torch.zeros(len(grid))
    cell = 2 * half / resolution
    for i in some.tolist():
        # Widened by a cell, so that a thin part between two probes still counts; a small copy is quicker.
        opaque = (images.image(i)[:, :, 3] > 12).float()[None, None]
        k = max(1, max(opaque.shape) // 160)
        small = F.max_pool2d(opaque, k, ceil_mode=True)
        pixels = float(cameras.fx[i]) * cell / max(float((cameras.centres[i] - centre).norm()), 1e-6) / k
        r = max(1, round(0.5 * pixels))
        allowed = F.max_pool2d(small, 2 * r + 1, stride=1, padding=r)[0, 0] > 0
        xy, depth = cameras.project(torch.full((len(grid),), i), grid)
        inside = (depth > 0) & _in_picture(cameras, i, xy)
        x, y = (torch.where(inside, xy[:, a] / k, 0.0).long() for a in (0, 1))
        seen += inside
        against += inside & ~allowed[y, x]
    # A few wrong masks must not carve the object away; a corner that few cameras see is no evidence of an
    # object.
    kept = grid[(against <= 0.03 * len(some)) & (seen >= 0.5 * len(some))]
    if len(kept) == 0:
        return None
    lo, hi = kept.double().min(0).values, kept.double().max(0).values
    return torch.stack([lo - 1.5 * cell, hi + 1.5 * cell])
