"""Rigid alignment of oriented points, from many poses at once: what registration of scans and fragments does all day."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._check import check_floating, check_shape
from fields.core._ref import alignment as _ref
from fields.core.neighbours import VoxelHash
from fields.errors import ShapeError

_MOST_CELLS = 256
"""Of a table along an axis."""
_MOST_PATCHES = 2
_AROUND = 8
"""Neighbours that are known of each point; as in csrc/alignment.h."""
_CHUNK = 256
"""Sources that an item looks at."""
CONTACTS = ("touching", "close", "fitting", "gap", "tilt", "continued", "stepped", "covered", "doubled")
"""Columns of what `contacts` returns."""


class NearestTable:
    """The nearest of oriented points, for every place near them: looked up, and made sure of among the neighbours of what is found.

    That is the nearest but where points are scattered so unevenly that no chain of ever nearer neighbours leads to it.

    Args:
        points: (P, 3), in cells.
        normals: (P, 3) unit.
        cell: edge of the table's cells; each holds the point nearest to its middle. There are at most 256 along an axis, about the median of
            the points: crumbs far away do not matter.
        reach: how far from the points there are cells that say something.
        facing: −1 where counterparts of the points face them, as of surfaces that touch; 1 where they face the same way, as where a surface
            goes on.
    """

    def __init__(self, points: VoxelHash, normals: Tensor, cell: float, reach: float, facing: int) -> None:
        self.points, self.facing = points.points.detach().contiguous(), facing
        self.normals = normals.detach().to(self.points).contiguous()
        check_shape("normals", normals, len(self.points), 3)
        self.around = _around(points)
        self.cell, self.reach = cell, reach
        if not len(self.points):
            self.low, self.table = self.points.new_zeros(3), self._filled((1, 1, 1))
            return
        rings = max(math.ceil(reach / cell - 0.5), 1)  # from a middle to what lies anywhere in a cell
        middle, half = self.points.median(0)[0], cell * _MOST_CELLS / 2
        self.low = torch.maximum(self.points.amin(0) - reach - cell, middle - half)
        top = torch.minimum(self.points.amax(0) + (rings + 1) * cell, middle + half)
        shape = ((top - self.low) / cell).ceil().long()
        at = ((self.points - self.low) / cell).floor().long()
        at = at[((at >= 0) & (at < shape)).all(-1)]
        near = self.points.new_zeros(1, 1, *shape.tolist())
        near[0, 0, at[:, 0], at[:, 1], at[:, 2]] = 1
        for axis in range(3):  # a box dilates along one axis after the other
            size, pad = [1, 1, 1], [0, 0, 0]
            size[axis], pad[axis] = 2 * rings + 1, rings
            near = torch.nn.functional.max_pool3d(near, size, 1, pad)
        around = torch.nonzero(near[0, 0])
        index, _ = points.knn(self.low + (around + 0.5) * cell, 1, reach)
        self.table = self._filled(shape.tolist())
        self.table[around[:, 0], around[:, 1], around[:, 2]] = index[:, 0].int()

    def _filled(self, shape: Sequence[int]) -> Tensor:
        return torch.full(tuple(shape), -1, dtype=torch.int32, device=self.points.device)


def _around(points: VoxelHash) -> Tensor:
    """(P, 8) int32: the neighbours of each, itself where there are fewer within four cells: what lies far away is not searched for."""
    index, _ = points.knn(points.points.detach(), _AROUND + 1, 4 * points.cell_size)
    own = torch.arange(len(index), device=index.device)[:, None]
    return torch.where(index < 0, own, index)[:, 1:].int().contiguous()


Pairing = tuple[NearestTable, Tensor, Tensor]
"""A target, and the points (S, 3) and unit normals (S, 3) that are to be brought onto it."""


def aligned(poses: Tensor, patches: Sequence[Pairing], tolerances: Sequence[float]) -> Tensor:
    """Poses (H, 4, 4) after a step of point-to-plane ICP for each tolerance (Chen and Medioni 1992), each from its own start.

    A point counts where its counterpart faces it within 60°, is nearer than the table's reach along the surface, and the gap along
    its normal is less than the tolerance: 1 − (gap / tolerance)² times the cosine. What the counterparts leave free, as sliding along a
    plane, stays as it is.

    Args:
        patches: one or two, which count together; sources are in the frame that poses start from, targets in that they lead to.
    Gradients: none.
    Raises:
        ShapeError: other shapes, or more patches.
    """
    _check(poses, patches)
    if _backend.use_reference(poses):
        return _ref.aligned(poses.detach(), patches, tolerances)
    moved = poses.detach().clone().contiguous()
    steps = torch.tensor(tolerances, dtype=poses.dtype, device=poses.device)
    _launch(moved, patches, tolerances=steps, steps=len(tolerances), support=None, tolerance=1.0)
    return moved


def support(poses: Tensor, patches: Sequence[Pairing], tolerance: float) -> Tensor:
    """(H, len(patches)): what a patch's points have to say for each pose (H, 4, 4), in the mean, as they count for `aligned`.

    Gradients: none.
    Raises:
        ShapeError: as `aligned`.
    """
    _check(poses, patches)
    if _backend.use_reference(poses):
        return _ref.support(poses.detach(), patches, tolerance)
    shares = poses.new_empty(len(poses), _MOST_PATCHES)
    _launch(poses.detach().contiguous(), patches, tolerances=None, steps=0, support=shares, tolerance=tolerance)
    return shares[:, : len(patches)]


def _check(poses: Tensor, patches: Sequence[Pairing]) -> None:
    check_shape("poses", poses, None, 4, 4)
    check_floating(poses=poses)
    if not 1 <= len(patches) <= _MOST_PATCHES:
        raise ShapeError(f"There are {len(patches)} patches; there can be one or two.")
    for target, sources, normals in patches:
        check_shape("sources", sources, None, 3)
        check_shape("normals", normals, len(sources), 3)
        check_floating(poses=poses, sources=sources, normals=normals, targets=target.points)


def _launch(poses: Tensor, patches: Sequence[Pairing], **given: Any) -> None:
    targets = [target for target, _, _ in patches]
    sources = [sources.detach().contiguous() for _, sources, _ in patches]
    every = torch.cat(sources)
    middle = every.mean(0).tolist() if len(every) else [0.0] * 3
    _backend.launch(
        "alignment", len(poses), poses, 4, poses=poses, patches=len(patches),
        points=[t.points for t in targets], normals=[t.normals for t in targets], table=[t.table for t in targets],
        around=[t.around for t in targets], sources=sources, facing=[n.detach().contiguous() for _, _, n in patches], count=[len(s) for s in sources],
        shape=[n for t in targets for n in t.table.shape], low=[x for t in targets for x in t.low.tolist()],
        cell=[t.cell for t in targets], sign=[t.facing for t in targets], middle=middle,
        aside=targets[0].reach, **given,
    )  # fmt: skip


def contacts(
    target: NearestTable, labels: Tensor, sources: Tensor, normals: Tensor, marks: Tensor, area: Tensor, poses: Tensor, reach: float
) -> Tensor:  # fmt: skip
    """What a labelled surface does to another where it is posed beside it, in areas of its own: (H, 9), one column for each of `CONTACTS`.

    With the gap along the normal m of the nearest target, within reach, and the cosine m·n: *touching* are labelled sources that face labelled
    targets (m·n < −0.5); of these *close* with a gap below a third of the reach, *fitting* below an eighth and all but parallel; *gap* is their
    area times the squared gap in reaches, *tilt* times 1 + m·n. Of sources and targets without label, *continued* go on level, *stepped* do not,
    *doubled* lie on each other. *Covered* is all else that faces a surface, and labelled on labelled that faces the same way.

    Args:
        target: whose own reach had better be larger by a cell: it is measured from the middles of cells.
        labels, marks: bool (P,) of the targets, (S,) of the sources.
        sources, normals, area: (S, 3), (S, 3) unit, (S,).
        poses: (H, 4, 4) from the frame of the sources to that of the target.
    Gradients: none.
    Raises:
        ShapeError: other shapes.
    """
    check_shape("poses", poses, None, 4, 4)
    check_shape("sources", sources, None, 3)
    check_shape("normals", normals, len(sources), 3)
    for name, one, count in (("labels", labels, len(target.points)), ("marks", marks, len(sources)), ("area", area, len(sources))):  # fmt: skip
        check_shape(name, one, count)
    check_floating(poses=poses, sources=sources, normals=normals, area=area, targets=target.points)
    given = sources.detach(), normals.detach(), marks, area.detach(), poses.detach()
    if _backend.use_reference(poses):
        return _ref.contacts(target, labels, *given, reach)
    sources, normals, marks, area, poses = (part.contiguous() for part in given)
    chunks = max(1, -(-len(sources) // _CHUNK))
    sums = poses.new_empty(len(poses), chunks, len(CONTACTS))
    _backend.launch(
        "contacts", len(poses) * chunks, poses, 4, points=target.points, normals=target.normals, labels=labels.contiguous(),
        around=target.around, table=target.table, sources=sources, facing=normals, marks=marks, area=area, poses=poses, sums=sums,
        count=len(sources), chunk=_CHUNK, chunks=chunks, shape=list(target.table.shape), low=target.low.tolist(), cell=target.cell,
        reach=reach,
    )  # fmt: skip
    return sums.sum(1)
