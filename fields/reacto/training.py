"""Training of an articulated field: joints first, from optical flow; then shapes, colours and motion together, from the pictures."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from fields.geometry.rigid import inverse, move
from fields.reacto.config import ReactoConfig
from fields.reacto.field import ArticulatedField, PartField
from fields.reacto.kinds import joints_of
from fields.reacto.rigging import Rig
from fields.reacto.video import Batch, VideoTraining, find_empty
from fields.rendering import Rendering
from fields.tensors import resolution_for

_PROBED = 4096  # places where two parts may be at one time


class ReactoTraining(VideoTraining):
    """Fits an ArticulatedField. See `fields.training.trainer.Training`."""

    name = "reacto"
    field_class = ArticulatedField
    config: ReactoConfig

    def begin(self, field: ArticulatedField | None) -> None:
        rigs = self.find() if field is None else []
        device = self.scene.aabb.device
        self.field = (field or self.new_field(rigs)).to(device)
        self.shapes = [self.level_set(part) for part in self.parts()]
        for shape, one in zip(self.shapes, rigs, strict=False):
            shape.fill(one.occupied, self.generator)
        kinds = ["", *(joint.kind for joint in joints_of(self.field))]
        self.slide, self.turn = (
            torch.tensor([k == name for k in kinds], device=device) for name in ("prismatic", "revolute")
        )
        if rigs:  # a field to go on with keeps them already, and rounding would change it
            self._keep_kinds()

    def parts(self) -> list[PartField]:
        return list(self.field.parts)

    def new_field(self, rigs: list[Rig]) -> ArticulatedField:
        scene = self.scene
        field = ArticulatedField(
            parts=[self.config.shape(one.aabb, one.occupied.shape) for one in rigs],
            parents=[one.parent for one in rigs],
            times=scene.times.tolist(),
            aabb=scene.aabb.flatten().tolist(),
        )
        field.frames.copy_(torch.stack([one.frame for one in rigs]))
        with torch.no_grad():
            field.twists.copy_(torch.stack([one.twist for one in rigs]))
            field.states.copy_(torch.stack([one.states for one in rigs]))
        for part, one in zip(field.parts, rigs, strict=True):
            part.occupied = one.occupied.cpu()  # type: ignore[assignment]
        return field

    def groups(self):
        c, parts = self.config, self.parts()
        return [
            (list(chain(*(part.density_grid.parameters() for part in parts))), c.rate_shape),
            (list(chain(*(part.appearance_grid.parameters() for part in parts))), c.rate_factors),
            (list(chain(*(part.decoder.parameters() for part in parts))), c.rate_network),
            ([self.field.twists, self.field.states], c.rate_motion),
        ]

    @torch.no_grad()
    def _keep_kinds(self) -> None:
        """What slides does not turn, and a hinge does not rise: pictures would have both do a little of either."""
        w, v = self.field.twists[:, :3], self.field.twists[:, 3:]
        w[self.slide] = 0
        rise = (v * w).sum(-1, keepdim=True) / w.square().sum(-1, keepdim=True).clamp(min=1e-12) * w
        v -= torch.where(self.turn[:, None], rise, 0)

    def render(self, batch: Batch, i: int) -> tuple[Rendering, Tensor]:
        field = self.field
        poses = field.poses(field.states.mT).index_select(0, batch.frame)  # whose gradients come in one order
        seen = field.render_posed(batch.origins, batch.directions, poses, batch.background, batch.jitter)
        return seen, self.config.overlap * self._overlap()

    def _overlap(self) -> Tensor:
        """How deep, in knots, two parts are in each other at one moment, mean over the box of one: no picture shows it."""
        field, device = self.field, self.field.aabb.device
        pick = torch.randperm(len(field.parts), generator=self.generator, device=device)[:2].tolist()
        a, b = (self.parts()[k] for k in pick)
        moment = int(torch.randint(len(field.times), (1,), generator=self.generator, device=device))
        with torch.no_grad():
            poses = field.poses(field.states[:, moment])
            low, high = a.aabb.view(2, 3)
            points = low + (high - low) * torch.rand(_PROBED, 3, generator=self.generator, device=device)
            here, there = a.normalise(points), b.normalise(move(inverse(poses[pick[1]]) @ poses[pick[0]], points))
            both = (there.abs() < 1).all(-1)
            both &= torch.minimum(a.level(here), b.level(there.clamp(-1, 1))) > 0
        if not both.any():
            return torch.zeros((), device=device)
        return torch.minimum(a.level(here[both]), b.level(there[both])).sum() / (_PROBED * self.config.steepness)

    def after(self, done: int) -> None:
        c = self.config
        self._keep_kinds()
        if done in c.occupancy_at:
            for part in self.parts():
                find_empty(part)
        if done in c.upsample_at:
            for part in self.parts():
                part.upsample(resolution_for(part.aabb.view(2, 3), c.cells_after(done)))
            self.optimiser = self.new_optimiser(self.optimiser.state)
        if done == c.iterations:
            for shape in self.shapes:
                shape.sharpen(c.sharpen)

    def finish(self, out: Path) -> Iterable[str]:
        return [*self.findings, *(joint.in_words() for joint in joints_of(self.field))]
