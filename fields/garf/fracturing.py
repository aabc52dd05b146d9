"""Breaks a solid as brittle things break: rough, curved cracks around an impact, one after another.

Every crack is a closed half-space whose face is a self-affine height field, and the solid is split by it exactly
(manifold3d), so that fragments are closed, fit each other to rounding, and know which of their triangles are break.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fields.errors import DataError
from fields.garf.fragment import Fragment
from fields.garf.roughness import self_affine

_GRID = 96
_SIDE = 1.24
"""Of a cutter's face, in diagonals of the solid: it covers the solid from any direction, with room to spare."""
_TRIES = 300
_THIN = 0.08
"""Walls below this share of the diagonal break square to their surface."""


@dataclass(frozen=True)
class Style:
    """How a solid breaks; lengths are shares of its box's diagonal."""

    roughness: float = 0.008
    """Standard deviation of a crack's fine relief."""
    bend: float = 0.04
    """Standard deviation of its coarse relief."""
    spread: float = 0.12
    """How far from the impact cracks lie."""
    size_power: float = 0.3
    """Larger pieces break sooner by this power of their volume."""
    impact_share: float = 0.8
    """Share of the cracks that keep to the impact."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> Style:
        """Wider than any one material: from glass to coarse stoneware."""

        def between(low: float, high: float) -> float:
            return float(np.exp(rng.uniform(np.log(low), np.log(high))))

        return cls(between(0.003, 0.02), between(0.008, 0.12), rng.uniform(0.06, 0.2), rng.uniform(0, 0.5), rng.uniform(0.6, 1))  # fmt: skip


def random_count(rng: np.random.Generator, most: int = 20) -> int:
    """A number of pieces, as breaking gives them: mostly few (mode 2, median 5), at times many."""
    return min(most, 2 + int(rng.exponential(4.33)))


def solid_of(vertices: np.ndarray, faces: np.ndarray, name: str = "the mesh") -> Any:
    """A closed mesh as a solid that can be split.

    Raises:
        DataError: it is not a closed, orientable surface, or encloses nothing.
    """
    from manifold3d import Error, Manifold, Mesh64

    mesh = Mesh64(np.array(vertices, np.float64, order="C"), np.array(faces, np.uint64, order="C"))
    mesh.merge()
    solid = Manifold(mesh)
    if solid.status() != Error.NoError or solid.is_empty():
        raise DataError(f"{name} is not a closed surface, so it has no inside that could break ({solid.status().name}). "
                        "Close its holes first, for instance with MeshLab or Blender's Remesh.")  # fmt: skip
    if solid.volume() <= 0:
        raise DataError(f"{name} is inside out: its triangles face inwards. Flip its normals first.")
    return solid


def fracture(solid: Any, pieces: int, rng: np.random.Generator, style: Style | None = None) -> list[Fragment]:
    """Breaks a solid into so many fragments, in their places, each closed, largest first.

    Args:
        solid: manifold3d.Manifold; see `solid_of`.
        pieces: at least 1.
        style: a random one by default.
    Returns:
        fragments with `partner`; fewer than asked for where no crack is found that leaves each piece 2 % of its share of
        the volume.
    """
    style = style or Style.random(rng)
    solid = solid.as_original()
    box = np.array(solid.bounding_box())
    diagonal, volume = float(np.linalg.norm(box[3:] - box[:3])), solid.volume()
    impact = _on_surface(_mesh(solid), rng)[0]
    parts, cutters = [solid], set()
    meshes = [_mesh(solid)]
    for _ in range(_TRIES):
        if len(parts) >= pieces:
            break
        middles = np.array([(m.vertices.min(0) + m.vertices.max(0)) / 2 for m in meshes])
        nearness = np.exp(-np.linalg.norm(middles - impact, axis=1) / (2 * style.spread * diagonal))
        weight = np.array([p.volume() for p in parts]) ** style.size_power * nearness
        chosen = int(rng.choice(len(parts), p=weight / weight.sum()))
        through, wall = _crack_point(meshes[chosen], impact, style, diagonal, rng)
        normal = rng.standard_normal(3)
        depth = parts[chosen].ray_cast(tuple(through - 1e-4 * diagonal * wall), tuple(through - diagonal * wall))
        if depth and depth[0].distance < _THIN * diagonal:
            normal -= 0.95 * (normal @ wall) * wall  # cracks run square to a wall
        cutter = _cutter(through, normal / np.linalg.norm(normal), (box[:3] + box[3:]) / 2, diagonal, style, rng)
        halves = [p for half in parts[chosen].split(cutter) for p in _connected(half)]
        volumes = [h.volume() for h in halves]
        if (
            2 <= len(halves) <= pieces - len(parts) + 1
            and min(volumes) >= 0.02 * volume / pieces
            and abs(sum(volumes) - parts[chosen].volume()) <= 1e-6 * volume
        ):
            cutters.add(cutter.original_id())
            parts[chosen : chosen + 1] = halves
            meshes[chosen : chosen + 1] = map(_mesh, halves)
    return _labelled([m for _, m in sorted(zip(parts, meshes, strict=True), key=lambda pm: -pm[0].volume())], cutters)


@dataclass(frozen=True)
class _Labelled:
    vertices: np.ndarray
    faces: np.ndarray
    origin: np.ndarray
    """(F,) the solid or cutter whose surface a triangle is of."""


def _mesh(part: Any) -> _Labelled:
    mesh = part.to_mesh64()
    faces = np.asarray(mesh.tri_verts).astype(np.int64)
    # Vertices that were told apart for their origin become one again.
    same = np.arange(len(mesh.vert_properties))
    same[np.asarray(mesh.merge_from_vert, np.int64)] = np.asarray(mesh.merge_to_vert, np.int64)
    kept, index = np.unique(same, return_inverse=True)
    return _Labelled(np.asarray(mesh.vert_properties)[kept, :3], index[faces], origins(mesh))


def origins(mesh: Any) -> np.ndarray:
    """(F,) the number of the solid that each triangle of a manifold3d mesh comes from."""
    ends = list(map(int, mesh.run_index))
    lengths = [(end - start) // 3 for start, end in zip(ends, ends[1:], strict=False)]
    return np.repeat(np.asarray(mesh.run_original_id, np.int64), lengths)


def _on_surface(mesh: _Labelled, rng: np.random.Generator, count: int = 1) -> np.ndarray:
    """Centres of random triangles, by area."""
    a, b, c = mesh.vertices[mesh.faces].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(area), count, p=area / area.sum())
    return (a + b + c)[chosen] / 3


def _crack_point(
    mesh: _Labelled, impact: np.ndarray, style: Style, diagonal: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A point of the surface for a crack to go through, and the outward normal there."""
    a, b, c = mesh.vertices[mesh.faces].transpose(1, 0, 2)
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    proposed = rng.choice(len(area), 12, p=area / area.sum())
    centres = (a + b + c)[proposed] / 3
    best = 0
    if rng.random() < style.impact_share:
        reach = abs(rng.normal(0, style.spread)) * diagonal
        best = int(np.abs(np.linalg.norm(centres - impact, axis=1) - reach).argmin())
    return centres[best], cross[proposed[best]] / area[proposed[best]]


