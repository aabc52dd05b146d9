"""Things that break: vases, bowls, plates, tubes, eggshells, bones and stones, every one different.

All have their longest side 1 and stand around the origin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fields.garf.roughness import self_affine

_SEGMENTS = 128


def random_solid(rng: np.random.Generator, kind: str | None = None) -> tuple[str, Any]:
    """A kind (any of `KINDS` by default) and a manifold3d.Manifold of it."""
    kind = kind or str(rng.choice(list(KINDS)))
    solid = KINDS[kind](rng)
    box = np.array(solid.bounding_box())
    low, high = box[:3], box[3:]
    return kind, solid.translate(tuple(-(low + high) / 2)).scale((1 / (high - low).max(),) * 3).as_original()


def _revolved(profile: np.ndarray) -> Any:
    """A closed outline (N, 2) of radii and heights, counter-clockwise, about the z axis."""
    from manifold3d import CrossSection, Manifold

    return Manifold.revolve(CrossSection([profile.tolist()]), _SEGMENTS)


def _walled(outside: np.ndarray, wall: float, base: float) -> Any:
    """A vessel from its outer profile (N, 2), foot first, and the thickness of wall and base."""
    along = np.gradient(outside, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    inside = outside + wall * normal
    floor = outside[0, 1] + base
    inside = inside[(inside[:, 0] > 1e-3) & (inside[:, 1] > floor)]
    corners = [[0.0, outside[0, 1]], *outside.tolist(), *inside[::-1].tolist(), [inside[0, 0], floor], [0.0, floor]]
    return _revolved(np.array(corners))


def vase(rng: np.random.Generator) -> Any:
    from scipy.interpolate import PchipInterpolator

    knots = int(rng.integers(4, 7))
    z = np.linspace(0, 1, 64)
    radius = PchipInterpolator(np.linspace(0, 1, knots), rng.uniform(0.12, 0.38, knots))(z)
    return _walled(np.stack([radius, z], 1), rng.uniform(0.02, 0.05), rng.uniform(0.02, 0.05))


def bowl(rng: np.random.Generator) -> Any:
    t = np.linspace(0, 1, 48)
    radius, height = 0.15 + 0.4 * t ** rng.uniform(0.4, 0.8), rng.uniform(0.25, 0.5)
    return _walled(np.stack([radius, height * t], 1), rng.uniform(0.02, 0.04), rng.uniform(0.02, 0.05))


def plate(rng: np.random.Generator) -> Any:
    t = np.linspace(0, 1, 48)
    height, flat = rng.uniform(0.05, 0.12), rng.uniform(0.4, 0.7)
    rise = np.clip((t - flat) / (1 - flat), 0, 1) ** rng.uniform(1, 2)
    wall = rng.uniform(0.015, 0.03)
    outside = np.stack([0.5 * t + 1e-2, height * rise], 1)
    return _revolved(np.concatenate([[[0, 0]], outside, outside[::-1] + [0, wall], [[0, wall]]]))


def tube(rng: np.random.Generator) -> Any:
    radius, wall = rng.uniform(0.08, 0.25), rng.uniform(0.015, 0.05)
    z = np.linspace(0, 1, 32)
    swell = 1 + rng.uniform(-0.25, 0.25) * z + rng.uniform(-0.1, 0.1) * np.sin(np.pi * z)
    outside = np.stack([radius * swell, z], 1)
    return _revolved(np.concatenate([outside, outside[::-1] - [min(wall, 0.7 * radius), 0]]))


def eggshell(rng: np.random.Generator) -> Any:
    aspect, lopsided, shell = rng.uniform(0.68, 0.76), rng.uniform(0.1, 0.25), rng.uniform(0.012, 0.02)

    def outline(inset: float) -> np.ndarray:
        angle = np.linspace(-np.pi / 2, np.pi / 2, 64)
        radius = (aspect / 2 - inset) * np.cos(angle) * (1 - lopsided * np.sin(angle))
        return np.stack([np.maximum(radius, 0), (0.5 - inset) * np.sin(angle)], 1)

    return _revolved(outline(0.0)) - _revolved(outline(shell))


def bone(rng: np.random.Generator) -> Any:
    """A shaft with two knuckles at each end, blended; some have a marrow cavity."""
    shaft = rng.uniform(0.05, 0.09)
    bow = rng.uniform(-0.06, 0.06)
    ends = [
        (np.array([side * rng.uniform(0.04, 0.09), bow + rng.uniform(-0.02, 0.02), z]), rng.uniform(0.07, 0.12, 3))
        for z in (-0.4, 0.4)
        for side in (-1, 1)
    ]

    def distance(p: np.ndarray) -> np.ndarray:
        z = np.clip(p[..., 2], -0.4, 0.4)
        axis = np.stack([0 * z, bow * (z / 0.4) ** 2, z], -1)
        d = np.linalg.norm(p - axis, axis=-1) - shaft
        for centre, radii in ends:
            e = (np.linalg.norm((p - centre) / radii, axis=-1) - 1) * radii.min()
            h = np.clip(0.5 + 0.5 * (d - e) / 0.08, 0, 1)
            d = d * (1 - h) + e * h - 0.08 * h * (1 - h)  # smooth minimum
        return d

    whole = _level_set(distance, (0.3, 0.3, 0.62), 0.0)
    return (
        whole - _level_set(distance, (0.3, 0.3, 0.3), -shaft * rng.uniform(0.4, 0.6)) if rng.random() < 0.5 else whole
    )


def stone(rng: np.random.Generator) -> Any:
    """A pebble with facets, as a knapped stone has."""
    from manifold3d import Manifold

    radii = np.array([0.5, rng.uniform(0.25, 0.45), rng.uniform(0.15, 0.35)])
    pebble = Manifold.sphere(1.0, 96).scale(tuple(radii))
    for _ in range(8):
        normal = rng.standard_normal(3)
        normal /= np.linalg.norm(normal)
        pebble = pebble.trim_by_plane(tuple(-normal), -rng.uniform(0.65, 0.95) * np.linalg.norm(normal * radii))
    relief = self_affine(rng, (64, 64, 64), 2, 16)

    def weathered(p: np.ndarray) -> np.ndarray:
        cell = np.clip(((p + 0.6) / 1.2 * 64).astype(int), 0, 63)
        return p * (1 + 0.01 * relief[tuple(cell.T)])[:, None]

    return pebble.refine_to_length(0.03).warp_batch(weathered)


KINDS: dict[str, Callable[[np.random.Generator], Any]] = {
    "vase": vase, "bowl": bowl, "plate": plate, "tube": tube, "eggshell": eggshell, "bone": bone, "stone": stone,
}  # fmt: skip


def _level_set(distance: Callable[[np.ndarray], np.ndarray], half: tuple[float, float, float], level: float) -> Any:
    """The solid where `distance` is below `level`, in a box around the origin."""
    from skimage.measure import marching_cubes

    from fields.garf.fracturing import solid_of

    step = 0.012
    lines = [np.arange(-h, h + step, step) for h in half]
    values = distance(np.stack(np.meshgrid(*lines, indexing="ij"), -1)) - level
    values[np.abs(values) < 1e-6] = 1e-6  # a corner on the surface itself would pinch it
    values = np.pad(values, 1, constant_values=1.0)  # closed at the box
    vertices, faces, *_ = marching_cubes(values, 0.0, spacing=(step,) * 3)
    return solid_of(vertices - np.array(half) - step, faces, "a level set")
