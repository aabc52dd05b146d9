"""Sampling clouds of boxes that each hold a CP tensor of their own.

The vectors of one scale are one tensor (boxes, 3, knots, rank): for every box and axis a row of `rank` numbers per knot.
Knots are corner aligned, the first and the last on the faces of the box. What a box says of a point is the sum over
ranks of the product of its three interpolated vectors; what the cloud says is the weighted mean over the boxes that hold
the point, added up over scales.

Reference: Strivec (Gao et al., ICCV 2023), eq. 6 to 17.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._check import check_floating, check_shape
from fields.core._op import op
from fields.core._ref import cloud as _ref
from fields.core.boxes import BoxIndex
from fields.core.grids import QUAD, aligned, fixed_point
from fields.errors import ShapeError

_MOST_SCALES, _MOST_BOXES = 4, 8  # kScales, kMostBoxes in cloud.h
_CHUNKS, _SMALLEST_CHUNK = 16, 1024  # of the samples, when they are binned by box

Reduce = Literal["sum", "concat"]
Weights = Literal["window", "inverse"]


def tri_vector_sample(
    x: Tensor,
    vectors: Sequence[Tensor],
    boxes: Sequence[BoxIndex],
    reduce: Reduce = "sum",
    jacobian: bool = False,
    *,
    weights: Weights = "window",
    nearest: int = 8,
    average: bool = False,
    clamp_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Samples a cloud of tri-vectors of one to four scales.

    Args:
        x: (N, 3) positions in the frame of the boxes.
        vectors: per scale (B, 3, knots, rank).
        boxes: where the boxes of each scale are.
        reduce: "sum" adds up ranks and scales; "concat" keeps the rank₁ + rank₂ + … products apart, averaged over boxes.
        jacobian: also return the derivative of the value with respect to x, the weights' included.
        weights: "window", 1 in the middle of a box and 0 on its faces, so that the value has no seams; "inverse", the
            paper's 1 / (distance + 1e-6) to the nearest boxes (eq. 15). Either way they are normalised to sum to 1.
        nearest: at most so many boxes of a scale contribute, those of the largest weights, equal ones by index.
        average: divide by the number of scales with a box at x (the paper's text), instead of adding up (its code).
        clamp_weights: divide inverse weights by no less than 1, as the paper's code does.

    Returns:
        (N,) or (N, rank₁ + …); with `jacobian` also (N, 3) or (N, rank₁ + …, 3). Zero where no box is.
    Gradients: to x and vectors, once; none through the Jacobian. On CPUs the same bits on any number of threads; on a GPU
        where `torch.use_deterministic_algorithms` asks for it.
    Raises:
        ShapeError: vectors that do not fit their boxes; windows on a lattice whose boxes do not overlap, or overlap so
            much that more than eight hold a point.
    """
    options = _checked(x, vectors, boxes, reduce, weights, nearest, average, clamp_weights)
    index, frame = [t for b in boxes for t in b.tensors], [v for b in boxes for v in b.frame]
    vectors = [v.contiguous() for v in vectors]
    if _backend.use_reference(x):
        if jacobian:
            return _reference_jacobian(x, vectors, index, frame, options)
        return _ref.value(x, vectors, index, frame, **options)
    x, where = x.contiguous(), (index, frame, list(map(int, options.values())))
    if jacobian:
        return _jacobian(x.detach(), [v.detach() for v in vectors], *where)
    note = torch.is_grad_enabled() and not _backend.on_gpu(x) and any(v.requires_grad for v in vectors)
    return _value(x, vectors, *where, note)[0]


def _checked(x, vectors, boxes, reduce, weights, nearest, average, clamp_weights) -> dict[str, Any]:
    check_shape("x", x, None, 3)
    check_floating(x=x, **{f"vectors {s}": v for s, v in enumerate(vectors)})
    if not 1 <= len(vectors) <= _MOST_SCALES or len(boxes) != len(vectors):
        raise ShapeError(f"A cloud has one to four scales, with boxes for each; got {len(vectors)} and {len(boxes)}.")
    if reduce not in ("sum", "concat") or weights not in ("window", "inverse"):
        raise ShapeError(
            f"reduce can be 'sum' or 'concat', weights 'window' or 'inverse'; got {reduce!r}, {weights!r}."
        )
    if not 1 <= nearest <= _MOST_BOXES:
        raise ShapeError(f"nearest is {nearest}; it can be 1 to {_MOST_BOXES}.")
    for s, (v, b) in enumerate(zip(vectors, boxes, strict=True)):
        check_shape(f"vectors {s}", v, len(b.centres), 3, None, None)
        if v.shape[2] < 2:
            raise ShapeError(f"A vector needs at least two knots; scale {s} has {v.shape[2]}.")
        if weights == "window" and b.lattice.numel():
            if not 0.5 * b.spacing < b.half <= b.spacing:
                raise ShapeError(f"Windows need half edges of 0.5 to 1 spacings ({b.spacing}), not {b.half}.")
            if nearest < _MOST_BOXES:
                raise ShapeError(f"Windows on a lattice sum to 1 over eight boxes, not over the nearest {nearest}.")
    return {"summed": reduce == "sum", "averaged": average, "windowed": weights == "window", "nearest": nearest,
            "clamped": clamp_weights and weights == "inverse"}  # fmt: skip


