"""What time and scanners do to fragments."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fields.garf.fragment import Fragment
from fields.garf.roughness import self_affine


@dataclass(frozen=True)
class Wear:
    """Lengths are shares of the diagonal of the object's box."""

    erosion: float = 0.0
    """About what breaks lose, unevenly; their rims, which are worn from two sides, lose more."""
    noise: float = 0.0
    """Standard deviation of a scanner's error, at each vertex."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> Wear:
        """Half of all objects are freshly broken, and half of all scans are exact."""
        erosion = rng.uniform(0, 0.005) if rng.random() < 0.5 else 0.0
        return cls(erosion, rng.uniform(0, 0.001) if rng.random() < 0.5 else 0.0)


def worn(fragments: list[Fragment], wear: Wear, rng: np.random.Generator) -> list[Fragment]:
    """Assembled fragments, that know what is break, after wear: vertices of breaks move inwards."""
    box = np.stack(
        [np.min([f.vertices.min(0) for f in fragments], 0), np.max([f.vertices.max(0) for f in fragments], 0)]
    )
    diagonal = float(np.linalg.norm(box[1] - box[0]))
    relief = np.clip(1 + 0.5 * self_affine(rng, (32, 32, 32), 1, 16), 0, None)
    after = []
    for fragment in fragments:
        if fragment.partner is None:
            raise ValueError(f"{fragment.name} does not say what is break.")
        inwards = np.zeros_like(fragment.vertices)
        for corner in fragment.faces[fragment.partner >= 0].T:
            np.add.at(inwards, corner, -(fragment.normals * fragment.areas[:, None])[fragment.partner >= 0])
        length = np.linalg.norm(inwards, axis=1, keepdims=True)
        inwards /= np.where(length > 0, length, 1)
        cell = np.floor((fragment.vertices - box[0]) / diagonal * 24).astype(int) % 32
        depth = wear.erosion * diagonal * relief[tuple(cell.T)]
        shake = wear.noise * diagonal * rng.standard_normal(fragment.vertices.shape)
        after.append(replace(fragment, vertices=fragment.vertices + depth[:, None] * inwards + shake))
    return after
