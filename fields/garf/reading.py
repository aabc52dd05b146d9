"""Fragments from the files people have: meshes or scanned points, a file each, or all in one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fields.errors import DataError
from fields.garf.fragment import Fragment
from fields.io.reading import reading

SUFFIXES = (".ply", ".obj", ".stl", ".off", ".glb", ".gltf")
MOST = 100
_COARSE = 1e-3
"""Of its size: what is rounded to more has lost its breaks."""


def load_fragments(path: Path) -> list[Fragment]:
    """Fragments of a folder with a file for each, in the order of the numbers in their names, or of one file with several meshes.

    Points without triangles become small discs, facing as their normals do.

    Raises:
        DataError: nothing there that can be read, a damaged file, or a number of fragments other than 2 to 100.
    """
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(
            (f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file() and not f.name.startswith(".")),
            key=_natural,
        )
    else:
        raise DataError(
            f"{path}: no such folder or file. Give a folder with a {', '.join(SUFFIXES)} file for each fragment."
        )
    if not files:
        raise DataError(f"{path}: no fragments. A folder of fragments has a file for each: {', '.join(SUFFIXES)}.")
    fragments = _named_apart([fragment for file in files for fragment in _read(file)])
    if len(fragments) < 2:
        raise DataError(
            f"{path}: one fragment ({fragments[0].name}). There is nothing to put together; it takes two or more."
        )
    if len(fragments) > MOST:
        raise DataError(
            f"{path}: {len(fragments)} fragments; {MOST} is the most. Sort them into groups that may belong together first."
        )
    return fragments


def load_mesh(path: Path) -> Fragment:
    """All of a file as one mesh, its vertices welded.

    Raises:
        DataError: no such file, or a damaged one.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a closed mesh: {', '.join(SUFFIXES)}.")
    parts = _read(path)
    offsets = np.cumsum([0, *(len(p.vertices) for p in parts)])
    faces = np.concatenate([p.faces + offset for p, offset in zip(parts, offsets, strict=False)])
    return Fragment(path.stem, np.concatenate([p.vertices for p in parts]), faces)


def _named_apart(fragments: list[Fragment]) -> list[Fragment]:
    """Fragments of files that differ in their suffix only, as scan.ply and scan.stl, get a number."""
    seen: dict[str, int] = {}
    named = []
    for fragment in fragments:
        seen[fragment.name] = count = seen.get(fragment.name, 0) + 1
        named.append(fragment if count == 1 else replace(fragment, name=f"{fragment.name} ({count})"))
    return named


def _natural(path: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", path.name)]


def _read(file: Path) -> list[Fragment]:
    import trimesh

    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"{file}: not a kind of mesh that is read. Convert it to one of {', '.join(SUFFIXES)}.")
    with reading(file, "a mesh that can be read", "Export it again."):
        scene = trimesh.load_scene(file, process=False)
        shapes = {name: scene.geometry[scene.graph[name][1]].copy().apply_transform(scene.graph[name][0])
                  for name in scene.graph.nodes_geometry}  # fmt: skip
    if not shapes:
        raise DataError(f"{file}: no triangles or points in it. Export it again, or take it out of the folder.")
    many = len(shapes) > 1
    with reading(file, "a mesh of triangles, or points", "Export it again."):
        return [_fragment(file, f"{file.stem}_{name}" if many else file.stem, shape) for name, shape in shapes.items()]


