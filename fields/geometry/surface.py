"""The surface of a radiance field as a triangle mesh."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import pad

from fields.data.blocks import Block
from fields.data.cameras import Cameras
from fields.errors import ConfigError
from fields.geometry.points import nothing_dense, optical_density
from fields.geometry.query import cubic_cells
from fields.geometry.shapes import Mesh, eight_bits, unit
from fields.geometry.unseen import cavities
from fields.radiance import RadianceField

_CHUNK = 262_144  # positions at once
_SLAB = 1 << 28  # bytes of the grid that marching cubes sees at once: all of it up to 400 cells a side


@torch.no_grad()
def extract_mesh(
    field: RadianceField,
    level: float,
    cameras: Cameras | None = None,
    *,
    resolution: int = 256,
    keep: float = 0.001,
    faces: int | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Mesh:
    """The closed surface around everything denser than `level`, by marching cubes, in the field's frame.

    Closed, because there is nothing in empty cells and outside the box, as in rendering.

    Args:
        level: optical depth per scene unit; `stopping_density` finds the one at which rays stop.
        cameras: fill what none of these has seen and is closed off: the inside of things.
        resolution: cubic cells along the longest side of the box.
        keep: drop connected parts of less than this fraction of the area of the largest.
        faces: simplify to about so many triangles (Garland and Heckbert's quadrics; needs `fast-simplification`).
        watch: told how many of how many layers are done.

    Returns:
        A mesh whose colours are the field's as seen from outside, against the normals.

    Raises:
        ConfigError: an option out of range.
        DataError: nothing is denser than `level`.
    """
    if not level > 0 or not 0 <= keep <= 1 or not (faces is None or faces >= 4):
        raise ConfigError(
            f"level {level:g}, keep {keep:g}, resolution {resolution}, faces {faces}: the level must be positive, keep a "
            "fraction between 0 and 1, and the faces at least 4."
        )
    grid, solid, high = _inside(field, level, resolution, watch)
    if not solid.any():
        raise nothing_dense()
    if cameras is not None:
        for i, unseen in enumerate(cavities(field, cameras, solid)):
            grid.layer(i + 1)[1:-1, 1:-1].numpy()[unseen] = 1
    vertices, triangles = _marched(grid)
    vertices, triangles = _largest(vertices, triangles[:, ::-1], keep)  # skimage turns them clockwise
    if faces is not None and len(triangles) > faces:
        vertices, triangles = _simplified(vertices, triangles, faces)
    # The outermost layer of the grid lies outside the box, in which all that is visible is.
    x = np.clip((vertices - 1) * (2 / high) - 1, -1, 1).astype(np.float32)
    positions = field.denormalise(torch.from_numpy(x).to(field.aabb.device)).double().cpu().numpy()
    normals = _vertex_normals(positions, triangles)
    return Mesh(positions, normals, colours_from_outside(field, positions, normals), triangles)


@torch.no_grad()
def colours_from_outside(field: RadianceField, positions: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(N, 3) uint8: the field's colours at positions (N, 3), seen against the normals (N, 3)."""
    colours = []
    for k in range(0, len(positions), _CHUNK):
        at, view = (torch.from_numpy(a[k : k + _CHUNK]).float().to(field.aabb.device) for a in (positions, -normals))
        colours.append(field.colour(field.normalise(at).clamp(-1, 1), view).cpu())
    return eight_bits(torch.cat(colours).numpy())


def _simplified(vertices: np.ndarray, triangles: np.ndarray, faces: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        from fast_simplification import simplify
    except ImportError:
        raise ConfigError("Simplifying a mesh needs fast-simplification: pip install 'fields[mesh]'.") from None
    found = simplify(vertices.astype(np.float32), triangles.astype(np.int32), target_count=faces)
    return np.asarray(found[0]), np.asarray(found[1]).astype(np.int32)


def _inside(
    field: RadianceField, level: float, resolution: int, watch: Callable[[int, int], None]
) -> tuple[Block, np.ndarray, np.ndarray]:
    """A grid (X + 3, Y + 3, Z + 3) that is above a half where the field is denser than `level`, with a margin of zeros;
    where it is, of its inner points; and the number of cells (3,) along the box.

    The value, κ / (κ + level), is the logistic function of log κ: densities differ by orders of magnitude from one knot to
    the next, and marching cubes, which interpolates linearly, would put the surface beside the outer one.
    """
    cells = cubic_cells(field, resolution)
    x, y, z = (torch.linspace(-1, 1, k + 1, device=field.aabb.device) for k in cells)
    grid = Block(tuple(k + 3 for k in cells), torch.float32, "grid")
    solid = np.empty([k + 1 for k in cells], bool)
    for i in (0, len(x) + 1):
        grid.layer(i).zero_()
    for i in range(len(x)):
        layer = torch.stack(torch.meshgrid(x[i : i + 1], y, z, indexing="ij"), -1).view(-1, 3)
        density = torch.cat([optical_density(field, part) for part in layer.split(_CHUNK)])
        value = (density / (density + level)).view(len(y), len(z)).cpu()
        grid.layer(i + 1).copy_(pad(value, (1, 1, 1, 1)))
        solid[i] = (value > 0.5).numpy()
        watch(i + 1, len(x))
    return grid, solid, np.array(cells)


def _marched(grid: Block) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) in cells and triangles (F, 3) of marching cubes at a half.

    Slabs of the grid go through it one after the other. Two of them share a layer of points, on which both find the same
    vertices: those of the first stay, in the order in which the whole grid would have them.
    """
    from skimage.measure import marching_cubes

    depth, *plane = grid.data.shape
    layers = max(_SLAB // (4 * math.prod(plane)), 1)
    vertices, triangles, count = [np.empty((0, 3), np.float32)], [np.empty((0, 3), np.int32)], 0
    edge: dict[bytes, int] = {}
    for start in range(0, depth - 1, layers):
        slab = torch.stack([grid.layer(i) for i in range(start, min(start + layers + 1, depth))]).numpy()
        if not slab.min() < 0.5 < slab.max():
            edge = {}
            continue
        found, faces, _, _ = marching_cubes(slab, 0.5, allow_degenerate=False)
        known = np.full(len(found), -1)
        for i in np.nonzero(found[:, 0] == 0)[0]:
            known[i] = edge.get(found[i, 1:].tobytes(), -1)
        new = known < 0
        number = np.where(new, count + np.cumsum(new) - 1, known)
        count += int(new.sum())
        triangles.append(number[faces].astype(np.int32))
        edge = {found[i, 1:].tobytes(): int(number[i]) for i in np.nonzero(found[:, 0] == len(slab) - 1)[0]}
        vertices.append(found[new] + np.array([start, 0, 0], np.float32))
    return np.concatenate(vertices), np.concatenate(triangles)


def _largest(vertices: np.ndarray, faces: np.ndarray, keep: float) -> tuple[np.ndarray, np.ndarray]:
    """The connected parts with at least the fraction `keep` of the largest one's area, and only the vertices they use."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(vertices)
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    _, part = connected_components(coo_matrix((np.ones(len(edges)), edges.T), shape=(n, n)), directed=False)
    area = np.bincount(part[faces[:, 0]], np.linalg.norm(_crosses(vertices, faces), axis=-1), part.max() + 1)
    faces = faces[(area >= keep * area.max())[part[faces[:, 0]]]]
    used, faces = np.unique(faces, return_inverse=True)
    return vertices[used], faces.reshape(-1, 3).astype(np.int32)


def _crosses(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 3) outward, twice as long as the triangle's area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) the mean of the adjoining triangles' normals, weighted by area."""
    crosses = np.repeat(_crosses(vertices, faces), 3, axis=0)
    sums = [np.bincount(faces.reshape(-1), component, len(vertices)) for component in crosses.T]
    return unit(np.stack(sums, -1))
