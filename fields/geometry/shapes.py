"""Point clouds and triangle meshes as plain arrays, and their change of frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np


@dataclass(frozen=True)
class PointCloud:
    positions: np.ndarray
    """(N, 3) float64, in the units of its frame."""
    normals: np.ndarray
    """(N, 3) float32 unit, outward."""
    colours: np.ndarray
    """(N, 3) uint8 sRGB."""

    def transformed(self, similarity: np.ndarray) -> Self:
        """The same shape in the frame that `similarity` (4, 4) leads to."""
        linear, shift = similarity[:3, :3], similarity[:3, 3]
        return replace(
            self, positions=self.positions @ linear.T + shift, normals=unit(self.normals @ np.linalg.inv(linear))
        )


@dataclass(frozen=True)
class Mesh(PointCloud):
    faces: np.ndarray
    """(F, 3) int32, counter-clockwise as seen from outside."""

    def transformed(self, similarity: np.ndarray) -> Self:
        moved = super().transformed(similarity)
        mirrors = np.linalg.det(similarity[:3, :3]) < 0  # turns every triangle round
        return replace(moved, faces=self.faces[:, ::-1]) if mirrors else moved


@dataclass(frozen=True)
class TexturedMesh(Mesh):
    """A mesh with a picture on it; vertices along the seams of the picture are there twice."""

    uv: np.ndarray
    """(N, 2) float32 in [0, 1]: to the right and down from the texture's top left corner."""
    texture: np.ndarray
    """(H, W, 3) uint8 sRGB."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """(N, 3) float32 of length one; +Z for a vector of no length."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 0, vectors / np.where(length > 0, length, 1), [0.0, 0.0, 1.0]).astype(np.float32)


def eight_bits(colours: np.ndarray) -> np.ndarray:
    """Colours in [0, 1] as uint8."""
    return np.round(np.clip(colours, 0, 1) * 255).astype(np.uint8)
