"""Training a Strivec: geometry, placement, then iterations of rays with upsampling and re-placement in between."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fields.core.cloud import BoxAdam
from fields.data.scene import Scene
from fields.errors import DataError
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
from fields.training.pixels import PixelSampler, rows_near_silhouettes

_MOST_GROWTH = 4  # of the ranks, by whole multiples


class StrivecTraining:
    """See `fields.training.trainer.Training` for what the loop asks of it."""

    def __init__(self, config: StrivecConfig, scene: Scene, seed: int, field: Strivec | None = None) -> None:
        self.config, self.scene = config, scene
        device = scene.aabb.device
        self.generator = torch.Generator(device).manual_seed(seed)
        rows = rows_near_silhouettes(scene.train.images, 3) if scene.alpha else None
        self.pixels = PixelSampler(scene.train, self.generator, rows)
        self.background = scene.background if config.background == "auto" else config.background
        self.field = field or self._new_field(seed)
        self.field.to(device)
        self._new_optimiser()

    # ------------------------------------------------------------------------------------ placement

    def _new_field(self, seed: int) -> Strivec:
        c, scene = self.config, self.scene
        box, occupied = find_geometry(c, scene, seed)
        points = occupied_centres(box, occupied)
        unit = float((box[3:] - box[:3]).max()) * (1e6 / c.budget()) ** 0.5 if c.spacing_unit == "geometry" else 1.0
        spacing = [unit * s for s in c.spacing]
        cells = [lattice_cells(points, box[:3], s) for s in spacing]
        names = ("initial", "weights", "nearest", "average_density", "average_appearance", "clamp_weights", "feature_dim",
                 "hidden", "frequencies", "density_shift", "distance_scale", "step_ratio", "shading_threshold")  # fmt: skip
        arguments = {name: getattr(c, name) for name in names} | {
            "aabb": box.tolist(), "near": scene.near, "far": scene.far, "low": box[:3].tolist(), "spacing": spacing,
            "half_edge": [c.overlap * s / 2 for s in spacing], "boxes": [len(b) for b in cells], "knots": [2] * len(cells),
            "density_rank": list(c.density_rank), "appearance_rank": list(c.appearance_rank),
            "occupancy_resolution": list(occupied.shape),
        }  # fmt: skip
        # The budget wants to know the boxes, the ranks and the network; the knots come last. Knots closer than half a
        # pixel resolve nothing that the pictures show, and cost samples: from there on, a budget buys ranks.
        for grown in range(1, _MOST_GROWTH + 1):
            ranks = {name: [grown * r for r in getattr(c, name)] for name in ("density_rank", "appearance_rank")}
            final = self._final_knots(Strivec(**(arguments | ranks)))
            apart = 2 * arguments["half_edge"][0] / (final[0] - 1)
            if c.cells or apart > pixel_size(scene, box) / 2:
                break
        arguments |= ranks
        torch.manual_seed(seed)
        start = [k + 1 for k in c.cells_start] or [max(3, round((k - 1) / 3) + 1) for k in final]
        field = Strivec(**(arguments | {"knots": start}))
        field.occupied = occupied
        for s, of_scale in enumerate(cells):
            setattr(field, f"cells_{s}", of_scale.int())
        return field

    def _final_knots(self, field: Strivec) -> list[int]:
        c = self.config
        if c.cells:
            return [k + 1 for k in c.cells]
        network = sum(p.numel() for m in (field.basis, field.mlp) for p in m.parameters())
        ranks = [a + b for a, b in zip(field.density_cloud.ranks, field.appearance_cloud.ranks, strict=True)]
        return knots_within(c.budget(), [len(b) for b in field.cells], [2 * h for h in field.half_edge], ranks, network)

    # ------------------------------------------------------------------------------------ one iteration

    def step(self, i: int) -> dict[str, float]:
        c, field = self.config, self.field
        background = self._background(c.rays)
        origins, directions, target = self.pixels.draw(c.rays, background)
        jitter = torch.rand(c.rays, generator=self.generator, device=origins.device) if c.jitter else None
        rendering = field.render_rays(origins, directions, background, jitter)
        mse = (rendering.rgb.clamp(0, 1) - target).square().mean()
        loss = mse + c.l1 * field.density_cloud.l1() if c.l1 > 0 else mse
        for optimiser in (self.of_vectors, self.of_network):
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for optimiser in (self.of_vectors, self.of_network):
            optimiser.step()
            for group in optimiser.param_groups:
                group["lr"] *= c.rate_decay ** (1 / c.iterations)
        self._milestones(i + 1)
        error = float(mse.detach())
        psnr = -10 * math.log10(max(error, 1e-10))
        return {"psnr": psnr, "loss": float(loss.detach()), "samples": float(rendering.samples)}

    def _background(self, n: int) -> Tensor:
        device = self.scene.aabb.device
        if self.background == "random":
            return torch.rand(n, 3, generator=self.generator, device=device)
        return torch.full((3,), 1.0 if self.background == "white" else 0.0, device=device)

    def _new_optimiser(self) -> None:
        c, field = self.config, self.field
        vectors = [*field.density_cloud.parameters(), *field.appearance_cloud.parameters()]
        network = [*field.basis.parameters(), *field.mlp.parameters()]
        self.of_vectors = BoxAdam(vectors, lr=c.rate_factors)
        self.of_network = torch.optim.Adam(network, lr=c.rate_network, betas=(0.9, 0.99), eps=1e-8, fused=True)

    # ------------------------------------------------------------------------------------ the schedule

    def _milestones(self, done: int) -> None:
        c = self.config
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
            self._rebuild()

    def _replace(self, done: int) -> None:
        """Forgets the cells that no ray sees anything in, and the boxes without a cell left."""
        field = self.field
        seen = visible_cells(field, self.pixels, field.resolution, self.config.visible_weight) & field.occupied
        if not seen.any():
            raise DataError(
                f"{self.scene.path}: nothing is left to train: after {done} iterations no training ray sees anything. "
                "Check that the cameras look at the box (`fields data check`) and that the images are not blank."
            )
        field.occupied = seen
        points = occupied_centres(field.aabb, seen)
        kept = []
        for cells, spacing in zip(field.cells, field.spacing, strict=True):
            wanted = lattice_cells(points, field.aabb[:3], spacing)
            top = torch.maximum(cells.amax(0).long(), wanted.amax(0)) + 1
            number = lambda t, top=top: (t[:, 0].long() * top[1] + t[:, 1]) * top[2] + t[:, 2]  # noqa: E731
            kept.append(torch.isin(number(cells), number(wanted)))
        if not all(k.all() for k in kept):
            field.keep_boxes(kept)
            self._rebuild()

    def _rebuild(self) -> None:
        """New moments for the new vectors; rates and the network's optimiser go on unless the config restarts them."""
        rates = [o.param_groups[0]["lr"] for o in (self.of_vectors, self.of_network)]
        network = self.of_network
        self._new_optimiser()
        if not self.config.restart_rate:
            self.of_vectors.param_groups[0]["lr"] = rates[0]
            self.of_network = network

    # ------------------------------------------------------------------------------------ exact resume

    def _states(self):
        """(name, parameter, its optimiser) of all parameters."""
        for name, optimiser in (("vectors", self.of_vectors), ("network", self.of_network)):
            for p, parameter in enumerate(optimiser.param_groups[0]["params"]):
                yield f"adam.{name}.{p}.", parameter, optimiser

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Tensors and plain data from which training goes on bit for bit."""
        tensors = {f"field.{k}": v for k, v in self.field.state_dict().items()}
        for prefix, parameter, optimiser in self._states():
            tensors |= {prefix + k: v for k, v in optimiser.state.get(parameter, {}).items()}
        tensors["generator"] = self.generator.get_state()
        rates = [o.param_groups[0]["lr"] for o in (self.of_vectors, self.of_network)]
        return tensors, {"field": self.field.constructor_arguments(), "rates": rates}

    @classmethod
    def resume(cls, config: StrivecConfig, scene: Scene, tensors: dict[str, Tensor], plain: dict) -> StrivecTraining:
        field = Strivec(**plain["field"])
        field.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("field.")})
        self = cls(config, scene, 0, field)
        self.generator.set_state(tensors["generator"])
        for optimiser, rate in zip((self.of_vectors, self.of_network), plain["rates"], strict=True):
            optimiser.param_groups[0]["lr"] = rate
        for prefix, parameter, optimiser in self._states():
            state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if state:
                optimiser.state[parameter] = state
        return self
