"""How the material model learns: weights of networks are noised, and it says what they were."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from fields.neumadiff.config import NeumadiffConfig
from fields.neumadiff.encoders import text_encoder
from fields.neumadiff.model import MaterialModel
from fields.neumadiff.picture_encoder import Sight, gathered_sight
from fields.neumadiff.rows import Rows, gathered
from fields.training import processes
from fields.training.state import load_optimiser, packed, unpacked

_AVERAGED = 0.999
"""Of the weights, from one iteration to the next."""
_NOTHING, _ALONE = 0.1, 0.6
"""How often nothing is told of a material, and one thing alone: statistics say all that words do, and beside them words would not be listened to."""


def told_of(drawn: Tensor) -> Tensor:
    """Which of C things are told of materials, bool (B, C), of random numbers (B, 1 + C)."""
    how, order = drawn[:, :1], drawn[:, 1:]
    alone = order == order.amin(1, keepdim=True)
    return torch.where(how < _NOTHING, False, torch.where(how < _NOTHING + _ALONE, alone, order < 0.5))


@dataclass
class Lessons:
    """What a model learns from."""

    rows: Rows
    sight: Sight | None = None
    """Of the rows; without, it learns nothing of pictures."""


class MaterialTraining:
    """See `fields.training.loop.Steps`."""

    shares: ClassVar[bool] = True

    def __init__(self, config: NeumadiffConfig, lessons: Lessons, seed: int) -> None:
        torch.manual_seed(seed)
        rows, sight = lessons.rows, lessons.sight
        self.config, self.rows, self.seed = config, rows, seed
        reader = text_encoder(config.text)
        self.model = MaterialModel.of(rows, config.size, reader.id, sight.encoder if sight else None)
        self.embedded = sight.embedded if sight else None
        kinds = torch.tensor([self.model.categories.index(category) for category in rows.categories])
        self.category = torch.nn.functional.one_hot(kinds, len(self.model.categories)).float()
        texts = sorted({caption for captions in rows.captions for caption in captions})
        self.text = reader.encode(texts)
        number = {text: k for k, text in enumerate(texts)}
        self.captions = [torch.tensor([number[caption] for caption in captions]) for captions in rows.captions]
        self.optimiser = torch.optim.AdamW(self.model.parameters(), config.rate, weight_decay=0.01, fused=True)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    @staticmethod
    def gather(config: NeumadiffConfig, folder: Path, watch: Callable[[int, int], None]) -> Lessons:
        """What it learns from, made where it is missing."""
        text_encoder(config.text)  # complains now, not when materials have been fitted for minutes
        rows, iterations = gathered(config, folder, watch), config.picture_iterations
        return Lessons(rows, gathered_sight(rows, iterations, folder, watch) if iterations else None)

    def step(self, i: int) -> dict[str, Tensor]:
        config, generator = self.config, torch.Generator().manual_seed(self.seed * 1_000_003 + i)
        for group in self.optimiser.param_groups:
            group["lr"] = config.rate * max(0.5 + 0.5 * math.cos(math.pi * i / config.iterations), 1e-3)
        which = torch.randint(len(self.rows), (config.batch,), generator=generator)
        drawn = torch.rand(config.batch, generator=generator)
        told = [self.captions[k][int(u * len(self.captions[k]))] for k, u in zip(which.tolist(), drawn.tolist(), strict=True)]  # fmt: skip
        wanted = {"category": self.category[which], "text": self.text[torch.stack(told)], "statistics": self.rows.statistics[which]}  # fmt: skip
        if self.embedded is not None:
            view = torch.randint(self.embedded.shape[1], (config.batch,), generator=generator)
            wanted["image"] = self.embedded[which, view]
        present = told_of(torch.rand(config.batch, 1 + len(wanted), generator=generator))
        x = self.model.whitening(self.rows.weights[which])
        t = torch.randint(1, self.model.schedule.steps + 1, (config.batch,), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        x, t, noise, present = map(processes.share, (x, t, noise, present))
        wanted = {name: processes.share(values) for name, values in wanted.items()}
        loss = self.model.loss(x, t, noise, wanted, present)
        self.optimiser.zero_grad()
        loss.backward()
        processes.mean_of_gradients(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        kept = min(_AVERAGED, (1 + i) / (10 + i))
        torch._foreach_lerp_(list(self.average.values()), list(self.model.state_dict().values()), 1 - kept)
        (loss,) = processes.mean(loss.detach())
        return {"loss": loss}

    def finish(self, watch: Callable[[int, int], None] = lambda done, total: None) -> None:
        """The model is the mean of what it was, and is kept in half precision."""
        self.model.load_state_dict(self.average)
        for parameter in self.model.parameters():
            parameter.data = parameter.data.half()

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return packed(self.model, self.average, self.optimiser), {}

    @classmethod
    def resume(
        cls, config: NeumadiffConfig, lessons: Lessons, seed: int, tensors: dict[str, Tensor], plain: dict
    ) -> MaterialTraining:
        training = cls(config, lessons, seed)
        model, average, optimiser = unpacked(tensors)
        training.average = {name: average[name] for name in training.average}  # a file has an order of its own
        training.model.load_state_dict(model)
        load_optimiser(training.optimiser, optimiser)
        return training
