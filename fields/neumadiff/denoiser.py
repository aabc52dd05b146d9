"""The networks that say what noised weights were, and how they are told what is wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fields.neumadiff.network import PARTS, WEIGHTS

_HIDDEN = 512
_PERIOD = 10_000.0


@dataclass(frozen=True)
class DenoiserConfig:
    kind: str = "residual"
    """residual: blocks of a perceptron, modulated; tensors: a transformer with a token for each of a network's six tensors; whole: with one for all, as
    published."""
    width: int = 512
    depth: int = 4
    heads: int = 6


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time, in periods from 1 to 10 000 of a thousand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        """(B, width) of times (B,), from 0 to 1."""
        frequency = torch.exp(torch.arange(128, device=time.device) * (-math.log(_PERIOD) / 127))
        angle = 1000 * time[:, None] * frequency
        return self.layers(torch.cat([angle.sin(), angle.cos()], -1))


class Conditions(nn.Module):
    """What is wanted, as tokens: of each modality its vector, adapted, or one that stands for its absence.

    Args:
        dims: of each modality's vectors.
    """

    def __init__(self, dims: dict[str, int], width: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, width))
                for name, dim in dims.items()
            }
        )
        self.absent = nn.Parameter(0.02 * torch.randn(len(dims), width))

    def forward(self, wanted: dict[str, Tensor], present: Tensor) -> Tensor:
        """(B, modalities, width) of vectors (B, dim) by modality, and which of them are there, bool (B, modalities). Modalities may be missing."""
        tokens = self.absent.expand(len(present), -1, -1)
        rows = [
            torch.where(present[:, k, None], adapter(wanted[name]), tokens[:, k]) if name in wanted else tokens[:, k]
            for k, (name, adapter) in enumerate(self.adapters.items())
        ]
        return torch.stack(rows, 1)


class Residual(nn.Module):
    """A perceptron whose blocks add to what they are given, scaled and shifted by time and conditions."""

    def __init__(self, config: DenoiserConfig, numbers: int) -> None:
        super().__init__()
        width = config.width
        self.inward, self.outward = nn.Linear(numbers, width), nn.Linear(width, numbers)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(config.depth))
        self.modulations = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(config.depth))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) for _ in range(config.depth)
        )

    def forward(self, x: Tensor, time: Tensor, conditions: Tensor) -> Tensor:
        """(B, numbers), time (B, width), conditions (B, modalities, width) -> (B, numbers)."""
        told = torch.nn.functional.silu(time + conditions.sum(1))
        h = self.inward(x)
        for norm, modulation, block in zip(self.norms, self.modulations, self.blocks, strict=True):
            scale, shift = modulation(told).chunk(2, -1)
            h = h + block(norm(h) * (1 + scale) + shift)
        return self.outward(h)


class Block(nn.Module):
    """Attention, then a perceptron, each added to what it was given."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(-2))
        return x + self.perceptron(self.between(x))


class Transformer(nn.Module):
    """Weights as tokens, beside time and conditions."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.parts = PARTS if config.kind == "tensors" else ((0, WEIGHTS),)
        sizes = [end - start for start, end in self.parts]
        self.inward = nn.ModuleList(nn.Linear(size, config.width, bias=False) for size in sizes)
        self.outward = nn.ModuleList(nn.Linear(config.width, size) for size in sizes)
        self.norm, self.last = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.position = nn.Parameter(0.02 * torch.randn(len(sizes), config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))

    def forward(self, x: Tensor, time: Tensor, conditions: Tensor) -> Tensor:
        """As `Residual`."""
        tokens = [layer(x[:, a:b]) for (a, b), layer in zip(self.parts, self.inward, strict=True)]
        h = torch.cat([self.norm(torch.stack(tokens, 1)) + self.position, time[:, None], conditions], 1)
        for block in self.blocks:
            h = block(h)
        h = self.last(h[:, : len(self.parts)])
        return torch.cat([layer(h[:, k]) for k, layer in enumerate(self.outward)], -1)


def denoiser(config: DenoiserConfig, numbers: int = WEIGHTS) -> nn.Module:
    """For vectors of so many numbers; a transformer has all weights."""
    return Residual(config, numbers) if config.kind == "residual" else Transformer(config)
