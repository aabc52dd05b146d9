"""Tracks: where pixels of the object are seen again in other frames, and where in a part they are, if they are of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fields.errors import DataError
from fields.reacto.scene import VideoScene
from fields.reacto.screws import within

_HELD = 1e-6  # keeps points solvable that are seen from one place only


@dataclass(frozen=True)
class Tracks:
    """N tracks of up to J sightings, the first of which is the pixel itself. Lengths are in radii of the scene's box, about its middle."""

    frame: Tensor
    """(N, J) int64, training frames."""
    seen: Tensor
    """(N, J) bool."""
    origins: Tensor
    """(N, J, 3)."""
    directions: Tensor
    """(N, J, 3) unit."""
    focal: float
    """Pixels."""

    def __len__(self) -> int:
        return len(self.frame)

    def select(self, rows: Tensor) -> Tracks:
        return Tracks(self.frame[rows], self.seen[rows], self.origins[rows], self.directions[rows], self.focal)

    def within(self, poses: Tensor) -> tuple[Tensor, Tensor]:
        """The rays (N, J, 3), (N, J, 3) in the frame of a part with these poses (T, 4, 4)."""
        return within(poses[self.frame], self.origins, self.directions)

    def triangulate(self, poses: Tensor) -> tuple[Tensor, Tensor]:
        """Of a part with these poses (T, 4, 4): the points (N, 3) closest to the rays, and how far off (N, J) pixels each sighting is.

        Unseen ones are off by 0. Gradients: of both to the poses.
        """
        origins, directions = self.within(poses)
        eye = torch.eye(3, dtype=origins.dtype, device=origins.device)
        across = (eye - directions[..., :, None] * directions[..., None, :]) * self.seen[..., None, None]
        a = across.sum(1) + _HELD * eye
        b = (across @ origins[..., None]).sum(1)
        points = _solved(a, b[..., 0])
        away = points[:, None] - origins
        along = (away * directions).sum(-1)
        off = torch.linalg.cross(away, directions).square().sum(-1).clamp(min=1e-16).sqrt() / along.clamp(min=1e-3)
        return points, self.focal * off * self.seen

    def misfit(self, poses: Tensor) -> Tensor:
        """(N,) root mean square of that, pixels; infinite where a track has one sighting."""
        _, off = self.triangulate(poses)
        count = self.seen.sum(-1)
        return torch.where(count > 1, (off.square().sum(-1) / count.clamp(min=1)).sqrt(), torch.inf)


def _solved(a: Tensor, b: Tensor) -> Tensor:
    """(N, 3) x with a x = b, of symmetric matrices (N, 3, 3), by Cramer's rule: for so small ones far faster than a library."""
    rows = [torch.linalg.cross(a[:, i - 2], a[:, i - 1]) for i in range(3)]
    determinant = (a[:, 0] * rows[0]).sum(-1, keepdim=True)
    return torch.stack([(row * b).sum(-1) for row in rows], -1) / determinant


def tracks_of(scene: VideoScene, count: int, generator: torch.Generator) -> Tracks:
    """So many tracks from every frame that has flow.

    Raises:
        DataError: no flow of the object is known.
    """
    device, cameras = scene.aabb.device, scene.train.cameras
    middle, radius = scene.aabb.mean(0), (scene.aabb[1] - scene.aabb[0]).max() / 2
    by_frame: dict[int, list] = {}
    for flow in scene.flows:
        by_frame.setdefault(flow.first, []).append(flow)
    most = 1 + max(map(len, by_frame.values()), default=0)
    frames, seen, origins, directions = [], [], [], []
    for i, flows in sorted(by_frame.items()):
        alpha = scene.train.images.image(i)[..., 3]
        known = torch.stack([f.known for f in flows]).any(0) & (alpha > 254)
        rows = known.flatten().nonzero()[:, 0]
        if not len(rows):
            continue
        rows = rows[torch.randperm(len(rows), generator=generator, device=device)[:count]]
        here = torch.stack([rows % alpha.shape[1], rows // alpha.shape[1]], -1) + 0.5
        xy, there = here[:, None].repeat(1, most, 1), torch.zeros(len(rows), most, dtype=torch.bool, device=device)
        frame = torch.full((len(rows), most), i, device=device)
        there[:, 0] = True
        for k, flow in enumerate(flows, 1):
            xy[:, k] += flow.moved.flatten(0, 1)[rows]
            there[:, k], frame[:, k] = flow.known.flatten()[rows], flow.second
        o, d = cameras.rays(frame.flatten(), xy.view(-1, 2))
        frames.append(frame)
        seen.append(there)
        origins.append(((o - middle) / radius).view(-1, most, 3))
        directions.append(d.view(-1, most, 3))
    if not frames:
        raise DataError(
            f"{scene.path}: the optical flow knows nothing of the object. Remove the folder flow/ to have it estimated."
        )
    return Tracks(
        torch.cat(frames), torch.cat(seen), torch.cat(origins), torch.cat(directions), float(cameras.fx.mean())
    )
