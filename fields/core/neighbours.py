"""Morton keys and exact neighbours among points: k nearest, and all within a radius."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._check import check_floating, check_shape
from fields.core._ref import neighbours as _ref
from fields.errors import ShapeError

_MOST_CELLS = 2**21  # per axis: three times 21 bits fill a key


def morton_encode(cells: Tensor) -> Tensor:
    """Interleaves the bits of cells (N, 3) int64 in [0, 2²¹) to keys (N,): neighbours in space get near keys.

    Bit 0 is the lowest of x, bit 1 of y, bit 2 of z.

    Gradients: none.
    Raises:
        ShapeError: cells out of range, or not int64 (N, 3).
    """
    check_shape("cells", cells, None, 3)
    if cells.dtype is not torch.int64 or (cells.numel() and (int(cells.min()) < 0 or int(cells.max()) >= _MOST_CELLS)):
        raise ShapeError(f"cells must be int64 in [0, {_MOST_CELLS}).")
    if _backend.use_reference(cells):
        return _ref.morton_encode(cells)
    keys = cells.new_empty(cells.shape[0])
    _backend.launch("morton_encode", len(keys), cells, 4096, dtype=torch.float32, cells=cells.contiguous(), keys=keys)
    return keys


def morton_decode(keys: Tensor) -> Tensor:
    """Inverse of `morton_encode`: keys (N,) int64 to cells (N, 3).

    Gradients: none.
    Raises:
        ShapeError: not int64 (N,).
    """
    check_shape("keys", keys, None)
    if keys.dtype is not torch.int64:
        raise ShapeError(f"keys must be int64, not {keys.dtype}.")
    if _backend.use_reference(keys):
        return _ref.morton_decode(keys)
    cells = keys.new_empty(keys.shape[0], 3)
    _backend.launch("morton_decode", len(keys), keys, 4096, dtype=torch.float32, keys=keys.contiguous(), cells=cells)
    return cells


class VoxelHash:
    """Points (P, 3) sorted into cubic cells, ready for any number of queries.

    Args:
        points: (P, 3), finite.
        cell_size: edge of a cell; about the distance at which neighbours are wanted is fastest.

    Raises:
        ShapeError: points that are not finite (P, 3), or a cell size that is not positive.
    """

    def __init__(self, points: Tensor, cell_size: float) -> None:
        check_shape("points", points, None, 3)
        check_floating(points=points)
        if not points.isfinite().all() or not (cell_size > 0 and math.isfinite(cell_size)):
            raise ShapeError("Points must be finite and the cell size positive.")
        self.points = points
        fixed = points.detach()
        self._low = fixed.amin(0) if len(points) else points.new_zeros(3)
        span = float((fixed.amax(0) - self._low).max()) if len(points) else 0.0
        # Fewer than 2²¹ cells per axis, whatever the caller asks for; half a cell of air keeps rounding inside.
        self.cell_size = max(cell_size, span / (_MOST_CELLS - 4))
        self._low = self._low - self.cell_size / 2
        cells = ((fixed - self._low) / self.cell_size).floor().long()
        self._extent = (cells.amax(0) + 1).tolist() if len(points) else [0, 0, 0]
        keys, self._order = torch.sort(morton_encode(cells), stable=True)
        self._sorted = fixed[self._order].contiguous()
        self._keys, counts = torch.unique_consecutive(keys, return_counts=True)
        self._begins = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def knn(self, queries: Tensor, k: int, max_radius: float = math.inf) -> tuple[Tensor, Tensor]:
        """The k nearest points of each query (Q, 3), nearest first, equal distances by index.

        Returns:
            indices (Q, k) int64 and distances (Q, k); −1 and infinity where there are fewer within `max_radius`, or
            where a query is not finite.
        Gradients: of distances to queries and points.
        """
        self._check(queries)
        if k < 1:
            raise ShapeError(f"k is {k}; it must be at least 1.")
        if _backend.use_reference(queries):
            indices = _ref.knn(self.points.detach(), queries.detach(), k, max_radius)
        else:
            indices = self._order.new_empty(len(queries), k)
            distances = queries.new_empty(len(queries), k)
            self._launch(queries, max_radius, k=k, indices=indices, distances=distances)
        row = torch.arange(len(queries), device=queries.device)[:, None].expand_as(indices)
        return indices, self._distances(queries, row, indices)

    def radius(self, queries: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
        """All points within `radius` of each query (Q, 3), nearest first, equal distances by index.

        Returns:
            indices (M,) int64, packed_info (Q, 2) int64 of first and number per query, distances (M,).
        Gradients: of distances to queries and points.
        """
        self._check(queries)
        if _backend.use_reference(queries):
            indices, counts = _ref.radius(self.points.detach(), queries.detach(), radius)
            begins = counts.cumsum(0) - counts
        else:
            counts = self._order.new_empty(len(queries))
            self._launch(queries, radius, counts=counts)
            begins = counts.cumsum(0) - counts
            indices = self._order.new_empty(int(counts.sum()))
            self._launch(queries, radius, rows=begins, indices=indices, distances=queries.new_empty(len(indices)))
        row = torch.repeat_interleave(torch.arange(len(queries), device=queries.device), counts)
        return indices, torch.stack([begins, counts], -1), self._distances(queries, row, indices)

    def moments(
        self, normals: Tensor, queries: Tensor, facing: Tensor, radii: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """What the surface that the points lie on looks like around each query (Q, 3), within each of several radii.

        Only points that face as the query does (normals m with m·n > 0) count towards moments of offsets d = point − query.

        Args:
            normals: (P, 3) unit, of the points.
            facing: (Q, 3) unit normals n of the queries.
            radii: up to 8, ascending.
        Returns:
            sums (Q, R, 20): number of points, number of those that agree, and the sums over these of d (3), of
            d dᵀ (xx, xy, xz, yy, yz, zz), of m (3) and of m mᵀ (6); and behind (Q,), how far the nearest point is that lies within 45° of
            straight behind the query and does not face as it does: the thickness of a wall. Infinity for none within the largest radius.
        Gradients: none.
        Raises:
            ShapeError: other shapes, or radii that do not ascend.
        """
        self._check(queries)
        check_shape("normals", normals, len(self.points), 3)
        check_shape("facing", facing, len(queries), 3)
        if not 1 <= len(radii) <= 8 or list(radii) != sorted(radii) or not radii[0] > 0:
            raise ShapeError(f"radii must be one to eight ascending positive numbers, not {list(radii)}.")
        normals, facing = normals.detach().to(self.points), facing.detach().to(queries)
        if _backend.use_reference(queries):
            return _ref.moments(self.points.detach(), normals, queries.detach(), facing, radii)
        sums, behind = queries.new_empty(len(queries), len(radii), 20), queries.new_empty(len(queries))
        _backend.launch("moments", len(queries), queries, 16, points=self._sorted, normals=normals[self._order].contiguous(),
                        keys=self._keys, begins=self._begins, queries=queries.detach().contiguous(), facing=facing.contiguous(),
                        sums=sums, behind=behind, cells=len(self._keys), radii=len(radii), extent=self._extent,
                        low=self._low.tolist(), size=self.cell_size, radius=list(radii))  # fmt: skip
        return sums, behind

    def _check(self, queries: Tensor) -> None:
        check_shape("queries", queries, None, 3)
        check_floating(points=self.points, queries=queries)

    def _distances(self, queries: Tensor, row: Tensor, indices: Tensor) -> Tensor:
        """Recomputed from the indices, so that they are differentiable."""
        none = indices < 0
        if not len(self.points):
            return torch.full(indices.shape, math.inf, dtype=queries.dtype, device=queries.device)
        distance = (queries[row] - self.points[indices.clamp(min=0)]).norm(dim=-1)
        return torch.where(none, torch.full_like(distance, math.inf), distance)

    def _launch(self, queries: Tensor, radius: float, **given) -> None:
        arguments: dict[str, Any] = dict.fromkeys(("rows", "counts", "indices", "distances")) | {"k": 0}
        _backend.launch("neighbours", len(queries), queries, 64, points=self._sorted, original=self._order,
                        keys=self._keys, begins=self._begins, queries=queries.detach().contiguous(), cells=len(self._keys),
                        extent=self._extent, low=self._low.tolist(), size=self.cell_size, radius=radius,
                        **(arguments | given))  # fmt: skip


def knn(points: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k points (P, 3) nearest to each query (Q, 3): see `VoxelHash.knn`. Cells hold about k / 4 points each."""
    span = (points.detach().amax(0) - points.detach().amin(0)).clamp(min=1e-12) if len(points) else points.new_ones(3)
    volume = float(span.double().clamp(min=float(span.max()) * 1e-3).prod())
    return VoxelHash(points, (volume * max(k / 4, 1) / max(len(points), 1)) ** (1 / 3)).knn(queries, k)


def radius_neighbours(points: Tensor, queries: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """All points (P, 3) within `radius` of each query (Q, 3): see `VoxelHash.radius`."""
    return VoxelHash(points, radius).radius(queries, radius)