def _fragment(file: Path, name: str, shape: Any) -> Fragment:
    vertices = np.asarray(shape.vertices, np.float64)
    if not np.isfinite(vertices).all():
        bad = int((~np.isfinite(vertices).all(1)).sum())
        raise DataError(
            f"{file}: {bad} of {len(vertices)} points have coordinates that are not numbers. Export it again."
        )
    size = np.ptp(vertices, 0).max()
    if size <= 0:
        raise DataError(f"{file}: all its points are in one place. Export it again.")
    grid = float(np.spacing(np.abs(vertices).max().astype(np.float32)))
    if grid > _COARSE * size and np.array_equal(vertices, vertices.astype(np.float32)):
        raise DataError(
            f"{file}: it stands so far from the origin that its coordinates are rounded to {grid:.2g}, and it is {size:.2g} large. "
            "Move it to the origin before it is exported."
        )
    faces = getattr(shape, "faces", None)
    if faces is None or not len(faces):
        if len(vertices) < 100:
            raise DataError(
                f"{file}: {len(vertices)} points and no triangles. A fragment of points needs at least 100."
            )
        return discs(name, vertices, _normals_of(shape))
    faces = np.asarray(faces, np.int64)
    if faces.shape[1:] != (3,) or faces.min() < 0 or faces.max() >= len(vertices):
        raise DataError(f"{file}: its triangles have corners that it does not list. Export it again.")
    # One vertex where several are in the same place, as STL has them; and no triangle without area.
    _, first, index = np.unique(np.round(vertices / size, 9), axis=0, return_index=True, return_inverse=True)
    faces = index.reshape(-1)[faces]
    vertices = vertices[first]
    fragment = Fragment(name, vertices, faces)
    kept = fragment.areas > 1e-14 * size**2
    if not kept.any():
        raise DataError(f"{file}: its triangles have no area. Export it again.")
    fragment = Fragment(name, vertices, faces[kept])
    inside_out = _closed(fragment.faces) and fragment.volume < 0
    return replace(fragment, faces=fragment.faces[:, ::-1]) if inside_out else fragment


def _closed(faces: np.ndarray) -> bool:
    """Whether every edge is passed as often in one direction as in the other."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = int(faces.max()) + 1
    forth, back = (np.sort(edges @ way) for way in ([count, 1], [1, count]))
    return np.array_equal(forth, back)


def _normals_of(points: Any) -> np.ndarray | None:
    """(V, 3), where a PLY file brought them."""
    columns = points.metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {})
    names = columns.dtype.names or () if isinstance(columns, np.ndarray) else columns
    if not all(axis in names for axis in ("nx", "ny", "nz")):
        return None
    return np.stack([np.asarray(columns[axis], np.float64).reshape(-1) for axis in ("nx", "ny", "nz")], 1)


def discs(name: str, points: np.ndarray, normals: np.ndarray | None) -> Fragment:
    """Scanned points (V, 3) as small triangles, each as large as the surface it stands for.

    Where no normals are known they are those of the planes through 12 neighbours, turned outwards together.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(points)
    distance, near = tree.query(points, 13)
    if normals is None or not (np.linalg.norm(normals, axis=1) > 0.5).all():
        offset = points[near] - points[near].mean(1, keepdims=True)
        normals = np.linalg.eigh(np.einsum("vki,vkj->vij", offset, offset))[1][:, :, 0]
        normals = _outwards(points, normals, near)
    area = np.pi * distance[:, -1] ** 2 / 12.5  # the disc to the twelfth neighbour holds about so many
    e1 = np.cross(normals, np.eye(3)[np.abs(normals).argmin(1)])
    e1 /= np.linalg.norm(e1, axis=1, keepdims=True)
    e2 = np.cross(normals, e1)
    reach = np.sqrt(area * 4 / (3 * np.sqrt(3)))[:, None]
    angles = np.arange(3) * 2 * np.pi / 3
    corners = points[:, None] + np.stack([reach * (np.cos(t) * e1 + np.sin(t) * e2) for t in angles], 1)
    return Fragment(name, corners.reshape(-1, 3), np.arange(3 * len(points)).reshape(-1, 3))


def _outwards(points: np.ndarray, normals: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Signs passed from neighbour to neighbour where normals agree best (Hoppe et al. 1992), from the topmost point on."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    rows, columns = np.repeat(np.arange(len(points)), near.shape[1] - 1), near[:, 1:].reshape(-1)
    cost = 1 + 1e-3 - np.abs((normals[rows] * normals[columns]).sum(1))
    tree = minimum_spanning_tree(coo_matrix((cost, (rows, columns)), (len(points),) * 2).tocsr())
    signed, left = normals.copy(), np.ones(len(points), bool)
    while left.any():
        start = int(np.flatnonzero(left)[points[left, 2].argmax()])
        if signed[start, 2] < 0:
            signed[start] *= -1
        order, parent = breadth_first_order(tree, start, directed=False)
        left[order] = False
        for i in order[1:]:
            if signed[i] @ signed[parent[i]] < 0:
                signed[i] *= -1
    return signed
