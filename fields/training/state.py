"""What a training of one model with one optimiser is, as tensors: for `--resume`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def packed(model: torch.nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All of it, by names; `average` are the model's averaged weights, where there are any."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{k}": v for k, v in moments.items()}
    return tensors


def unpacked(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Of the model, averaged, and of the optimiser: see `packed`."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimiser": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    return parts["model"], parts["average"], parts["optimiser"]


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Goes on with what `unpacked` gave."""
    state: dict[str, Any] = optimiser.state_dict()
    for name, value in tensors.items():
        number, _, moment = name.partition(".")
        state["state"].setdefault(int(number), {})[moment] = value
    optimiser.load_state_dict(state)
