"""Training a TensoRF, in the order of the paper: loss, step, learning rate, occupancy and shrink, upsampling."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fields.data.scene import Scene
from fields.errors import DataError
from fields.tensorf.config import TensorfConfig
from fields.tensorf.field import TensoRF
from fields.tensors import resolution_for
from fields.training.carving import visual_hull
from fields.training.pixels import PixelSampler, rows_near_silhouettes

_TOO_EARLY = 200  # iterations before which a field without opaque cells is young rather than empty


class TensorfTraining:
    """See `fields.training.trainer.Training` for what the loop asks of it."""

    def __init__(self, config: TensorfConfig, scene: Scene, seed: int, field: TensoRF | None = None) -> None:
        self.config, self.scene = config, scene
        device = scene.aabb.device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.field = field or self._new_field(seed)
        self.field.to(device)
        self.background = scene.background if config.background == "auto" else config.background
        rows = None
        if config.carve and scene.alpha:
            if field is None:
                self._carve()
            rows = rows_near_silhouettes(scene.train.images, 3)
        self.pixels = PixelSampler(scene.train, self.generator, rows)
        self.shrunk = self.focused = False
        self._new_optimiser()

    def _new_field(self, seed: int) -> TensoRF:
        c, scene = self.config, self.scene
        torch.manual_seed(seed)
        names = ("layout", "density_rank", "appearance_rank", "decoder", "feature_dim", "hidden", "frequencies",
                 "density_shift", "distance_scale", "step_ratio", "shading_threshold", "marching")  # fmt: skip
        return TensoRF(
            aabb=scene.aabb.flatten().tolist(),
            resolution=list(resolution_for(scene.aabb.view(2, 3), c.voxels[0])),
            near=scene.near,
            far=scene.far,
            **{name: getattr(c, name) for name in names},
        )

    def _carve(self) -> None:
        """Occupancy and box from the silhouettes, before the first iteration."""
        field = self.field
        field.occupied = visual_hull(self.scene.train, field.aabb, field.resolution)
        self._check_occupancy("the silhouettes of the images have no volume in common")
        filled = field.occupied.nonzero()
        cells = torch.tensor(field.occupied.shape, device=filled.device)
        size = field.aabb[3:] - field.aabb[:3]
        low = field.aabb[:3] + size * filled.min(0).values / cells
        high = field.aabb[:3] + size * (filled.max(0).values + 1) / cells
        field.aabb = torch.cat([low, high])
        resolution = resolution_for(field.aabb.view(2, 3), self.config.voxels[0])
        fresh = TensoRF(**(field.constructor_arguments() | {"resolution": list(resolution)}))
        field.density_grid, field.appearance_grid = (
            fresh.density_grid.to(low.device),
            fresh.appearance_grid.to(low.device),
        )
        field.occupied = visual_hull(self.scene.train, field.aabb, resolution)

    # ------------------------------------------------------------------------------------ one iteration

    def step(self, i: int) -> dict[str, Tensor]:
        c, field = self.config, self.field
        background = self._background(c.rays)
        origins, directions, target = self.pixels.draw(c.rays, background)
        jitter = torch.rand(c.rays, generator=self.generator, device=origins.device)
        rendering = field.render_rays(origins, directions, background, jitter)
        mse = (rendering.rgb.clamp(0, 1) - target).square().mean()
        loss = mse
        decay = c.rate_decay ** (i / c.iterations)
        if (l1 := c.l1[self.shrunk]) > 0:
            loss = loss + l1 * field.density_grid.l1()
        if c.tv_density > 0:
            loss = loss + c.tv_density * decay * field.density_grid.total_variation()
        if c.tv_appearance > 0:
            loss = loss + c.tv_appearance * decay * field.appearance_grid.total_variation()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        for group in self.optimiser.param_groups:
            group["lr"] *= c.rate_decay ** (1 / c.iterations)
        self._milestones(i + 1)
        psnr = -10 * mse.detach().clamp(min=1e-10).log10()
        return {"psnr": psnr, "loss": loss.detach(), "samples": rendering.samples}  # type: ignore[dict-item]

    def _background(self, n: int) -> Tensor:
        device = self.scene.aabb.device
        if self.background == "random":
            return torch.rand(n, 3, generator=self.generator, device=device)
        return torch.full((3,), 1.0 if self.background == "white" else 0.0, device=device)

    def _new_optimiser(self) -> None:
        c, field = self.config, self.field
        factors = [*field.density_grid.parameters(), *field.appearance_grid.parameters()]
        network = [*field.basis.parameters(), *field.mlp.parameters()]
        groups = [{"params": factors, "lr": c.rate_factors}, {"params": network, "lr": c.rate_network}]
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-8, fused=True)

    # ------------------------------------------------------------------------------------ the schedule

    def resolutions(self) -> Iterator[float]:
        """Cells after each upsampling: linear in the logarithm of their number."""
        first, last = (math.log(v) for v in self.config.voxels)
        steps = len(self.config.upsample_at)
        for k in range(1, steps + 1):
            yield round(math.exp(first + (last - first) * k / steps))

    def _milestones(self, done: int) -> None:
        c, field = self.config, self.field
        if done in c.occupancy_at:
            finest = min(c.voxels[1], 256**3)
            resolution = field.resolution
            if math.prod(resolution) > finest:
                resolution = resolution_for(field.aabb.view(2, 3), finest)
            before = field.occupied
            field.update_occupancy(c.occupancy_threshold, resolution)
            if done < _TOO_EARLY and not field.occupied.any():
                field.occupied = before  # the field has only begun to form
                return
            self._check_occupancy(f"after {done} iterations no cell reaches the opacity {c.occupancy_threshold:g}")
            if done == c.occupancy_at[0]:
                field.shrink()
                self.shrunk = True
                self._rebuild()
            if done == c.occupancy_at[-1] and self.scene.alpha and not c.carve:
                self._focus()
        if done in c.upsample_at:
            voxels = list(self.resolutions())[c.upsample_at.index(done)]
            field.upsample(resolution_for(field.aabb.view(2, 3), voxels))
            self._rebuild()

    def _focus(self) -> None:
        """Draw only rays that may meet something. The paper's code looks 256 steps far; here it is the whole way."""
        self.pixels.keep(self.field.reaches)
        self.focused = True

    def _rebuild(self) -> None:
        """A new Adam for the new factors; learning rates restart where the config says so, else go on."""
        rates = [group["lr"] for group in self.optimiser.param_groups]
        steps = dict(self.optimiser.state)
        old_network = self.optimiser.param_groups[1]["params"]
        self._new_optimiser()
        if not self.config.restart_rate:
            for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
                group["lr"] = rate
            for parameter in old_network:
                if parameter in steps:
                    self.optimiser.state[parameter] = steps[parameter]

    def _check_occupancy(self, why: str) -> None:
        if not self.field.occupied.any():
            raise DataError(
                f"{self.scene.path}: nothing is left to train: {why}. "
                "Check that the cameras look at the box (`fields data check`) and that the images are not blank."
            )

    # ------------------------------------------------------------------------------------ exact resume

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Tensors and plain data from which training goes on bit for bit."""
        tensors = {f"field.{k}": v for k, v in self.field.state_dict().items()}
        for g, group in enumerate(self.optimiser.param_groups):
            for p, parameter in enumerate(group["params"]):
                for name, value in self.optimiser.state.get(parameter, {}).items():
                    tensors[f"adam.{g}.{p}.{name}"] = value
        tensors["generator"] = self.generator.get_state()
        rates = [group["lr"] for group in self.optimiser.param_groups]
        return tensors, {
            "field": self.field.constructor_arguments(),
            "rates": rates,
            "shrunk": self.shrunk,
            "focused": self.focused,
        }

    @classmethod
    def resume(cls, config: TensorfConfig, scene: Scene, tensors: dict[str, Tensor], plain: dict) -> TensorfTraining:
        field = TensoRF(**plain["field"])
        field.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("field.")})
        self = cls(config, scene, 0, field)
        self.shrunk = plain["shrunk"]
        if plain["focused"]:  # box and occupancy are what they were then: the same rays
            self._focus()
        self.generator.set_state(tensors["generator"])
        for g, group in enumerate(self.optimiser.param_groups):
            group["lr"] = plain["rates"][g]
            for p, parameter in enumerate(group["params"]):
                prefix = f"adam.{g}.{p}."
                state = {k[len(prefix) :]: v.to(parameter.device) for k, v in tensors.items() if k.startswith(prefix)}
                if state:
                    self.optimiser.state[parameter] = state
        return self
