"""Shapes as level sets: a density whose slope is the same all over the surface, so that it tells how far away that is.

A radiance field that starts empty and learns from pictures becomes a fog which a ray crosses in many samples. Here the field starts
as the solid that the silhouettes allow, and keeps its slope (Gropp, Yariv, Haim, Atzmon, Lipman: Implicit Geometric Regularization
for Learning Shapes, 2020): a ray ends within a knot or two, and normals are those of a surface.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from fields.data.cameras import Cameras
from fields.tensorf.field import TensoRF

_FITTED = 300  # iterations
_POINTS = 8192  # of each of them
_LOOKED_AT = 2048  # places where the slope is held


def inflated(coverage: Tensor, cameras: Cameras, box: Tensor, resolution: Sequence[int]) -> Tensor:
    """(Nx, Ny, Nz) bool: the cells of a solid that one silhouette suggests. It is as deep as it is wide, and round: of a disc, a ball.

    Args:
        coverage: (H, W) in [0, 1], of the first of the cameras.
        box: (6,) around the object; the solid is about its middle.
        resolution: cells along x, y, z.
    """
    from scipy.ndimage import distance_transform_edt

    size = box[3:] - box[:3]
    axes = [box[a] + size[a] * (torch.arange(n, device=box.device) + 0.5) / n for a, n in enumerate(resolution)]
    cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)
    middle = (box[:3] + box[3:]) / 2
    step = 1e-3 * size.max()
    around = torch.cat([middle[None], middle + step * torch.eye(3, device=box.device), cells])
    xy, depth = cameras.project(torch.zeros(len(around), dtype=torch.long, device=box.device), around)
    scale = ((xy[1:4] - xy[0]).square().sum() / 2).sqrt() / step  # pixels per unit: it has two of three directions
    inward = torch.from_numpy(distance_transform_edt(np.asarray(coverage.cpu()) > 0.5)).to(box)
    width, height = coverage.shape[1], coverage.shape[0]
    column, row = xy[4:].floor().long().unbind(-1)
    seen = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    there = inward[row.clamp(0, height - 1), column.clamp(0, width - 1)] * seen
    high = (there * (2 * inward.max() - there)).clamp(min=0).sqrt()
    return ((depth[4:] - depth[0]).abs() * scale < high).view(*resolution)


class LevelSet:
    """What a field's density is held to.

    Args:
        field: of which the density feature f becomes, near the surface, −shift + slope · (distance to it, inwards).
        steepness: what f rises by within one knot of the finest grid.
        knot: that is so far from the next, scene units.
    """

    def __init__(self, field: TensoRF, steepness: float, knot: float) -> None:
        self.field, self.steepness, self.slope = field, steepness, steepness / knot

    def fill(self, occupied: Tensor, generator: torch.Generator) -> None:
        """Starts the field as the solid of occupied cells (Nx, Ny, Nz)."""
        from scipy.ndimage import distance_transform_edt

        field, box = self.field, self.field.aabb[3:] - self.field.aabb[:3]
        padded = np.pad(np.asarray(occupied.cpu()), 1)
        sampling = (box.cpu() / torch.tensor(occupied.shape)).tolist()
        depth = distance_transform_edt(padded, sampling=sampling) - distance_transform_edt(~padded, sampling=sampling)
        inward = torch.from_numpy(depth[1:-1, 1:-1, 1:-1]).to(box)
        wanted = (self.slope * inward - field.density_shift).permute(2, 1, 0)[None, None]
        optimiser = torch.optim.Adam(field.density_grid.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.1 ** (1 / _FITTED))
        for _ in range(_FITTED):
            x = torch.rand(_POINTS, 3, generator=generator, device=box.device) * 2 - 1
            value = grid_sample(wanted, x.view(1, 1, 1, -1, 3), align_corners=False, padding_mode="border").view(-1)
            near = 1 / (1 + (value + field.density_shift).abs() / (2 * self.steepness))
            optimiser.zero_grad()
            (near * (field.density_feature(x) - value).square()).mean().backward()
            optimiser.step()
            schedule.step()

    def sharpen(self, times: float) -> None:
        """Makes the surface so many times as thin, where it is."""
        self.field.steepen(times)
        self.slope *= times

    def penalty(self, eikonal: float, smooth: float, generator: torch.Generator) -> Tensor:
        """How much the slope differs, near the surface, from what it should be, and from that a knot away; squared, relative."""
        field, box = self.field, self.field.aabb[3:] - self.field.aabb[:3]
        x = torch.rand(8 * _LOOKED_AT, 3, generator=generator, device=box.device) * 2 - 1
        with torch.no_grad():
            level = field.level(x)
        x = x[level.abs() < 3 * self.steepness][:_LOOKED_AT]
        if not len(x):
            return level.new_zeros(())
        step = torch.randn(x.shape, generator=generator, device=box.device) * (2 * field.knot / box)
        _, slope = field.density_grid(torch.cat([x, (x + step).clamp(-1, 1)]), "sum", jacobian=True)
        here, beside = (slope * (2 / box) / self.slope).chunk(2)
        steep = (here.norm(dim=-1) - 1).square() + (beside.norm(dim=-1) - 1).square()
        return eikonal / 2 * steep.mean() + smooth * (here - beside).square().sum(-1).mean()