def _reference_jacobian(x, vectors, index, frame, options) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        position = x.detach().requires_grad_()
        v = _ref.value(position, [t.detach() for t in vectors], index, frame, **options)
        columns = v[:, None] if options["summed"] else v
        rows = [
            torch.autograd.grad(columns[:, c].sum(), position, retain_graph=True)[0] for c in range(columns.shape[1])
        ]
    return v.detach(), rows[0] if options["summed"] else torch.stack(rows, 1)


# ---------------------------------------------------------------------------------------- ops and their derivatives

_OPTIONS = ("summed", "averaged", "windowed", "nearest", "clamped")
_POINTERS = ("grad", "value", "jacobian", "grad_x", "found_box", "found_weight", "counts", "places",
             "sample", "weight", "fixed_point")  # fmt: skip
_TEAM = 4  # GPU threads of four channels each; ranks are 8 to 48
_BLOCK = 16  # kBlock in cloud.h, of CPUs


def _launch(kernel: str, items: int, x: Tensor, vectors: list[Tensor], index: list[Tensor], frame: list[float],
            options: list[int], grain: int = 4, **given) -> None:  # fmt: skip
    centres, lattice, keys, begins, members = (index[k::5] for k in range(5))
    free = [not t.numel() for t in lattice]
    cells = [[len(k), 0, 0] if f else list(t.shape) for f, k, t in zip(free, keys, lattice, strict=True)]
    arguments: dict[str, Any] = dict.fromkeys(_POINTERS) | dict(zip(_OPTIONS, options, strict=True)) | {
        "x": x, "vectors": vectors, "grad_vectors": [], "centres": [c.to(x.dtype) for c in centres],
        "lattice": [None if f else t for f, t in zip(free, lattice, strict=True)],
        "keys": keys, "begins": begins, "members": members, "n": x.shape[0], "chunk": 0, "chunks": 0,
        "cells": [n for of_scale in cells for n in of_scale], "boxes": [len(c) for c in centres],
        "knots": [v.shape[2] for v in vectors], "rank": [v.shape[3] for v in vectors],
        "out": sum(v.shape[3] for v in vectors), "scales": len(vectors),
        "low": [v for s in range(len(vectors)) for v in frame[5 * s : 5 * s + 3]],
        "spacing": frame[3::5], "half": frame[4::5], "per_spacing": [1 / v for v in frame[3::5]],
        "per_knot": [(v.shape[2] - 1) / (2 * h) for v, h in zip(vectors, frame[4::5], strict=True)],
        "per_shared": [1 / h if f else 1 / max(2 * h - v, 1e-12) for f, v, h in zip(free, frame[3::5], frame[4::5], strict=True)],
        "reach": [h / v - 0.5 for v, h in zip(frame[3::5], frame[4::5], strict=True)],
    }  # fmt: skip
    arguments |= given
    if not _backend.on_gpu(x):
        _backend.launch(f"cloud_{kernel}", items, x, grain, **arguments)
        return
    special: dict[str, Any] = specialised(vectors)
    if special["aligned"]:
        arguments = {name: aligned(value) for name, value in arguments.items()}
    types = {}
    if arguments["fixed_point"] is not None:
        special["sum"], types["Sum"] = "int64_t", torch.int64
    _backend.launch(f"cloud_{kernel}", items, x, grain, team=_TEAM, special=special, types=types, **arguments)


def specialised(vectors: Sequence[Tensor]) -> dict[str, int]:
    """What a GPU kernel on a cloud is compiled for: whether rows can be read and added to four channels at a time."""
    return {"aligned": int(all(v.shape[3] % QUAD == 0 for v in vectors))}


