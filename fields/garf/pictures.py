"""Pictures of fragments: points in front of points, lit from the eye's left."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from torch import Tensor

from fields.garf.fragment import Fragment, sample

_LIGHT = np.array([-0.4, 0.5, 0.77])


def palette(count: int) -> np.ndarray:
    """(count, 3) colours in [0, 1] that neighbours in the list do not share."""
    return np.array([colorsys.hsv_to_rgb(0.07 + i * 0.618034 % 1, 0.45, 0.95) for i in range(count)])


def picture(
    fragments: list[Fragment], colours: np.ndarray, *, box: np.ndarray, size: int = 420, azimuth: float = 0.6,
    elevation: float = 0.45,
) -> Tensor:  # fmt: skip
    """Fragments where they lie, seen from outside a box that fills the picture.

    Args:
        colours: (P, 3) of fragments, or (P, 2, 3): of their own surface and of what is known to be break.
        box: (2, 3) corners of what is to be in sight. z is up.
        azimuth, elevation: of the eye, radians.
    Returns:
        (size, size, 3) sRGB in [0, 1], on white.
    """
    colours = colours[:, None].repeat(2, 1) if colours.ndim == 2 else colours
    side = 2 * size  # twice as fine, then averaged
    eye = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    frame = np.stack([right, np.cross(eye, right), eye])
    samples = sample(fragments, max(4 * side**2, 200 * len(fragments)), np.random.default_rng(0), least=100)
    broken = np.concatenate([
        np.zeros((samples.fragment == i).sum(), int) if f.partner is None else (f.partner[samples.face[samples.of(i)]] >= 0).astype(int)
        for i, f in enumerate(fragments)
    ])  # fmt: skip
    reach = np.linalg.norm(np.ptp(box, 0)) / 2
    x, y, depth = ((samples.points - box.mean(0)) @ frame.T / reach).T
    lit = 0.35 + 0.65 * np.clip((samples.normals @ frame.T) @ _LIGHT, 0, 1)
    colour = colours[samples.fragment, broken] * lit[:, None]
    order = np.argsort(depth, kind="stable")  # the nearest is painted last
    order = order[(samples.normals @ eye)[order] > 0]
    image = np.ones((side + 3, side + 3, 3))
    column, row = ((x + 1) / 2 * side).astype(int), ((1 - y) / 2 * side).astype(int)
    order = order[(column[order] >= 0) & (column[order] < side) & (row[order] >= 0) & (row[order] < side)]
    for down, across in ((2, 1), (1, 2), (2, 2), (1, 0), (0, 1), (1, 1)):
        image[row[order] + down, column[order] + across] = colour[order]
    small = image[1 : side + 1, 1 : side + 1].reshape(size, 2, size, 2, 3).mean((1, 3))
    return torch.from_numpy(small**0.8).float()


def box_of(fragments: list[Fragment]) -> np.ndarray:
    """(2, 3) corners of the box around fragments."""
    return np.stack(
        [np.min([f.vertices.min(0) for f in fragments], 0), np.max([f.vertices.max(0) for f in fragments], 0)]
    )


def exploded(fragments: list[Fragment], by: float = 0.5) -> list[Fragment]:
    """Fragments moved away from their common middle, by a share of their distance from it."""
    middles = np.array([f.middle for f in fragments])
    pose = np.eye(4)
    moved = []
    for fragment, middle in zip(fragments, middles, strict=True):
        pose[:3, 3] = by * (middle - middles.mean(0))
        moved.append(fragment.moved(pose))
    return moved
