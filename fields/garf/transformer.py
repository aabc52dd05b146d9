"""The point transformer that looks at fragments: PTv3 (Wu et al. 2024, arXiv 2312.10035) in plain PyTorch.

Every fragment is a cloud of its own; nothing passes between fragments. Points are ordered along space-filling curves and
attend within patches of the order; a convolution over occupied cells tells them where they are; cells are merged two by two per
axis on the way in and opened again on the way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fields.garf.serialization import ORDERS, patches


@dataclass(frozen=True)
class TransformerConfig:
    """Defaults are the published backbone of GARF, 12.72 M parameters with its head."""

    inputs: int = 6
    encoder: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of each stage, fine to coarse."""
    encoder_depths: tuple[int, ...] = (2, 2, 6, 2)
    encoder_heads: tuple[int, ...] = (2, 4, 8, 16)
    decoder: tuple[int, ...] = (64, 128, 128)
    """Channels of each stage on the way out, fine to coarse."""
    decoder_depths: tuple[int, ...] = (2, 2, 2)
    decoder_heads: tuple[int, ...] = (4, 8, 16)
    patch: int = 1024
    """Points that attend to each other."""
    cell: float = 0.02
    """Edge of the finest cells; a fragment fills [−1, 1]³."""
    stem: int = 5
    """Cells along an edge of the first convolution; 0: none, a linear layer."""
    depthwise: bool = False
    """Convolutions of each channel by itself: a third of the parameters."""
    batch_norm: bool = True
    """As published; else layer norm, which small batches need."""
    drop_path: float = 0.3


class _Level(NamedTuple):
    """The points of one stage, and who is whose neighbour among them."""

    cell_of: Tensor
    """(N,) which distinct cell a point lies in."""
    around: Tensor
    """(cells, 27) the occupied neighbours of each cell, itself in the middle; `cells` for none."""
    patches: list[Tensor]
    """(P, W) for each order."""
    parent: Tensor | None
    """(N,) the point of the next stage that each is merged into."""


class Plan:
    """All that depends on where the points are, and not on the network's weights.

    Args:
        points: (N, 3) in [−1, 1], each fragment in its own frame.
        fragment: (N,) ascending.
    """

    def __init__(self, points: Tensor, fragment: Tensor, config: TransformerConfig) -> None:
        most = int(2 / config.cell)
        tall = most + 3 + config.stem  # room for neighbours of border cells: keys of different rows stay apart
        cells = ((points.detach() + 1) / config.cell).floor().long().clamp(0, most)
        distinct, cell_of = _distinct(cells, fragment, tall)
        self.wide = _around(distinct, config.stem, tall) if config.stem else None
        self.levels: list[_Level] = []
        for stage in range(len(config.encoder)):
            depth = max(most.bit_length() - stage, 1)
            orders = [patches(fragment, order(cells, depth), config.patch) for order in ORDERS]
            here = _Level(cell_of, _around(distinct, 3, tall), orders, None)
            if stage + 1 < len(config.encoder):
                cells = cells >> 1
                distinct, parent = _distinct(cells, fragment, tall)
                cells = cells.new_empty(len(distinct), 3).index_copy(0, parent, cells)  # those of one parent are alike
                fragment = fragment.new_empty(len(distinct)).index_copy(0, parent, fragment)
                cell_of, here = torch.arange(len(distinct), device=cells.device), here._replace(parent=parent)
            self.levels.append(here)


def _distinct(cells: Tensor, fragment: Tensor, tall: int) -> tuple[Tensor, Tensor]:
    """Keys (V,) of the occupied cells of all fragments, ascending, and which of them each point lies in (N,)."""
    key = ((fragment * tall + cells[:, 0]) * tall + cells[:, 1]) * tall + cells[:, 2]
    return torch.unique(key, return_inverse=True)


def _around(distinct: Tensor, edge: int, tall: int) -> Tensor:
    """(V, edge³) places of the neighbours of each cell among the distinct keys, V for none."""
    line = torch.arange(edge, device=distinct.device) - edge // 2
    offset = ((line[:, None, None] * tall + line[:, None]) * tall + line).reshape(-1)
    wanted = distinct[:, None] + offset
    place = torch.searchsorted(distinct, wanted).clamp(max=len(distinct) - 1)
    return torch.where(distinct[place] == wanted, place, len(distinct))


class CellConvolution(nn.Module):
    """A convolution over occupied cells only. Points that share a cell enter by their mean and get the same answer."""

    def __init__(self, inputs: int, outputs: int, edge: int, depthwise: bool = False, bias: bool = True) -> None:
        super().__init__()
        shape = (edge**3, inputs) if depthwise else (edge**3 * inputs, outputs)
        fan_in = edge**3 if depthwise else edge**3 * inputs
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.depthwise = depthwise

    def forward(self, x: Tensor, cell_of: Tensor, around: Tensor) -> Tensor:
        cells = x.new_zeros(len(around) + 1, x.shape[1])
        if len(around) == len(x):
            cells = cells.index_copy(0, cell_of, x)
        else:
            count = torch.bincount(cell_of, minlength=len(around) + 1).clamp(min=1)[:, None]
            cells = cells.index_add(0, cell_of, x) / count
        near = cells.index_select(0, around.reshape(-1)).view(*around.shape, -1)
        y = torch.einsum("vkc,kc->vc", near, self.weight) if self.depthwise else near.flatten(1) @ self.weight
        y = y.index_select(0, cell_of)
        return y if self.bias is None else y + self.bias


