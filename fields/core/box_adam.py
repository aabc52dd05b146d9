"""Adam that leaves idle boxes alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fields.core import _backend


class BoxAdam(torch.optim.Optimizer):
    """Adam for vectors (boxes, …) that leaves a box alone, values and moments, while its gradient is zero throughout.

    Bias is corrected by the steps of the whole optimiser, as in the paper's code: a box that has been idle moves at once
    with the pace of the others.

    Args:
        groups: as in torch.optim; `l1` may differ between groups.
        lr: learning rate.
        betas, eps: of Adam.
        l1: weight of a penalty on the sum over axes of the mean absolute value of each parameter (boxes, axes, …). An
            idle box is not touched for it either: alone, the penalty makes Adam shrink values at a constant pace, and
            a box gets all that it has missed at once, when it is next busy or by `settle`.
    """

    def __init__(
        self, groups, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8, l1: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "l1": l1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.numel():
                    self._update(p, p.grad.contiguous(), group, settling=False)

    @torch.no_grad()
    def settle(self) -> None:
        """Gives idle boxes the shrinking they have missed: before anything but training looks at them."""
        for group in self.param_groups:
            for p in group["params"]:
                if group["l1"] > 0 and p in self.state:
                    self._update(p, None, group, settling=True)

    def _update(self, p: Tensor, grad: Tensor | None, group: dict[str, Any], settling: bool) -> None:
        state, lazy = self.state[p], group["l1"] > 0
        if not state:
            state["step"], state["clock"] = torch.zeros(()), torch.zeros((), dtype=torch.float64)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            if lazy:
                state["since"] = p.new_zeros(p.shape[0])
        clock, rate = float(state["clock"]), 0.0 if settling else group["lr"]
        if not settling:
            state["step"] += 1
            state["clock"] += rate
        (first, second), step = group["betas"], float(state["step"])
        update = _reference_adam if _backend.use_reference(p) else _adam
        update(
            value=p.data, grad=grad, mean=state["exp_avg"], square=state["exp_avg_sq"], since=state.get("since"),
            beta_mean=first, beta_square=second, rate=rate / (1 - first**step), correction=math.sqrt(1 - second**step),
            epsilon=group["eps"], penalty=group["l1"] * p.shape[1] / p.numel(), clock=clock, clock_after=clock + rate,
            settling=settling,
        )  # fmt: skip


def _adam(value: Tensor, **arguments: Any) -> None:
    _backend.launch("box_adam", value.shape[0], value, 4, value=value, size=value[0].numel(), **arguments)


def _reference_adam(value, grad, mean, square, since, beta_mean, beta_square, rate, correction, epsilon, penalty, clock,
                    clock_after, settling) -> None:  # fmt: skip
    busy = grad.flatten(1).any(1) if grad is not None else torch.ones(len(value), dtype=torch.bool, device=value.device)
    if since is not None:
        missed = ((clock - since[busy]) * penalty / (penalty + epsilon)).view(-1, *[1] * (value.dim() - 1))
        value[busy] = value[busy].sign() * (value[busy].abs() - missed).clamp(min=0)
        since[busy] = clock_after
    if settling:
        return
    grad = grad + penalty * value.sign()
    mean[busy] = torch.lerp(grad, mean, beta_mean)[busy]
    square[busy] = torch.lerp(grad.square(), square, beta_square)[busy]
    value[busy] -= rate * mean[busy] / (square[busy].sqrt() / correction + epsilon)
