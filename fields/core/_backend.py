"""Deciding where an operator runs, and launching its kernel there.

A launch names the members of the kernel's C++ struct::

    launch("ray_aabb", rays_o.shape[0], rays_o, rays_o=rays_o, rays_d=rays_d, aabbs=aabbs, ...)
"""

from __future__ import annotations

import functools
import os
import warnings
from typing import Any

import torch
from torch import Tensor

from fields.core import _cpu, _cuda
from fields.core._kernels import packer
from fields.errors import BackendError


def use_reference(tensor: Tensor) -> bool:
    """Whether ops on `tensor` run as their plain-PyTorch twins: asked for, or no kernels for the device."""
    choice = os.environ.get("FIELDS_BACKEND", "auto")
    if choice not in {"auto", "cpu", "cuda", "reference"}:
        raise BackendError(f"FIELDS_BACKEND is {choice!r}; it can be auto, cpu, cuda or reference.")
    device = tensor.device.type
    if choice in {"cpu", "cuda"} and device != choice:
        raise BackendError(f"FIELDS_BACKEND is {choice}, but a tensor is on {device}. Move it, or unset the variable.")
    if choice == "reference":
        return True
    if device not in {"cpu", "cuda"}:
        _warn_reference(device)
        return True
    return False


def on_gpu(tensor: Tensor) -> bool:
    """Whether kernels on `tensor` run with a thread per item: atomics, teams of threads, half-precision storage."""
    return tensor.device.type == "cuda"


@functools.cache
def _warn_reference(device: str) -> None:
    warnings.warn(f"fields.core has no kernels for {device}: the plain-PyTorch twins run instead, slowly.")


def backend_name(device: torch.device | str = "cpu") -> str:
    """The backend in words, for reports: ``cpu-avx512``, ``reference`` …"""
    if use_reference(probe := torch.empty(0, device=device)):
        return "reference"
    if on_gpu(probe):
        return f"cuda-{_cuda.architecture(probe.device.index)}"
    return f"cpu-{_cpu.library()[1]}"


def keep_freed_memory() -> None:
    """Lets the allocator keep freed blocks for the next iteration instead of returning them to the system."""
    if os.environ.get("FIELDS_BACKEND", "auto") != "reference":
        _cpu.library()[0].fields_keep_freed_memory()


def launch(
    kernel: str,
    items: int,
    like: Tensor,
    grain: int = 256,
    *,
    dtype: torch.dtype | None = None,
    team: int = 1,
    special: dict[str, Any] | None = None,
    types: dict[str, torch.dtype] | None = None,
    **arguments: Any,
) -> None:
    """Runs `items` items of a kernel on the device of `like`.

    Tensors become pointers (None a null pointer), lists become arrays, numbers numbers; every member of the kernel's
    struct must be given by name. Nothing is copied: inputs must be contiguous and of the kernel's types.

    Args:
        like: its device and dtype are those of the kernel.
        grain: items a CPU thread takes at a time.
        dtype: the scalar type, where it is not that of `like`.
        team: GPU threads that do one item together.
        special: what a GPU kernel is compiled for: macros of csrc/common.h without their FIELDS_ and their values.
        types: dtypes of the kernel's own scalar names, where they are not the kernel's dtype.
    """
    dtype = dtype or like.dtype
    packed = packer(kernel, dtype, types)(like.device, arguments)
    if on_gpu(like):
        _cuda.launch(kernel, dtype, packed, items, team, special or {}, like.device)
    elif items:
        _cpu.function(kernel, dtype)(packed, items, grain, torch.get_num_threads())
