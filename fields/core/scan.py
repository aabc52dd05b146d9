"""Cumulative sums and products along rays, under nerfacc's names."""

from __future__ import annotations

import torch
from torch import Tensor

from fields.core.pack import pack_info
from fields.core.weights import render_weight_from_alpha
from fields.errors import ShapeError


def inclusive_sum(inputs: Tensor, packed_info: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
    """Sums up to and including each sample: (…, n_samples), or (n,) packed with `packed_info` or ascending `indices`.

    Gradients: to inputs.
    Raises:
        ShapeError: packed inputs that are not one-dimensional.
    """
    if packed_info is None and indices is None:
        return inputs.cumsum(-1)
    packed = _packed(inputs, packed_info, indices)
    sums = inputs.double().cumsum(0)  # in double: a long row of rays must not eat the digits of the last one
    before = torch.cat([sums.new_zeros(1), sums])[packed[:, 0]]
    return (sums - before.repeat_interleave(packed[:, 1])).to(inputs.dtype)


def exclusive_sum(inputs: Tensor, packed_info: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
    """Sums of what lies before each sample. Arguments, gradients and errors: `inclusive_sum`."""
    return inclusive_sum(inputs, packed_info, indices) - inputs


def inclusive_prod(inputs: Tensor, packed_info: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
    """Products up to and including each sample; gradients are exact where inputs are 0. See `inclusive_sum`."""
    return exclusive_prod(inputs, packed_info, indices) * inputs


def exclusive_prod(inputs: Tensor, packed_info: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
    """Products of what lies before each sample; gradients are exact where inputs are 0. See `inclusive_sum`."""
    packed = None if packed_info is None and indices is None else _packed(inputs, packed_info, indices)
    return render_weight_from_alpha(1 - inputs, packed_info=packed)[1]  # transmittance is just this product


def _packed(inputs: Tensor, packed_info: Tensor | None, indices: Tensor | None) -> Tensor:
    if inputs.dim() != 1:
        raise ShapeError(f"Packed inputs must be (n,), not {tuple(inputs.shape)}.")
    return packed_info.long() if packed_info is not None else pack_info(indices)  # type: ignore[arg-type]
