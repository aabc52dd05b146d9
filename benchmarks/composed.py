"""Radiance-field training composed from whole-tensor PyTorch operators, the usual way: the yardstick of `core.py`.

Samples are dense, (rays, steps): every step of every ray to the end of the longest, with masks for the box and the
empty cells; grids are channels first, for `grid_sample`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PLANES, LINES = ((0, 1), (0, 2), (1, 2)), (2, 1, 0)


def channels_first(factors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Planes (1, R, N_b, N_a) and lines (1, R, N, 1) as leaves, from plane and line factors, channels last."""
    planes = [f.detach().permute(2, 1, 0)[None].contiguous().requires_grad_() for f in factors[0::2]]
    lines = [f.detach().T[None, :, :, None].contiguous().requires_grad_() for f in factors[1::2]]
    return planes, lines


def vm_products(x: Tensor, planes: list[Tensor], lines: list[Tensor]) -> list[Tensor]:
    """Per mode (R, N): the products of plane and line at x (N, 3)."""
    products = []
    for mode in range(3):
        on_plane = x[:, PLANES[mode]].view(1, -1, 1, 2)
        height = x[:, LINES[mode]]
        on_line = torch.stack([torch.zeros_like(height), height], dim=-1).view(1, -1, 1, 2)
        plane = F.grid_sample(planes[mode], on_plane, align_corners=True).view(planes[mode].shape[1], -1)
        line = F.grid_sample(lines[mode], on_line, align_corners=True).view(lines[mode].shape[1], -1)
        products.append(plane * line)
    return products


def vm_density(x: Tensor, planes: list[Tensor], lines: list[Tensor]) -> Tensor:
    return torch.stack([p.sum(0) for p in vm_products(x, planes, lines)]).sum(0)


def dense_samples(
    origins: Tensor, directions: Tensor, t_min: Tensor, aabb: Tensor, step: float, steps: int, jitter: Tensor
):
    """Distances (N, S), normalised positions (N, S, 3) and whether they are in the box (N, S)."""
    t = t_min[:, None] + step * (torch.arange(steps) + jitter[:, None])
    points = origins[:, None] + directions[:, None] * t[..., None]
    x = (points - aabb[:3]) * (2 / (aabb[3:] - aabb[:3])) - 1
    return t, x, (x.abs() <= 1).all(-1)


def occupied_at(occupancy: Tensor, x: Tensor) -> Tensor:
    """(M,) bool at x (M, 3), read trilinearly from the volume (1, 1, Nz, Ny, Nx)."""
    return F.grid_sample(occupancy, x.view(1, -1, 1, 1, 3), align_corners=True).view(-1) > 0


def composite(sigma: Tensor, deltas: Tensor) -> Tensor:
    """Weights (N, S) of dense densities."""
    alpha = 1 - torch.exp(-sigma * deltas)
    ones = torch.ones_like(alpha[:, :1])
    return alpha * torch.cumprod(torch.cat([ones, 1 - alpha + 1e-10], -1), -1)[:, :-1]


class Iteration:
    """One TensoRF training iteration at the state of a trained field."""

    def __init__(self, field) -> None:
        self.field = field
        self.density = channels_first(list(field.density_grid.factors))
        self.appearance = channels_first(list(field.appearance_grid.factors))
        self.network = [field.decoder.basis, *field.decoder.mlp]
        self.occupancy = field.occupied.permute(2, 1, 0)[None, None].float().contiguous()
        factors = [t for pair in (self.density, self.appearance) for group in pair for t in group]
        weights = [p for m in self.network for p in m.parameters()]
        groups = [{"params": factors, "lr": 0.02}, {"params": weights, "lr": 1e-3}]
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
        size = field.aabb[3:] - field.aabb[:3]
        self.steps = int(float(size.norm()) / field.step_size) + 1

    def __call__(self, origins: Tensor, directions: Tensor, target: Tensor, jitter: Tensor, t_min: Tensor) -> None:
        loss = self.loss(origins, directions, target, jitter, t_min)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def loss(self, origins: Tensor, directions: Tensor, target: Tensor, jitter: Tensor, t_min: Tensor) -> Tensor:
        """Mean squared error on white of clamped colours, and the L1 of the density factors."""
        field, n = self.field, origins.shape[0]
        t, x, valid = dense_samples(origins, directions, t_min, field.aabb, field.step_size, self.steps, jitter)
        inside = valid.clone()
        inside[valid] = occupied_at(self.occupancy, x[valid])
        sigma = torch.zeros(n, self.steps)
        sigma[inside] = F.softplus(vm_density(x[inside], *self.density) + field.density_shift)
        deltas = torch.cat([t[:, 1:] - t[:, :-1], torch.zeros(n, 1)], -1) * field.distance_scale
        weights = composite(sigma, deltas)
        shaded = weights > field.shading_threshold
        rgb = torch.zeros(n, self.steps, 3)
        views = directions[:, None].expand_as(x)[shaded]
        features = self.network[0](torch.cat(vm_products(x[shaded], *self.appearance)).T)
        encoded = [features, views]
        for v in (features, views):
            angles = (v[..., None] * 2.0 ** torch.arange(field.decoder.frequencies)).flatten(-2)
            encoded += [angles.sin(), angles.cos()]
        hidden = torch.cat(encoded, -1)
        for layer in self.network[1:-1]:
            hidden = F.relu(layer(hidden))
        rgb[shaded] = torch.sigmoid(self.network[-1](hidden))
        image = (weights[..., None] * rgb).sum(1) + (1 - weights.sum(-1, keepdim=True))
        sparsity = sum(t.abs().mean() for group in self.density for t in group)
        return (image.clamp(0, 1) - target).square().mean() + 8e-5 * sparsity
