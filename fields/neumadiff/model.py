"""What is learned of materials, in one module: how weights are distributed, and what words have to do with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fields.neumadiff.denoiser import Conditions, DenoiserConfig, TimeEmbedding, denoiser
from fields.neumadiff.diffusion import Schedule, ddim, guided
from fields.neumadiff.encoders import DIMS
from fields.neumadiff.network import DIALECTS, WEIGHTS, Dialect, Networks, mixed
from fields.neumadiff.statistics import NAMES

SIZES = {
    "cpu": DenoiserConfig(),
    "small": DenoiserConfig("tensors", 384, 8, 6),
    "paper": DenoiserConfig("whole", 768, 12, 12),
}
_OPPONENTS = torch.tensor([[2.0, 2, 2], [6**0.5, -(6**0.5), 0], [2**0.5, 2**0.5, -(2**1.5)]]) / 12**0.5
"""Of red, green and blue: their mean, and what sets them apart. Channels differ by a tenth of what they have in common; colour would drown in it."""
_SHIFT = 7.0
"""Of 675 weights ten directions have three quarters of the variance: along them materials differ by seven times what single weights do."""
_FLOOR = 1e-6
"""Of a weight's deviation: what never varies stays what it is."""


class MaterialModel(nn.Module):
    """
    Args:
        size: one of `SIZES`; "paper" also has the published schedule and sampler, and takes weights as they are.
        categories: it knows.
        text: id of its text encoder, see `fields.neumadiff.encoders`.
        dialect: of the networks it draws.
        scale: of their reflectance, see `fields.neumadiff.statistics.SCALES`.
    """

    mean: Tensor
    deviation: Tensor
    usual: Tensor
    usual_deviation: Tensor

    def __init__(self, size: str, categories: list[str], text: str = "words", dialect: str = "reciprocal", scale: str = "physical") -> None:  # fmt: skip
        super().__init__()
        self.size, self.categories, self.text, self.dialect_name, self.scale = size, list(categories), text, dialect, scale  # fmt: skip
        config = SIZES[size]
        self.denoiser, self.time = denoiser(config), TimeEmbedding(config.width)
        self.conditions = Conditions(
            {"category": len(categories), "text": DIMS[text], "statistics": len(NAMES)}, config.width
        )
        self.schedule = Schedule.linear(100) if size == "paper" else Schedule.cosine(200, _SHIFT)
        for name, count, value in (("mean", WEIGHTS, 0.0), ("deviation", WEIGHTS, 1.0), ("usual", len(NAMES), 0.0), ("usual_deviation", len(NAMES), 1.0)):  # fmt: skip
            self.register_buffer(name, torch.full((count,), value))

    def constructor_arguments(self) -> dict[str, Any]:
        return {"size": self.size, "categories": self.categories, "text": self.text, "dialect": self.dialect_name, "scale": self.scale}  # fmt: skip

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.dialect_name]

    @property
    def modalities(self) -> list[str]:
        return list(self.conditions.adapters)

    def measure(self, weights: Tensor, statistics: Tensor) -> None:
        """Learns what is usual, of weights (R, 675) and statistics (R, 16)."""
        if self.size != "paper":
            apart = mixed(weights, _OPPONENTS)
            self.mean.copy_(apart.mean(0))
            self.deviation.copy_(apart.std(0))
        self.usual.copy_(statistics.mean(0))
        self.usual_deviation.copy_(statistics.std(0).clamp(min=_FLOOR))

    @property
    def varies(self) -> Tensor:
        """(675,) which weights do."""
        return self.deviation > _FLOOR

    def whitened(self, weights: Tensor) -> Tensor:
        """(R, 675) as the network has them: by opponent colours, and of unit variance each; in the paper's size as they are."""
        if self.size == "paper":
            return weights
        return (mixed(weights, _OPPONENTS) - self.mean) / self.deviation.clamp(min=_FLOOR) * self.varies

    def coloured(self, x: Tensor) -> Tensor:
        """Weights (B, 675) again."""
        if self.size == "paper":
            return x
        return mixed(x * self.deviation * self.varies + self.mean, _OPPONENTS.T)

    def forward(self, x: Tensor, t: Tensor, wanted: dict[str, Tensor], present: Tensor) -> Tensor:
        """What the denoiser says of whitened weights (B, 675), noised by t (B,) steps: their velocity, in the paper's size what they were; `wanted` and `present` as of
        `Conditions`."""
        time = self.time(t.to(x) / self.schedule.steps)
        return self.denoiser(x, time, self.conditions(self._usual(wanted), present))

    def loss(self, x: Tensor, t: Tensor, noise: Tensor, wanted: dict[str, Tensor], present: Tensor) -> Tensor:
        """Of whitened weights x (B, 675) after t (B,) steps towards noise (B, 675)."""
        said = self(self.schedule.noised(x, t, noise), t, wanted, present)
        true = x if self.size == "paper" else self.schedule.velocity(x, t, noise)
        return (said - true)[:, self.varies].square().mean()

    def _usual(self, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
        if "statistics" not in wanted:
            return wanted
        return wanted | {"statistics": (wanted["statistics"] - self.usual) / self.usual_deviation}

    @torch.no_grad()
    def draw(
        self, count: int, wanted: dict[str, Tensor] | None = None, *, guidance: float = 1.5, steps: int = 50, generator: torch.Generator | None = None
    ) -> Networks:  # fmt: skip
        """New materials.

        Args:
            wanted: one vector (dim,) for each modality that is to be followed.
            guidance: see `fields.neumadiff.diffusion.guided`.
            steps: of the sampler.
        """
        wanted = {name: vector.expand(count, -1) for name, vector in (wanted or {}).items()}
        present = torch.tensor([[name in wanted for name in self.modalities]]).expand(count, -1)
        noise = torch.randn(count, WEIGHTS, generator=generator)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            said = self(x, t, {}, torch.zeros_like(present))
            if wanted:
                said = guided(self(x, t, wanted, present), said, guidance)
            return said if paper else self.schedule.was(x, t, said)

        paper = self.size == "paper"
        drawn = ddim(denoise, self.schedule, noise, self.schedule.steps if paper else steps, as_released=paper)
        return Networks(self.coloured(drawn), self.dialect)
