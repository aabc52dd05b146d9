"""Settings of slimmerf. `configs/slimmerf.toml` holds the paper's; those of TensoRF mean what they mean there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from fields.errors import ConfigError
from fields.methods import Method
from fields.tensorf.config import TensorfConfig

_BITS = 1.2  # per number of a plane, where more ranks are worth as much as finer ones


@dataclass
class SlimmerfConfig(TensorfConfig):
    """A TensoRF whose first ranks are a field of their own, and how it is trained."""

    milestones: ClassVar[tuple[str, ...]] = (*TensorfConfig.milestones, "unlock_from", "unlock_every")

    growth: Literal["nested", "clock", "paper"] = "nested"
    """clock: ranks are unlocked one after the other at fixed times. nested: and every iteration also trains a random cut on
    the same rays. paper: ranks are unlocked whenever the loss jumps (TRaIn)."""
    cuts: tuple[float, ...] = (0.125, 0.25, 0.25, 0.25, 0.25, 0.375, 0.5, 0.75)
    """nested: the parts of the ranks that are drawn from, each as often as it is listed."""
    upsilon: float = 0.4
    """paper: the relative change of the loss that unlocks a rank."""
    eta: int = 0
    """paper: more iterations than this lie between two unlockings."""
    unlock_from: int = 200
    """clock, nested: iteration that unlocks the second rank. Scales with the schedule, like the next."""
    unlock_every: int = 400
    """clock, nested: iterations between further ranks."""
    budget: str = ""
    """The .slim file to end with, at most: 250KB, 1MB, 1MiB. It also decides the ranks, whatever they were, 2 to 16.
    Empty: the file has all of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout != "vm":
            raise ConfigError(f"layout is {self.layout!r}; slimmerf cuts planes × lines: vm.")
        if self.decoder == "tcnn":
            raise ConfigError("decoder is 'tcnn'; a cut has a smaller decoder, which must be mlp, sh or rgb.")
        if self.appearance_rank % self.density_rank:
            raise ConfigError(
                f"appearance_rank is {self.appearance_rank}; it must be a multiple of density_rank, {self.density_rank}."
            )
        if not self.cuts or not all(0 < c <= 1 for c in self.cuts):
            raise ConfigError(f"cuts is {self.cuts}; parts of the ranks are above 0 and at most 1.")
        if self.unlock_every < 1:
            raise ConfigError(f"unlock_every is {self.unlock_every}; it must be positive.")
        if self.budget:
            each = self.appearance_rank // self.density_rank
            plane = self.voxels[1] ** (2 / 3)
            bytes_of_a_rank = 3 * plane * (1 + each) * _BITS / 8
            self.density_rank = min(max(round(number_of_bytes(self.budget) / bytes_of_a_rank), 2), 16)
            self.appearance_rank = each * self.density_rank


def number_of_bytes(text: str) -> int:
    """A size as a person writes it. Raises ConfigError for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|B|[kM]i?B)", text.strip(), re.IGNORECASE)
    if not found:
        raise ConfigError(f"budget is {text!r}; write bytes, 500KB, 1.5MB or 1MiB.")
    units = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "kib": 2**10, "mib": 2**20}
    return int(float(found[1]) * units[found[2].lower()])


SLIMMERF = Method(
    name="slimmerf",
    summary="SlimmeRF: a TensoRF that can be cut to any size",
    config=SlimmerfConfig,
    training="fields.slimmerf.training:SlimmerfTraining",
    field="fields.slimmerf.field:SlimmeRF",
)
