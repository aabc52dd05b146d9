"""Sampling factorised grids: dense (trilinear), VM (plane × line) and CP (line × line × line).

All grids are corner aligned on [-1, 1]³ and indexed in the order of the axes, channels last: a volume is
``(Nx, Ny, Nz, C)``, the plane over x and z is ``(Nx, Nz, R)``, a line over y is ``(Ny, R)``. Outside the cube the
value at the border is held, with zero derivative.

The derivatives with respect to positions are those of the multilinear interpolant: exact inside a cell, and from the
cell at the right (left at the last knot) on its faces.

Factors may be stored as float16 or bfloat16 under float32 positions: arithmetic and sums of gradients are float32. GPUs
read such factors as they are, CPUs widen them first.

On a CPU gradients have the same bits on every run. On a GPU they are added up in the order in which threads come, unless
`torch.use_deterministic_algorithms` asks for determinism: then in fixed point, with 38 bits below the largest
possible term.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._check import check_floating, check_shape
from fields.core._op import op
from fields.core._ref import grids as _ref
from fields.core._ref.grids import LAYOUTS
from fields.errors import ShapeError

_STORED = {torch.float16: "half_t", torch.bfloat16: "bfloat_t"}  # types of common.h
QUAD = 4  # channels per GPU thread and load: kLanes in lanes.h
_WIDEST = 32  # bytes: four doubles
_LANES = 16  # channels per owner of the backward pass: kLanes in lanes.h
_RUN = 64  # samples per item of the other passes: kRun in grid.h

Reduce = Literal["sum", "concat"]


def vm_sample(
    x: Tensor, planes: Sequence[Tensor], lines: Sequence[Tensor], reduce: Reduce = "sum", jacobian: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Samples a vector-matrix decomposition: the products plane(xy)·line(z), plane(xz)·line(y), plane(yz)·line(x).

    Args:
        x: (N, 3) positions in [-1, 1].
        planes: three tensors (Nx, Ny, R₁), (Nx, Nz, R₂), (Ny, Nz, R₃).
        lines: three tensors (Nz, R₁), (Ny, R₂), (Nx, R₃).
        reduce: "sum" adds up channels and modes; "concat" keeps the R₁ + R₂ + R₃ products apart.
        jacobian: also return the derivative of the value with respect to x.

    Returns:
        (N,) or (N, R₁ + R₂ + R₃); with `jacobian` also (N, 3) or (N, R₁ + R₂ + R₃, 3).
    Gradients: to x, planes and lines, twice differentiable; through the Jacobian, once.
    Raises:
        ShapeError: factors that do not share one resolution and rank per mode, or fewer than two knots on an axis.
    Reference: TensoRF (Chen et al., ECCV 2022), eq. 3 and 7.
    """
    return _sample(x, [factor for pair in zip(planes, lines, strict=True) for factor in pair], "vm", reduce, jacobian)


