"""What is lit: a creature that is a formula, or any closed mesh."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fields.errors import DataError

if TYPE_CHECKING:
    from trimesh import Trimesh

_EXTENT = 0.84  # of other meshes along their longest axis: it leaves cameras the margin that the creature has


def shape(name: str) -> Trimesh:
    """The creature, or the closed mesh of a file; normals point outwards, +Y is up.

    Raises:
        DataError: the file is no mesh, or not closed.
    """
    return creature() if name == "creature" else closed_mesh(Path(name))


def creature(resolution: int = 128) -> Trimesh:
    """A bumpy ball with two thin ears and a ring: thick and thin, concave, and in its own shadow. It fits in [-0.5, 0.5]³."""
    import trimesh
    from skimage.measure import marching_cubes

    at = np.linspace(-0.6, 0.6, resolution)
    p = np.stack(np.meshgrid(at, at, at, indexing="ij"), -1)
    ball = np.linalg.norm(p - (0, -0.1, 0), axis=-1) - 0.28 + 0.015 * np.sin(18 * p).prod(-1)
    body = _blend(ball, _capsule(p, (-0.1, 0.1, 0), (-0.2, 0.45, 0.02), 0.055), 0.05)
    body = _blend(body, _capsule(p, (0.1, 0.1, 0), (0.2, 0.45, -0.02), 0.055), 0.05)
    ring = np.hypot(np.hypot(p[..., 0], p[..., 2]) - 0.36, p[..., 1] + 0.2) - 0.06
    vertices, faces, _, _ = marching_cubes(_blend(body, ring, 0.03), 0, spacing=(at[1] - at[0],) * 3)
    mesh = trimesh.Trimesh(vertices + at[0], faces)
    trimesh.repair.fix_normals(mesh)
    return mesh


def _blend(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """The union of two shapes given by distances, rounded where they meet."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b * (1 - h) + a * h - k * h * (1 - h)


def _capsule(p: np.ndarray, start: tuple, end: tuple, radius: float) -> np.ndarray:
    """The distance to a line with a thickness."""
    foot, along = np.array(start), np.array(end) - np.array(start)
    t = np.clip((p - foot) @ along / (along @ along), 0, 1)
    return np.linalg.norm(p - foot - t[..., None] * along, axis=-1) - radius


def closed_mesh(path: Path) -> Trimesh:
    """The mesh of a file, its texture's seams sewn up, centred and scaled."""
    import trimesh

    try:
        mesh = trimesh.load_mesh(path)
    except (OSError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path}: cannot be read as a mesh ({error}).\nGive an .obj, .ply or .stl, or creature."
        ) from None
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    if not mesh.is_watertight:
        raise DataError(
            f"{path}: this mesh is not closed, so light would leak out of what is inside.\nClose it, or give another."
        )
    trimesh.repair.fix_normals(mesh)
    mesh.apply_translation(-mesh.bounds.mean(0))
    mesh.apply_scale(_EXTENT / mesh.extents.max())
    return trimesh.Trimesh(mesh.vertices, mesh.faces)  # geometry alone: no texture
