"""Training a Strivec: geometry, placement, then iterations of rays with upsampling and re-placement in between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fields.core.box_adam import BoxAdam
from fields.data.scene import Scene
from fields.radiance import RadianceField, dilate
from fields.strivec.config import StrivecConfig
from fields.strivec.field import Strivec
from fields.strivec.placement import (
    find_geometry,
    knots_within,
    lattice_cells,
    occupied_centres,
    pixel_size,
    visible_cells,
)
from fields.training.pixels import rows_near_silhouettes
from fields.training.radiance import TOO_EARLY, RadianceTraining

_MOST_GROWTH = 4  # of the ranks, by whole multiples
_STEPS, _POINTS = 150, 20_000  # of the imitation: a few seconds on two cores


class StrivecTraining(RadianceTraining):
    """Fits a Strivec."""

    config: StrivecConfig
    field: Strivec
    field_class = Strivec

    def __init__(self, config: StrivecConfig, scene: Scene, seed: int, field: Strivec | None = None) -> None:
        rows = rows_near_silhouettes(scene.train.images, 3) if scene.alpha else None
        super().__init__(config, scene, seed, field, rows)

    # ------------------------------------------------------------------------------------ placement

    def new_field(self, seed: int) -> Strivec:
        c, scene = self.config, self.scene
        box, occupied, coarse = find_geometry(c, scene, seed)
        points = occupied_centres(box, occupied)
        unit = float((box[3:] - box[:3]).max()) * (1e6 / c.budget()) ** 0.5 if c.spacing_unit == "geometry" else 1.0
        spacing = [unit * s for s in c.spacing]
        overlap = c.overlap * len(spacing) if len(c.overlap) == 1 else c.overlap
        cells = [lattice_cells(points, box[:3], s) for s in spacing]
        names = ("initial", "weights", "nearest", "average_density", "average_appearance", "clamp_weights", "feature_dim",
                 "hidden", "frequencies", "density_shift", "distance_scale", "step_ratio", "shading_threshold")  # fmt: skip
        arguments = {name: getattr(c, name) for name in names} | {
            "aabb": box.tolist(), "near": scene.near, "far": scene.far, "low": box[:3].tolist(), "spacing": spacing,
            "half_edge": [o * s / 2 for o, s in zip(overlap, spacing, strict=True)], "boxes": [len(b) for b in cells], "knots": [2] * len(cells),
            "density_rank": list(c.density_rank), "appearance_rank": list(c.appearance_rank),
            "occupancy_resolution": list(occupied.shape),
        }  # fmt: skip
        # The budget wants to know the boxes, the ranks and the network; the knots come last. Knots closer than half a
        # pixel resolve nothing that the pictures show, and cost samples: from there on, a budget buys ranks.
        finest = pixel_size(scene, box) / 2
        for grown in range(1, _MOST_GROWTH + 1):
            ranks = {name: [grown * r for r in getattr(c, name)] for name in ("density_rank", "appearance_rank")}
            final = self._final_knots(Strivec(**(arguments | ranks)))
            apart = 2 * arguments["half_edge"][0] / (final[0] - 1)
            if c.cells or apart > finest:
                break
        arguments |= ranks
        torch.manual_seed(seed)
        start = [k + 1 for k in c.cells_start] or [max(3, round((k - 1) / 3) + 1) for k in final]
        field = Strivec(**(arguments | {"knots": start}))
        field.occupied = dilate(occupied)
        for s, of_scale in enumerate(cells):
            setattr(field, f"cells_{s}", of_scale.int())
        if coarse is not None and c.imitate:
            vectors = field.to(scene.aabb.device).density_cloud.parameters()
            imitate(field, coarse, torch.optim.Adam(vectors, c.rate_factors / 2))
        return field

    def _final_knots(self, field: Strivec) -> list[int]:
        c = self.config
        if c.cells:
            return [k + 1 for k in c.cells]
        network = sum(p.numel() for p in field.decoder.parameters())
        ranks = [a + b for a, b in zip(field.density_cloud.ranks, field.appearance_cloud.ranks, strict=True)]
        return knots_within(c.budget(), [len(b) for b in field.cells], [2 * h for h in field.half_edge], ranks, network)

    # ------------------------------------------------------------------------------------ one iteration

    def factor_optimiser(self) -> BoxAdam:
        density, appearance = (cloud.parameters() for cloud in (self.field.density_cloud, self.field.appearance_cloud))
        groups = [{"params": list(density), "l1": self.config.l1}, {"params": list(appearance)}]
        return BoxAdam(groups, self.rate(self.config.rate_factors))

    def jitter(self, n: int) -> Tensor | None:
        return super().jitter(n) if self.config.jitter else None

    # ------------------------------------------------------------------------------------ the schedule

    def milestones(self, done: int) -> None:
        c = self.config
        if done in (*c.replace_at, *c.upsample_at, c.iterations):
            self.optimisers["factors"].settle()  # type: ignore[attr-defined]
        if done in c.replace_at:
            self._replace(done)
        if done in c.upsample_at:
            left = len([at for at in c.upsample_at if at > done])
            now, final = self.field.knots, self._final_knots(self.field)
            # In equal ratios from where it is to where it ends.
            step = [
                max(k, round((k - 1) * ((f - 1) / (k - 1)) ** (1 / (left + 1))) + 1)
                for k, f in zip(now, final, strict=True)
            ]
            self.field.upsample(step)
            self.rebuild()

    def _replace(self, done: int) -> None:
        """Forgets the cells that no ray sees anything in, and the boxes without a cell left."""
        field = self.field
        seen = visible_cells(field, self.pixels, self.config.visible_weight)
        if not seen.any():
            if done < TOO_EARLY:
                return
            raise self.nothing_left(f"after {done} iterations no training ray sees anything")
        field.occupied = dilate(seen) & field.occupied
        points = occupied_centres(field.aabb, seen)
        kept = []
        for cells, spacing in zip(field.cells, field.spacing, strict=True):
            wanted = lattice_cells(points, field.aabb[:3], spacing)
            lattice = torch.zeros(
                *torch.maximum(cells.amax(0), wanted.amax(0)) + 1, dtype=torch.bool, device=points.device
            )
            lattice[wanted.unbind(1)] = True
            kept.append(lattice[cells.long().unbind(1)])
        if not all(k.all() for k in kept):
            field.keep_boxes(kept)
            self.rebuild()


def imitate(field: RadianceField, coarse: RadianceField, optimiser: torch.optim.Optimizer) -> None:
    """Fits the density of a field to that of a coarse one, at random points of its occupied cells.

    A field that starts as noise has to find the geometry again, and from photographs it finds another: veils in front of
    each camera.
    """
    cells = occupied_centres(field.aabb, field.occupied)
    edge = (field.aabb[3:] - field.aabb[:3]) / torch.tensor(field.occupied.shape, device=cells.device)
    for _ in range(_STEPS):
        near = cells[torch.randint(len(cells), (_POINTS,), device=cells.device)]
        points = near + (torch.rand_like(near) - 0.5) * edge
        with torch.no_grad():
            wanted = coarse.level(coarse.normalise(points))
        found = field.level(field.normalise(points))
        optimiser.zero_grad()
        # Beyond these lie nothing and opacity: how far does not matter.
        nn.functional.mse_loss(found.clamp(-12, 12), wanted.clamp(-10, 10)).backward()
        optimiser.step()
