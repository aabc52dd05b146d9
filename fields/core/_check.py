"""Checks shared by the ops: one clear sentence instead of an error from deep inside a kernel."""

from __future__ import annotations

from torch import Tensor

from fields.errors import ShapeError


def check_shape(name: str, tensor: Tensor, *shape: int | None) -> None:
    """Raises ShapeError unless `tensor` has this shape; None stands for any size."""
    if tensor.dim() != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
    ):
        want = ", ".join("*" if s is None else str(s) for s in shape)
        raise ShapeError(f"{name} must have shape ({want}), but has {tuple(tensor.shape)}.")


def check_floating(**tensors: Tensor) -> None:
    """Raises ShapeError unless all tensors are float32, or all float64, and on one device."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ShapeError(f"{name} must be a floating-point tensor, but is {tensor.dtype}.")
        if tensor.dtype is not first.dtype or tensor.device != first.device:
            raise ShapeError(
                f"{name} is {tensor.dtype} on {tensor.device}, but {first_name} is {first.dtype} on {first.device}: "
                "they must agree."
            )
