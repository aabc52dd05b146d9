"""What the trainings of radiance fields share: batches of rays, the loss, optimisers that survive a change of shape, resuming."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from fields.data.blocks import Rows
from fields.data.scene import Scene
from fields.errors import DataError
from fields.radiance import RadianceField, Room
from fields.rendering import Rendering
from fields.training import processes
from fields.training.pixels import PixelSampler
from fields.training.recording import Recording

TOO_EARLY = 200
"""Iterations before which a field that shows nothing is young rather than empty."""


class RadianceTraining:
    """Fits a radiance field to pixels. See `fields.training.trainer.Training` for what the loop asks of it.

    A method derives from it, makes its field, and says what happens when in `milestones`.

    Args:
        config: of the method, with `rays`, `iterations`, `background`, `rate_factors`, `rate_network`, `rate_decay` and
            `restart_rate`.
        scene: what to fit, on the device to train on.
        seed: of all randomness.
        field: to go on with; by default a new one.
        rows: pixels to draw from; by default all.
    """

    field_class: type[RadianceField]
    shares: ClassVar[bool] = True

    def __init__(
        self, config: Any, scene: Scene, seed: int, field: RadianceField | None, rows: Rows | None = None
    ) -> None:
        self.config, self.scene = config, scene
        self.generator = torch.Generator(scene.aabb.device).manual_seed(seed)
        self.pixels = PixelSampler(scene.train, self.generator, rows)
        self.field: Any = (field or self.new_field(seed)).to(scene.aabb.device)
        self.decay = torch.ones((), device=scene.aabb.device)
        self.recording = Recording(self.generator)
        self.recording.possible &= self.recordable() and processes.count() == 1
        self._new_optimisers()

    # ------------------------------------------------------------------------------------ what a method says

    def new_field(self, seed: int) -> RadianceField:
        raise NotImplementedError

    def factor_optimiser(self) -> torch.optim.Optimizer:
        """Of the parameters that a change of shape replaces."""
        raise NotImplementedError

    def penalty(self) -> Tensor | float:
        """Added to the squared error. What changes from one iteration to the next must be a tensor, as `decay` is."""
        return 0.0

    def recordable(self) -> bool:
        """Whether an iteration can be recorded: it must never ask a GPU anything."""
        return len(set(self.scene.train.cameras.model.tolist())) == 1

    def choose_shape(self) -> Hashable:
        """Decides, before an iteration, what differs from one to the next but not on a GPU, as how many channels are
        read. Each such shape is recorded for itself."""
        return None

    def milestones(self, done: int) -> None:
        """Changes the field after so many iterations, and calls `rebuild` if factors were replaced."""

    def finish(self, out: Path) -> Iterable[str]:
        """See `fields.training.trainer.Training`."""
        return ()

    # ------------------------------------------------------------------------------------ one iteration

    def step(self, i: int) -> dict[str, Tensor]:
        c = self.config
        self.decay.fill_(c.rate_decay ** (i / c.iterations))
        subject = [*self.field.parameters(), *self.field.buffers(), self.pixels.rows]
        numbers = self.recording(self.iterate, subject, self.choose_shape())
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] *= c.rate_decay ** (1 / c.iterations)
        self.milestones(i + 1)
        return numbers

    def iterate(self, room: Room | None) -> tuple[dict[str, Tensor], Tensor]:
        """Draws rays, renders them, and moves every parameter; see `fields.training.recording.Recording`."""
        c = self.config
        background = self.background_colours(c.rays)
        origins, directions, target = self.pixels.draw(c.rays, background)
        rays = origins, directions, background, self.jitter(c.rays)
        rendering = self.render(rays, room)
        mse = (rendering.rgb.clamp(0, 1) - target).square().mean()
        loss = mse + self.penalty()
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        shown = samples = cast(Tensor, rendering.samples)
        if (more := self.learn_more(rays, target, room)) is not None:
            samples = torch.maximum(samples, more)
        processes.mean_of_gradients(*self.optimisers.values())
        for optimiser in self.optimisers.values():
            optimiser.step()
        mse, loss = processes.mean(mse.detach(), loss.detach())
        return {"psnr": -10 * mse.clamp(min=1e-10).log10(), "loss": loss, "samples": shown[0]}, samples

    def render(self, rays: tuple, room: Room | None) -> Rendering:
        return self.field.render_rays(*rays) if room is None else self.field.render_rays_in(room, *rays)

    def learn_more(self, rays: tuple, target: Tensor, room: Room | None) -> Tensor | None:
        """Adds to the gradients what else a method learns from the same rays. Returns how many samples that took, as
        `Rendering.samples`, if any."""
        return None

    def jitter(self, n: int) -> Tensor | None:
        """In [0, 1): the offset of each ray's samples in steps, for this process's share of n rays."""
        return processes.share(torch.rand(n, generator=self.generator, device=self.scene.aabb.device))

    def background_colours(self, n: int) -> Tensor:
        """(3,), or as many as this process's share of n rays (…, 3)."""
        device = self.scene.aabb.device
        behind = self.scene.background if self.config.background == "auto" else self.config.background
        if behind == "random":
            return processes.share(torch.rand(n, 3, generator=self.generator, device=device))
        return torch.full((3,), 1.0 if behind == "white" else 0.0, device=device)

    def _new_optimisers(self) -> None:
        network = self.adam(self.field.decoder.parameters(), self.config.rate_network)
        self.optimisers: Mapping[str, torch.optim.Optimizer] = {"factors": self.factor_optimiser(), "network": network}

    def adam(self, parameters: Iterable[Tensor], rate: float) -> torch.optim.Adam:
        return torch.optim.Adam(
            parameters, self.rate(rate), betas=(0.9, 0.99), eps=1e-8, fused=True, capturable=self.scene.aabb.is_cuda
        )

    def rate(self, value: float) -> Any:
        """A learning rate as an optimiser takes it: on a GPU a tensor, which a recorded step reads anew."""
        return torch.tensor(value, device=self.scene.aabb.device) if self.scene.aabb.is_cuda else value

    def rebuild(self) -> None:
        """New moments for new factors. Rates, and the moments of what stayed, go on unless the config restarts them."""
        before = self.optimisers
        self._new_optimisers()
        if not self.config.restart_rate:
            for name, optimiser in self.optimisers.items():
                _set_rate(optimiser, before[name].param_groups[0]["lr"])
            current = {id(parameter) for _, parameter, _ in self._moments()}
            for name, optimiser in before.items():
                if all(id(p) in current for group in optimiser.param_groups for p in group["params"]):
                    self.optimisers = {**self.optimisers, name: optimiser}

    def nothing_left(self, why: str) -> DataError:
        return DataError(
            f"{self.scene.path}: nothing is left to train: {why}. "
            "Check that the cameras look at the box (`fields data check`) and that the images are not blank."
        )

    # ------------------------------------------------------------------------------------ exact resume

    def _moments(self) -> Iterable[tuple[str, Tensor, torch.optim.Optimizer]]:
        for name, optimiser in self.optimisers.items():
            parameters = (p for group in optimiser.param_groups for p in group["params"])
            for k, parameter in enumerate(parameters):
                yield f"adam.{name}.{k}.", parameter, optimiser

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Tensors and plain data from which training goes on bit for bit."""
        tensors = {f"field.{k}": v for k, v in self.field.state_dict().items()}
        for prefix, parameter, optimiser in self._moments():
            tensors |= {prefix + k: v for k, v in optimiser.state.get(parameter, {}).items()}
        tensors["generator"] = self.generator.get_state()
        rates = {name: float(o.param_groups[0]["lr"]) for name, o in self.optimisers.items()}
        return tensors, {"field": self.field.constructor_arguments(), "rates": rates}

    @classmethod
    def resume(cls, config: Any, scene: Scene, tensors: dict[str, Tensor], plain: dict):
        field = cls.field_class(**plain["field"])
        field.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("field.")})
        self = cls(config, scene, 0, field)  # type: ignore[call-arg]
        self.recall(plain)
        self.generator.set_state(tensors["generator"])
        for name, optimiser in self.optimisers.items():
            _set_rate(optimiser, plain["rates"][name])
        for prefix, parameter, optimiser in self._moments():
            state = {k[len(prefix) :]: v.to(parameter.device) for k, v in tensors.items() if k.startswith(prefix)}
            if state:
                optimiser.state[parameter] = state
        return self

    def recall(self, plain: dict) -> None:
        """Takes up what a method's own `state` added to the plain data."""


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