def _blocks(x: Tensor) -> int:
    """Items of the kernels that look for boxes."""
    return x.shape[0] if _backend.on_gpu(x) else -(-x.shape[0] // _BLOCK)


def _empty_value(x: Tensor, vectors: list[Tensor], options: list[int]) -> Tensor:
    return x.new_empty(x.shape[0]) if options[0] else x.new_empty(x.shape[0], sum(v.shape[3] for v in vectors))


@op("cloud_value")
def _value(
    x: Tensor, vectors: list[Tensor], index: list[Tensor], frame: list[float], options: list[int], note: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The value; and, to `note` for the backward pass, which boxes hold a sample and by what weights, else empty."""
    value = _empty_value(x, vectors, options)
    most = len(vectors) * options[3] if note else 0
    box, weight = x.new_empty(x.shape[0], most, dtype=torch.int32), x.new_empty(x.shape[0], most)
    found: dict[str, Any] = {"found_box": box, "found_weight": weight} if note else {}
    _launch("value", _blocks(x), x, vectors, index, frame, options, value=value, **found)
    return value, box, weight


@op("cloud_jacobian")
def _jacobian(
    x: Tensor, vectors: list[Tensor], index: list[Tensor], frame: list[float], options: list[int]
) -> tuple[Tensor, Tensor]:
    value = _empty_value(x, vectors, options)
    jacobian = value.new_empty(*value.shape, 3)
    _launch("jacobian", _blocks(x), x, vectors, index, frame, options, value=value, jacobian=jacobian)
    return value, jacobian


@op("cloud_grad_x")
def _grad_x(
    grad: Tensor, x: Tensor, vectors: list[Tensor], index: list[Tensor], frame: list[float], options: list[int]
) -> Tensor:
    grad_x = torch.empty_like(x)
    _launch("grad_x", _blocks(x), x, vectors, index, frame, options, grad=grad.contiguous(), grad_x=grad_x)
    return grad_x


@op("cloud_grad_vectors")
def _grad_vectors(
    grad: Tensor,
    x: Tensor,
    vectors: list[Tensor],
    index: list[Tensor],
    frame: list[float],
    options: list[int],
    found_box: Tensor,
    found_weight: Tensor,
) -> list[Tensor]:
    n = x.shape[0]
    where: dict[str, Any] = {"x": x, "vectors": vectors, "index": index, "frame": frame, "options": options}
    where["grad"] = grad.contiguous()
    if _backend.on_gpu(x):
        if not torch.are_deterministic_algorithms_enabled():
            grads = [torch.zeros_like(v) for v in vectors]
            _launch("grad_samples", _blocks(x), **where, grad_vectors=grads)
            return grads
        # A term is a weight of at most 1, times grad, times the product of two knots' values.
        largest = torch.stack(
            [v.abs().amax().double() for v in vectors if v.numel()] or [x.new_zeros((), dtype=torch.float64)]
        ).max()
        scale = fixed_point(largest.square() * (grad.abs().amax().double() if n else 0))
        sums = [torch.zeros_like(v, dtype=torch.int64) for v in vectors]
        _launch("grad_samples", _blocks(x), **where, grad_vectors=sums, fixed_point=scale)
        return [(g / scale).to(x.dtype) for g in sums]
    chunk = max(_SMALLEST_CHUNK, -(-n // _CHUNKS))
    chunks, boxes = -(-n // chunk), sum(len(v) for v in vectors)
    where |= {"found_box": found_box, "found_weight": found_weight, "chunk": chunk, "chunks": chunks}
    counts = torch.zeros(boxes, chunks, dtype=torch.int32, device=x.device)
    _launch("count", chunks, **where, grain=1, counts=counts)
    places = torch.zeros(boxes * chunks + 1, dtype=torch.int32, device=x.device)
    torch.cumsum(counts.view(-1), 0, dtype=torch.int32, out=places[1:])
    pairs = int(places[-1])
    where |= {"sample": places.new_empty(pairs), "weight": x.new_empty(pairs)}
    _launch("sort", chunks, **where, grain=1, counts=places[:-1].clone())
    grads = [torch.empty_like(v) for v in vectors]
    _launch("grad_boxes", boxes, **where, grain=1, grad_vectors=grads, places=places)
    return grads


@_value.register_fake
def _(x, vectors, index, frame, options, note):
    found = x.new_empty(x.shape[0], len(vectors) * options[3] if note else 0)
    return _empty_value(x, vectors, options), found.int(), found


@_jacobian.register_fake
def _(x, vectors, index, frame, options):
    value = _empty_value(x, vectors, options)
    return value, value.new_empty(*value.shape, 3)


@_grad_x.register_fake
def _(grad, x, vectors, index, frame, options):
    return torch.empty_like(x)


@_grad_vectors.register_fake
def _(grad, x, vectors, index, frame, options, found_box, found_weight):
    return [torch.empty_like(v) for v in vectors]


def _setup(ctx, inputs, output):
    x, vectors, index, ctx.frame, ctx.options, _ = inputs
    ctx.scales = len(vectors)
    ctx.need_x, ctx.need_vectors = x.requires_grad, any(v.requires_grad for v in vectors)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(x, *output[1:], *vectors, *index)


def _backward(ctx, grad, *_):
    x, found_box, found_weight, *rest = ctx.saved_tensors
    vectors, index = rest[: ctx.scales], rest[ctx.scales :]
    where = (grad, x, vectors, index, ctx.frame, ctx.options)
    grad_x = _grad_x(*where) if ctx.need_x else None
    of_vectors = _grad_vectors(*where, found_box, found_weight) if ctx.need_vectors else [None] * ctx.scales
    return grad_x, of_vectors, [None] * len(index), None, None, None


_value.register_autograd(_backward, setup_context=_setup)
