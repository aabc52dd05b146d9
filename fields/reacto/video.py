"""What trainings on a video share: the joints that optical flow shows, pictures at their moments, and exact resumption."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import binary_cross_entropy, softplus

from fields.data.scene import Scene
from fields.errors import ConfigError, DataError
from fields.radiance import cell_centres, dilate
from fields.reacto.config import VideoConfig
from fields.reacto.field import PartField
from fields.reacto.joints import find_parts
from fields.reacto.rigging import Rig, rig
from fields.reacto.scene import VideoScene, estimated_flows
from fields.reacto.tracks import tracks_of
from fields.rendering import Field, Rendering
from fields.tensorf.shape import LevelSet
from fields.training import processes
from fields.training.pixels import composite, rows_near_silhouettes

_MOST_PARTS = 6
_CHUNK = 65_536  # places at once
_CAREFUL = 1e-3  # opacities are kept so far from 0 and 1 in their cross-entropy


class Batch(NamedTuple):
    origins: Tensor
    """(N, 3)."""
    directions: Tensor
    frame: Tensor
    """(N,) training frames."""
    background: Tensor
    """(N, 3)."""
    jitter: Tensor
    """(N,) in [0, 1), of the marching step."""


class VideoTraining:
    """Args:
    field: to go on with; None: a new one, of what `find` finds.
    """

    shares: ClassVar[bool] = True
    name: ClassVar[str]
    field_class: ClassVar[Any]
    field: Any
    shapes: list[LevelSet]

    def __init__(self, config: VideoConfig, scene: Scene, seed: int, field: Field | None = None) -> None:
        if not isinstance(scene, VideoScene):
            raise ConfigError(f"{scene.path}: {self.name} learns from a video; this scene is of one moment.")
        self.config: Any = config
        self.scene = scene
        self.generator = torch.Generator(scene.aabb.device).manual_seed(seed)
        self.rows = rows_near_silhouettes(scene.train.images, max(3, int(scene.train.images.width.max()) // 24))
        self.findings: list[str] = []
        torch.manual_seed(seed)
        self.begin(field)
        self.optimiser = self.new_optimiser({})

    # ------------------------------------------------------------------------------------ what a field says

    def begin(self, field: Any) -> None:
        """Sets `field` and `shapes`."""
        raise NotImplementedError

    def groups(self) -> list[tuple[Sequence[Parameter], float]]:
        """Parameters and their rates."""
        raise NotImplementedError

    def render(self, batch: Batch, i: int) -> tuple[Rendering, Tensor]:
        """What a batch of rays sees at their moments, and what else is lost."""
        raise NotImplementedError

    def after(self, done: int) -> None:
        """So many iterations."""

    # ------------------------------------------------------------------------------------ the joints

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

    def level_set(self, part: PartField) -> LevelSet:
        finest = (float((part.aabb[3:] - part.aabb[:3]).prod()) / self.config.voxels[1]) ** (1 / 3)
        return LevelSet(part, self.config.steepness, finest)

    # ------------------------------------------------------------------------------------ one iteration

    def new_optimiser(self, before: Mapping[Tensor, Any]) -> torch.optim.Adam:
        """It remembers what one before it did of parameters that are still there."""
        groups = [{"params": list(params), "lr": rate, "rate": rate} for params, rate in self.groups()]
        optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-8)
        there = {id(p) for p in self.field.parameters()}
        optimiser.state.update({p: s for p, s in before.items() if id(p) in there})
        return optimiser

    def step(self, i: int) -> dict[str, Tensor]:
        c, scene = self.config, self.scene
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * c.rate_decay ** (i / c.iterations)
        store, device = scene.train.images, scene.aabb.device
        drawn = torch.randint(len(self.rows), (c.rays,), generator=self.generator, device=device)
        flat = self.rows[processes.share(drawn)]
        frame, x, y = store.locate(flat)
        origins, directions = scene.train.cameras.rays(frame, torch.stack([x, y], -1) + 0.5)
        background = processes.share(torch.rand(c.rays, 3, generator=self.generator, device=device))
        jitter = processes.share(torch.rand(c.rays, generator=self.generator, device=device))
        seen, further = self.render(Batch(origins, directions, frame, background, jitter), i)
        pixels = store.rows(flat)
        alpha = pixels[:, 3].float() / 255
        mse = (seen.rgb.clamp(0, 1) - composite(pixels, background)).square().mean()
        mask = binary_cross_entropy(seen.opacity.clamp(_CAREFUL, 1 - _CAREFUL), alpha)
        shape = self.shapes[i % len(self.shapes)]  # one after the other, for it is a good part of an iteration
        loss = mse + c.mask * mask + shape.penalty(c.eikonal, c.smooth, self.generator) + further
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        processes.mean_of_gradients(self.optimiser)
        self.optimiser.step()
        self.after(i + 1)
        mse, loss, mask = processes.mean(mse.detach(), loss.detach(), mask.detach())
        return {"psnr": -10 * mse.clamp(min=1e-10).log10(), "loss": loss, "mask": mask}

    def finish(self, out: Path) -> Iterable[str]:
        return self.findings

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
    def resume(cls, config: Any, scene: Scene, tensors: dict[str, Tensor], plain: dict) -> Self:
        field = cls.field_class(**plain["field"])
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
def find_empty(part: PartField) -> None:
    """Cells that are clearly outside, and whose neighbours all are, are not looked at any more."""
    places = cell_centres(part.resolution, part.aabb.device)
    levels = torch.cat([part.level(some) for some in places.split(_CHUNK)])
    occupied = dilate((softplus(levels) > 1e-3).view(part.resolution))
    if occupied.any():
        part.occupied = occupied
