"""Depth and normals of a field from given cameras."""

from __future__ import annotations

import torch
from torch import Tensor

from fields.data.cameras import Cameras
from fields.geometry.points import stopping_depth
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
    parts = zip(origins.view(-1, 3).split(_CHUNK), directions.view(-1, 3).split(_CHUNK), strict=True)
    normals = torch.cat([field.normals(*part) for part in parts]).view(directions.shape)
    depth = stopping_depth(field, cameras, index)
    hit = depth.isfinite()
    return torch.where(hit, depth, 0.0), normals * hit[..., None]
