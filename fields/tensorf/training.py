"""Training a TensoRF, in the order of the paper: loss, step, learning rate, occupancy and shrink, upsampling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fields.data.scene import Scene
from fields.tensorf.config import TensorfConfig
from fields.tensorf.field import TensoRF
from fields.tensors import resolution_for
from fields.training.carving import extent, visual_hull
from fields.training.pixels import rows_near_silhouettes
from fields.training.radiance import TOO_EARLY, RadianceTraining


class TensorfTraining(RadianceTraining):
    """Fits a TensoRF."""

    config: TensorfConfig
    field: TensoRF
    field_class: type[TensoRF] = TensoRF

    def __init__(self, config: TensorfConfig, scene: Scene, seed: int, field: TensoRF | None = None) -> None:
        rows = rows_near_silhouettes(scene.train.images, 3) if config.carve and scene.alpha else None
        self.shrunk = self.focused = False
        super().__init__(config, scene, seed, field, rows)

    def field_arguments(self) -> dict[str, Any]:
        """What the field is made with, beside its box and resolution."""
        names = ("layout", "density_rank", "appearance_rank", "decoder", "feature_dim", "hidden", "frequencies",
                 "density_shift", "distance_scale", "step_ratio", "shading_threshold", "marching")  # fmt: skip
        return {name: getattr(self.config, name) for name in names}

    def new_field(self, seed: int) -> TensoRF:
        c, scene = self.config, self.scene
        box, occupied = scene.aabb.flatten(), None
        if c.carve and scene.alpha:
            box, occupied = self._carved()
        torch.manual_seed(seed)
        field = self.field_class(
            aabb=box.tolist(),
            resolution=list(resolution_for(box.view(2, 3), c.voxels[0])),
            near=scene.near,
            far=scene.far,
            **self.field_arguments(),
        )
        if occupied is not None:
            field.occupied = occupied
        return field

    def _carved(self) -> tuple[Tensor, Tensor]:
        """Box and occupancy from the silhouettes."""
        box, split, cells = self.scene.aabb.flatten(), self.scene.train, self.config.voxels[0]
        hull = visual_hull(split, box, resolution_for(box.view(2, 3), cells))
        if not hull.any():
            raise self.nothing_left("the silhouettes of the images have no volume in common")
        box, _ = extent(box, hull)
        return box, visual_hull(split, box, resolution_for(box.view(2, 3), cells))

    def factor_optimiser(self) -> torch.optim.Adam:
        factors = [*self.field.density_grid.parameters(), *self.field.appearance_grid.parameters()]
        return self.adam(factors, self.config.rate_factors)

    def recordable(self) -> bool:
        return super().recordable() and self.config.marching == "fields" and self.config.decoder != "tcnn"

    def penalty(self) -> Tensor | float:
        c, field = self.config, self.field
        total: Tensor | float = 0.0
        if (l1 := c.l1[self.shrunk]) > 0:
            total = total + l1 * field.density_grid.l1()
        if c.tv_density > 0:
            total = total + c.tv_density * self.decay * field.density_grid.total_variation()
        if c.tv_appearance > 0:
            total = total + c.tv_appearance * self.decay * field.appearance_grid.total_variation()
        return total

    # ------------------------------------------------------------------------------------ the schedule

    def resolutions(self) -> Iterator[float]:
        """Cells after each upsampling: linear in the logarithm of their number."""
        first, last = (math.log(v) for v in self.config.voxels)
        steps = len(self.config.upsample_at)
        for k in range(1, steps + 1):
            yield round(math.exp(first + (last - first) * k / steps))

    def milestones(self, done: int) -> None:
        c, field = self.config, self.field
        if done in c.occupancy_at:
            finest = min(c.voxels[1], 256**3)
            resolution = field.resolution
            if math.prod(resolution) > finest:
                resolution = resolution_for(field.aabb.view(2, 3), finest)
            before = field.occupied
            field.update_occupancy(c.occupancy_threshold, resolution)
            if done < TOO_EARLY and not field.occupied.any():
                field.occupied = before  # the field has only begun to form
                return
            if not field.occupied.any():
                raise self.nothing_left(
                    f"after {done} iterations no cell reaches the opacity {c.occupancy_threshold:g}"
                )
            if done == c.occupancy_at[0]:
                field.shrink()
                self.shrunk = True
                self.rebuild()
            if done == c.occupancy_at[-1] and self.scene.alpha and not c.carve:
                self._focus()
        if done in c.upsample_at:
            voxels = list(self.resolutions())[c.upsample_at.index(done)]
            field.upsample(resolution_for(field.aabb.view(2, 3), voxels))
            self.rebuild()

    def _focus(self) -> None:
        """Draw only rays that may meet something. The paper's code looks 256 steps far; here it is the whole way."""
        self.pixels.keep(self.field.reaches)
        self.focused = True

    # ------------------------------------------------------------------------------------ exact resume

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors, plain = super().state()
        return tensors, plain | {"shrunk": self.shrunk, "focused": self.focused}

    def recall(self, plain: dict) -> None:
        self.shrunk = plain["shrunk"]
        if plain["focused"]:  # box and occupancy are what they were then: the same rays
            self._focus()
