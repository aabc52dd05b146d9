"""Other people's CUDA packages behind our interfaces: used when installed and asked for, never needed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fields.errors import BackendError


def _module(name: str, install: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise BackendError(f"{name} cannot be imported ({error}). Install it ({install}), or do without.") from None


@torch.no_grad()
def nerfacc_march(
    rays_o: Tensor, rays_d: Tensor, t_min: Tensor, t_max: Tensor, occupied: Tensor, aabb: Tensor, step_size: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`march_rays` of one level, with positions, by nerfacc's `traverse_grids`.

    Raises:
        BackendError: nerfacc is not installed.
    """
    nerfacc = _module("nerfacc", "pip install nerfacc; it builds CUDA code on first use")
    intervals, samples, _ = nerfacc.traverse_grids(
        rays_o.contiguous(), rays_d.contiguous(), occupied[None], aabb[None], t_min, t_max, step_size
    )
    t_starts, t_ends, rays = intervals.vals[intervals.is_left], intervals.vals[intervals.is_right], samples.ray_indices
    points = rays_o[rays] + ((t_starts + t_ends) / 2)[:, None] * rays_d[rays]
    x = (points - aabb[:3]) * (2 / (aabb[3:] - aabb[:3])) - 1
    return t_starts, t_ends, rays, samples.packed_info, x


def tinycudann_network(inputs: int, hidden: int) -> nn.Module:
    """The decoder's MLP, two hidden layers and a sigmoid, as one fused kernel in half precision. It has no biases.

    Raises:
        BackendError: tinycudann is not installed, or does not run on this GPU.
    """
    tinycudann = _module("tinycudann", "see github.com/NVlabs/tiny-cuda-nn; it needs nvcc and a matching toolkit")
    shape = {"otype": "FullyFusedMLP", "activation": "ReLU", "output_activation": "Sigmoid", "n_neurons": hidden,
             "n_hidden_layers": 2}  # fmt: skip
    try:
        return tinycudann.Network(n_input_dims=inputs, n_output_dims=3, network_config=shape)
    except RuntimeError as error:
        raise BackendError(f"tinycudann cannot make a network of {hidden} neurons: {error}") from None
