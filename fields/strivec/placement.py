"""Where the boxes go: from pictures or points to occupied cells, from cells to boxes, from a budget to their resolution.

One deterministic pass: the visual hull or a short coarse training (or given points) yields the cells that light comes
from, and every lattice cell with one of them in it gets a box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fields.data.ply import read_ply_points
from fields.data.scene import Scene
from fields.errors import ConfigError, DataError
from fields.methods import method
from fields.radiance import RadianceField, cell_of, dilate
from fields.strivec.config import StrivecConfig
from fields.tensors import resolution_for
from fields.training import processes
from fields.training.carving import extent
from fields.training.pixels import PixelSampler

_BATCH, _BATCHES = 8192, 24  # rays that look for visible cells: several per pixel of a small image's worth


@torch.no_grad()
def visible_cells(
    field: RadianceField, pixels: PixelSampler, threshold: float, resolution: tuple[int, ...] | None = None
) -> Tensor:
    """(Nx, Ny, Nz) bool: cells in which some training ray gets at least this weight, of a grid over the field's box (by
    default that of its occupancy).

    Unlike cells of some density these are only the surface that pictures show: neither the inside of a solid nor faint
    fog, which no box need be spent on.
    """
    resolution = resolution or tuple(field.occupied.shape)
    peak = torch.zeros(resolution, device=field.aabb.device).view(-1)
    alike = _BATCH - _BATCH % processes.count()
    for _ in range(_BATCHES):
        origins, directions, _ = pixels.draw(alike, torch.ones(3, device=peak.device))
        t_starts, t_ends, rays, x, _ = field.march(origins, directions)
        weights, _ = field.weights(x, t_starts, t_ends, rays, len(origins))
        i, j, k = cell_of(x, resolution).unbind(1)
        flat = (i * resolution[1] + j) * resolution[2] + k
        peak.scatter_reduce_(0, flat, weights, "amax")
    return (processes.greatest(peak) > threshold).view(resolution)


def find_geometry(config: StrivecConfig, scene: Scene, seed: int) -> tuple[Tensor, Tensor, RadianceField | None]:
    """A box (6,) that leaves a cell around the geometry, which cells of a grid over it hold some (Nx, Ny, Nz), and the
    coarse field that showed it, if it was one.

    Raises:
        DataError: there is none.
    """
    coarse = None
    if config.geometry == "auto":
        box, occupied, coarse = _from_pictures(config, scene, seed)
    else:
        box, occupied = _from_points(config, scene)
    if not occupied.any():
        raise DataError(
            f"{scene.path}: no geometry found to place boxes on. Check that the cameras look at the box "
            "(`fields data check`), or give points with --geometry FILE.ply."
        )
    box, window = extent(box, dilate(occupied))
    return box, occupied[window].contiguous(), coarse


def _from_pictures(config: StrivecConfig, scene: Scene, seed: int) -> tuple[Tensor, Tensor, RadianceField]:
    """By a short training of a small TensoRF, which starts from the silhouettes where there are any."""
    from fields.tensorf.training import TensorfTraining

    coarse = method("tensorf-vm").configure("fast", real=scene.real)
    n = config.geometry_iterations
    coarse = replace(coarse, iterations=n, density_rank=4, appearance_rank=8, hidden=32, upsample_at=(n // 2,),
                     occupancy_at=(), voxels=(64**3, 128**3))  # fmt: skip
    if scene.alpha:  # silhouettes leave little to find out
        coarse = replace(coarse, rays=1024, density_shift=-3.0, voxels=(64**3, 96**3))
    training = TensorfTraining(coarse, scene, seed)
    for i in range(n):
        training.step(i)
    field = training.field
    resolution = resolution_for(field.aabb.view(2, 3), config.geometry_cells)
    return field.aabb, visible_cells(field, training.pixels, config.geometry_weight, resolution), field


def _from_points(config: StrivecConfig, scene: Scene) -> tuple[Tensor, Tensor]:
    if config.geometry == "points":
        if scene.points is None or not len(scene.points):
            raise DataError(f"{scene.path}: has no sparse points. Leave out --geometry, or name a PLY file.")
        points = scene.points
    else:
        points = torch.from_numpy(read_ply_points(Path(config.geometry))).float().to(scene.aabb.device)
    box = scene.aabb.flatten()
    points = points[((points >= box[:3]) & (points <= box[3:])).all(1)]
    resolution = resolution_for(box.view(2, 3), config.geometry_cells)
    cells = cell_of((points - box[:3]) * (2 / (box[3:] - box[:3])) - 1, resolution)
    occupied = torch.zeros(resolution, dtype=torch.bool, device=box.device)
    occupied[tuple(cells.unbind(1))] = True
    return box, dilate(occupied)  # points are sparse on a surface, which goes on between them


def occupied_centres(box: Tensor, occupied: Tensor) -> Tensor:
    """(M, 3): centres of the occupied cells of a grid over the box, scene units."""
    cell = (box[3:] - box[:3]) / torch.tensor(occupied.shape, device=box.device)
    return box[:3] + (occupied.nonzero() + 0.5) * cell


def lattice_cells(points: Tensor, low: Tensor, spacing: float) -> Tensor:
    """(B, 3) int64: the distinct cells of a lattice that hold a point, in order."""
    cells = ((points - low) / spacing).floor().long().clamp(min=0)
    return torch.unique(cells, dim=0)


def pixel_size(scene: Scene, box: Tensor) -> float:
    """Width of a pixel of the median training camera at the middle of the box, scene units."""
    cameras = scene.train.cameras
    distance = (cameras.world_from_camera[:, :3, 3] - (box[:3] + box[3:]) / 2).norm(dim=-1)
    return float((distance / cameras.fx).median())


def parameter_count(boxes: list[int], knots: list[int], ranks: list[int], network: int) -> int:
    """Trainable numbers: three vectors per box, of `knots` rows of the density and appearance ranks together."""
    return sum(3 * b * k * r for b, k, r in zip(boxes, knots, ranks, strict=True)) + network


def knots_within(budget: int, boxes: list[int], edges: list[float], ranks: list[int], network: int) -> list[int]:
    """Knots per vector and scale, of one spacing for all scales, that use up a budget of parameters.

    Raises:
        ConfigError: not even four knots per vector fit.
    """

    def knots(spacing: float) -> list[int]:
        return [max(4, round(edge / spacing) + 1) for edge in edges]

    def fits(spacing: float) -> bool:
        return parameter_count(boxes, knots(spacing), ranks, network) <= budget

    widest = max(edges)
    if not fits(widest):
        least = parameter_count(boxes, knots(widest), ranks, network)
        raise ConfigError(
            f"parameters is {budget}: too few for {' + '.join(map(str, boxes))} boxes, which take at least {least}. "
            "Allow more, or fewer and larger boxes with --spacing."
        )
    fine = _smallest(fits, widest * 1e-4, widest)
    return knots(fine)


def _smallest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """By bisection, the smallest number for which `holds`, which is true of `high` and all above."""
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
