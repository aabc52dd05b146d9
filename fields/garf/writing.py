"""Fragments and assembled objects as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fields.garf.fragment import Fragment
from fields.geometry.shapes import Mesh, eight_bits
from fields.io.shapes import Moving, write_animated_glb, write_ply

_STONE = np.array([0.78, 0.76, 0.72])


def coloured(fragment: Fragment, colour: np.ndarray = _STONE) -> Mesh:
    """Its triangles, each flat: a break has edges that smoothed normals would hide."""
    corners = fragment.corners.reshape(-1, 3)
    normals = fragment.normals.repeat(3, 0).astype(np.float32)
    return Mesh(corners, normals, np.tile(eight_bits(colour), (len(corners), 1)), np.arange(len(corners)).reshape(-1, 3).astype(np.int32))  # fmt: skip


def write_fragment(path: Path, fragment: Fragment) -> None:
    """Binary PLY, vertices shared among triangles so that a closed mesh stays closed."""
    normals = np.zeros_like(fragment.vertices)
    for k in range(3):
        np.add.at(normals, fragment.faces[:, k], fragment.normals * fragment.areas[:, None])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    colours = np.tile(eight_bits(_STONE), (len(fragment.vertices), 1))
    write_ply(path, Mesh(fragment.vertices, normals.astype(np.float32), colours, fragment.faces.astype(np.int32)), {})


def write_coming_together(
    path: Path, fragments: list[Fragment], colours: np.ndarray, apart: np.ndarray, seconds: float = 4.0
) -> None:
    """Binary glTF of assembled fragments, each a node of its own, that come in from where they are apart.

    Args:
        fragments: where they belong.
        colours: (P, 3) in [0, 1].
        apart: (P, 3) how far each is moved away at first.
    """
    times = np.linspace(0, seconds, 25)
    ease = 0.5 + 0.5 * np.cos(np.pi * np.clip(times / (0.75 * seconds), 0, 1))
    still = np.tile([0.0, 0.0, 0.0, 1.0], (len(times), 1))
    parts = [Moving(coloured(f, c), f.name, -1, ease[:, None] * away, still) for f, c, away in zip(fragments, colours, apart, strict=True)]  # fmt: skip
    write_animated_glb(path, parts, times, {}, lit=True)
