"""One fragment of a broken object: a mesh, or the points a scanner saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fields.errors import ShapeError


@dataclass(frozen=True)
class Fragment:
    """A piece in a frame and unit of its own."""

    name: str
    vertices: np.ndarray
    """(V, 3) float64."""
    faces: np.ndarray
    """(F, 3) int64, counter-clockwise from outside."""
    partner: np.ndarray | None = None
    """(F,) int64, where it is known: −1 for the object's own surface, else the fragment that broke off there."""

    def moved(self, pose: np.ndarray) -> Fragment:
        """The fragment after a rigid motion (4, 4)."""
        return replace(self, vertices=self.vertices @ pose[:3, :3].T + pose[:3, 3])

    @cached_property
    def corners(self) -> np.ndarray:
        """(F, 3, 3) positions of the triangles' corners."""
        return self.vertices[self.faces]

    @cached_property
    def _cross(self) -> np.ndarray:
        a, b, c = self.corners.transpose(1, 0, 2)
        return np.cross(b - a, c - a)

    @cached_property
    def areas(self) -> np.ndarray:
        """(F,) of the triangles."""
        return np.linalg.norm(self._cross, axis=1) / 2

    @cached_property
    def normals(self) -> np.ndarray:
        """(F, 3) outward unit normals; 0 for a triangle without area."""
        return self._cross / np.maximum(2 * self.areas, 1e-300)[:, None]

    @cached_property
    def middle(self) -> np.ndarray:
        """(3,) of its surface."""
        return np.average(self.corners.mean(1), 0, self.areas)

    @cached_property
    def volume(self) -> float:
        """Enclosed volume; of a mesh that is not closed, nothing sensible."""
        a, b, c = (self.corners - self.middle).transpose(1, 0, 2)  # far from the origin nothing would be left of it
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def about_middle(fragments: list[Fragment]) -> tuple[list[Fragment], np.ndarray]:
    """Fragments moved to their own middles, where single precision is enough however far from the origin they were; and (P, 4, 4) from there back."""
    back = np.tile(np.eye(4), (len(fragments), 1, 1))
    back[:, :3, 3] = [f.middle for f in fragments]
    return [f.moved(np.linalg.inv(pose)) for f, pose in zip(fragments, back, strict=True)], back


@dataclass(frozen=True)
class Samples:
    """Points on the fragments of one object."""

    points: np.ndarray
    """(N, 3)."""
    normals: np.ndarray
    """(N, 3) unit, outwards."""
    fragment: np.ndarray
    """(N,) which fragment a point lies on, ascending."""
    face: np.ndarray
    """(N,) which triangle of it."""

    def of(self, i: int) -> np.ndarray:
        """Indices of the points on fragment i."""
        return np.flatnonzero(self.fragment == i)


def shares(areas: np.ndarray, count: int, least: int) -> np.ndarray:
    """How many of `count` points each fragment gets: `least`, and the rest by area; what rounding leaves goes to the
    fragment that has most.

    Raises:
        ShapeError: fewer points than `least` for every fragment.
    """
    spare = count - least * len(areas)
    if spare < 0:
        raise ShapeError(f"{count} points cannot give each of {len(areas)} fragments {least}.")
    given = least + np.floor(spare * areas / areas.sum()).astype(int)
    given[given.argmax()] += count - given.sum()
    return given


def sample(fragments: list[Fragment], count: int, rng: np.random.Generator, least: int = 20) -> Samples:
    """`count` points on the fragments of an object together, uniform by area within each (see `shares`).

    Stratified: the area of a fragment is cut into equal shares, one point in each, which spreads them more evenly than
    independent points.
    """
    given = shares(np.array([f.areas.sum() for f in fragments]), count, least)
    points, normals, face = [], [], []
    for fragment, n in zip(fragments, given, strict=True):
        ends = np.cumsum(fragment.areas)
        at = (np.arange(n) + rng.random(n)) / n * ends[-1]
        chosen = np.minimum(np.searchsorted(ends, at), len(ends) - 1)
        u, v = np.sqrt(rng.random(n)), rng.random(n)
        weights = np.stack([1 - u, u * (1 - v), u * v], 1)
        points.append(np.einsum("nk,nkd->nd", weights, fragment.corners[chosen]))
        normals.append(fragment.normals[chosen])
        face.append(chosen)
    return Samples(
        np.concatenate(points), np.concatenate(normals), np.repeat(np.arange(len(given)), given), np.concatenate(face)
    )