def _cutter(
    through: np.ndarray, normal: np.ndarray, middle: np.ndarray, diagonal: float, style: Style, rng: np.random.Generator
) -> Any:
    """The half-space below a rough face that goes about through a point."""
    from manifold3d import Manifold, Mesh64

    side = _SIDE * diagonal
    height = diagonal * (
        style.bend * self_affine(rng, (_GRID, _GRID), 0.8 * _SIDE, 4 * _SIDE)
        + style.roughness * self_affine(rng, (_GRID, _GRID), 4 * _SIDE, 77 * _SIDE)
    )
    line = (np.arange(_GRID) / (_GRID - 1) - 0.5) * side
    x, y = np.meshgrid(line, line, indexing="ij")
    index = np.arange(_GRID**2).reshape(_GRID, _GRID)
    ring = np.concatenate([index[:-1, 0], index[-1, :-1], index[:0:-1, -1], index[0, :0:-1]])  # counter-clockwise
    top = np.stack([x, y, height], -1).reshape(-1, 3)
    bottom = np.concatenate([top[ring, :2], np.full((len(ring), 1), -1.5 * side)], 1)
    below, centre = len(top) + np.arange(len(ring)), len(top) + len(ring)
    after = np.roll(np.arange(len(ring)), -1)
    a, b, c, d = (index[s].reshape(-1) for s in (np.s_[:-1, :-1], np.s_[1:, :-1], np.s_[1:, 1:], np.s_[:-1, 1:]))
    other = rng.random(len(a)) < 0.5  # diagonals at random, or the relief would have a grain
    faces = np.concatenate([
        np.stack([a, b, np.where(other, d, c)], 1), np.stack([np.where(other, b, a), c, d], 1),
        np.stack([ring, below, below[after]], 1), np.stack([ring, below[after], ring[after]], 1),
        np.stack([np.full(len(ring), centre), below[after], below], 1),
    ])  # fmt: skip
    vertices = np.concatenate([top, bottom, [[0, 0, -1.5 * side]]])
    e1 = np.cross(normal, rng.standard_normal(3))
    e1 /= np.linalg.norm(e1)
    frame = np.stack([e1, np.cross(normal, e1), normal])
    origin = middle + ((through - middle) @ normal) * normal
    return Manifold(Mesh64(vertices @ frame + origin, faces.astype(np.uint64))).as_original()


def _connected(part: Any) -> list[Any]:
    """The pieces of a split. A cavity comes as a shell of negative volume; it returns to the piece around it."""
    from manifold3d import Manifold

    components = part.decompose()
    pieces = sorted((c for c in components if c.volume() > 0), key=lambda c: c.volume())
    for void in (c for c in components if c.volume() <= 0):
        low, high = np.split(np.array(void.bounding_box()), 2)
        for i, piece in enumerate(pieces):
            box = np.array(piece.bounding_box())
            if (box[:3] <= low).all() and (high <= box[3:]).all():
                pieces[i] = Manifold.compose([piece, void])
                break
    return pieces


def _labelled(meshes: list[_Labelled], cutters: set[int]) -> list[Fragment]:
    """Fragments that know which other one every break triangle faces: the nearest that was cut by the same crack."""
    from scipy.spatial import cKDTree

    centres = [m.vertices[m.faces].mean(1) for m in meshes]
    partners = [np.full(len(m.faces), -1) for m in meshes]
    for cutter in cutters:
        of = [np.flatnonzero(m.origin == cutter) for m in meshes]
        owner = np.repeat(np.arange(len(meshes)), [len(o) for o in of])
        points = np.concatenate([c[o] for c, o in zip(centres, of, strict=True)])
        for i, mine in enumerate(of):
            others = np.flatnonzero(owner != i)
            if len(mine) and len(others):
                partners[i][mine] = owner[others][cKDTree(points[others]).query(points[owner == i])[1]]
    return [Fragment(f"piece_{i}", m.vertices, m.faces, p) for i, (m, p) in enumerate(zip(meshes, partners, strict=True))]  # fmt: skip
