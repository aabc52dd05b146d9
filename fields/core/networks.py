"""Many small networks of one shape, each with weights of its own: a reflectance, a shape or a signal in a few hundred numbers each.

On a CPU it is one kernel, forward and backward, a block of samples of one network at a time. On a GPU the products are torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._check import check_floating, check_shape
from fields.core._op import op
from fields.core._ref import networks as _ref
from fields.errors import ShapeError

_BLOCK = 128  # kNetworkBlock in networks.h
_MOST_LAYERS = 8  # kNetworkDepth


def parameter_count(widths: Sequence[int]) -> int:
    """Numbers in one network: of each layer the matrix, row by row, then the bias."""
    return sum((below + 1) * above for below, above in zip(widths[:-1], widths[1:], strict=True))


def small_networks(inputs: Tensor, weights: Tensor, widths: Sequence[int], slope: float = 0.01) -> Tensor:
    """Evaluates M networks of the same widths: linear layers, between them LeakyReLU.

    Args:
        inputs: (N, widths[0]) for all, or (M, N, widths[0]) for each.
        weights: (M, `parameter_count(widths)`): of each layer its matrix (out, in) row by row, then its bias.
        widths: of the inputs and of what each layer, at most eight, puts out.
        slope: of LeakyReLU where it is negative; 0 for ReLU.

    Returns:
        (M, N, widths[-1]) of the last layer, which has no activation.
    Gradients: to the weights, once; none to the inputs.
    Raises:
        ShapeError: wrong shapes or dtypes.
    """
    widths = [int(width) for width in widths]
    if not 2 <= len(widths) <= _MOST_LAYERS + 1 or min(widths) < 1:
        raise ShapeError(f"Networks have one to eight layers, of widths of at least 1; got {widths}.")
    check_shape("weights", weights, None, parameter_count(widths))
    if inputs.ndim == 3:
        check_shape("inputs", inputs, len(weights), None, widths[0])
    else:
        check_shape("inputs", inputs, None, widths[0])
    check_floating(inputs=inputs, weights=weights)
    inputs = inputs.detach()
    if _backend.use_reference(weights) or _backend.on_gpu(weights):
        return _ref.small_networks(inputs, weights, widths, slope)
    return _networks(inputs.contiguous(), weights.contiguous(), widths, slope)


def _launch(kernel: str, items: int, inputs: Tensor, weights: Tensor, widths: list[int], slope: float, **given) -> None:
    samples = inputs.shape[-2]
    arguments: dict[str, Any] = dict.fromkeys(("grad", "outputs", "grad_weights")) | given
    _backend.launch(
        kernel, items, weights, 1, inputs=inputs, weights=weights, samples=samples, parameters=weights.shape[1],
        stride=samples * widths[0] if inputs.ndim == 3 else 0, width=widths, layers=len(widths) - 1, slope=slope, **arguments,
    )  # fmt: skip


@op("networks")
def _networks(inputs: Tensor, weights: Tensor, widths: list[int], slope: float) -> Tensor:
    networks, samples = len(weights), inputs.shape[-2]
    outputs = weights.new_empty(networks, samples, widths[-1])
    _launch("networks_forward", networks * -(-samples // _BLOCK), inputs, weights, widths, slope, outputs=outputs)
    return outputs


@op("networks_bwd")
def _networks_bwd(grad: Tensor, inputs: Tensor, weights: Tensor, widths: list[int], slope: float) -> Tensor:
    grad_weights = torch.empty_like(weights)
    _launch("networks_backward", len(weights), inputs, weights, widths, slope, grad=grad.contiguous(), grad_weights=grad_weights)  # fmt: skip
    return grad_weights


@_networks.register_fake
def _(inputs, weights, widths, slope):
    return weights.new_empty(len(weights), inputs.shape[-2], widths[-1])


@_networks_bwd.register_fake
def _(grad, inputs, weights, widths, slope):
    return torch.empty_like(weights)


def _setup(ctx, inputs, output):
    x, weights, ctx.widths, ctx.slope = inputs
    ctx.save_for_backward(x, weights)


def _backward(ctx, grad):
    return None, _networks_bwd(grad, *ctx.saved_tensors, ctx.widths, ctx.slope), None, None


_networks.register_autograd(_backward, setup_context=_setup)
