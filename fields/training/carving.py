"""The visual hull: cells that some camera sees to be empty."""

from __future__ import annotations

import torch
from torch import Tensor

from fields.data.scene import Split


@torch.no_grad()
def visual_hull(split: Split, aabb: Tensor, resolution: tuple[int, int, int]) -> Tensor:
    """(Nx, Ny, Nz) bool: False where a camera that sees the whole cell has only transparent pixels there.

    A cell's footprint in an image is bounded by the disc around its projected centre whose radius is the cell's half
    diagonal. Radii are rounded up to a few, and squares stand for discs. An image says
    nothing of cells it does not see whole. Cells that fewer than half of the images see whole are empty, too: images
    with alpha are framed around their object, and fog right before a camera would cost nothing.

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
    radii = torch.tensor([2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64], device=aabb.device)  # pixels
    for i in range(len(split)):
        camera = split.cameras[i]
        xy, depth = camera.project(torch.zeros_like(alive), centres[alive])
        solid = split.images.image(i)[..., 3] > 0
        height, width = solid.shape
        # How many pixels above and to the left of a corner are solid: four of these tell how many a square holds.
        counts = torch.nn.functional.pad(solid.cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32), (1, 0, 1, 0))
        column, row = xy.floor().long().unbind(-1)
        radius = half_diagonal * camera.fx.max() / depth.clamp(min=half_diagonal) + 1
        level = torch.bucketize(radius, radii.to(radius))  # the first that is no smaller
        reach = radii[level.clamp(max=len(radii) - 1)]
        seen = (depth > half_diagonal) & (level < len(radii)) & (column >= reach) & (column < width - reach)
        seen &= (row >= reach) & (row < height - reach)
        sightings[alive[seen]] += 1
        x, y, r = column[seen], row[seen], reach[seen]
        held = counts[y + r + 1, x + r + 1] - counts[y - r, x + r + 1] - counts[y + r + 1, x - r] + counts[y - r, x - r]
        empty = seen.clone()
        empty[seen] = held == 0
        alive = alive[~empty]
    hull = torch.zeros(centres.shape[0], dtype=torch.bool, device=aabb.device)
    hull[alive[2 * sightings[alive] >= len(split)]] = True
    return hull.view(*resolution)


def extent(aabb: Tensor, cells: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
    """The part of a box (6,) in which its cells (Nx, Ny, Nz) are True, at whole cells, and the window of the cells there."""
    filled = cells.nonzero()
    first, last = filled.min(0).values, filled.max(0).values + 1
    size = (aabb[3:] - aabb[:3]) / torch.tensor(cells.shape, device=aabb.device)
    window = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return torch.cat([aabb[:3] + first * size, aabb[:3] + last * size]), window