class PatchAttention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor, patch: Tensor) -> Tensor:
        there = patch >= 0
        index = patch.clamp(min=0)
        qkv = self.qkv(x).index_select(0, index.reshape(-1))
        q, k, v = qkv.view(*index.shape, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if there.all() else there[:, None, None]
        y = scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return self.out(x.new_empty(x.shape).index_copy(0, index[there], y[there]))


class Block(nn.Module):
    def __init__(self, channels: int, heads: int, depthwise: bool, drop_path: float) -> None:
        super().__init__()
        self.where = CellConvolution(channels, channels, 3, depthwise)
        self.where_out = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels))
        self.norm_attention, self.attention = nn.LayerNorm(channels), PatchAttention(channels, heads)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.drop_path = drop_path

    def forward(self, x: Tensor, level: _Level, order: int) -> Tensor:
        x = x + self.where_out(self.where(x, level.cell_of, level.around))
        x = x + self.dropped(self.attention(self.norm_attention(x), level.patches[order]))
        return x + self.dropped(self.mlp(self.norm_mlp(x)))

    def dropped(self, x: Tensor) -> Tensor:
        if not self.training or not self.drop_path:
            return x
        keep = 1 - self.drop_path
        return x * (torch.rand(len(x), 1, device=x.device) < keep) / keep


class PointTransformer(nn.Module):
    """Features (N, decoder[0]) of points (N, inputs)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config

        def norm(channels: int) -> nn.Module:
            return nn.BatchNorm1d(channels, 1e-3, 0.01) if config.batch_norm else nn.LayerNorm(channels)

        def linear(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, outputs), norm(outputs), nn.GELU())

        def stage(channels: int, depth: int, heads: int, drops: Tensor) -> nn.ModuleList:
            return nn.ModuleList(Block(channels, heads, config.depthwise, float(drops[i])) for i in range(depth))

        width, out = config.encoder, (*config.decoder, config.encoder[-1])
        drops = torch.linspace(0, config.drop_path, sum(config.encoder_depths)).split(config.encoder_depths)
        drops_out = torch.linspace(0, config.drop_path, sum(config.decoder_depths)).split(config.decoder_depths)
        self.stem: nn.Module = nn.Linear(config.inputs, width[0])
        if config.stem:
            self.stem = CellConvolution(config.inputs, width[0], config.stem, bias=False)
        self.stem_out = nn.Sequential(norm(width[0]), nn.GELU())
        self.encoder = nn.ModuleList(map(stage, width, config.encoder_depths, config.encoder_heads, drops))
        self.down = nn.ModuleList(nn.Linear(a, b) for a, b in zip(width, width[1:], strict=False))
        self.down_out = nn.ModuleList(nn.Sequential(norm(b), nn.GELU()) for b in width[1:])
        self.up = nn.ModuleList(linear(out[i + 1], out[i]) for i in range(len(config.decoder)))
        self.skip = nn.ModuleList(linear(width[i], out[i]) for i in range(len(config.decoder)))
        self.decoder = nn.ModuleList(map(stage, config.decoder, config.decoder_depths, config.decoder_heads, drops_out))

    def forward(self, x: Tensor, plan: Plan) -> Tensor:
        """Of points (N, inputs), whose places are those of the plan. Training shuffles the orders of the curves."""
        shuffled = torch.randperm(len(ORDERS)).tolist() if self.training else list(range(len(ORDERS)))
        levels = plan.levels
        x = self.stem(x, levels[0].cell_of, plan.wide) if self.config.stem else self.stem(x)
        x = self.stem_out(x)
        passed: list[Tensor] = []
        for i, level in enumerate(levels):
            x = self._through(self.encoder[i], x, level, shuffled)
            if (parent := level.parent) is not None:
                passed.append(x)
                wide = self.down[i](x)
                x = wide.new_zeros(int(parent.max()) + 1, wide.shape[1])
                x = x.scatter_reduce(0, parent[:, None].expand_as(wide), wide, "amax", include_self=False)
                x = self.down_out[i](x)
        for i in reversed(range(len(passed))):
            parent = levels[i].parent
            assert parent is not None
            x = self.up[i](x).index_select(0, parent) + self.skip[i](passed[i])
            x = self._through(self.decoder[i], x, levels[i], shuffled)
        return x

    @staticmethod
    def _through(blocks: nn.Module, x: Tensor, level: _Level, orders: list[int]) -> Tensor:
        for j, block in enumerate(blocks.children()):
            x = block(x, level, orders[j % len(orders)])
        return x
