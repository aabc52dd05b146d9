"""Where rays stop in a radiance field, and the point cloud of these places."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from fields.data.cameras import Cameras
from fields.errors import ConfigError, DataError
from fields.geometry.shapes import PointCloud, eight_bits, unit
from fields.radiance import RadianceField, cell_of

_CHUNK = 16_384  # rays at once
_PROBES = 65_536  # rays that find the level of a surface: its error is then far below the spread of the densities

# One level serves a whole field, and where it is soft rays stop at lower densities than where it is sharp. A mesh at the
# median of these splits the stops evenly but has holes: 8 to 15 % of the stops are more than two knots from it. At the lower
# decile it is about 1 %, for a surface that lies a third to a half of a knot outside. Measured in docs/export.md.
_QUANTILE = 0.1


@torch.no_grad()
def stops(field: RadianceField, origins: Tensor, directions: Tensor) -> Tensor:
    """Distance (N,) at which rays have lost half their light, scene units; infinite for those that keep more.

    This median depth is always a place in something, unlike the mean depth, which at an edge lies in the thin air between
    what is in front and what is behind.

    Args:
        origins, directions: (N, 3) in scene units, directions unit.
    """
    t_starts, t_ends, rays, x, _ = field.march(origins, directions)
    weights, before = field.weights(x, t_starts, t_ends, rays, len(origins))
    after = before - weights
    crossing = ((before > 0.5) & (after <= 0.5)).nonzero()[:, 0]
    t_starts, t_ends, rays, before, after = (v[crossing] for v in (t_starts, t_ends, rays, before, after))
    part = (2 * before).log() / (before / after).log()  # light falls exponentially within a sample
    distance = torch.full((len(origins),), math.inf, device=origins.device)
    return distance.scatter_reduce(0, rays, torch.lerp(t_starts, t_ends, part), "amin")


@torch.no_grad()
def stopping_depth(field: RadianceField, cameras: Cameras, index: int = 0) -> Tensor:
    """(H, W) depth along the viewing axis ("z") of where the rays of one camera stop; infinite where they do not."""
    origins, directions = cameras.image_rays(index)
    parts = zip(origins.view(-1, 3).split(_CHUNK), directions.view(-1, 3).split(_CHUNK), strict=True)
    distance = torch.cat([stops(field, *part) for part in parts]).view(directions.shape[:2])
    return distance * (directions @ cameras.forward[index])


def optical_density(field: RadianceField, x: Tensor) -> Tensor:
    """Optical depth per scene unit (N,) at normalised positions (N, 3), as the renderer takes it: none in empty cells and
    outside the box."""
    cell = cell_of(x, field.occupied.shape)
    there = (field.occupied[tuple(cell.unbind(-1))] & (x.abs() <= 1).all(-1)).nonzero()[:, 0]
    density = torch.zeros(len(x), device=x.device)
    density[there] = field.density(x[there]) * field.distance_scale
    return density


@torch.no_grad()
def stopping_density(field: RadianceField, cameras: Cameras, quantile: float = _QUANTILE) -> float:
    """The optical density, per scene unit, at which rays of `cameras` stop: the level of a surface that lies where they do,
    however sharp or soft the field is.

    Args:
        quantile: of the densities at all stops; a half puts as many stops inside the surface as outside.

    Raises:
        DataError: no ray stops.
    """
    at = []
    for _, _, origins, directions in _pixels(field, cameras, _PROBES):
        distance = stops(field, origins, directions)
        hit = distance.isfinite()
        at.append(optical_density(field, field.normalise(origins[hit] + distance[hit, None] * directions[hit])))
    found = torch.cat(at) if at else torch.empty(0)
    found = found[found > 0]  # rounding may put a stop just outside of what stopped it
    if not len(found):
        raise nothing_dense()
    return float(found.quantile(quantile))


@torch.no_grad()
def extract_points(
    field: RadianceField,
    cameras: Cameras,
    count: int = 200_000,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> PointCloud:
    """What the rays of `cameras` stop at, in the field's frame: at most `count` points, the same on every call.

    Pixels are evenly spaced over all cameras. Points that share a cell of the finest grid that leaves `count` of them
    become their mean.

    Args:
        cameras: in scene units.
        watch: told how many of how many batches of rays are done.

    Returns:
        Points with the colours the cameras see, and normals down the slope of the density.

    Raises:
        ConfigError: `count` is not positive.
        DataError: no ray stops.
    """
    if count < 1:
        raise ConfigError(f"--count {count}: a point cloud has at least one point.")
    parts = []
    for done, total, origins, directions in _pixels(field, cameras, 4 * count):
        distance = stops(field, origins, directions)
        hit = distance.isfinite()
        origins, directions = origins[hit], directions[hit]
        seen = field.render_rays(origins, directions, torch.zeros(3, device=origins.device))
        colour = seen.rgb / seen.opacity[:, None].clamp(min=0.5)
        parts.append(torch.cat([origins + distance[hit, None] * directions, colour, directions], -1).cpu())
        watch(done, total)
    found = torch.cat(parts) if parts else torch.empty(0, 9)
    if not len(found):
        raise nothing_dense()
    positions, colours, views = np.split(_thin(found.double().numpy(), count), 3, axis=1)
    normals = _slope(field, positions)
    level = (normals == 0).all(-1, keepdims=True)  # in the middle of something thin: turn it to the cameras
    return PointCloud(positions, unit(np.where(level, -views, normals)), eight_bits(colours))


def nothing_dense() -> DataError:
    return DataError(
        "This field has no surface: nothing in it stops half the light of a ray. "
        "Look at it with `fields render`; if it is fog, train longer."
    )


def _pixels(field: RadianceField, cameras: Cameras, limit: int) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Rays through pixels of all cameras, evenly spaced such that there are at most about `limit`, in batches: the number of
    this one, of all, origins and directions."""
    factor = max(1.0, math.sqrt(int((cameras.width * cameras.height).sum()) / limit))
    cameras = cameras.to(field.aabb.device).downscaled(factor)
    pixels = (cameras.width * cameras.height).tolist()
    done, total = 0, sum(-(-n // _CHUNK) for n in pixels)
    for i, n in enumerate(pixels):
        for some in torch.arange(n, device=cameras.device).split(_CHUNK):
            done += 1
            yield done, total, *cameras.rays_of(i, some)


def _thin(table: np.ndarray, count: int) -> np.ndarray:
    """Rows (N, 3 + K) that begin with a position, averaged over cells of a grid such that at most `count` are left."""
    if len(table) <= count:
        return table
    corner = table[:, :3].min(0)
    extent = float((table[:, :3] - corner).max()) or 1.0

    def cells(size: float) -> np.ndarray:
        x, y, z = np.floor((table[:, :3] - corner) / size).astype(np.int64).T
        return np.unique((x << 42) | (y << 21) | z, return_inverse=True)[1].reshape(-1)

    fine, coarse = extent / 2**16, 2 * extent  # at the coarse end all share one cell
    for _ in range(16):
        middle = math.sqrt(fine * coarse)
        fine, coarse = (fine, middle) if cells(middle).max() < count else (middle, coarse)
    cell = cells(coarse)
    sums = [np.bincount(cell, column) for column in table.T]
    return np.stack(sums, -1) / np.bincount(cell)[:, None]


def _slope(field: RadianceField, positions: np.ndarray) -> np.ndarray:
    """(N, 3) direction in which the density falls, over one knot spacing to either side; zero where it does not."""
    reach = torch.eye(3, device=field.aabb.device) * (field.step_size / field.step_ratio)
    falls = []
    for points in torch.from_numpy(positions).float().to(field.aabb.device).split(_CHUNK):
        low, high = (
            optical_density(field, field.normalise((points[:, None] + side * reach).view(-1, 3))) for side in (-1, 1)
        )
        falls.append((low - high).view(-1, 3).cpu())
    return torch.cat(falls).double().numpy()


def spread_over(corners: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points (N, 3) spread evenly over the area of triangles (F, 3, 3), and which triangle (N,) each is on."""
    sides = corners[:, 1:] - corners[:, :1]
    area = torch.linalg.cross(sides[:, 0], sides[:, 1]).norm(dim=-1)
    triangle = torch.multinomial(area, count, replacement=True, generator=generator)
    u, v = torch.rand(2, count, 1, generator=generator)
    u, v = torch.where(u + v > 1, 1 - u, u), torch.where(u + v > 1, 1 - v, v)
    return corners[triangle, 0] + u * sides[triangle, 0] + v * sides[triangle, 1], triangle
