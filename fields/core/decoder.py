"""The small decoder of radiance fields: features and view directions to colour.

On a CPU it is one kernel, forward and backward, in blocks that stay in cache. On a GPU the matrix products are torch's,
on tensor cores where `torch.set_float32_matmul_precision` allows; the encoding between them is a kernel, and layers
without gradients are in half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from fields.core import _backend
from fields.core._check import check_floating, check_shape
from fields.core._op import op
from fields.core._ref import decoder as _ref
from fields.errors import ShapeError

_PAD = 16  # kPad in decoder.h
_BLOCK = 96  # kDecoderBlock
_MOST_CHUNKS = 16  # copies of the weight gradients; more would only cost memory traffic on the usual core counts


def fused_decoder(
    features: Tensor,
    directions: Tensor,
    basis: Tensor | None,
    weights: list[Tensor],
    biases: list[Tensor],
    feature_frequencies: int = 2,
    view_frequencies: int = 2,
) -> Tensor:
    """Decodes colour: sigmoid(MLP([f, d, sin f…, cos f…, sin d…, cos d…])) with f = basis · features.

    Args:
        features: (N, F) appearance features.
        directions: (N, 3) unit view directions.
        basis: (D, F), or None where the features are f themselves.
        weights: of one to four layers, (out, in) each, as in torch.nn.Linear; ReLU between layers.
        biases: (out,) of each layer.
        feature_frequencies, view_frequencies: how many octaves 1, 2, 4 … encode f and d.

    Returns:
        (N, out of the last layer) in (0, 1).
    Gradients: to every tensor, once.
    Raises:
        ShapeError: layers that do not fit one another.
    Reference: TensoRF (Chen et al., ECCV 2022), section 4.2; the encoding of NeRF (Mildenhall et al., 2020), eq. 4, without π.
    """
    check_shape("features", features, None, None)
    check_shape("directions", directions, features.shape[0], 3)
    tensors = {"basis": basis} if basis is not None else {}
    check_floating(
        features=features, directions=directions, **tensors, **{f"weight {k}": w for k, w in enumerate(weights)}
    )
    width = features.shape[1] if basis is None else basis.shape[0]
    if basis is not None:
        check_shape("basis", basis, None, features.shape[1])
    if not features.shape[1] or not width:
        raise ShapeError("The decoder needs features: those given are 0 wide.")
    if not 1 <= len(weights) <= 4 or len(biases) != len(weights):
        raise ShapeError(
            f"The decoder has one to four layers, each with weight and bias; got {len(weights)} and {len(biases)}."
        )
    inputs = encoded_width(width, feature_frequencies, view_frequencies)
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        check_shape(f"weight {k}", weight, None, inputs)
        check_shape(f"bias {k}", bias, weight.shape[0])
        inputs = weight.shape[0]
    arguments = features, directions, basis, list(weights), list(biases), feature_frequencies, view_frequencies
    if _backend.use_reference(features):
        return _ref.decode(*arguments)
    if _backend.on_gpu(features):
        return _decode_in_layers(*arguments)
    save = torch.is_grad_enabled() and any(
        t.requires_grad for t in (features, directions, *([basis] if basis is not None else []), *weights, *biases)
    )
    return _decode(features.contiguous(), directions.contiguous(), *arguments[2:], save)[0]


def encoded_width(width: int, feature_frequencies: int, view_frequencies: int) -> int:
    """Columns of `fourier_encode` for features of this width."""
    return width + 3 + 2 * (width * feature_frequencies + 3 * view_frequencies)


def fourier_encode(
    features: Tensor, directions: Tensor, feature_frequencies: int = 2, view_frequencies: int = 2
) -> Tensor:
    """The input of the decoder's MLP: [f, d, sin f…, cos f…, sin d…, cos d…], octaves 1, 2, 4 …

    Args:
        features: (N, D).
        directions: (N, 3).

    Returns:
        (N, `encoded_width(D, …)`).
    Gradients: to both, once.
    Raises:
        ShapeError: wrong shapes or dtypes.
    """
    check_shape("features", features, None, None)
    check_shape("directions", directions, features.shape[0], 3)
    check_floating(features=features, directions=directions)
    if _backend.use_reference(features):
        return _ref.encode(features, directions, feature_frequencies, view_frequencies)
    used = encoded_width(features.shape[1], feature_frequencies, view_frequencies)
    return _encode(features.contiguous(), directions.contiguous(), feature_frequencies, view_frequencies, False)[
        :, :used
    ]


def _decode_in_layers(
    features: Tensor,
    directions: Tensor,
    basis: Tensor | None,
    weights: list[Tensor],
    biases: list[Tensor],
    feature_frequencies: int,
    view_frequencies: int,
) -> Tensor:
    f = features if basis is None else linear(features, basis)
    learning = torch.is_grad_enabled() and any(t.requires_grad for t in (f, directions, *weights, *biases))
    half = not learning and f.dtype is torch.float32
    x = _encode(f.contiguous(), directions.contiguous(), feature_frequencies, view_frequencies, half)
    weights = [pad(weights[0], (0, x.shape[1] - weights[0].shape[1])), *weights[1:]]
    if half:
        weights, biases = [w.half() for w in weights], [b.half() for b in biases]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = torch.relu(linear(x, weight, bias))
    return torch.sigmoid(linear(x, weights[-1], biases[-1]).to(features.dtype))


@op("encode")
def _encode(features: Tensor, directions: Tensor, feature_frequencies: int, view_frequencies: int, half: bool) -> Tensor:  # fmt: skip
    """(N, row): the MLP's input, behind it zeros to a multiple of 8 columns, as tensor cores like it."""
    n, width = features.shape
    used = encoded_width(width, feature_frequencies, view_frequencies)
    encoded = features.new_empty(n, -(-used // 8) * 8, dtype=torch.float16 if half else features.dtype)
    encoded[:, used:] = 0
    special, types = ({"output": "half_t"}, {"Out": torch.float16}) if half else (None, None)
    _launch_encoding("encode", features, directions, encoded.shape[1], feature_frequencies, view_frequencies, special,
                     types, encoded=encoded)  # fmt: skip
    return encoded


@op("encode_bwd")
def _encode_bwd(
    grad: Tensor, features: Tensor, directions: Tensor, feature_frequencies: int, view_frequencies: int
) -> tuple[Tensor, Tensor]:
    grads = torch.empty_like(features), torch.empty_like(directions)
    _launch_encoding("encode_backward", features, directions, grad.shape[1], feature_frequencies, view_frequencies,
                     grad=grad.contiguous(), grad_features=grads[0], grad_directions=grads[1])  # fmt: skip
    return grads


def _launch_encoding(
    kernel, features, directions, row, frequencies_f, frequencies_d, special=None, types=None, **given
):
    arguments = dict.fromkeys(("encoded", "grad", "grad_features", "grad_directions")) | given
    n, width = features.shape
    _backend.launch(kernel, n * (width + 3), features, 4096, special=special, types=types, features=features,
                    directions=directions, width=width, row=row, frequencies_f=frequencies_f,
                    frequencies_d=frequencies_d, **arguments)  # fmt: skip


@_encode.register_fake
def _(features, directions, feature_frequencies, view_frequencies, half):
    n, width = features.shape
    used = encoded_width(width, feature_frequencies, view_frequencies)
    return features.new_empty(n, -(-used // 8) * 8, dtype=torch.float16 if half else features.dtype)


@_encode_bwd.register_fake
def _(grad, features, directions, feature_frequencies, view_frequencies):
    return torch.empty_like(features), torch.empty_like(directions)


def _encode_setup(ctx, inputs, output):
    features, directions, *ctx.frequencies, _ = inputs
    ctx.save_for_backward(features, directions)


def _encode_backward(ctx, grad):
    return *_encode_bwd(grad, *ctx.saved_tensors, *ctx.frequencies), None, None, None


_encode.register_autograd(_encode_backward, setup_context=_encode_setup)


# ---------------------------------------------------------------------------------------- the fused one of CPUs


def _padded(n: int) -> int:
    return -(-n // _PAD) * _PAD


def _pad(t: Tensor) -> Tensor:
    """With the last dimension a whole number of registers wide."""
    return pad(t, (0, _padded(t.shape[-1]) - t.shape[-1])).contiguous()


def _saved_width(features: Tensor, basis: Tensor | None, weights: list[Tensor]) -> int:
    width = features.shape[1] if basis is None else basis.shape[0]
    return _padded(width) + sum(_padded(w.shape[0]) for w in weights[:-1])


def _launch(
    kernel, items, features, directions, basis, weights, biases, feature_frequencies, view_frequencies, **given
):
    backward = kernel == "decoder_backward"
    arguments = dict.fromkeys(("grad", "saved", "grad_features", "grad_directions", "grad_parameters"))
    arguments |= {"features": features, "directions": directions, "n": features.shape[0], "parameters": 0, "chunk": 0}
    arguments |= {
        "basis": None if basis is None else _pad(basis),
        "basis_t": None if basis is None or backward else _pad(basis.T),
        "weight": [_pad(w) for w in weights] if backward else [],
        "weight_t": [] if backward else [_pad(w.T) for w in weights],
        "bias": [_pad(b) for b in biases],
        "saved_width": _saved_width(features, basis, weights),
        "width": [weights[0].shape[1], *[w.shape[0] for w in weights]],
        "layers": len(weights),
        "width_features": features.shape[1],
        "width_basis": features.shape[1] if basis is None else basis.shape[0],
        "frequencies_f": feature_frequencies,
        "frequencies_d": view_frequencies,
    }
    _backend.launch(kernel, items, features, 1, **(arguments | given))


@op("decoder")
def _decode(
    features: Tensor,
    directions: Tensor,
    basis: Tensor | None,
    weights: list[Tensor],
    biases: list[Tensor],
    feature_frequencies: int,
    view_frequencies: int,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """The colours, and (when `save`) what the backward pass needs: f and the hidden activations, (N, …)."""
    n = features.shape[0]
    output = features.new_empty(n, weights[-1].shape[0])
    saved = features.new_empty(n if save else 0, _saved_width(features, basis, weights))
    _launch("decoder_forward", -(-n // _BLOCK), features, directions, basis, weights, biases, feature_frequencies,
            view_frequencies, output=output, saved=saved if save else None)  # fmt: skip
    return output, saved


@op("decoder_bwd")
def _decode_bwd(
    grad: Tensor,
    output: Tensor,
    saved: Tensor,
    features: Tensor,
    directions: Tensor,
    basis: Tensor | None,
    weights: list[Tensor],
    biases: list[Tensor],
    feature_frequencies: int,
    view_frequencies: int,
) -> list[Tensor]:
    """[grad_features, grad_directions, grad_basis (empty without one), *grad_weights, *grad_biases]."""
    n = features.shape[0]
    chunk = _BLOCK * max(1, -(-n // (_BLOCK * _MOST_CHUNKS)))
    chunks = -(-n // chunk)
    shapes = [] if basis is None else [tuple(basis.shape)]
    for weight in weights:
        shapes += [tuple(weight.shape), (1, weight.shape[0])]
    sizes = [rows * _padded(columns) for rows, columns in shapes]
    copies = features.new_zeros(chunks, sum(sizes))
    total = features.new_zeros(sum(sizes))
    grad_features, grad_directions = torch.empty_like(features), torch.empty_like(directions)
    _launch("decoder_backward", chunks, features, directions, basis, weights, biases, feature_frequencies, view_frequencies,
            grad=grad.contiguous(), output=output, saved=saved, grad_features=grad_features,
            grad_directions=grad_directions, grad_parameters=copies, parameters=sum(sizes), chunk=chunk)  # fmt: skip
    _backend.launch("decoder_reduce", -(-sum(sizes) // 1024), features, 8, copies=copies, total=total,
                    chunks=chunks, parameters=sum(sizes))  # fmt: skip
    parts = [
        part.view(rows, -1)[:, :columns].clone()
        for part, (rows, columns) in zip(total.split(sizes), shapes, strict=True)
    ]
    grad_basis = features.new_empty(0) if basis is None else parts.pop(0)
    return [grad_features, grad_directions, grad_basis, *parts[0::2], *[b[0] for b in map(torch.clone, parts[1::2])]]


@_decode.register_fake
def _(features, directions, basis, weights, biases, feature_frequencies, view_frequencies, save):
    n = features.shape[0]
    saved = features.new_empty(n if save else 0, _saved_width(features, basis, weights))
    return features.new_empty(n, weights[-1].shape[0]), saved


@_decode_bwd.register_fake
def _(grad, output, saved, features, directions, basis, weights, biases, feature_frequencies, view_frequencies):
    grad_basis = features.new_empty(0) if basis is None else torch.empty_like(basis)
    parts = [torch.empty_like(p) for p in (features, directions, *weights, *biases)]
    return [*parts[:2], grad_basis, *parts[2:]]


def _setup(ctx, inputs, output):
    features, directions, basis, weights, biases, ctx.feature_frequencies, ctx.view_frequencies, _ = inputs
    ctx.layers, ctx.has_basis = len(weights), basis is not None
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*output, features, directions, *([basis] if ctx.has_basis else []), *weights, *biases)


def _backward(ctx, grad, _):
    output, saved, features, directions, *rest = ctx.saved_tensors
    basis = rest.pop(0) if ctx.has_basis else None
    weights, biases = rest[: ctx.layers], rest[ctx.layers :]
    grads = _decode_bwd(grad, output, saved, features, directions, basis, weights, biases,
                        ctx.feature_frequencies, ctx.view_frequencies)  # fmt: skip
    grad_basis = grads[2] if ctx.has_basis else None
    return grads[0], grads[1], grad_basis, grads[3 : 3 + ctx.layers], grads[3 + ctx.layers :], None, None, None


_decode.register_autograd(_backward, setup_context=_setup)
