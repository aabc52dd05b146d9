"""Fragments as the networks see them: points, normals and invariants, and wear as time does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fields.garf.fragment import Fragment, sample
from fields.garf.invariants import invariants
from fields.garf.roughness import self_affine

POINTS = 5000
"""On all fragments of an object together, as published."""
DENSE = 40_000
"""For what the surface is like around each of them."""
_SOLID_AREA = 2.5
"""Surface of a typical broken object of size 1, breaks included."""


def object_scale(fragments: list[Fragment]) -> float:
    """About the size of the whole object, from the surface of its fragments: they need not be assembled for that."""
    return float(np.sqrt(sum(f.areas.sum() for f in fragments) / _SOLID_AREA))


@dataclass(frozen=True)
class Wear:
    """What happens to fragments, in sizes of the object."""

    erosion: float = 0.0
    """Breaks lose up to so much, unevenly, and their rims twice that."""
    noise: float = 0.0
    """Standard deviation of a scanner's error."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> Wear:
        """Half of all objects are freshly broken."""
        return cls(rng.uniform(0, 0.006) if rng.random() < 0.5 else 0.0, rng.uniform(0, 0.002) if rng.random() < 0.5 else 0.0)


@dataclass
class Cloud:
    """Points on the fragments of one object, in units of its size (`object_scale`).

    Each fragment stays in the frame it was given in.
    """

    points: Tensor
    """(N, 3)."""
    normals: Tensor
    """(N, 3) unit, outwards."""
    fragment: Tensor
    """(N,) int64, ascending."""
    invariants: Tensor
    """(N, C), see `fields.garf.invariants`."""
    partner: Tensor
    """(N,) int64: −1 for original surface, else the fragment that belongs there; all −1 where nobody knows."""
    scale: float
    """Of the object, in the unit of the fragments."""

    @property
    def pieces(self) -> int:
        return int(self.fragment[-1]) + 1

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, points=self.points.numpy(), normals=self.normals.numpy().astype(np.float16),
                     fragment=self.fragment.numpy().astype(np.uint8), invariants=self.invariants.numpy().astype(np.float16),
                     partner=self.partner.numpy().astype(np.int8), scale=self.scale)  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Cloud:
        with np.load(path, allow_pickle=False) as file:
            t = {name: torch.from_numpy(file[name]) for name in ("points", "normals", "fragment", "invariants", "partner")}
            return cls(t["points"].float(), t["normals"].float(), t["fragment"].long(), t["invariants"].float(),
                       t["partner"].long(), float(file["scale"]))  # fmt: skip


def cloud_of(fragments: list[Fragment], rng: np.random.Generator, wear: Wear | None = None, count: int = POINTS) -> Cloud:
    """Samples the fragments of an object and looks at the surface around each sample."""
    scale = object_scale(fragments)
    seen, dense = sample(fragments, count, rng), sample(fragments, DENSE, rng, least=200)
    partner = np.concatenate([
        np.full((seen.fragment == i).sum(), -1) if f.partner is None else f.partner[seen.face[seen.fragment == i]]
        for i, f in enumerate(fragments)
    ])  # fmt: skip
    at, around = seen.points / scale, dense.points / scale
    if wear is not None:
        relief = 1 + 0.5 * self_affine(rng, (32, 32, 32), 1, 16)
        broken = np.concatenate([
            np.zeros((dense.fragment == i).sum(), bool) if f.partner is None else f.partner[dense.face[dense.fragment == i]] >= 0
            for i, f in enumerate(fragments)
        ])  # fmt: skip
        at = _worn(at, seen.normals, partner >= 0, wear, relief, rng)
        around = _worn(around, dense.normals, broken, wear, relief, rng)
    rows = []
    points, normals, around_t, around_n = (torch.from_numpy(a).float() for a in (at, seen.normals, around, dense.normals))
    for i in range(len(fragments)):
        mine, near = torch.from_numpy(seen.of(i)), torch.from_numpy(dense.of(i))
        rows.append(invariants(around_t[near], around_n[near], points[mine], normals[mine]))
    return Cloud(points, normals, torch.from_numpy(seen.fragment), torch.cat(rows), torch.from_numpy(partner), scale)


def _worn(
    points: np.ndarray, normals: np.ndarray, broken: np.ndarray, wear: Wear, relief: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    cell = tuple(((points * 8) % 32).astype(int).T)  # the relief repeats every four sizes
    depth = np.clip(relief[cell], 0, None) * wear.erosion * broken
    return points - depth[:, None] * normals + wear.noise * rng.standard_normal(points.shape)
