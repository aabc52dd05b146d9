"""`Scene`: posed images with the box that holds what they show. What every method trains on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fields.data.cameras import Cameras
from fields.data.images import ImageStore
from fields.errors import ConfigError


@dataclass(eq=False)
class Split:
    """The images of one purpose: cameras[i] took images.image(i), called names[i]."""

    cameras: Cameras
    images: ImageStore
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, which: list[int]) -> Split:
        """The images of these indices, in this order."""
        return Split(self.cameras[which], self.images.select(which), [self.names[i] for i in which])

    def to(self, device: torch.device | str) -> Split:
        return Split(self.cameras.to(device), self.images.to(device), self.names)


@dataclass(eq=False)
class Scene:
    """Lengths are scene units; all geometry is in the scene's world frame."""

    name: str
    path: Path
    train: Split
    test: Split
    aabb: Tensor
    """(2, 3) float32: lowest and highest corner."""
    near: float
    """March no closer to a camera than this, and no further than `far`: distances along the unit ray."""
    far: float
    background: Literal["white", "black", "random"]
    """What to composite on: white for cut-out objects; random for photographs, whose every pixel is opaque,
    so that no method can hide a hole in the field behind a constant colour."""
    alpha: bool
    """Whether the images have transparent pixels."""
    world_from_input: Tensor
    """(4, 4) float64 similarity: the scene's frame from the coordinates that the user's files are in."""
    format: str
    real: bool
    """Photographs with their surroundings (wants total-variation smoothing), not an isolated object."""
    points: Tensor | None = None
    """(P, 3) float32 sparse points, if the format has any."""
    notes: list[str] = field(default_factory=list)
    """How the box, the split and so on were chosen, in words."""

    def with_views(self, count: int) -> Scene:
        """The same with only so many training images, evenly spaced (as RegNeRF chooses them).

        Raises:
            ConfigError: not 1 to as many as there are.
        """
        have = len(self.train)
        if not 1 <= count <= have:
            raise ConfigError(f"{self.path}: {count} views; it has 1 to {have} training images.")
        which = torch.linspace(0, have - 1, count).round().int().tolist() if count > 1 else [have // 2]
        return replace(self, train=self.train.select(which))

    def to(self, device: torch.device | str) -> Scene:
        points = None if self.points is None else self.points.to(device)
        return replace(
            self,
            train=self.train.to(device),
            test=self.test.to(device),
            aabb=self.aabb.to(device),
            points=points,
        )
