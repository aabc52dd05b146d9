"""GARF's second stage: from fragments as they are posed, the velocity that brings them together."""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention, silu


@dataclass(frozen=True)
class DenoiserConfig:
    """Defaults are the published network, 43.51 M parameters."""

    features: int = 64
    """Channels of the encoder's features."""
    width: int = 512
    layers: int = 6
    heads: int = 8
    octaves: int = 10
    dropout: float = 0.2


class Tokens:
    """Which points belong together: to an object, and within it to a fragment.

    Args:
        fragment: (B, N) number of the fragment of each point among all of the batch, ascending.
    """

    def __init__(self, fragment: Tensor) -> None:
        self.fragment = fragment
        flat = fragment.reshape(-1)
        self.counts = torch.bincount(flat)
        begins = self.counts.cumsum(0) - self.counts
        # Fragments of about one size attend together: padded to at most twice their length.
        self.rooms: list[Tensor] = []
        size = torch.where(self.counts > 0, self.counts, 1).double().log2().ceil().long()
        for power in size.unique().tolist():
            of = torch.nonzero((size == power) & (self.counts > 0))[:, 0]
            if len(of):
                at = torch.arange(int(self.counts[of].max()), device=flat.device)
                index = begins[of][:, None] + at
                self.rooms.append(torch.where(at < self.counts[of][:, None], index, -1))

    def mean(self, x: Tensor) -> Tensor:
        """Means (fragments, D) of tokens (B, N, D)."""
        total = x.new_zeros(len(self.counts), x.shape[-1]).index_add(0, self.fragment.reshape(-1), x.flatten(0, 1))
        return total / self.counts.clamp(min=1)[:, None]


def fourier(x: Tensor, octaves: int) -> Tensor:
    """x (…, C) and its sines and cosines at 1, 2, 4 … times its value: (…, C (1 + 2 octaves))."""
    waves = (x[..., None] * 2.0 ** torch.arange(octaves, device=x.device)).flatten(-2)
    return torch.cat([x, waves.sin(), waves.cos()], -1)


class TimedNorm(nn.Module):
    """Layer norm whose scale and shift depend on time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.norm, self.modulate = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, N, D), time (B,) in [0, 1]."""
        angle = 1000 * time[:, None] * 10000 ** (-torch.arange(128, device=x.device) / 128)
        scale, shift = self.modulate(silu(self.embed(torch.cat([angle.cos(), angle.sin()], -1)))).chunk(2, -1)
        return self.norm(x) * (1 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = (
            nn.Linear(width, 3 * width, bias=False),
            nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout)),
        )

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, N, D / heads) from x (B, N, 3 D)."""
        return x.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # type: ignore[return-value]


class WholeAttention(Attention):
    """All points of an object attend to each other."""

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        return self.out(scaled_dot_product_attention(*self._heads(self.qkv(x))).transpose(1, 2).flatten(2))


class FragmentAttention(Attention):
    """Points of a fragment attend to each other."""

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        flat = self.qkv(x).flatten(0, 1)
        places, values = [], []
        for room in tokens.rooms:
            there = room >= 0
            inside = flat.index_select(0, room.clamp(min=0).reshape(-1)).view(*room.shape, -1)
            mask = None if there.all() else there[:, None, None]
            y = scaled_dot_product_attention(*self._heads(inside), attn_mask=mask).transpose(1, 2).flatten(2)
            places.append(room[there])
            values.append(y[there])
        y = x.new_empty(len(flat), x.shape[-1]).index_copy(0, torch.cat(places), torch.cat(values))
        return self.out(y.view_as(x))


class GatedMLP(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.rise, self.dropout, self.fall = (
            nn.Linear(width, 8 * width),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.rise(x).chunk(2, -1)
        return self.fall(self.dropout(value * gelu(gate)))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_fragment, self.fragment = TimedNorm(width), FragmentAttention(width, heads, dropout)
        self.norm_whole, self.whole = TimedNorm(width), WholeAttention(width, heads, dropout)
        self.norm_mlp, self.mlp = nn.LayerNorm(width), GatedMLP(width, dropout)

    def forward(self, x: Tensor, time: Tensor, tokens: Tokens) -> Tensor:
        x = x + self.fragment(self.norm_fragment(x, time), tokens)
        x = x + self.whole(self.norm_whole(x, time), tokens)
        return x + self.mlp(self.norm_mlp(x))


class Denoiser(nn.Module):
    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        width, each = config.width, 1 + 2 * config.octaves
        self.shape = nn.Linear(config.features + 7 * each, width)
        self.pose, self.role = nn.Linear(7 * each, width), nn.Embedding(2, width)
        self.layers = nn.ModuleList(Layer(width, config.heads, config.dropout) for _ in range(config.layers))

        def readout() -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width // 2), nn.SiLU(), nn.Linear(width // 2, 3))  # fmt: skip

        self.translation, self.rotation = readout(), readout()

    def forward(
        self, features: Tensor, points: Tensor, normals: Tensor, size: Tensor, translation: Tensor, rotation: Tensor,
        anchor: Tensor, time: Tensor, tokens: Tokens,
    ) -> Tensor:  # fmt: skip
        """The velocity of every fragment.

        Args:
            features: (B, N, F) of the encoder.
            points, normals: (B, N, 3) in the fragments' own frames, points in [−1, 1].
            size: (fragments,) by which points are to be multiplied.
            translation, rotation: (fragments, 3), (fragments, 3, 3) present poses.
            anchor: (fragments,) bool: already where they belong.
            time: (B,) in (0, 1]; 1 is noise.
        Returns:
            (fragments, 6): of the translation, and of the rotation about the world's axes.
        """
        octaves, fragment = self.config.octaves, tokens.fragment
        turn = rotation[fragment]
        turned = [torch.einsum("bnij,bnj->bni", turn, x) for x in (points, normals)]
        parts = [fourier(x, octaves) for x in (*turned, size[fragment][..., None])]
        # A quaternion and its negative are one rotation: only those with a positive real part are shown.
        quaternion = roma.rotmat_to_unitquat(rotation)[:, [3, 0, 1, 2]]
        quaternion = torch.where(quaternion[:, :1] < 0, -quaternion, quaternion)
        pose = self.pose(fourier(torch.cat([translation, quaternion], -1), octaves)) + self.role(anchor.long())
        x = self.shape(torch.cat([features, *parts], -1)) + pose.index_select(0, fragment.reshape(-1)).view(
            *fragment.shape, -1
        )
        for layer in self.layers:
            x = layer(x, time, tokens)
        mean = tokens.mean(x)
        return torch.cat([self.translation(mean), self.rotation(mean)], -1)
