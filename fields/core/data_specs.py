"""Samples and interval edges along rays, batched or packed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class RaySamples:
    """Points along rays: `vals` is (n_rays, n) for batched ones, (n,) for packed ones, which need `packed_info`."""

    vals: Tensor
    """Distances."""
    packed_info: Tensor | None = None
    """(n_rays, 2) first sample and number of samples of each ray."""
    ray_indices: Tensor | None = None
    """(n,) the ray of each packed sample."""
    is_valid: Tensor | None = None
    """(n,) bool, of packed samples."""

    @property
    def device(self) -> torch.device:
        return self.vals.device


@dataclass
class RayIntervals:
    """Edges of intervals along rays: `vals` is (n_rays, n + 1) for batched ones, (n,) for packed ones."""

    vals: Tensor
    """Distances."""
    packed_info: Tensor | None = None
    """(n_rays, 2) first edge and number of edges of each ray."""
    ray_indices: Tensor | None = None
    """(n,) the ray of each packed edge."""
    is_left: Tensor | None = None
    """(n,) bool: an interval begins at this packed edge."""
    is_right: Tensor | None = None
    """(n,) bool: an interval ends at this packed edge."""

    @property
    def device(self) -> torch.device:
        return self.vals.device
