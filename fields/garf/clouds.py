"""Fragments as the networks see them: points, normals and invariants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.garf.fragment import Fragment, sample
from fields.garf.invariants import invariants
from fields.io.atomic import write_atomically
from fields.io.reading import read_npz, reading

POINTS = 5000
"""On all fragments of an object together, as published."""
DENSE = 40_000
"""For what the surface is like around each of them."""
_SOLID_AREA = 2.5
"""Surface of a typical broken object of size 1, breaks included."""
_FEW = 10
"""Fragments that are seen as an object's. Of more, each is seen as large, and by as many points, as if it were one of so many."""

_CRUMB = 1e-3
"""Of the surface of the object they are seen as a part of: fragments with less have hardly more break than is as wide as a crack."""


def object_scale(fragments: list[Fragment]) -> float:
    """About the size of the whole object, from the surface of its fragments: they need not be assembled for that."""
    return float(np.sqrt(sum(f.areas.sum() for f in fragments) / _SOLID_AREA))


@dataclass
class Cloud:
    """Points on the fragments of one object, in units of its size (`object_scale`), or of a share of that where it is seen from closer.

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
    """Its unit, in that of the fragments."""

    @property
    def pieces(self) -> int:
        return int(self.fragment[-1]) + 1

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {"points": self.points.numpy(), "normals": self.normals.numpy().astype(np.float16),
                  "fragment": self.fragment.numpy().astype(np.uint8), "invariants": self.invariants.numpy().astype(np.float16),
                  "partner": self.partner.numpy().astype(np.int8), "scale": np.array(self.scale)}  # fmt: skip
        write_atomically(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path: Path) -> Cloud:
        """Raises DataError for a file that `save` did not write."""
        with reading(path, "points on fragments", "Remove it, and it is made again."):
            t = {name: torch.from_numpy(array) for name, array in read_npz(path).items()}
            return cls(t["points"].float(), t["normals"].float(), t["fragment"].long(), t["invariants"].float(),
                       t["partner"].long(), float(t["scale"]))  # fmt: skip


def closeness(fragments: list[Fragment]) -> float:
    """How many times more surface than theirs has the object they may be seen as a part of, so that each is large enough."""
    return max(1.0, len(fragments) / _FEW)


def hopeless(fragments: list[Fragment]) -> dict[int, str]:
    """Fragments of which nothing says where they belong, and why: crumbs, which fit anywhere, and copies of others."""
    least = _CRUMB * sum(f.areas.sum() for f in fragments) / closeness(fragments)
    why: dict[int, str] = {}
    for i, fragment in enumerate(fragments):
        if fragment.areas.sum() < least:
            why[i] = "too small to tell, or in another unit"
            continue
        for other in fragments[:i]:
            if np.array_equal(fragment.vertices, other.vertices) and np.array_equal(fragment.faces, other.faces):
                why[i] = f"the same as {other.name}"
                break
    return why


def cloud_of(fragments: list[Fragment], rng: np.random.Generator, count: int = POINTS, closer: float = 1.0) -> Cloud:
    """Samples the fragments of an object and looks at the surface around each sample; as if they were a part, of an object with `closer` times
    their surface and points."""
    scale = object_scale(fragments) / closer**0.5
    seen, dense = (sample(fragments, int(n * closer), rng, least) for n, least in ((count, 20), (DENSE, 200)))
    points, normals, around, facing = (
        torch.from_numpy(a).float() for a in (seen.points / scale, seen.normals, dense.points / scale, dense.normals)
    )
    rows, partner = [], []
    for i, fragment in enumerate(fragments):
        mine, near = torch.from_numpy(seen.of(i)), torch.from_numpy(dense.of(i))
        rows.append(invariants(around[near], facing[near], points[mine], normals[mine]))
        known = np.full(len(fragment.faces), -1) if fragment.partner is None else fragment.partner
        partner.append(torch.from_numpy(known[seen.face[seen.of(i)]]))
    return Cloud(points, normals, torch.from_numpy(seen.fragment), torch.cat(rows), torch.cat(partner), scale)
