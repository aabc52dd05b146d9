"""Settings of slimmerf. `configs/slimmerf.toml` holds the paper's; those of TensoRF mean what they mean there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fields.errors import ConfigError
from fields.methods import Method
from fields.tensorf.config import TensorfConfig


@dataclass
class SlimmerfConfig(TensorfConfig):
    """A TensoRF whose first ranks are a field of their own, and how it is trained."""

    milestones: ClassVar = (*TensorfConfig.milestones, "unlock_from", "unlock_every")

    growth: Literal["nested", "clock", "paper"] = "nested"
    """clock: ranks are unlocked one after the other at fixed times. nested: and every iteration also trains a random cut on
    the same rays. paper: ranks are unlocked whenever the loss jumps (TRaIn)."""
    cuts: tuple[float, ...] = (0.125, 0.25, 0.25, 0.375, 0.5, 0.5, 0.5, 0.75)
    """nested: the parts of the ranks that are drawn from, each as often as it is listed."""
    upsilon: float = 0.4
    """paper: the relative change of the loss that unlocks a rank."""
    eta: int = 0
    """paper: more iterations than this lie between two unlockings."""
    unlock_from: int = 200
    """clock, nested: iteration that unlocks the second rank. Scales with the schedule, like the next."""
    unlock_every: int = 400
    """clock, nested: iterations between further ranks."""

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


SLIMMERF = Method(
    name="slimmerf",
    summary="SlimmeRF: a TensoRF that can be cut to any size",
    config=SlimmerfConfig,
    training="fields.slimmerf.training:SlimmerfTraining",
    field="fields.slimmerf.field:SlimmeRF",
)
