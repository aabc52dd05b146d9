"""What a field is at points in space, rather than along rays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fields.core._check import check_shape
from fields.errors import ConfigError
from fields.geometry.points import optical_density
from fields.geometry.shapes import eight_bits
from fields.radiance import RadianceField
from fields.rendering import Field

_CHUNK = 262_144  # points at once
_FINEST = 1024  # cells along the longest side: 4 GiB of grid


@dataclass
class Query:
    """A field at points (N, …)."""

    density: Tensor
    """(N,) optical depth per scene unit, as the renderer takes it: light falls by exp(−density · length). Zero in cells that
    are known to be empty, and outside the box."""
    rgb: Tensor
    """(N, 3) sRGB in [0, 1]. Where there is nothing it means nothing."""
    normal: Tensor
    """(N, 3) unit, in the scene's frame: down the slope of the density; zero where there is none."""


@torch.no_grad()
def query(field: Field, points: Tensor, directions: Tensor | None = None) -> Query:
    """Density, colour and normal of a radiance field at points, however many: memory is that of a part of them.

        >>> field = fields.load(run)
        >>> points = torch.tensor([[0.0, 0.0, 0.5], [9.0, 9.0, 9.0]])
        >>> seen = fields.query(field, points)
        >>> seen.density.shape, seen.rgb.shape, float(seen.density[1])
        (torch.Size([2]), torch.Size([2, 3]), 0.0)

    Args:
        points: (N, 3) in scene units, on the field's device. `fields.world_from_input(run)` leads there from the
            coordinates of the scene's files.
        directions: (N, 3) unit, in which the points are looked at; by default against the normals, from straight outside.

    Raises:
        ConfigError: the field has no density.
        ShapeError: other shapes.
    """
    check_shape("points", points, None, 3)
    if directions is not None:
        check_shape("directions", directions, len(points), 3)
    if not isinstance(field, RadianceField):
        raise ConfigError(f"A {type(field).__name__} has no density that could be asked for.")
    parts = []
    for k in range(0, max(len(points), 1), _CHUNK):
        x = field.normalise(points[k : k + _CHUNK])
        inside = x.clamp(-1, 1)
        normal = field.outward(inside)
        normal = normal * (x == inside).all(-1, keepdim=True)
        views = -normal if directions is None else directions[k : k + _CHUNK]
        parts.append((optical_density(field, x), field.colour(inside, views), normal))
    return Query(*(torch.cat(values) for values in zip(*parts, strict=True)))


def cubic_cells(field: RadianceField, resolution: int) -> list[int]:
    """How many cells along x, y, z fill the box, about cubic, with so many along its longest side.

    Raises:
        ConfigError: a resolution out of range.
    """
    if not 2 <= resolution <= _FINEST:
        raise ConfigError(f"resolution {resolution}: a grid has 2 to {_FINEST} cells along its longest side.")
    size = (field.aabb[3:] - field.aabb[:3]).double()
    return (size * (resolution / size.max())).round().long().clamp(min=1).tolist()


@torch.no_grad()
def sample_grid(
    field: RadianceField, resolution: int, watch: Callable[[int, int], None] = lambda done, total: None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The field on a grid of points over its box.

    Args:
        resolution: cells along the longest side; they are about cubic.
        watch: told how many of how many layers are done.

    Returns:
        density (X, Y, Z) float32 per scene unit, rgb (X, Y, Z, 3) uint8 seen from outside, and the matrix (4, 4) from indices
        of points to scene coordinates.

    Raises:
        ConfigError: a resolution out of range.
    """
    low, size = field.aabb[:3].double(), (field.aabb[3:] - field.aabb[:3]).double()
    counts = [n + 1 for n in cubic_cells(field, resolution)]
    x, y, z = (torch.linspace(0, 1, n, dtype=torch.float64, device=low.device) for n in counts)
    density, rgb = np.empty(counts, np.float32), np.empty((*counts, 3), np.uint8)
    for i in range(counts[0]):
        layer = torch.stack(torch.meshgrid(x[i : i + 1], y, z, indexing="ij"), -1).view(-1, 3)
        seen = query(field, (low + layer * size).float())
        density[i] = seen.density.view(counts[1:]).cpu().numpy()
        rgb[i] = eight_bits(seen.rgb.view(*counts[1:], 3).cpu().numpy())
        watch(i + 1, counts[0])
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(size.cpu().numpy() / (np.array(counts) - 1))
    matrix[:3, 3] = low.cpu().numpy()
    return density, rgb, matrix
