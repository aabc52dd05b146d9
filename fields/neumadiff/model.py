"""What is learned of materials, in one module: how weights are distributed, and what words have to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fields.neumadiff.denoiser import Conditions, DenoiserConfig, TimeEmbedding, denoiser
from fields.neumadiff.diffusion import Schedule, ddim, guided
from fields.neumadiff.encoders import width
from fields.neumadiff.network import DIALECTS, Dialect, Networks
from fields.neumadiff.picture_encoder import DIM, PictureEncoder
from fields.neumadiff.rows import Rows
from fields.neumadiff.statistics import NAMES
from fields.neumadiff.whitening import Whitening
from fields.neumadiff.words import words_in

SIZES = {
    "cpu": DenoiserConfig(),
    "small": DenoiserConfig("tensors", 384, 8, 6),
    "paper": DenoiserConfig("whole", 768, 12, 12),
}


class MaterialModel(nn.Module):
    """
    Args:
        size: one of `SIZES`; "cpu" has weights by the directions they vary in, "small" each by itself, "paper" as they are, with the published schedule
            and sampler.
        categories: it knows.
        text: id of its text encoder, see `fields.neumadiff.encoders`.
        dialect: of the networks it draws.
        scale: of their reflectance, see `fields.neumadiff.statistics.SCALES`.
        directions: in which weights vary, see `Whitening`.
        vocabulary: words that it has learned from, where it reads words; others would steer it anywhere.
        pictures: whether it has an encoder of them.
    """

    usual: Tensor
    usual_deviation: Tensor

    def __init__(self, size: str, categories: list[str], text: str = "words", dialect: str = "reciprocal", scale: str = "physical", directions: int = 0, vocabulary: Sequence[str] = (), pictures: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.size, self.categories, self.text, self.dialect_name, self.scale = size, list(categories), text, dialect, scale  # fmt: skip
        self.vocabulary = list(vocabulary)
        config = SIZES[size]
        self.whitening = Whitening(directions)
        self.denoiser, self.time = denoiser(config, self.whitening.width), TimeEmbedding(config.width)
        dims = {"category": len(categories), "text": width(text), "statistics": len(NAMES)}
        self.conditions = Conditions(dims | ({"image": DIM} if pictures else {}), config.width)
        self.picture_encoder = PictureEncoder().requires_grad_(False) if pictures else None
        self.schedule = Schedule.linear(100) if size == "paper" else Schedule.cosine(200)
        for name, value in (("usual", 0.0), ("usual_deviation", 1.0)):  # fmt: skip
            self.register_buffer(name, torch.full((len(NAMES),), value))

    def constructor_arguments(self) -> dict[str, Any]:
        return {"size": self.size, "categories": self.categories, "text": self.text, "dialect": self.dialect_name, "scale": self.scale, "directions": self.whitening.directions, "vocabulary": self.vocabulary, "pictures": self.picture_encoder is not None}  # fmt: skip

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.dialect_name]

    @property
    def modalities(self) -> list[str]:
        return list(self.conditions.adapters)

    @classmethod
    def of(cls, rows: Rows, size: str, text: str, picture_encoder: PictureEncoder | None = None) -> MaterialModel:
        """One that knows what is usual of materials, and nothing else yet."""
        whitening = {"cpu": Whitening.by_directions, "small": Whitening.of_each, "paper": lambda weights: Whitening()}[size](rows.weights)  # fmt: skip
        words = {word for captions in rows.captions for caption in captions for word in words_in(caption)}
        vocabulary = sorted(words) if text == "words" else []
        model = cls(
            size, sorted(set(rows.categories)), text, rows.dialect, rows.scale, whitening.directions, vocabulary,
            picture_encoder is not None,
        )  # fmt: skip
        model.whitening, model.picture_encoder = whitening, picture_encoder
        for own, value in zip((model.usual, model.usual_deviation), rows.usual, strict=True):
            own.copy_(value)
        return model

    def forward(self, x: Tensor, t: Tensor, wanted: dict[str, Tensor], present: Tensor) -> Tensor:
        """What the denoiser says of whitened weights (B, width), noised by t (B,) steps: their velocity, in the paper's size what they were; `wanted` and `present` as of
        `Conditions`."""
        time = self.time(t.to(x) / self.schedule.steps)
        return self.denoiser(x, time, self.conditions(self._usual(wanted), present))

    def loss(self, x: Tensor, t: Tensor, noise: Tensor, wanted: dict[str, Tensor], present: Tensor) -> Tensor:
        """Of whitened weights x (B, width) after t (B,) steps towards noise (B, width)."""
        said = self(self.schedule.noised(x, t, noise), t, wanted, present)
        true = x if self.size == "paper" else self.schedule.velocity(x, t, noise)
        return (said - true)[:, self.whitening.varies].square().mean()

    def _usual(self, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
        if "statistics" not in wanted:
            return wanted
        return wanted | {"statistics": (wanted["statistics"] - self.usual) / self.usual_deviation}

    @torch.no_grad()
    def draw(
        self, count: int, wanted: dict[str, Tensor] | None = None, *, guidance: float = 1.0, steps: int = 50, generator: torch.Generator | None = None
    ) -> Networks:  # fmt: skip
        """New materials.

        Args:
            wanted: one vector (dim,) for each modality that is to be followed.
            guidance: see `fields.neumadiff.diffusion.guided`.
            steps: of the sampler.
        """
        wanted = {name: vector.expand(count, -1) for name, vector in (wanted or {}).items()}
        present = torch.tensor([[name in wanted for name in self.modalities]]).expand(count, -1)
        noise = torch.randn(count, self.whitening.width, generator=generator)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            said = self(x, t, {}, torch.zeros_like(present))
            if wanted:
                said = guided(self(x, t, wanted, present), said, guidance)
            return said if paper else self.schedule.was(x, t, said)

        paper = self.size == "paper"
        drawn = ddim(denoise, self.schedule, noise, self.schedule.steps if paper else steps, as_released=paper)
        return Networks(self.whitening.back(drawn), self.dialect)
