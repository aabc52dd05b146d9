"""Training of a skinned field: as the paper has it, but for the canonical field and for where motion begins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from fields.data.scene import Scene
from fields.geometry.rigid import inverse, move
from fields.radiance import cell_centres, cell_of
from fields.reacto.config import QrbsConfig
from fields.reacto.geodesic import assigned, interior_distances, sparsity
from fields.reacto.parts import Part, poses_of
from fields.reacto.rigging import Rig, box_around
from fields.reacto.skinned import SkinnedField, Warped
from fields.reacto.video import Batch, VideoTraining, find_empty
from fields.rendering import Rendering
from fields.tensors import resolution_for
from fields.training import processes

_ROOM = 0.03  # of the longest edge, around the canonical shape
_LIVE_EVERY = 50  # iterations, after which bones are asked again where they have a say
_PROXY_CELLS = 262_144  # that ways are found in


class QrbsTraining(VideoTraining):
    """Fits a SkinnedField. See `fields.training.trainer.Training`."""

    name = "qrbs"
    field_class = SkinnedField
    config: QrbsConfig

    def begin(self, field: SkinnedField | None) -> None:
        device = self.scene.aabb.device
        self.ways: Tensor | None = None
        """(1, B, Nx, Ny, Nz) from bones to places, as the shape was when they were found."""
        if field is not None:
            self.field = field.to(device)
            self.shapes = [self.level_set(field.shape)]
            return
        self.field, solid = self.new_field(self.find())
        self.field.to(device)
        self.shapes = [self.level_set(self.field.shape)]
        self.shapes[0].fill(solid, self.generator)

    def new_field(self, rigs: list[Rig]) -> tuple[SkinnedField, Tensor]:
        """And what it fills, (Nx, Ny, Nz) bool. Canonical is the frame in which joints are closest to the middle of what they do."""
        c, scene = self.config, self.scene
        poses = torch.stack(poses_of([Part(one.parent, one.twist, one.states) for one in rigs], len(scene.train)), 1)
        rest = _middle_frame(torch.stack([one.states for one in rigs]))
        middle, radius = scene.aabb.mean(0), (scene.aabb[1] - scene.aabb[0]).max() / 2

        def canonical(b: int, own: Tensor) -> Tensor:
            """Points (N, 3) in the frame of part b."""
            return move(poses[rest, b], (move(rigs[b].frame, own) - middle) / radius)

        box = _box_of(torch.cat([canonical(b, _filled(one)) for b, one in enumerate(rigs)]))
        size = resolution_for(box.view(2, 3), c.voxels[0])
        places = box[:3] + (box[3:] - box[:3]) * (cell_centres(size, box.device) + 1) / 2
        solid = torch.zeros(len(places), dtype=torch.bool, device=box.device)
        for b, one in enumerate(rigs):
            own = move(inverse(one.frame), move(inverse(poses[rest, b]), places) * radius + middle)
            x = (own - one.aabb[:3]) / (one.aabb[3:] - one.aabb[:3]) * 2 - 1
            solid |= one.occupied[cell_of(x, one.occupied.shape).unbind(-1)] & (x.abs() < 1).all(-1)
        solid = solid.view(size)

        points = [canonical(b, one.points) for b, one in enumerate(rigs)]
        bones = [(b, own) for b, own in enumerate(points)] if not c.bones else self._spread(points, c.bones)
        field = SkinnedField(
            shape=c.shape(box, size), bones=len(bones), times=scene.times.tolist(), aabb=scene.aabb.flatten().tolist(),
            blend=c.blend, isotropic=c.isotropic,
        )  # fmt: skip
        field.shape.occupied = solid.cpu()
        field.sharpness.fill_(c.gamma[0])
        for k, (b, own) in enumerate(bones):
            frame, around, _ = box_around(own)
            half = (around[3:] - around[:3]) / 2
            frame[:3, 3] = move(frame, around[:3] + half)
            field.begun[:, k] = poses[:, b] @ inverse(poses[rest, b])
            field.bones.frames[k] = frame
            spread = (half / 2).log()
            field.bones.log_scale.data[k] = spread.mean() if c.isotropic else spread
        return field, solid

    def _spread(self, points: list[Tensor], count: int) -> list[tuple[int, Tensor]]:
        """So many clusters of points, and the part that most of each are of."""
        from scipy.cluster.vq import kmeans2

        part = torch.cat([torch.full((len(own),), b) for b, own in enumerate(points)])
        everywhere = torch.cat(points).cpu()
        seed = int(torch.randint(2**31, (), generator=self.generator, device=self.generator.device))
        _, cluster = kmeans2(everywhere.double().numpy(), count, minit="++", seed=seed)
        cluster = torch.from_numpy(cluster).long()
        found = [cluster == k for k in cluster.unique()]
        return [(int(part[one].mode().values), everywhere[one].to(points[0])) for one in found if one.sum() > 3]

    def groups(self):
        c, shape, bones = self.config, self.field.shape, self.field.bones
        return [
            (list(shape.density_grid.parameters()), c.rate_shape),
            (list(shape.appearance_grid.parameters()), c.rate_factors),
            (list(shape.decoder.parameters()), c.rate_network),
            ([self.field.knots], c.rate_motion),
            (list(bones.parameters()), c.rate_bones),
        ]

    def render(self, batch: Batch, i: int) -> tuple[Rendering, Tensor]:
        c, field = self.config, self.field
        (low, high), (first, last) = c.gamma, c.gamma_at
        field.sharpness.fill_(low * (high / low) ** _share(i, first, last))
        if i % _LIVE_EVERY == 0:
            field.changed()
        if c.sparse and i >= c.sparse_at[0] and (self.ways is None or i % c.proxy_every == 0):
            self._find_ways()
        motions = field.motions()
        seen, warped = field.render_posed(*batch[:2], motions, batch.frame, batch.background, batch.jitter)
        chosen = self.assigned(warped, self.ways) if self.ways is not None and len(warped.rays) else None
        shown = warped.weights.detach()
        others = shown.new_zeros(()) if chosen is None else (~chosen).sum()
        # Means over samples, of which processes have not equally many.
        of_all, of_shown, of_others = processes.weights(shown.new_tensor(len(shown)), shown.sum(), others)
        if not len(warped.rays):
            return seen, seen.rgb.new_zeros(())
        which = batch.frame[warped.rays]
        back, skin = field.forward(motions, which, warped.canonical)
        cycle = (shown * (back - warped.posed).norm(dim=-1)).sum() / shown.sum().clamp(min=1e-6)
        loss = of_shown * c.cycle * cycle + of_all * c.change * warped.skin.change.square().mean()
        if chosen is not None:
            kept = (sparsity(warped.skin.weights, chosen) + sparsity(skin.weights, chosen)) / 2
            loss = loss + of_others * c.sparse * _share(i, *c.sparse_at) * kept
        return seen, loss

    @torch.no_grad()
    def assigned(self, warped: Warped, ways: Tensor) -> Tensor:
        """(M, B) bool: which bones may move each sample."""
        x = self.field.shape.normalise(warped.canonical).clamp(-1, 1)
        way = grid_sample(ways, x.flip(-1).view(1, 1, 1, -1, 3), mode="nearest", align_corners=False)
        return assigned(warped.skin.distance, way.view(len(self.field.bones), -1).T, self.config.eta, self.config.zeta)

    @torch.no_grad()
    def _find_ways(self) -> None:
        """The old ones stay where nothing is inside."""
        shape = self.field.shape
        size = resolution_for(shape.aabb.view(2, 3), _PROXY_CELLS)
        places = cell_centres(size, shape.aabb.device)
        inside = torch.cat([shape.level(some) > 0 for some in places.split(65_536)]).view(size)
        if not inside.any():
            return
        edges = (shape.aabb[3:] - shape.aabb[:3]).cpu() / torch.tensor(size)
        seeds = cell_of(shape.normalise(self.field.bones.rest()[:, :3, 3]), size)
        ways = interior_distances(inside.cpu().numpy(), tuple(edges.tolist()), seeds.cpu().numpy())
        self.ways = torch.from_numpy(ways)[None].to(places)

    def after(self, done: int) -> None:
        c, shape = self.config, self.field.shape
        if done in c.occupancy_at:
            find_empty(shape)
        if done in c.upsample_at:
            shape.upsample(resolution_for(shape.aabb.view(2, 3), c.cells_after(done)))
            self.optimiser = self.new_optimiser(self.optimiser.state)
        if done == c.iterations:
            self.shapes[0].sharpen(c.sharpen)
        if done in (*c.occupancy_at, *c.upsample_at, c.iterations):
            self.field.changed()

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors, plain = super().state()
        if self.ways is not None:
            tensors["ways"] = self.ways
        if self.field.live:
            tensors["live"] = torch.stack(self.field.live)
        return tensors, plain

    @classmethod
    def resume(cls, config: Any, scene: Scene, tensors: dict[str, Tensor], plain: dict) -> QrbsTraining:
        self = super().resume(config, scene, tensors, plain)
        device = scene.aabb.device
        if "ways" in tensors:
            self.ways = tensors["ways"].to(device)
        if "live" in tensors:
            self.field.live = list(tensors["live"].to(device))
        return self


def _share(i: int, first: int, last: int) -> float:
    """Of the way from one iteration to another."""
    return min(1.0, max(0.0, (i - first) / max(1, last - first)))


def _middle_frame(states: Tensor) -> int:
    """That in which states (B, T) are closest to the middle of what they are."""
    low, high = states.amin(1, keepdim=True), states.amax(1, keepdim=True)
    return int((((states - (low + high) / 2) / (high - low).clamp(min=1e-9)).square().sum(0)).argmin())


def _filled(one: Rig) -> Tensor:
    """(N, 3) centres of the occupied cells, in the part's frame."""
    size = torch.tensor(one.occupied.shape, device=one.aabb.device)
    return one.aabb[:3] + (one.aabb[3:] - one.aabb[:3]) * (one.occupied.nonzero() + 0.5) / size


def _box_of(points: Tensor) -> Tensor:
    """(6,) around points (N, 3)."""
    low, high = points.amin(0), points.amax(0)
    room = _ROOM * (high - low).max()
    return torch.cat([low - room, high + room])
