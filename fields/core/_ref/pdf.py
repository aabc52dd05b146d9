"""Plain-PyTorch twins of ``fields.core.pdf``."""

from __future__ import annotations

import torch
from torch import Tensor


def search_sorted(keys: Tensor, given: Tensor, values: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    first = given[rays, 0]
    low, high = first, first + given[rays, 1] - 1
    while bool((low < high).any()):  # bisection of all values at once
        middle = (low + high) // 2
        on = (low < high) & (keys[middle] <= values)
        high = torch.where((low < high) & ~on, middle, high)
        low = torch.where(on, middle + 1, low)
    return torch.maximum(low - 1, first), low


def importance_sampling(
    edges: Tensor, cdfs: Tensor, given: Tensor, drawn: Tensor, begins: Tensor, offsets: Tensor, n_samples: int, n_bounds: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rays = torch.arange(len(given), device=edges.device).repeat_interleave(drawn[:, 1])
    k = torch.arange(n_samples, device=edges.device) - drawn[rays, 0]
    count = drawn[rays, 1]
    first, last = given[rays, 0], given[rays].sum(-1) - 1
    u = cdfs[first] + (k + offsets[rays]) * ((cdfs[last] - cdfs[first]) / count)
    left, right = search_sorted(cdfs, given, u, rays)
    rise, length = cdfs[right] - cdfs[left], edges[right] - edges[left]
    part = torch.where(rise < 1e-10, 0.5, (u - cdfs[left]) / rise)
    samples = edges[left] + part * length

    bounds = edges.new_empty(n_bounds)
    at = begins[rays] + k
    before = samples[(torch.arange(n_samples, device=edges.device) - 1).clamp(min=0)]
    after = samples[(torch.arange(n_samples, device=edges.device) + 1).clamp(max=n_samples - 1)]
    lowest = torch.where(count == 1, edges[first], torch.maximum(samples - (after - samples) / 2, edges[first]))
    highest = torch.where(count == 1, edges[last], torch.minimum(samples + (samples - before) / 2, edges[last]))
    bounds[at] = torch.where(k == 0, lowest, (samples + before) / 2)
    end = k == count - 1
    bounds[at[end] + 1] = highest[end]
    return samples, bounds
