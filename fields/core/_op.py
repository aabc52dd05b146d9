"""Registering the core's operators with torch: what `torch.library.custom_op` does, in less time per call.

A training iteration makes dozens of calls that each take a GPU microseconds, so what a call costs in Python counts.
Registered here, an operator is what `custom_op` makes of it (a schema, one kernel for CPU and CUDA, a fake, autograd;
`opcheck` passes), with a plain `torch.autograd.Function` in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("fields", "FRAGMENT")


def op(name: str) -> Callable[[Callable], Op]:
    """Makes an operator ``fields::name`` of a function of tensors, lists of tensors and plain values."""
    return lambda function: Op(name, function)


class Op:
    """An operator. Calls go through torch's dispatcher, so fakes, autograd and compilation see it."""

    def __init__(self, name: str, function: Callable) -> None:
        self.name, self.__doc__ = name, function.__doc__
        self._backward: Callable | None = None
        self._setup: Callable | None = None
        _LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=()))
        _LIBRARY.impl(name, function, "CPU")
        _LIBRARY.impl(name, function, "CUDA")
        _LIBRARY.impl(name, self._differentiable, "Autograd")
        self.overload = getattr(torch.ops.fields, name).default
        returns = self.overload._schema.returns
        self._returns_list = len(returns) == 1 and isinstance(returns[0].type, torch.ListType)

    def __call__(self, *inputs: Any) -> Any:
        return self.overload(*inputs)

    def register_fake(self, function: Callable) -> Callable:
        torch.library.register_fake(f"fields::{self.name}", function, lib=_LIBRARY)
        return function

    def register_autograd(self, backward: Callable, *, setup_context: Callable) -> None:
        """As of `custom_op`: `setup_context(ctx, inputs, output)`, and `backward(ctx, *grads)` returns one gradient per
        input, a list for a list of tensors. Without it, differentiating raises."""
        self._backward, self._setup = backward, setup_context

    # ------------------------------------------------------------------------------------ between op and autograd

    def _differentiable(self, *inputs: Any) -> Any:
        tensors = [t for i in inputs for t in (i if isinstance(i, list) else (i,)) if isinstance(t, Tensor)]
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            output = _Node.apply(self, inputs, *tensors)
            return list(output) if self._returns_list else output
        return self._below(*inputs)

    def _below(self, *inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return self.overload(*inputs)


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: Op, inputs: tuple, *tensors: Tensor) -> Any:
        output = op._below(*inputs)
        ctx.op = op
        ctx.lengths = [len(i) if isinstance(i, list) else int(isinstance(i, Tensor)) for i in inputs]
        if op._setup is not None:
            op._setup(ctx, inputs, output)
        return tuple(output) if op._returns_list else output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if ctx.op._backward is None:
            raise RuntimeError(f"fields::{ctx.op.name} cannot be differentiated: its output has no derivative here.")
        cotangents = (list(grads),) if ctx.op._returns_list else grads
        given = ctx.op._backward(ctx, *cotangents)
        flat: list[Tensor | None] = []
        for length, g in zip(ctx.lengths, given if isinstance(given, tuple) else (given,), strict=True):
            if length:
                flat += list(g) if isinstance(g, list | tuple) else [g] if length == 1 else [None] * length
        return None, None, *flat
