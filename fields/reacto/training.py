"""Training of an articulated field: joints first, from optical flow; then shapes, colours and motion together, from the pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, softplus

from fields.data.scene import Scene
from fields.errors import ConfigError, DataError
from fields.reacto.config import ReactoConfig
from fields.reacto.field import ArticulatedField, PartField
from fields.reacto.joints import find_parts
from fields.reacto.kinds import joints_of
from fields.reacto.rigging import Rig, rig
from fields.reacto.scene import VideoScene, estimated_flows
from fields.reacto.screws import inverse, move
from fields.reacto.tracks import tracks_of
from fields.tensorf.shape import LevelSet
from fields.tensors import resolution_for
from fields.training.pixels import composite, rows_near_silhouettes

_MOST_PARTS = 6
_PROBED = 4096  # places where two parts may be at one time
_CAREFUL = 1e-3  # opacities are kept so far from 0 and 1 in their cross-entropy


class ReactoTraining:
    """Fits an ArticulatedField. See `fields.training.trainer.Training`."""

    def __init__(self, config: ReactoConfig, scene: Scene, seed: int, field: ArticulatedField | None = None) -> None:
        if not isinstance(scene, VideoScene):
            raise ConfigError(f"{scene.path}: reacto learns from a video; this scene is of one moment.")
        self.config, self.scene = config, scene
        device = scene.aabb.device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.rows = rows_near_silhouettes(scene.train.images, max(3, int(scene.train.images.width.max()) // 24))
        self.findings: list[str] = []
        torch.manual_seed(seed)
        rigs = self.find() if field is None else []
        self.field = (field or self.new_field(rigs)).to(device)
        self.shapes = [self._level_set(part) for part in self.parts()]
        for shape, one in zip(self.shapes, rigs, strict=False):
            shape.fill(one.occupied, self.generator)
        kinds = ["", *(joint.kind for joint in joints_of(self.field))]
        self.slide, self.turn = (
            torch.tensor([k == name for k in kinds], device=device) for name in ("prismatic", "revolute")
        )
        self._keep_kinds()
        self._new_optimiser()

    @torch.no_grad()
    def _keep_kinds(self) -> None:
        """What slides does not turn, and a hinge does not rise: pictures would have both do a little of either."""
        w, v = self.field.twists[:, :3], self.field.twists[:, 3:]
        w[self.slide] = 0
        rise = (v * w).sum(-1, keepdim=True) / w.square().sum(-1, keepdim=True).clamp(min=1e-12) * w
        v -= torch.where(self.turn[:, None], rise, 0)

    def parts(self) -> list[PartField]:
        return list(self.field.parts)  # type: ignore[arg-type]

    def find(self) -> list[Rig]:
        c, scene = self.config, self.scene
        if not scene.flows:
            scene = replace(scene, flows=estimated_flows(scene))
            self.findings.append(f"estimated {len(scene.flows)} fields of optical flow")
        tracks = tracks_of(scene, c.tracks, self.generator)
        found = find_parts(tracks, len(scene.train), c.parts or _MOST_PARTS, self.generator, self.findings.append)
        if len(found) < 2:
            raise DataError(
                f"{scene.path}: nothing in it moves against the rest. A video of an articulated object shows its joints move."
            )
        if len(found) < c.parts:
            raise DataError(
                f"{scene.path}: {len(found)} parts move against each other, not {c.parts}. Ask for as many, or leave out --parts."
            )
        return rig(scene, tracks, found, c.voxels[0])

    def new_field(self, rigs: list[Rig]) -> ArticulatedField:
        c, scene = self.config, self.scene
        names = ("density_rank", "appearance_rank", "feature_dim", "hidden", "step_ratio", "shading_threshold")
        parts = [
            {"aabb": one.aabb.tolist(), "resolution": list(one.occupied.shape), "near": 0.0, "far": math.inf, "density_shift": 0.0,
             "distance_scale": 1.0, "frequencies": 1} | {name: getattr(c, name) for name in names}
            for one in rigs
        ]  # fmt: skip
        field = ArticulatedField(
            parts=parts,
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

    def _level_set(self, part: PartField) -> LevelSet:
        finest = (float((part.aabb[3:] - part.aabb[:3]).prod()) / self.config.voxels[1]) ** (1 / 3)
        return LevelSet(part, self.config.steepness, finest)

    def _new_optimiser(self, moments: dict | None = None) -> None:
        c, parts = self.config, self.parts()
        groups = {
            "shape": ([p for part in parts for p in part.density_grid.parameters()], c.rate_shape),
            "factors": ([p for part in parts for p in part.appearance_grid.parameters()], c.rate_factors),
            "network": ([p for part in parts for p in part.decoder.parameters()], c.rate_network),
            "motion": ([self.field.twists, self.field.states], c.rate_motion),
        }
        self.optimiser = torch.optim.Adam(
            [{"params": params, "lr": rate, "rate": rate} for params, rate in groups.values()],
            betas=(0.9, 0.99),
            eps=1e-8,
        )
        if moments is not None:  # of what was not replaced
            self.optimiser.state.update(
                {p: s for p, s in moments.items() if any(p is q for q in self.field.parameters())}
            )

    # ------------------------------------------------------------------------------------ one iteration

    def step(self, i: int) -> dict[str, Tensor]:
        c, scene, field = self.config, self.scene, self.field
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * c.rate_decay ** (i / c.iterations)
        store, device = scene.train.images, scene.aabb.device
        flat = self.rows[torch.randint(len(self.rows), (c.rays,), generator=self.generator, device=device)]
        index, x, y = store.locate(flat)
        origins, directions = scene.train.cameras.rays(index, torch.stack([x, y], -1) + 0.5)
        background = torch.rand(c.rays, 3, generator=self.generator, device=device)
        jitter = torch.rand(c.rays, generator=self.generator, device=device)
        poses = field.poses(field.states.mT)[index]
        seen = field.render_posed(origins, directions, poses, background, jitter)
        alpha = store.data[flat, 3].float() / 255
        mse = (seen.rgb.clamp(0, 1) - composite(store.data[flat], background)).square().mean()
        mask = binary_cross_entropy(seen.opacity.clamp(_CAREFUL, 1 - _CAREFUL), alpha)
        loss = mse + c.mask * mask + self._penalty(i) + c.overlap * self._overlap()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self._keep_kinds()
        self._milestones(i + 1)
        return {"psnr": -10 * mse.detach().clamp(min=1e-10).log10(), "loss": loss.detach(), "mask": mask.detach()}

    def _penalty(self, i: int) -> Tensor:
        """Of one part after the other, for it is a good part of an iteration."""
        shape = self.shapes[i % len(self.shapes)]
        return shape.penalty(self.config.eikonal, self.config.smooth, self.generator)

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

    def _milestones(self, done: int) -> None:
        c = self.config
        if done in c.occupancy_at:
            for part in self.parts():
                before = part.occupied
                part.occupied = occupied(part, part.resolution)
                if not part.occupied.any():
                    part.occupied = before
        if done in c.upsample_at:
            first, last = map(math.log, c.voxels)
            cells = math.exp(first + (last - first) * (c.upsample_at.index(done) + 1) / len(c.upsample_at))
            for part in self.parts():
                part.upsample(resolution_for(part.aabb.view(2, 3), cells))
            self._new_optimiser(dict(self.optimiser.state))
        if done == c.iterations:
            for shape in self.shapes:
                shape.sharpen(c.sharpen)

    def finish(self, out: Path) -> Iterable[str]:
        return [*self.findings, *(joint.in_words() for joint in joints_of(self.field))]

    # ------------------------------------------------------------------------------------ exact resume

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors = {f"field.{k}": v for k, v in self.field.state_dict().items()}
        for name, parameter in self.field.named_parameters():
            tensors |= {f"adam.{name}.{k}": v for k, v in self.optimiser.state.get(parameter, {}).items()}
        tensors["generator"] = self.generator.get_state()
        plain = {
            "field": self.field.constructor_arguments(),
            "slopes": [s.slope for s in self.shapes],
            "findings": self.findings,
        }
        return tensors, plain

    @classmethod
    def resume(cls, config: Any, scene: Scene, tensors: dict[str, Tensor], plain: dict) -> ReactoTraining:
        field = ArticulatedField(**plain["field"])
        field.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("field.")})
        self = cls(config, scene, 0, field)
        self.findings = plain["findings"]
        for shape, slope in zip(self.shapes, plain["slopes"], strict=True):
            shape.slope = slope
        self.generator.set_state(tensors["generator"])
        for name, parameter in self.field.named_parameters():
            prefix = f"adam.{name}."
            state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if state:
                self.optimiser.state[parameter] = {k: v.to(parameter.device) if v.ndim else v for k, v in state.items()}
        return self


@torch.no_grad()
def occupied(part: PartField, resolution: tuple[int, int, int]) -> Tensor:
    """(Nx, Ny, Nz) bool: cells that are not clearly outside, or next to one that is not."""
    from fields.radiance import centres

    axes = [centres(n, part.aabb.device) for n in resolution]
    levels = torch.stack(
        [part.level(torch.stack(torch.meshgrid(x[None], *axes[1:], indexing="ij"), -1).view(-1, 3)) for x in axes[0]]
    )
    there = (softplus(levels.view(resolution)) > 1e-3).float()
    return torch.nn.functional.max_pool3d(there[None, None], 3, 1, 1)[0, 0] > 0
