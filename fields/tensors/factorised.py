"""A learnable VM, CP or dense grid: sampling, resampling, cropping and its regularisers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fields.core import grids
from fields.core._ref.grids import LAYOUTS
from fields.errors import ConfigError


def resolution_for(aabb: Tensor, voxels: float) -> tuple[int, int, int]:
    """Knots along the axes of a box (2, 3) that give about `voxels` cubic cells.

    Reference: TensoRF's voxel budget: per axis floor(size / (volume / budget)^(1/3)).
    """
    size = (aabb[1] - aabb[0]).double()
    edge = (size.prod() / voxels) ** (1 / 3)
    x, y, z = ((size / edge) + 1e-6).long().clamp(min=2).tolist()
    return x, y, z


class FactorisedGrid(nn.Module):
    """The factors of one grid on [-1, 1]³, in the layout of `fields.core.grids`.

    Args:
        layout: "vm", "cp" or "dense".
        resolution: knots along x, y, z.
        ranks: channels of each mode (three for VM, one for CP and dense).
        scale: standard deviation of the normal noise the factors start from.
    """

    def __init__(self, layout: str, resolution: Sequence[int], ranks: Sequence[int], scale: float = 0.1) -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise ConfigError(f"The layout of a grid is one of {', '.join(LAYOUTS)}, not {layout!r}.")
        modes = LAYOUTS[layout]
        if len(ranks) != len(modes):
            raise ConfigError(f"A {layout} grid needs {len(modes)} rank(s), not {len(ranks)}.")
        self.layout = layout
        self.axes = [axes for mode in modes for axes in mode]
        ranks_of_factors = [rank for mode, rank in zip(modes, ranks, strict=True) for _ in mode]
        self.factors = nn.ParameterList(
            scale * torch.randn(*(resolution[a] for a in axes), rank)
            for axes, rank in zip(self.axes, ranks_of_factors, strict=True)
        )

    @property
    def resolution(self) -> tuple[int, int, int]:
        x, y, z = grids.resolution_and_channels(list(self.factors), self.layout)[0]
        return x, y, z

    @property
    def channels(self) -> int:
        """Width of a concatenated sample."""
        return sum(grids.resolution_and_channels(list(self.factors), self.layout)[1])

    def forward(self, x: Tensor, reduce: grids.Reduce = "concat", jacobian: bool = False, first: int | None = None):
        """Samples at x (N, 3) in [-1, 1], of the first channels of each mode or of all: see `fields.core.grids`."""
        return grids._sample(x, self.first(first), self.layout, reduce, jacobian)

    def first(self, channels: int | None) -> list[Tensor]:
        """The factors, of the first channels of each mode or of all."""
        return list(self.factors) if channels is None else [f[..., :channels].contiguous() for f in self.factors]

    @torch.no_grad()
    def resample(self, resolution: Sequence[int]) -> None:
        """Interpolates every factor to new knots over the same box (linear, corner aligned)."""
        for k, axes in enumerate(self.axes):
            factor = self.factors[k].detach()
            for dimension, axis in enumerate(axes):
                factor = _resample_axis(factor, dimension, resolution[axis])
            self.factors[k] = nn.Parameter(factor.contiguous())

    @torch.no_grad()
    def crop(self, first: Sequence[int], last: Sequence[int]) -> None:
        """Keeps the knots first[a] to last[a] (inclusive) along each axis a."""
        for k, axes in enumerate(self.axes):
            window = tuple(slice(first[a], last[a] + 1) for a in axes)
            self.factors[k] = nn.Parameter(self.factors[k].detach()[window].clone())

    @torch.no_grad()
    def multiply(self, times: float) -> None:
        """Makes whatever is sampled so many times as large."""
        per_mode = len(self.factors) // len(LAYOUTS[self.layout])
        for factor in self.factors:
            factor.mul_(times ** (1 / per_mode))

    def l1(self) -> Tensor:
        """Sum over factors of the mean absolute value: the sparsity prior of TensoRF, section 4.3."""
        return torch.stack([factor.abs().mean() for factor in self.factors]).sum()

    def total_variation(self) -> Tensor:
        """Sum over factors of twice the mean squared difference of neighbouring knots, 0.1 of it for lines.

        TensoRF smooths the planes of VM grids (by 1e-2 each) and, where there are none, lines (by 1e-3).
        """
        highest = max(len(axes) for axes in self.axes)
        total = self.factors[0].new_zeros(())
        for axes, factor in zip(self.axes, self.factors, strict=True):
            if len(axes) < highest:
                continue
            scale = 1e-2 if len(axes) > 1 else 1e-3
            for dimension in range(len(axes)):
                n = factor.shape[dimension]
                step = factor.narrow(dimension, 1, n - 1) - factor.narrow(dimension, 0, n - 1)
                total = total + 2 * scale * step.square().mean()
        return total


def _resample_axis(factor: Tensor, dimension: int, knots: int) -> Tensor:
    n = factor.shape[dimension]
    if n == knots:
        return factor
    at = torch.linspace(0, n - 1, knots, dtype=torch.float64, device=factor.device)
    left = at.floor().clamp(max=n - 2).long()
    fraction = (at - left).to(factor.dtype).view(-1, *[1] * (factor.dim() - 1 - dimension))
    return torch.lerp(factor.index_select(dimension, left), factor.index_select(dimension, left + 1), fraction)
