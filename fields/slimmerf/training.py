"""Training a SlimmeRF: so that its first ranks are a good field on their own.

The paper's Tensorial Rank Incrementation (section 3.2) starts with one rank and unlocks the others during the training, so
that early ranks learn the coarse scene. Ours does so by the clock, and also trains what is wanted: every iteration renders
its rays twice, by all unlocked ranks and by a random cut. (Nested dropout, Rippel et al. 2014, with the whole beside every
draw, as in the sandwich rule of Yu and Huang 2019.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fields.data.scene import Scene
from fields.errors import ConfigError
from fields.io.run import load_config
from fields.radiance import Room
from fields.slimmerf import container
from fields.slimmerf.config import SlimmerfConfig, number_of_bytes
from fields.slimmerf.field import SlimmeRF
from fields.slimmerf.slim import DEFAULT_STEPS, slim_path, to_slim
from fields.tensorf.field import TensoRF
from fields.tensorf.training import TensorfTraining


class SlimmerfTraining(TensorfTraining):
    """Fits a SlimmeRF."""

    config: SlimmerfConfig
    field: SlimmeRF
    field_class = SlimmeRF

    def __init__(self, config: SlimmerfConfig, scene: Scene, seed: int, field: TensoRF | None = None) -> None:
        super().__init__(config, scene, seed, field)
        self.unlocked_at, self.mse, self.cut_to = 0, 0.0, 0
        if field is None:
            self.field.shown = 1

    # ------------------------------------------------------------------------------------ ours

    def choose_shape(self) -> tuple[int, int]:
        """How many ranks are shown, and how many a cut on the same rays is to show; as many for none."""
        self.cut_to = self.field.shown
        if self.config.growth == "nested":
            cuts = self.config.cuts
            drawn = cuts[int(torch.randint(len(cuts), (), generator=self.generator, device=self.generator.device))]
            self.cut_to = min(max(1, round(drawn * self.field.ranks)), self.field.shown)
        return self.field.shown, self.cut_to

    def learn_more(self, rays: tuple, target: Tensor, room: Room | None) -> Tensor | None:
        """Adds the gradient of the cut's error."""
        samples = None
        if self.cut_to < self.field.shown:
            with self.field.showing(self.cut_to):
                rendering = self.render(rays, room)
            (rendering.rgb.clamp(0, 1) - target).square().mean().backward()
            samples = rendering.samples
        self._lock()
        return samples

    # ------------------------------------------------------------------------------------ the paper's

    def step(self, i: int) -> dict[str, Tensor]:
        numbers = super().step(i)
        if (shown := self.field.shown) < self.field.ranks:
            self._grow(i + 1, numbers["psnr"])
            if self.field.shown > shown:
                self.recording.shapes.clear()  # they do not come back
        return numbers

    def _grow(self, done: int, psnr: Tensor) -> None:
        c = self.config
        if c.growth == "paper":
            mse = float(10 ** (-psnr / 10))
            fires = unlocks(self.mse, mse, c.upsilon, done - self.unlocked_at, c.eta)
            self.mse = mse
        else:
            fires = done >= c.unlock_from + (self.field.shown - 1) * c.unlock_every
        if fires:
            self.field.shown += 1
            self.unlocked_at = done
        if done >= c.iterations // 2:  # the published trigger may never come
            self.field.shown = self.field.ranks

    def _lock(self) -> None:
        """Keeps ranks behind those shown as they were drawn: only regularisers, which are means over all, reach them."""
        field = self.field
        if field.shown == field.ranks:
            return
        for grid, count in ((field.density_grid, field.shown), (field.appearance_grid, field.shown * field.per_rank)):
            for factor in grid.factors:
                if factor.grad is not None:
                    factor.grad[..., count:] = 0

    # ------------------------------------------------------------------------------------ what is left

    def finish(self, out: Path) -> Iterator[str]:
        """The .slim file of the run."""
        config, budget = load_config(out), self.config.budget
        path, data = slim_path(out, config), to_slim(self.field, DEFAULT_STEPS, config)
        slim = container.read(data)
        try:
            levels = container.levels_within(slim, number_of_bytes(budget)) if budget else len(slim.table)
        except ConfigError as error:
            yield f"No .slim file: {error} `fields slim` makes one of the run."
            return
        size = container.cut(data, levels, path)
        yield f"{path}: {size} bytes, {levels} levels, any first ones of which are a smaller model; see `fields slim --help`"

    # ------------------------------------------------------------------------------------ exact resume

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors, plain = super().state()
        return tensors, plain | {"shown": self.field.shown, "unlocked_at": self.unlocked_at, "mse": self.mse}

    def recall(self, plain: dict) -> None:
        super().recall(plain)
        self.field.shown, self.unlocked_at, self.mse = plain["shown"], plain["unlocked_at"], plain["mse"]


def unlocks(before: float, now: float, upsilon: float, since: int, eta: int) -> bool:
    """Whether a rank is added (eq. 6): when the loss *changes* by more than a part, not when it has settled.

    Args:
        before, now: mean squared errors of two batches in a row; 0 for none before.
        since: iterations since the last rank was added.
    """
    return before > 0 and abs(before - now) / now > upsilon and since > eta
