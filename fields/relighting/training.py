"""Training a radiance transfer field: shape from the means over the lights, then scattering, then the surface as well.

Because transfer does not depend on the light, a ray is evaluated once and learns from its photographs under every light; and because
photographs add up, it learns from random mixtures of them too, which is what the field will be asked for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from fields.data.scene import Scene
from fields.errors import ConfigError
from fields.io.hdr import encode_srgb
from fields.radiance import Room
from fields.relighting.config import RelightingConfig
from fields.relighting.field import TransferField
from fields.relighting.interior import Interior
from fields.relighting.scene import LitScene
from fields.relighting.stage import Stage
from fields.relighting.transfer import Transfer
from fields.tensorf.shape import LevelSet, inflated
from fields.tensorf.training import TensorfTraining
from fields.training import processes
from fields.training.pixels import rows_near_silhouettes

_MEDIAN = 0.3  # where the loss puts the median radiance
_DARK = 1e-3  # what counts as dark there
_BRIGHT = 2.5  # and as a highlight, which scattering is not to explain
_LOOKED_AT = 4096  # pixels to find soft lights by
_AROUND = 0.25  # of the rays pass beside the object
_WHOLE = 0.99  # coverage
_TRIED = 4096  # pixels to find the extinction by
_LIT = 16  # and lights
_COARSE = 800  # cells in which that is done
_EXTINCTIONS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # that are tried, per extent of the object


class RelightingTraining(TensorfTraining):
    """Fits a TransferField."""

    config: RelightingConfig  # type: ignore[assignment]
    field: TransferField
    field_class = TransferField
    scene: LitScene

    def __init__(self, config: RelightingConfig, scene: Scene, seed: int, field: TransferField | None = None) -> None:
        if not isinstance(scene, LitScene):
            raise ConfigError(
                f"{scene.path}: relighting learns from photographs under many lights; this scene has none."
            )
        self.photographs = scene.photographs
        if len(self.photographs) == 1:
            config = of_one_camera(config)
        super().__init__(config, scene, seed, field)  # type: ignore[arg-type]
        self.stage = Stage(self.photographs.lights, self.field.basis, scene.aabb.mean(0))
        radiance = self.photographs.radiance
        self.unit = _MEDIAN / float(radiance[radiance > 0].float().median())
        self.means_only = True
        images = scene.train.images
        near = rows_near_silhouettes(images, max(3, int(images.width.max()) // 16))
        self.beside = near.where(lambda rows: images.rows(rows)[:, 3] < 255 * _WHOLE)
        # A ray is a point of a pixel: of pixels that are covered in part it says nothing.
        self.whole = (
            self.photographs.covered(torch.arange(len(self.photographs.view), device=near.device)) > _WHOLE
        ).nonzero()[:, 0]
        for pixels, missing in ((self.whole, "wholly shows the object"), (self.beside, "shows what is beside it")):
            if not len(pixels):
                raise self.nothing_left(f"no pixel of the photographs {missing}")
        if field is None:
            self.begin_with_soft_lights()
        self.visible: Tensor | None = None
        """(M, J) uint8: how much of each light comes through to each pixel's surface."""
        self.leaving: Tensor | None = None
        """(M, J, ORDERS, C) half, and (M, ORDERS): what of each light leaves the interior at each pixel, and of a uniform one."""
        self.uniform: Tensor | None = None
        finest = (float((self.field.aabb[3:] - self.field.aabb[:3]).prod()) / config.voxels[1]) ** (1 / 3)
        self.shape = LevelSet(self.field, config.steepness, finest)
        cameras = self.photographs.cameras
        away = (cameras.centres - scene.aabb.mean(0).to(cameras.centres)).norm(dim=-1)
        self.pixel_size = away / cameras.fx
        """(V,) edge of a camera's pixels at the middle of the object, scene units."""
        if field is None and config.carve and scene.alpha:
            self.shape.fill(self.first_solid(), self.generator)
            if len(self.photographs) == 1:
                self.field.decoder.begin((-5.0, 0.0, 0.0))

    def first_solid(self) -> Tensor:
        """(Nx, Ny, Nz) bool: what the silhouettes allow; what a single one suggests."""
        field = self.field
        if len(self.photographs) > 1:
            return field.occupied
        coverage = self.photographs.coverage.image(0)[..., 0].float() / 255
        return inflated(coverage, self.photographs.cameras, field.aabb, field.occupied.shape)

    def field_arguments(self) -> dict[str, Any]:
        names = ("layout", "density_rank", "appearance_rank", "feature_dim", "hidden", "rank", "lobes", "sharpness", "reflect",
                 "diffuse", "density_shift", "step_ratio", "shading_threshold", "cells")  # fmt: skip
        return {name: getattr(self.config, name) for name in names} | {"exposure": self.scene.exposure}

    def _new_optimisers(self) -> None:
        """Shape has an optimiser of its own: there is a time when it learns more slowly."""
        c, field = self.config, self.field
        self.optimisers = {
            "shape": self.adam(field.density_grid.parameters(), c.rate_shape),
            "factors": self.adam(field.appearance_grid.parameters(), c.rate_factors),
            "lights": self.adam(field.basis.parameters(), 10 * c.rate_network),
            "network": self.adam(field.decoder.parameters(), c.rate_network),
        }

    def recordable(self) -> bool:
        return False  # how many lights a batch has been photographed under is asked for

    def begin_with_soft_lights(self) -> None:
        """From what some pixels look like under all lights, but for highlights."""
        p, lights = self.photographs, self.photographs.lights
        rows = torch.randint(len(p.view), (min(_LOOKED_AT, len(p.view)),), generator=self.generator, device=p.device)
        radiance = p.radiance[rows].float().mean(-1)
        slots = p.slots[p.view[rows]]
        there = radiance.isfinite() & (slots >= 0)
        seen = torch.zeros(len(rows), len(lights), device=p.device)
        known = torch.zeros_like(seen, dtype=torch.bool)
        ray, slot = there.nonzero(as_tuple=True)
        seen[ray, slots[ray, slot]] = radiance[ray, slot].clamp(max=_BRIGHT / self.unit)
        known[ray, slots[ray, slot]] = True
        middle = (self.field.aabb[None, :3] + self.field.aabb[None, 3:]) / 2
        self.field.basis.learn(seen, known, self.stage.strength_at(middle))

    # ------------------------------------------------------------------------------------ the schedule

    def step(self, i: int) -> dict[str, Tensor]:
        c = self.config
        self.means_only = i < c.mean_until
        self.field.decoder.reflects = c.reflect and not self.means_only
        self.field.decoder.diffuses = c.diffuse and not self.means_only
        if c.interior and i == c.mean_until:
            self.begin_inside()
        if not self.means_only and (i - c.mean_until) % c.visibility_every == 0:
            self.look_for_lights()
        numbers = super().step(i)
        if i + 1 == c.iterations:
            self.shape.sharpen(c.sharpen)
        return numbers

    @torch.no_grad()
    def begin_inside(self) -> None:
        """Finds the extinction with which some mixture of orders explains photographs best, and starts with that mixture.

        Both may differ from place to place, and what a field learns later says where.
        """
        p, field = self.photographs, self.field
        rows = torch.randint(len(p.view), (min(_TRIED, len(p.view)),), generator=self.generator, device=p.device)
        found = field.transfer(*self.rays(p.view[rows], p.pixel[rows]), around=False)
        slots = p.slots[p.view[rows]]
        some = torch.randperm(len(p.lights), generator=self.generator, device=p.device)[:_LIT]
        slots = torch.where(torch.isin(slots, some), slots, -1)
        solid = Interior.of(field, 1.0, _COARSE)
        if solid is None:
            return
        truth = (self.unit * p.radiance[rows].float()).clamp(max=_BRIGHT)
        known = truth.isfinite().all(-1) & (slots >= 0)
        extent = float((field.aabb[3:] - field.aabb[:3]).max())

        def fit(log_extinction: float) -> tuple[float, float, Tensor]:
            inside = solid.with_extinction(math.exp(log_extinction))
            found.places, found.ends = inside.places_along(*field.from_above(found, inside))
            leaving = self.stage.leaving(found, slots, inside)[0] * self.tinted(slots)
            error, gains = _mixture(self.unit * leaving[known], truth[known])
            return error, log_extinction, gains

        tried = [fit(math.log(v / extent)) for v in _EXTINCTIONS]
        for step in (0.35, 0.15):  # a fourth, then a tenth
            best = min(tried)[1]
            tried += [fit(best - step), fit(best + step)]
        _, log_extinction, gains = min(tried)
        field.extinction.fill_(math.exp(log_extinction))
        field.decoder.begin_inside(gains)
        self.rebuild()

    def tinted(self, slots: Tensor) -> Tensor:
        """(…, 1, 3): what `leaving` is multiplied by, of lights (…)."""
        return self.stage.tint[slots.clamp(min=0)][..., None, :]

    @torch.no_grad()
    def look_for_lights(self) -> None:
        """Marches from every pixel's surface to each of its lights, and through the interior."""
        p, inside = self.photographs, self.field.inside()
        visible = torch.zeros(p.radiance.shape[:2], dtype=torch.uint8, device=p.device)
        rays = []
        for rows in torch.arange(len(visible), device=p.device).split(4096):
            found = self.field.transfer(*self.rays(p.view[rows], p.pixel[rows]), around=False)
            slots = p.slots[p.view[rows]]
            if inside is not None:
                rays.append(self.field.look_inside(found, inside))
            towards, irradiance = self.stage.arriving(found.point, slots.clamp(min=0))
            matters = (slots >= 0) & (irradiance > 0).any(-1)
            ray, slot = matters.nonzero(as_tuple=True)
            through = self.field.visibility(found.point[ray], found.normal[ray], towards[ray, slot])
            visible[rows[ray], slot] = (through * 255).round().to(torch.uint8)
        self.visible = visible
        if inside is not None:
            leaving, self.uniform = self.stage.leaving(Transfer.cat(rays), p.slots[p.view], inside)
            self.leaving = leaving.half()

    # ------------------------------------------------------------------------------------ one iteration

    def iterate(self, room: Room | None) -> tuple[dict[str, Tensor], Tensor]:
        p, c = self.photographs, self.config
        rows, beside = self.draw()
        view, pixel = (torch.cat([a[rows], b]) for a, b in zip((p.view, p.pixel), beside, strict=True))
        found = self.field.transfer(*self.rays(view, pixel), self.jitter(c.rays))
        inside = found.map(lambda values: values[: len(rows)])

        lights = self.some_lights()
        slots, truth = p.slots[p.view[rows]][:, lights], p.radiance[rows][:, lights].float()
        known = truth.isfinite() & (slots >= 0)[..., None]
        slots, truth = slots.clamp(min=0), self.unit * truth.nan_to_num()
        radiance = self.stage.scattered(inside, slots)
        covered = p.coverage.data[p.coverage.offsets[beside[0]] + beside[1], 0].float() / 255
        loss = self.penalty() + self.shape_loss(found, view, torch.cat([p.covered(rows), covered]))
        if self.visible is None:
            truth = truth.clamp(max=_BRIGHT)
        else:
            surface = self.stage.surface(inside, slots, self.visible[rows][:, lights].float() / 255)
            # What can be explained in two ways is explained in the one that says more: from many cameras by what is beneath the
            # surface, from one by how it turns.
            unwanted = surface if len(self.photographs) > 1 else radiance
            loss = loss + c.dim * self.unit * unwanted.mean()
            radiance = radiance + surface
            if self.leaving is not None and self.uniform is not None:
                leaving = self.leaving[rows][:, lights].float() * self.tinted(slots)
                radiance = radiance + inside.through(leaving, self.uniform[rows])
        radiance = self.unit * inside.opacity[:, None, None] * radiance
        loss = loss + self.colour_loss(radiance, truth, known)
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        processes.mean_of_gradients(*self.optimisers.values())
        for optimiser in self.optimisers.values():
            optimiser.step()
        shown, loss = processes.mean(self.shown_error(radiance, truth, known), loss.detach())
        return {"psnr": -10 * shown.clamp(min=1e-10).log10(), "loss": loss}, torch.zeros(2)

    def draw(self) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Rows of the covered pixels; and views and pixels of rays that pass beside the object: this process's share."""
        p, store = self.photographs, self.photographs.coverage
        count = round(_AROUND * self.config.rays)
        some = torch.randint(len(self.whole), (self.config.rays - count,), generator=self.generator, device=p.device)
        rows = self.whole[processes.share(some)]
        some = torch.randint(len(self.beside), (count,), generator=self.generator, device=p.device)
        index, x, y = store.locate(self.beside[processes.share(some)])
        return rows, (index, y * store.width[index] + x)

    def rays(self, view: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """Through the centres of pixels."""
        width = self.photographs.coverage.width[view]
        return self.photographs.cameras.rays(view, torch.stack([pixel % width, pixel // width], -1) + 0.5)

    def some_lights(self) -> Tensor:
        """Which of each camera's photographs this iteration learns from."""
        count = self.photographs.slots.shape[1]
        if count <= self.config.lights:
            return torch.arange(count, device=self.photographs.device)
        return torch.randperm(count, generator=self.generator, device=self.photographs.device)[: self.config.lights]

    def colour_loss(self, radiance: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        """Of radiances (N, J, 3) and of mixtures of them; `known` says where there is a truth.

        Squared and divided by the radiance itself, as noise and the eye's response are about that: the dark counts as well.
        """
        whole = known.all(-1, keepdim=True).float().transpose(1, 2)  # (N, 1, J)
        if self.means_only:
            weights = whole
        else:
            shape = (processes.count() * len(whole), self.config.mixtures, whole.shape[-1])
            drawn = torch.randn(shape, generator=self.generator, device=whole.device)
            weights = processes.share(drawn).square() * whole
        weights = weights / weights.mean(-1, keepdim=True).clamp(min=1e-6) / whole.shape[-1]
        loss = _relative(weights @ radiance, weights @ truth).mean()
        if not self.means_only:
            (weight,) = processes.weights(known.sum())
            loss = loss + weight * (_relative(radiance, truth) * known).sum() / known.sum().clamp(min=1)
        return loss

    def penalty(self) -> Tensor:
        c = self.config
        total = self.shape.penalty(c.eikonal, c.smooth, self.generator)
        return total + c.tv_appearance * self.decay * self.field.appearance_grid.total_variation()

    def shape_loss(self, found: Transfer, view: Tensor, coverage: Tensor) -> Tensor:
        """What holds for any light: the mask, solidity inside it, and normals that belong to the shape and are seen."""
        c = self.config
        opacity = found.opacity.clamp(1e-6, 1 - 1e-6)
        # Where a part c of a pixel is covered, the outline is c − 1/2 pixels from its middle: how opaque that is follows.
        beyond = torch.sigmoid(self.shape.slope * self.pixel_size[view] * (coverage - 0.5))
        covered = torch.where((coverage > 1 - _WHOLE) & (coverage < _WHOLE), beyond, coverage.round())
        loss = c.mask * binary_cross_entropy(opacity, covered) + c.compact * found.apart.mean()  # type: ignore[arg-type, union-attr]
        if not self.means_only:
            entropy = -(opacity * opacity.log() + (1 - opacity) * (1 - opacity).log())
            loss = loss + c.opaque * (entropy * (coverage > 0.999)).mean()
        seen = found.opacity.detach()
        apart = 1 - (found.normal * found.slope).sum(-1)
        away = (found.normal * found.view).sum(-1).clamp(max=0).square()
        return loss + (seen * (c.tie * apart + c.facing * away)).mean()

    @torch.no_grad()
    def shown_error(self, radiance: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        """Mean squared, as somebody would see the photographs, of some of the rays."""
        some = slice(0, 64 // processes.count())
        scale = self.field.exposure / self.unit
        error = encode_srgb(scale * radiance[some]) - encode_srgb(scale * truth[some])
        (weight,) = processes.weights(known[some].sum())
        return weight * (error.square() * known[some]).sum() / known[some].sum().clamp(min=1)

    # ------------------------------------------------------------------------------------ exact resume

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors, plain = super().state()
        more = {"visible": self.visible, "leaving": self.leaving, "uniform": self.uniform}
        return tensors | {k: v for k, v in more.items() if v is not None}, plain | {"slope": self.shape.slope}

    def recall(self, plain: dict) -> None:
        super().recall(plain)
        self.shape.slope = plain["slope"]

    @classmethod
    def resume(cls, config: Any, scene: Scene, tensors: dict[str, Tensor], plain: dict):
        self = super().resume(config, scene, tensors, plain)
        for name in ("visible", "leaving", "uniform"):
            if name in tensors:
                setattr(self, name, tensors[name].to(self.photographs.device))
        return self


def of_one_camera(config: RelightingConfig) -> RelightingConfig:
    """Photometric stereo: nothing says how deep the object is, shading says how its surface turns."""
    return replace(config, interior=False, diffuse=True, mean_until=0, rate_shape=0.0, tie=1e-2, facing=0.1, dim=0.5)


def _mixture(parts: Tensor, truth: Tensor) -> tuple[float, Tensor]:
    """What non-negative mixture of parts (P, ORDERS, 3) comes closest to (P, 3), in the sense of `_relative`: error and (ORDERS, 3)."""
    from scipy.optimize import nnls

    weight = (truth + 0.1).rsqrt()
    error, gains = 0.0, []
    for c in range(3):
        a = np.asarray((weight[:, None, c] * parts[..., c]).double().cpu())
        b = np.asarray((weight[:, c] * truth[:, c]).double().cpu())
        gain, rest = nnls(a, b)
        error += rest**2
        gains.append(gain)
    return error, torch.from_numpy(np.stack(gains, -1)).to(parts)


def _relative(radiance: Tensor, truth: Tensor) -> Tensor:
    return (radiance - truth).square() / (radiance.detach() + _DARK)
