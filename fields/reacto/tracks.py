"""Tracks: where pixels of the object are seen again in other frames, and where in a part they are, if they are of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fields.errors import DataError
from fields.geometry.rigid import within
from fields.reacto.scene import Flow, VideoScene

_HELD = 1e-6  # keeps points solvable that are seen from one place only
_HOPS = 4  # a track goes on from the farthest frame it was followed to, so often to either side
_APART = 1.0  # pixels by which neighbours move apart, at most, to be of one surface


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

    def double(self) -> Tracks:
        return replace(self, origins=self.origins.double(), directions=self.directions.double())

    def within(self, poses: Tensor) -> Tracks:
        """The same in the frame of a part with these poses (T, 4, 4)."""
        origins, directions = within(poses[self.frame], self.origins, self.directions)
        return replace(self, origins=origins, directions=directions)

    def triangulate(self, poses: Tensor) -> tuple[Tensor, Tensor]:
        """Of a part with these poses (T, 4, 4): the points (N, 3) closest to the rays, and how far off (N, J) pixels each sighting is.

        Unseen ones are off by 0. Gradients: of both to the poses.
        """
        there = self.within(poses)
        across, b = planes(there.origins, there.directions)
        points = solved((across * self.seen[..., None, None]).sum(1), (b * self.seen[..., None]).sum(1))
        return points, self.pixels_off(points[:, None], there.origins, there.directions) * self.seen

    def pixels_off(self, points: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
        """(…) how far points (…, 3) are from rays (…, 3), (…, 3), where they are seen."""
        away = points - origins
        along = (away * directions).sum(-1)
        off = torch.linalg.cross(away, directions).square().sum(-1).clamp(min=1e-16).sqrt()
        return self.focal * off / along.clamp(min=1e-3)

    def misfit(self, poses: Tensor) -> Tensor:
        """(N,) root mean square of that, pixels; infinite where a track has one sighting."""
        _, off = self.triangulate(poses)
        count = self.seen.sum(-1)
        return torch.where(count > 1, (off.square().sum(-1) / count.clamp(min=1)).sqrt(), torch.inf)


def planes(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Of rays (…, 3), (…, 3): what projects (…, 3, 3) onto the planes normal to them, and origins (…, 3) so projected."""
    across = torch.eye(3).to(origins) - directions[..., :, None] * directions[..., None, :]
    return across, (across @ origins[..., None])[..., 0]


def solved(across: Tensor, b: Tensor) -> Tensor:
    """(…, 3) the points closest to several rays, whose `planes` are summed: by Cramer's rule, for so small ones far faster than a library."""
    a = across + _HELD * torch.eye(3).to(across)
    rows = [torch.linalg.cross(a[..., i - 2, :], a[..., i - 1, :]) for i in range(3)]
    determinant = (a[..., 0, :] * rows[0]).sum(-1, keepdim=True)
    return torch.stack([(row * b).sum(-1) for row in rows], -1) / determinant


def tracks_of(scene: VideoScene, count: int, generator: torch.Generator) -> Tracks:
    """So many tracks from every frame that has flow: into all frames it has flow to, and from the last of them on.

    Raises:
        DataError: no flow of the object is known.
    """
    device, cameras = scene.aabb.device, scene.train.cameras
    middle, radius = scene.aabb.mean(0), (scene.aabb[1] - scene.aabb[0]).max() / 2
    flows = {(flow.first, flow.second): flow for flow in scene.flows}
    routes = {i: _routes(i, flows) for i in sorted({first for first, _ in flows})}
    most = 1 + max(map(len, routes.values()), default=0)
    frames, seen, origins, directions = [], [], [], []
    for i, route in routes.items():
        alpha = scene.train.images.image(i)[..., 3]
        known = torch.stack([flows[i, j].known for j, via in route if via == i]).any(0) & (alpha > 254)
        rows = known.flatten().nonzero()[:, 0]
        if not len(rows):
            continue
        rows = rows[torch.randperm(len(rows), generator=generator, device=device)[:count]]
        here = torch.stack([rows % alpha.shape[1], rows // alpha.shape[1]], -1) + 0.5
        sightings = {i: (here, torch.ones(len(rows), dtype=torch.bool, device=device))}
        for j, via in route:
            xy, there = sightings[via]
            moved, follows = _followed(flows[via, j], xy)
            sightings[j] = xy + moved, there & follows
        listed = [*sightings, *[i] * (most - len(sightings))]
        frame = torch.tensor(listed, device=device).expand(len(rows), most)
        xy = torch.stack([sightings[j][0] for j in listed], 1)
        there = torch.stack([sightings[j][1] for j in listed], 1)
        there[:, len(sightings) :] = False
        o, d = cameras.rays(frame.flatten(), xy.flatten(0, 1))
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


def _routes(i: int, flows: dict[tuple[int, int], Flow]) -> list[tuple[int, int]]:
    """(frame, frame before it on the way) of all that are reached from frame i, in an order that leads to them."""
    route = [(j, i) for first, j in sorted(flows) if first == i]
    for ahead in (max, min):  # to either side, by the widest steps
        here = i
        for _ in range(_HOPS):
            steps = [j for first, j in flows if first == here and (j > here) == (ahead is max) and j != here]
            if not steps:
                break
            before, here = here, ahead(steps)
            if before != i:
                route.append((here, before))
    return route


def _followed(flow: Flow, xy: Tensor) -> tuple[Tensor, Tensor]:
    """The motion (N, 2) of points xy (N, 2), pixels, between those of the four pixels around them; and whether it is known, which it is not
    where they do not move together."""
    height, width = flow.known.shape
    limit = xy.new_tensor([width - 2, height - 2])
    corner = (xy - 0.5).clamp(min=0).minimum(limit).floor()
    part = xy - 0.5 - corner
    column, row = corner.long().unbind(-1)
    corners = [(row + y, column + x) for y in (0, 1) for x in (0, 1)]
    moved = torch.stack([flow.moved[at] for at in corners])
    weight = torch.stack([(y * part[:, 1] + (1 - y) * (1 - part[:, 1])) * (x * part[:, 0] + (1 - x) * (1 - part[:, 0]))
                          for y in (0, 1) for x in (0, 1)])[..., None]  # fmt: skip
    needed = weight[..., 0] > 1e-3
    known = (torch.stack([flow.known[at] for at in corners]) | ~needed).all(0)
    mean = (weight * moved).sum(0)
    apart = ((moved - mean).norm(dim=-1) * needed).amax(0)
    inside = (part > -1e-3).all(-1) & (part < 1 + 1e-3).all(-1)
    return mean, known & inside & (apart < _APART)
