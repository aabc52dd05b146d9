"""The visual hull: cells that some camera sees to be empty."""

from __future__ import annotations

import torch
from torch import Tensor

from fields.data.scene import Split


@torch.no_grad()
def visual_hull(split: Split, aabb: Tensor, resolution: tuple[int, int, int]) -> Tensor:
    """(Nx, Ny, Nz) bool: False where a camera that sees the whole cell has only transparent pixels there.

    A cell's footprint in an image is bounded by the disc around its projected centre whose radius is the cell's
    half diagonal; the image is blurred to the coarsest level of a max pyramid that covers the disc, so one look-up
    decides. An image says nothing of cells outside it. Cells that fewer than half of the images see whole are
    empty, too: images with alpha are framed around their object, and fog right before a camera would cost nothing.

    Args:
        split: images with alpha.
        aabb: (6,) box.
        resolution: cells along x, y, z.
    """
    size = aabb[3:] - aabb[:3]
    cell = size / torch.tensor(resolution, device=aabb.device)
    axes = [aabb[a] + (torch.arange(n, device=aabb.device) + 0.5) * cell[a] for a, n in enumerate(resolution)]
    centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
    half_diagonal = float(cell.norm() / 2)
    alive = torch.arange(centres.shape[0], device=aabb.device)
    sightings = torch.zeros_like(alive)
    for i in range(len(split)):
        camera = split.cameras[i]
        xy, depth = camera.project(torch.zeros_like(alive), centres[alive])
        # Pixels of the half diagonal at the nearest remaining cell bound those of every other.
        nearest = depth[depth > half_diagonal].min() if (depth > half_diagonal).any() else depth.new_tensor(1.0)
        radius = int((half_diagonal * camera.fx.max() / nearest).ceil()) + 1
        solid = (split.images.image(i)[..., 3] > 0)[None, None].float()
        for window in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
            solid = torch.nn.functional.max_pool2d(solid, window, 1, [k // 2 for k in window])
        solid = solid[0, 0] > 0
        height, width = solid.shape
        column, row = xy.floor().long().unbind(-1)
        seen = (depth > half_diagonal) & (column >= radius) & (column < width - radius)
        seen &= (row >= radius) & (row < height - radius)
        sightings[alive[seen]] += 1
        empty = seen.clone()
        empty[seen] = ~solid[row[seen], column[seen]]
        alive = alive[~empty]
    hull = torch.zeros(centres.shape[0], dtype=torch.bool, device=aabb.device)
    hull[alive[2 * sightings[alive] >= len(split)]] = True
    return hull.view(*resolution)
