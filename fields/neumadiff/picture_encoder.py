"""An encoder of pictures, small and our own: where a picture of a material is, among materials.

It learns that two pictures of one material in different lights are of the same (InfoNCE: van den Oord et al., 2018), and what the material's statistics are. What only the
light, the camera or the backdrop are to blame for is of no use to either.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize

from fields.io.atomic import read_tensors, write_tensors
from fields.neumadiff.pictures import SIZE, Pictures, looked_at, pictures_of
from fields.neumadiff.rows import Rows
from fields.neumadiff.statistics import NAMES

DIM = 64
"""Of embeddings."""
_CHANNELS = (32, 64, 128, 192)
_BATCH, _RATE = 96, 2e-3
_WARM = 12  # the first of so many parts
_CLOSE = 0.1
"""Difference of cosines, above which embeddings are clearly of different materials."""


class PictureEncoder(nn.Module):
    """sRGB pictures (B, 3, H, W) of any size to unit vectors (B, DIM)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inward, outward in zip((3, *_CHANNELS), _CHANNELS, strict=False):
            layers += [nn.Conv2d(inward, outward, 3, 2, 1), nn.GroupNorm(8, outward), nn.GELU()]
        self.convolutions = nn.Sequential(*layers)
        self.embed = nn.Sequential(nn.Linear(2 * _CHANNELS[-1], 256), nn.GELU(), nn.Linear(256, DIM))
        self.statistics = nn.Sequential(nn.Linear(DIM, 128), nn.GELU(), nn.Linear(128, len(NAMES)))

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.shape[-2:] != (SIZE, SIZE):
            pictures = interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True)
        h = self.convolutions((2 * pictures - 1).contiguous(memory_format=torch.channels_last))
        return normalize(self.embed(torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)), dim=-1)

    def looks(self, embedded: Tensor) -> Tensor:
        """(B, 16) what the statistics of materials (B, DIM) are, as deviations from what is usual."""
        return self.statistics(embedded)


def learn(pictures: Pictures, statistics: Tensor, iterations: int, watch: Callable[[int, int], None]) -> PictureEncoder:
    """An encoder of pictures of R materials whose statistics (R, 16) are as deviations from what is usual."""
    torch.manual_seed(0)
    encoder = PictureEncoder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(encoder.parameters(), _RATE, weight_decay=0.05)
    for i in range(iterations):
        generator = torch.Generator().manual_seed(i)
        for group in optimiser.param_groups:
            group["lr"] = (
                _RATE * min(1, _WARM * (i + 1) / iterations) * (0.5 + 0.5 * math.cos(math.pi * i / iterations))
            )
        # What shares pictures may be the same but for the order of its channels, and the same altogether where it is grey.
        order = torch.randperm(len(statistics), generator=generator)
        which = order[_first(pictures.of[order])][:_BATCH]
        view = torch.rand(len(which), pictures.views, generator=generator).argsort(1)[:, :2]
        shown = pictures(which.repeat(2), view.T.flatten())
        embedded = encoder(looked_at(shown, generator))
        one, other = embedded.chunk(2)
        alike, own = one @ other.T / _CLOSE, torch.arange(len(which))
        said = encoder.looks(embedded).unflatten(0, (2, -1))
        loss = (cross_entropy(alike, own) + cross_entropy(alike.T, own)) / 2 + (said - statistics[which]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        watch(i + 1, iterations)
    # As it will be stored, so that whatever learns from what it says is told the same later on.
    return encoder.half().float().eval().requires_grad_(False)


def _first(numbers: Tensor) -> Tensor:
    """Where in numbers (N,) each of those that there are is met first, in the order that they are met."""
    found, place = numbers.unique(return_inverse=True)
    first = torch.full((len(found),), len(numbers)).scatter_reduce(0, place, torch.arange(len(numbers)), "amin")
    return first.sort().values


@dataclass
class Sight:
    """Of R materials."""

    encoder: PictureEncoder
    embedded: Tensor
    """(R, V, DIM) of pictures of each."""

    def save(self, path: Path) -> None:
        encoder = {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        write_tensors(path, {"embedded": self.embedded} | encoder, {})

    @classmethod
    def load(cls, path: Path) -> Sight:
        tensors, _ = read_tensors(path)
        encoder = PictureEncoder().eval().requires_grad_(False)
        embedded = tensors.pop("embedded")
        encoder.load_state_dict({name.removeprefix("encoder."): value for name, value in tensors.items()})
        return cls(encoder, embedded)


def gathered_sight(rows: Rows, iterations: int, folder: Path, watch: Callable[[int, int], None]) -> Sight:
    """An encoder that has learned from these materials, and what it says of them: kept in the folder with their pictures, where it is made if it is
    missing."""
    known = hashlib.sha256(rows.weights.numpy().tobytes()).hexdigest()[:12]
    file, shown = (folder / f"{name}-{known}.safetensors" for name in (f"sight-{iterations}", "pictures"))
    if file.exists():
        return Sight.load(file)
    if not shown.exists():
        pictures_of(rows, watch).save(shown)
    pictures = Pictures.load(shown)
    usual, deviation = rows.usual
    encoder = learn(pictures, (rows.statistics - usual) / deviation, iterations, watch)
    sight = Sight(encoder, embedded(encoder, pictures))
    sight.save(file)
    return sight


@torch.no_grad()
def embedded(encoder: PictureEncoder, pictures: Pictures) -> Tensor:
    """(R, V, DIM) of every view of R materials, looked at once."""
    generator, found = torch.Generator().manual_seed(0), []
    for which in torch.arange(len(pictures.of)).split(_BATCH):
        every = torch.cartesian_prod(which, torch.arange(pictures.views))
        found.append(encoder(looked_at(pictures(*every.unbind(1)), generator)).unflatten(0, (-1, pictures.views)))
    return torch.cat(found)