def cp_sample(
    x: Tensor, lines: Sequence[Tensor], reduce: Reduce = "sum", jacobian: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Samples a CANDECOMP/PARAFAC decomposition: the products line(x)·line(y)·line(z).

    Args:
        x: (N, 3) positions in [-1, 1].
        lines: three tensors (Nx, R), (Ny, R), (Nz, R).
        reduce: "sum" adds up channels; "concat" keeps the R products apart.
        jacobian: also return the derivative of the value with respect to x.

    Returns:
        (N,) or (N, R); with `jacobian` also (N, 3) or (N, R, 3).
    Gradients: to x and lines, twice differentiable; through the Jacobian, once.
    Raises:
        ShapeError: lines of different rank, or fewer than two knots.
    Reference: TensoRF (Chen et al., ECCV 2022), eq. 1 and 6.
    """
    return _sample(x, list(lines), "cp", reduce, jacobian)


def dense_sample(x: Tensor, volume: Tensor, jacobian: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """Samples a dense grid trilinearly.

    Args:
        x: (N, 3) positions in [-1, 1].
        volume: (Nx, Ny, Nz, C).
        jacobian: also return the derivative of the value with respect to x.

    Returns:
        (N, C); with `jacobian` also (N, C, 3).
    Gradients: to x and volume, twice differentiable; through the Jacobian, once.
    Raises:
        ShapeError: a volume that is not four-dimensional or has fewer than two knots on an axis.
    """
    return _sample(x, [volume], "dense", "concat", jacobian)


def _sample(x: Tensor, factors: list[Tensor], layout: str, reduce: Reduce, jacobian: bool):
    check_shape("x", x, None, 3)
    resolution_and_channels(factors, layout)
    if x.dtype is torch.float32 and factors[0].dtype in _STORED:
        check_floating(**{f"factor {k}": f for k, f in enumerate(factors)})
        if not _backend.on_gpu(x) or _backend.use_reference(x):
            factors = [f.float() for f in factors]
    else:
        check_floating(x=x, **{f"factor {k}": f for k, f in enumerate(factors)})
    if reduce not in ("sum", "concat"):
        raise ShapeError(f"reduce is {reduce!r}; it can be 'sum' or 'concat'.")
    summed = reduce == "sum"
    if _backend.use_reference(x):
        return (_ref.jacobian if jacobian else _ref.value)(x, factors, layout, summed)
    x, factors = x.contiguous(), [f.contiguous() for f in factors]
    return (_jacobian if jacobian else _value)(x, factors, layout, summed)


def resolution_and_channels(factors: Sequence[Tensor], layout: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Knots along x, y, z and channels of each mode; raises ShapeError where factors disagree."""
    return _of_shapes(tuple(tuple(f.shape) for f in factors), layout)


@functools.lru_cache(maxsize=256)
def _of_shapes(shapes: tuple[tuple[int, ...], ...], layout: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    modes = LAYOUTS[layout]
    if len(shapes) != sum(map(len, modes)):
        raise ShapeError(f"A {layout} grid has {sum(map(len, modes))} factors, not {len(shapes)}.")
    resolution: list[int] = [0, 0, 0]
    channels = []
    remaining = iter(shapes)
    for mode in modes:
        ranks = set()
        for axes in mode:
            shape = next(remaining)
            if len(shape) != len(axes) + 1:
                over = "".join("xyz"[a] for a in axes)
                raise ShapeError(f"The factor over {over} must have {len(axes) + 1} dimensions, but has shape {shape}.")
            ranks.add(shape[-1])
            for axis, knots in zip(axes, shape, strict=False):
                if knots < 2:
                    raise ShapeError(f"A grid needs at least two knots per axis; {'xyz'[axis]} has {knots}.")
                if resolution[axis] not in (0, knots):
                    raise ShapeError(
                        f"Factors disagree on the knots along {'xyz'[axis]}: {resolution[axis]} and {knots}."
                    )
                resolution[axis] = knots
        if len(ranks) != 1:
            raise ShapeError(f"The factors of one mode must have the same rank, but have {sorted(ranks)}.")
        channels.append(ranks.pop())
    return tuple(resolution), tuple(channels)


# ---------------------------------------------------------------------------------------- ops and their derivatives


def _launch(
    kernel: str, layout: str, x: Tensor, factors: list[Tensor], summed: bool, items: int | None = None, grain=4, **given
) -> None:
    resolution, channels = resolution_and_channels(factors, layout)
    arguments: dict[str, Any] = dict.fromkeys(("dx", "grad", "dgrad", "value", "jacobian", "grad_x", "fixed_point"))
    arguments |= {"dfactor": [], "grad_factor": [], "n": x.shape[0], "resolution": resolution, "channels": channels,
                  "part_stride": [], "parts": 1}  # fmt: skip
    arguments |= {"x": x, "factor": factors, "out": sum(channels), "summed": int(summed)}
    arguments |= given
    if not _backend.on_gpu(x):
        items = -(-x.shape[0] // _RUN) if items is None else items
        _backend.launch(f"{layout}_{kernel}", items, x, grain, **arguments)
        return
    team, special, types = specialised(factors, channels, summed)
    if special["aligned"]:
        arguments = {name: aligned(value) for name, value in arguments.items()}
    if arguments["fixed_point"] is not None:
        special["sum"], types["Sum"] = "int64_t", torch.int64
    _backend.launch(f"{layout}_{kernel}", x.shape[0], x, team=team, special=special, types=types, **arguments)


def specialised(factors: Sequence[Tensor], channels: tuple[int, ...], summed: bool) -> tuple[int, dict, dict]:
    """What a GPU kernel on a grid is compiled for: threads per sample, macros, and dtypes of its type names."""
    quads = max(-(-c // QUAD) for c in channels)
    team = 1 if quads <= 1 else 2 if quads == 2 else 4 if quads <= 16 else 8
    special = {"channels": channels, "summed": int(summed), "aligned": int(all(c % QUAD == 0 for c in channels))}
    types: dict[str, torch.dtype] = {}
    if (stored := factors[0].dtype) in _STORED:
        special["stored"], types["Stored"] = _STORED[stored], stored
    return team, special, types


def aligned(value: Any) -> Any:
    """Tensors that begin at a multiple of the widest load, which the allocator's do, and views may not."""
    if isinstance(value, list):
        return [aligned(v) for v in value]
    return value.clone() if isinstance(value, Tensor) and value.data_ptr() % _WIDEST else value


def _scatter(kernel: str, layout: str, x: Tensor, factors: list[Tensor], summed: bool, **given) -> list[Tensor]:
    """The gradients of the factors."""
    if _backend.on_gpu(x):
        return _scatter_by_samples(kernel, layout, x, factors, summed, **given)
    # On a CPU the kernel's items are blocks of channels and parts of the samples.
    blocks = sum(-(-c // _LANES) for c in resolution_and_channels(factors, layout)[1])
    # Few blocks in two parts keep the cores evenly busy, unless adding up the parts would cost more than it brings.
    parts = 2 if blocks < 8 and x.shape[0] * blocks * _LANES > sum(f.numel() for f in factors) else 1
    grads = [x.new_zeros(parts, *f.shape) for f in factors]
    _launch(kernel, layout, x, factors, summed, items=blocks * parts, grain=1, grad_factor=grads,
            part_stride=[f.numel() for f in factors], parts=parts, **given)  # fmt: skip
    return [g[0] if parts == 1 else torch.add(g[0], g[1]) for g in grads]


def _scatter_by_samples(
    kernel: str, layout: str, x: Tensor, factors: list[Tensor], summed: bool, **given
) -> list[Tensor]:
    if not torch.are_deterministic_algorithms_enabled():
        grads = [x.new_zeros(f.shape) for f in factors]
        _launch(kernel, layout, x, factors, summed, grad_factor=grads, **given)
        return [g.to(f.dtype) for g, f in zip(grads, factors, strict=True)]
    scale = _fixed_point(layout, x, factors, **given)
    sums = [torch.zeros(f.shape, dtype=torch.int64, device=x.device) for f in factors]
    _launch(kernel, layout, x, factors, summed, grad_factor=sums, fixed_point=scale, **given)
    return [(g / scale).to(f.dtype) for g, f in zip(sums, factors, strict=True)]


def _fixed_point(layout: str, x: Tensor, factors: list[Tensor], grad: Tensor, dx: Tensor | None = None,
                 dfactor: Sequence[Tensor] = (), dgrad: Tensor | None = None) -> Tensor:  # fmt: skip
    """(1,) float64: a power of two by which no term of a gradient exceeds 2³⁸, so that 2²⁴ of them fit 63 bits.

    A term is a weight times grad times the other factors of its mode; of a tangent, the same with one of them replaced
    by its derivative, where weights, up to three along the axes, change by at most a cell's slope.
    """

    def largest(tensor: Tensor | None) -> Tensor:
        if tensor is None or not tensor.numel():
            return torch.zeros((), dtype=torch.float64, device=x.device)
        return tensor.abs().max().double()

    bounds = [largest(f).clamp(min=1) for f in factors]
    per_mode = [len(mode) for mode in LAYOUTS[layout]]
    products = [torch.stack(bounds[sum(per_mode[:m]) : sum(per_mode[: m + 1])]).prod() for m in range(len(per_mode))]
    knots = max(resolution_and_channels(factors, layout)[0])
    change = 3 * knots * largest(dx) + sum(map(largest, dfactor))
    bound = torch.stack(products).max() * (largest(grad) * (1 + change) + largest(dgrad))
    return fixed_point(bound)


def fixed_point(bound: Tensor) -> Tensor:
    """(1,) float64: the power of two that takes terms of at most `bound` to at most 2³⁸."""
    return torch.exp2(torch.floor(38 - torch.log2(bound.clamp(min=1e-30)))).view(1)


def _empty_value(x: Tensor, factors: list[Tensor], layout: str, summed: bool) -> Tensor:
    return x.new_empty(x.shape[0]) if summed else x.new_empty(x.shape[0], sum(_ranks(factors, layout)))


def _ranks(factors: Sequence[Tensor], layout: str) -> list[int]:
    per_mode = [len(mode) for mode in LAYOUTS[layout]]
    return [factors[sum(per_mode[:m])].shape[-1] for m in range(len(per_mode))]


@op("grid_value")
def _value(x: Tensor, factors: list[Tensor], layout: str, summed: bool) -> Tensor:
    value = _empty_value(x, factors, layout, summed)
    _launch("value", layout, x, factors, summed, value=value)
    return value


@op("grid_value_bwd")
def _value_bwd(
    grad: Tensor, x: Tensor, factors: list[Tensor], layout: str, summed: bool, need_x: bool, need_factors: bool
) -> list[Tensor]:
    """[grad_x, *grad_factors]; what is not needed is left zero."""
    grad = grad.contiguous()
    grad_x = torch.zeros_like(x)
    if need_x:
        _launch("grad_x", layout, x, factors, summed, grad=grad, grad_x=grad_x)
    if need_factors:
        return [grad_x, *_scatter("grad_factors", layout, x, factors, summed, grad=grad)]
    return [grad_x, *[torch.zeros_like(f) for f in factors]]


@op("grid_value_bwd_bwd")
def _value_bwd_bwd(
    dx: Tensor | None,
    dfactors: list[Tensor],
    dgrad: Tensor | None,
    grad: Tensor,
    x: Tensor,
    factors: list[Tensor],
    layout: str,
    summed: bool,
) -> list[Tensor]:
    """The derivative of [value, grad_x, *grad_factors] along (dx, dfactors, dgrad).

    The cotangents of the backward pass and a direction of the forward pass are the same thing here: the scalar
    <dx, grad_x> + <dfactors, grad_factors> is the derivative of <grad, value> along (dx, dfactors), and its gradient
    the derivative of (value, grad_x, grad_factors) along the same direction.
    """
    directions: Any = {"dx": dx, "dfactor": dfactors, "dgrad": dgrad, "grad": grad.contiguous()}
    value, grad_x = _empty_value(x, factors, layout, summed), torch.empty_like(x)
    _launch("value_tangent", layout, x, factors, summed, value=value, **directions)
    _launch("grad_x_tangent", layout, x, factors, summed, grad_x=grad_x, **directions)
    return [value, grad_x, *_scatter("grad_factors_tangent", layout, x, factors, summed, **directions)]


@op("grid_jacobian")
def _jacobian(x: Tensor, factors: list[Tensor], layout: str, summed: bool) -> tuple[Tensor, Tensor]:
    value = _empty_value(x, factors, layout, summed)
    jacobian = x.new_empty(*value.shape, 3)
    _launch("jacobian", layout, x, factors, summed, value=value, jacobian=jacobian)
    return value, jacobian


@op("grid_jacobian_bwd")
def _jacobian_bwd(
    grad_value: Tensor, grad_jacobian: Tensor, x: Tensor, factors: list[Tensor], layout: str, summed: bool
) -> list[Tensor]:
    """[grad_x, *grad_factors] of <grad_value, v> + <grad_jacobian, dv/dx>.

    The second term is a directional derivative of v: along the vector grad_jacobian itself where there is one value
    per sample, along the three axes in turn where there are many.
    """
    total = _value_bwd(grad_value, x, factors, layout, summed, True, True)
    if summed:
        terms = [(grad_jacobian.contiguous(), torch.ones_like(grad_value))]
    else:
        axes = torch.eye(3, dtype=x.dtype, device=x.device)
        terms = [(axes[a].expand_as(x).contiguous(), grad_jacobian[..., a].contiguous()) for a in range(3)]
    for direction, grad in terms:
        second = _value_bwd_bwd(direction, [], None, grad, x, factors, layout, summed)[1:]
        total = [t + s for t, s in zip(total, second, strict=True)]
    return total


@_value.register_fake
def _(x, factors, layout, summed):
    return _empty_value(x, factors, layout, summed)


@_value_bwd.register_fake
def _(grad, x, factors, layout, summed, need_x, need_factors):
    return [torch.empty_like(x), *[torch.empty_like(f) for f in factors]]


@_value_bwd_bwd.register_fake
def _(dx, dfactors, dgrad, grad, x, factors, layout, summed):
    return [_empty_value(x, factors, layout, summed), torch.empty_like(x), *[torch.empty_like(f) for f in factors]]


@_jacobian.register_fake
def _(x, factors, layout, summed):
    value = _empty_value(x, factors, layout, summed)
    return value, x.new_empty(*value.shape, 3)


@_jacobian_bwd.register_fake
def _(grad_value, grad_jacobian, x, factors, layout, summed):
    return [torch.empty_like(x), *[torch.empty_like(f) for f in factors]]


def _save_inputs(ctx, inputs, output):
    x, factors, ctx.layout, ctx.summed = inputs
    ctx.save_for_backward(x, *factors)
    ctx.need_x, ctx.need_factors = x.requires_grad, any(f.requires_grad for f in factors)


def _value_backward(ctx, grad):
    x, *factors = ctx.saved_tensors
    grads = _value_bwd(grad, x, factors, ctx.layout, ctx.summed, ctx.need_x, ctx.need_factors)
    return grads[0] if ctx.need_x else None, grads[1:] if ctx.need_factors else [None] * len(factors), None, None


def _save_backward_inputs(ctx, inputs, output):
    grad, x, factors, ctx.layout, ctx.summed, ctx.need_x, ctx.need_factors = inputs
    ctx.save_for_backward(grad, x, *factors)


def _value_bwd_backward(ctx, cotangents):
    grad, x, *factors = ctx.saved_tensors
    dx, *dfactors = [c.contiguous() if c is not None else None for c in cotangents]
    dx = dx if ctx.need_x else None
    if ctx.need_factors:
        dfactors = [
            x.new_zeros(f.shape) if d is None else d.to(x.dtype) for d, f in zip(dfactors, factors, strict=True)
        ]
    else:
        dfactors = []
    # The tangent of grad is zero: only positions and factors were differentiated in the first backward pass.
    dvalue, second_x, *second = _value_bwd_bwd(
        dx, dfactors, torch.zeros_like(grad), grad, x, factors, ctx.layout, ctx.summed
    )
    return dvalue, second_x, second, None, None, None, None


def _jacobian_backward(ctx, grad_value, grad_jacobian):
    x, *factors = ctx.saved_tensors
    value_shape = (x.shape[0],) if ctx.summed else (x.shape[0], sum(_ranks(factors, ctx.layout)))
    grad_value = x.new_zeros(value_shape) if grad_value is None else grad_value
    grad_jacobian = x.new_zeros(*value_shape, 3) if grad_jacobian is None else grad_jacobian
    grads = _jacobian_bwd(grad_value, grad_jacobian, x, factors, ctx.layout, ctx.summed)
    return grads[0], grads[1:], None, None


_value.register_autograd(_value_backward, setup_context=_save_inputs)
_value_bwd.register_autograd(_value_bwd_backward, setup_context=_save_backward_inputs)
_jacobian.register_autograd(_jacobian_backward, setup_context=_save_inputs)
