"""Shapes as level sets: a density whose slope is the same all over the surface, so that it tells how far away that is.

A radiance field that starts empty and learns from pictures becomes a fog which a ray crosses in many samples. Here the field starts
as the solid that the silhouettes allow, and keeps its slope (Gropp, Yariv, Haim, Atzmon, Lipman: Implicit Geometric Regularization
for Learning Shapes, 2020): a ray ends within a knot or two, and normals are those of a surface.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn.functional import grid_sample

from fields.tensorf.field import TensoRF

_FITTED = 300  # iterations
_POINTS = 8192  # of each of them
_LOOKED_AT = 2048  # places where the slope is held


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

    @property
    def spacing(self) -> float:
        """Mean, of the knots, scene units."""
        return self.field.step_size / self.field.step_ratio

    def penalty(self, eikonal: float, smooth: float, generator: torch.Generator) -> Tensor:
        """How much the slope differs, near the surface, from what it should be, and from that a knot away; squared, relative."""
        field, box = self.field, self.field.aabb[3:] - self.field.aabb[:3]
        x = torch.rand(8 * _LOOKED_AT, 3, generator=generator, device=box.device) * 2 - 1
        with torch.no_grad():
            level = field.density_feature(x) + field.density_shift
        x = x[level.abs() < 3 * self.steepness][:_LOOKED_AT]
        if not len(x):
            return level.new_zeros(())
        step = torch.randn(x.shape, generator=generator, device=box.device) * (2 * self.spacing / box)
        _, slope = field.density_grid(torch.cat([x, (x + step).clamp(-1, 1)]), "sum", jacobian=True)
        here, beside = (slope * (2 / box) / self.slope).chunk(2)
        steep = (here.norm(dim=-1) - 1).square() + (beside.norm(dim=-1) - 1).square()
        return eikonal / 2 * steep.mean() + smooth * (here - beside).square().sum(-1).mean()
