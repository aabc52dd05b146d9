"""Adam that leaves idle boxes alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fields.core import _backend

_TEAM = 32  # GPU threads per box


class BoxAdam(torch.optim.Optimizer):
    """Adam for vectors (boxes, …) that leaves a box alone, values and moments, while its gradient is zero throughout.

    Bias is corrected by the steps of the whole optimiser, as in the paper's code: a box that has been idle moves at once
    with the pace of the others.

    Args:
        groups: as in torch.optim; `l1` may differ between groups.
        lr: learning rate; a tensor of one number, which a CUDA graph of a step reads anew, or a float.
        betas, eps: of Adam.
        l1: weight of a penalty on the sum over axes of the mean absolute value of each parameter (boxes, axes, …). An
            idle box is not touched for it either: alone, the penalty makes Adam shrink values at a constant pace, and
            a box gets all that it has missed at once, when it is next busy or by `settle`.
    """

    def __init__(
        self, groups, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8, l1: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "l1": l1})
        for group in self.param_groups:
            if isinstance(group["lr"], Tensor):  # each its own, for a schedule to change in place
                group["lr"] = group["lr"].clone()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None and p.numel()]
            for p in moving:
                self._update(p, p.grad.contiguous(), group, settling=False)
            # On the parameters' device throughout, so that a recorded step advances them too.
            torch._foreach_add_([self.state[p]["step"] for p in moving], 1.0)
            # (A tensor that is not in a list would be read as a number, which is to wait for the GPU.)
            torch._foreach_add_([self.state[p]["clock"] for p in moving], [group["lr"]] * len(moving))

    @torch.no_grad()
    def settle(self) -> None:
        """Gives idle boxes the shrinking they have missed: before anything but training looks at them."""
        for group in self.param_groups:
            for p in group["params"]:
                if group["l1"] > 0 and p in self.state:
                    self._update(p, None, group, settling=True)

    def _update(self, p: Tensor, grad: Tensor | None, group: dict[str, Any], settling: bool) -> None:
        state = self.state[p]
        if not state:
            state["step"], state["clock"] = p.new_zeros(()), p.new_zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            if group["l1"] > 0:
                state["since"] = p.new_zeros(p.shape[0])
        update = _reference_adam if _backend.use_reference(p) else _adam
        update(
            value=p.data, grad=grad, mean=state["exp_avg"], square=state["exp_avg_sq"], since=state.get("since"),
            lr=torch.as_tensor(group["lr"], dtype=p.dtype, device=p.device), step=state["step"], clock=state["clock"],
            beta_mean=group["betas"][0], beta_square=group["betas"][1], epsilon=group["eps"],
            penalty=group["l1"] * p.shape[1] / p.numel(), settling=settling,
        )  # fmt: skip


def _adam(value: Tensor, **arguments: Any) -> None:
    team = _TEAM if _backend.on_gpu(value) else 1
    _backend.launch("box_adam", value.shape[0], value, 4, team=team, value=value, size=value[0].numel(), **arguments)


def _reference_adam(value, grad, mean, square, since, lr, step, clock, beta_mean, beta_square, epsilon, penalty,
                    settling) -> None:  # fmt: skip
    busy = grad.flatten(1).any(1) if grad is not None else torch.ones(len(value), dtype=torch.bool, device=value.device)
    if since is not None:
        missed = ((clock - since[busy]) * penalty / (penalty + epsilon)).view(-1, *[1] * (value.dim() - 1))
        value[busy] = value[busy].sign() * (value[busy].abs() - missed).clamp(min=0)
        since[busy] = clock if settling else clock + lr
    if settling:
        return
    grad = grad + penalty * value.sign()
    mean[busy] = torch.lerp(grad, mean, beta_mean)[busy]
    square[busy] = torch.lerp(grad.square(), square, beta_square)[busy]
    rate, correction = lr / (1 - beta_mean ** (step + 1)), (1 - beta_square ** (step + 1)).sqrt()
    value[busy] -= rate * mean[busy] / (square[busy].sqrt() / correction + epsilon)
