"""Depth and normals of a field from given cameras."""

from __future__ import annotations

import torch
from torch import Tensor

from fields.data.cameras import Cameras
from fields.geometry.points import stops
from fields.radiance import RadianceField

_CHUNK = 16_384  # rays at once


@torch.no_grad()
def depth_and_normals(field: RadianceField, cameras: Cameras, index: int = 0) -> tuple[Tensor, Tensor]:
    """What one camera sees of the surface.

    Returns:
        depth (H, W) along the viewing axis ("z"), scene units, of where rays have lost half their light, and 0 where they do
        not: a place that is always in something, unlike the mean distance of `Rendering.depth`.
        normals (H, W, 3), unit in the world frame, zero where the depth is.
    """
    cameras = cameras.to(field.aabb.device)
    origins, directions = cameras.image_rays(index)
    shape, axis = directions.shape[:2], cameras.forward[index]
    depths, normals = [], []
    for o, d in zip(origins.view(-1, 3).split(_CHUNK), directions.view(-1, 3).split(_CHUNK), strict=True):
        distance = stops(field, o, d)
        hit = distance.isfinite()
        depths.append(torch.where(hit, distance * (d @ axis), 0.0))
        normals.append(field.normals(o, d) * hit[:, None])
    return torch.cat(depths).view(shape), torch.cat(normals).view(*shape, 3)
