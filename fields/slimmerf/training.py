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
        self.unlocked_at, self.mse = 0, 0.0
        if field is None:
            self.field.shown = 1

    def recordable(self) -> bool:
        return False  # cuts and unlocked ranks are shapes, which a recording cannot change

    def backward(self, loss: Tensor, rays: tuple, target: Tensor) -> None:
        super().backward(loss, rays, target)
        if self.config.growth == "nested":
            self._learn_cut(rays, target)
        self._lock()

    # ------------------------------------------------------------------------------------ ours

    def _learn_cut(self, rays: tuple, target: Tensor) -> None:
        """Adds the gradient of a random cut's error on the same rays."""
        cuts = self.config.cuts
        drawn = cuts[int(torch.randint(len(cuts), (), generator=self.generator, device=self.generator.device))]
        ranks = max(1, round(drawn * self.field.ranks))
        if ranks >= self.field.shown:
            return
        with self.field.showing(ranks):
            rendering = self.field.render_rays(*rays)
        (rendering.rgb.clamp(0, 1) - target).square().mean().backward()

    # ------------------------------------------------------------------------------------ the paper's

    def step(self, i: int) -> dict[str, Tensor]:
        numbers = super().step(i)
        if self.field.shown < self.field.ranks:
            self._grow(i + 1, float(10 ** (-numbers["psnr"] / 10)))
        return numbers

    def _grow(self, done: int, mse: float) -> None:
        c = self.config
        if c.growth == "paper":
            fires = unlocks(self.mse, mse, c.upsilon, done - self.unlocked_at, c.eta)
        else:
            fires = done >= c.unlock_from + (self.field.shown - 1) * c.unlock_every
        self.mse = mse
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
