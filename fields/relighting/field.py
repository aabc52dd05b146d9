"""The radiance transfer field: how much light from any direction leaves any point of an object, towards any eye.

Zhu, Saito, Bozic, Aliaga, Darrell, Lassner: Neural Relighting with Subsurface Scattering by Learning the Radiance Transfer Gradient,
arXiv 2306.09322, 2023, asks a field how transfer grows along a ray: its contribution is transmittance × density × transfer, and the
first two do not depend on the light. Ours keeps that, and makes the answer linear in the light by construction: transfer is a sum

    T = T_inside + T_scatter + T_reflect + T_direct

of what leaves the object's interior, followed there as in a medium and mixed by learned gains (`fields.relighting.interior`); what
goes through it or between its surfaces in other ways, as R non-negative responses to R soft lights (`fields.relighting.basis`); what its
rough surface mirrors; and what that reflects diffusely. Light is only ever multiplied in (`fields.relighting.transfer`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fields.core import accumulate_along_rays, distortion, ray_aabb_intersect
from fields.relighting.basis import LightBasis, fibonacci_sphere
from fields.relighting.brdf import albedo, reflect
from fields.relighting.develop import Tonemap, develop
from fields.relighting.environment import Environment
from fields.relighting.interior import ORDERS, SKY, Interior
from fields.relighting.response import Response
from fields.relighting.transfer import Illumination, Parts, Transfer
from fields.rendering import Rendering
from fields.tensorf.field import TensoRF
from fields.tensors.colour import spherical_harmonics

_NARROWEST = 0.04  # α of the lobe: below it a map would have to be sharper than the ladder of blurred ones is
_BEHIND = 0.15  # how much a soft light behind a surface counts at first, one in front being 1
_AROUND = [[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]  # to find a slope
_APART = 0.75  # knots from there along each axis: nearer there are kinks, further away surfaces are too much curved
_CLEAR = 2.0  # knots that a ray to a light starts above the surface, which is that thick


class Looks(NamedTuple):
    """What a place looks like from one direction; see `fields.relighting.transfer.Transfer`."""

    normal: Tensor
    scatter: Tensor
    at_normal: Tensor
    at_grazing: Tensor
    width: Tensor
    diffuse: Tensor
    gains: Tensor
    room: Tensor


class TransferHead(nn.Module):
    """Features of a place, and a direction to look from, to its transfer.

    Nothing gives more than it gets: what the surface mirrors is taken from what is left, and of that a share is scattered, a share
    is diffused and a share is lost (a softmax, per colour channel).

    Args:
        channels: width of the products of factors.
        feature_dim: width of the features that a matrix mixes them into.
        hidden: width of the networks' hidden layers.
        rank: number of soft lights.
    """

    reflects = True
    """Whether the surface mirrors anything."""
    diffuses = True
    """Whether it reflects anything diffusely."""

    def __init__(self, channels: int, feature_dim: int, hidden: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.features = nn.Linear(channels, feature_dim, bias=False)
        # Of the place alone: normal, width of the lobe, reflectance straight on and at grazing angles, and the shares.
        self.place = nn.Sequential(nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Linear(hidden, 3 + 1 + 3 + 1 + 9))
        # And of the eye: how what is scattered spreads over the soft lights, and how much of it comes out this way.
        self.scatter = nn.Sequential(
            nn.Linear(feature_dim + 18, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 3 * (rank + 1)),
        )  # fmt: skip
        # And how what the interior sends differs from what it does on the whole.
        self.gains = nn.Sequential(
            nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Linear(hidden, 3 * ORDERS, bias=False)
        )  # fmt: skip
        self.log_gains = nn.Parameter(torch.zeros(ORDERS, 3))
        # Products of factors start small; networks like their inputs at one.
        nn.init.normal_(self.features.weight, std=2.0)
        with torch.no_grad():
            self.gains[2].weight.mul_(0.1)  # type: ignore[operator]
        self.begin((0.0, -4.0, 0.0))

    @torch.no_grad()
    def begin(self, shares: Sequence[float]) -> None:
        """Anew, with such shares of what is scattered, diffused and lost: logits."""
        for network in (self.place, self.scatter):
            for layer in network:
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
        last: Any = self.place[-1]
        last.bias.copy_(torch.tensor([0.0] * 3 + [-0.5] + [-3.0] * 4 + [*shares] * 3))  # a rough, dark gloss

    @torch.no_grad()
    def begin_inside(self, gains: Tensor) -> None:
        """From now on most light leaves from the interior, mixed by gains (ORDERS, 3); the rest has to be learned anew."""
        self.log_gains.copy_(gains.clamp(min=1e-2 * float(gains.max())).log())
        self.begin((-3.0, -4.0, 0.0))

    def forward(self, features: Tensor, view: Tensor, outward: Tensor, soft_lights: Tensor) -> Looks:
        """
        Args:
            features: (N, feature_dim).
            view: (N, 3) unit, towards the eye.
            outward: (N, 3) unit, a first guess of the normal.
            soft_lights: (R, 3) unit, where they are: what has not been learned yet answers to those in front of it.
        """
        turn, width, at_normal, at_grazing, shares = self.place(features).split([3, 1, 3, 1, 9], -1)
        normal = normalize(outward + turn, dim=-1)
        width = _NARROWEST + (1 - _NARROWEST) * torch.sigmoid(width[:, 0])
        n_v = (normal * view).sum(-1)
        at_normal, at_grazing = (torch.sigmoid(v) * float(self.reflects) for v in (at_normal, at_grazing.expand(-1, 3)))
        whole, rise = albedo(n_v, width)
        left = 1 - (at_normal * (whole - rise)[:, None] + at_grazing * rise[:, None])

        around = torch.cat([features, spherical_harmonics(view), spherical_harmonics(normal)], -1)
        spread, more = self.scatter(around).view(-1, self.rank + 1, 3).split([self.rank, 1], 1)
        spread = spread + ((normal @ soft_lights.T).clamp(min=0) + _BEHIND).log()[..., None]
        logits = shares.view(-1, 3, 3)  # scattered, diffused, lost; by channel
        logits = torch.stack([logits[:, 0] + more[:, 0], logits[:, 1], logits[:, 2]], 1)
        if not self.diffuses:
            logits = torch.stack([logits[:, 0], torch.full_like(logits[:, 1], -torch.inf), logits[:, 2]], 1)
        scattered, diffused, rest = (left[:, None] * torch.softmax(logits, 1)).unbind(1)
        differ = torch.tanh(self.gains(features)).view(-1, ORDERS, 3)
        gains = torch.exp(self.log_gains + differ)
        scatter = scattered[:, None] * torch.softmax(spread, 1)
        return Looks(normal, scatter, at_normal, at_grazing, width, diffused, gains, rest)


class TransferField(TensoRF):
    """A density, and features that are decoded to transfer, over a box.

    The features of a ray are those of its samples, averaged by how much of each is seen, and are decoded once per ray: a surface is
    a few samples thick, and a network per ray is many times cheaper than one per sample.

    Args:
        rank, lobes, sharpness: of the light's basis, see `fields.relighting.basis.LightBasis`.
        feature_dim, hidden: see `TransferHead`.
        reflect, diffuse: whether the surface does, beside the scattering.
        cells: about so many of the interior.
        exposure: what linear radiance is multiplied by to be looked at.
        grid: the rest of the arguments of `fields.tensorf.field.TensoRF`.
    """

    level_set = True
    head_class: type[TransferHead] = TransferHead
    basis_class: type[LightBasis] = LightBasis
    decoder: TransferHead  # type: ignore[assignment]
    extinction: Tensor
    """() of the interior, one per scene unit; 0 while nothing is scattered in it."""

    def __init__(
        self, *, rank: int = 24, lobes: int = 64, sharpness: float = 8.0, feature_dim: int = 27, hidden: int = 128,
        reflect: bool = True, diffuse: bool = False, cells: int = 3000, exposure: float = 1.0, **grid: Any,
    ) -> None:  # fmt: skip
        super().__init__(decoder="rgb", **grid)
        self.arguments = {
            k: v for k, v in self.arguments.items() if k not in ("decoder", "feature_dim", "hidden", "frequencies")
        }
        self.arguments |= {
            "rank": rank, "lobes": lobes, "sharpness": sharpness, "feature_dim": feature_dim, "hidden": hidden,
            "reflect": reflect, "diffuse": diffuse, "cells": cells, "exposure": exposure,
        }  # fmt: skip
        self.decoder = self.head_class(self.appearance_grid.channels, feature_dim, hidden, rank)
        self.decoder.reflects, self.decoder.diffuses = reflect, diffuse
        self.basis = self.basis_class(rank, lobes, sharpness)
        self.register_buffer("extinction", torch.zeros(()))
        self._interior: tuple[Any, Interior | None] = (None, None)
        self.cells, self.exposure = cells, exposure
        self.illumination = Illumination.of(Environment.constant((1.0, 1.0, 1.0)))
        self.tonemap: Tonemap = "srgb"
        self.shown: Sequence[str] = Parts._fields

    # ------------------------------------------------------------------------------------ rays before there is light

    def transfer(
        self, origins: Tensor, directions: Tensor, jitter: Tensor | None = None, around: bool = True
    ) -> Transfer:
        """What is known of rays (N, 3) with unit directions, scene units, before there is light.

        Args:
            around: also `look_around`, where no gradients are asked for.

        Gradients: to everything but the visibilities.
        """
        n = len(origins)
        if torch.is_grad_enabled():
            x, t_starts, t_ends, rays, weights, _ = self.in_sight(origins, directions, jitter)
            opacity = accumulate_along_rays(weights, None, rays, n)[:, 0]
            depth = accumulate_along_rays(weights, ((t_starts + t_ends) / 2)[:, None], rays, n)[:, 0]
            apart = distortion(weights, t_starts, t_ends, ray_indices=rays, n_rays=n)[:, 0] / self.knot
            shown = (weights.detach() > self.shading_threshold).nonzero()[:, 0]
            x, rays, weights = x[shown], rays[shown], weights[shown]
        else:
            seen = self.visible(origins, directions, self.span(origins, directions, jitter), self.shading_threshold)
            apart = None
            x, rays, weights, opacity, depth = seen.x, seen.ray_indices, seen.weights, seen.opacity, seen.depth
        share = accumulate_along_rays(weights, None, rays, n).clamp(min=1e-6)
        features = accumulate_along_rays(weights, self.features(x), rays, n) / share
        outward = normalize(accumulate_along_rays(weights.detach(), self.outward(x), rays, n), dim=-1)
        looks = self.decoder(features, -directions, outward, self.basis.places())
        point = origins + directions * (depth / opacity.clamp(min=1e-6))[:, None]
        found = Transfer(opacity=opacity, depth=depth, point=point.detach(), view=-directions, slope=outward,
                         mirrored=torch.ones_like(depth), apart=apart, **looks._asdict())  # fmt: skip
        return self.look_around(found) if around and not torch.is_grad_enabled() else found

    def look_around(self, found: Transfer) -> Transfer:
        """Marches from every ray's end to where its light may come from."""
        hit = (found.opacity > 0.5).nonzero()[:, 0]
        if (inside := self.inside()) is not None:
            self.look_inside(found, inside)
        if self.decoder.reflects:
            mirror = reflect(found.view[hit], found.normal[hit])
            found.mirrored[hit] = self.visibility(found.point[hit], found.normal[hit], mirror)
        if self.decoder.diffuses:
            directions = fibonacci_sphere(SKY).to(found.point)
            found.sky = found.point.new_zeros(len(found), SKY)
            for part in hit.split(4096):
                point, normal = (v[part].repeat_interleave(SKY, 0) for v in (found.point, found.normal))
                found.sky[part] = self.visibility(point, normal, directions.repeat(len(part), 1)).view(-1, SKY)
        return found

    def inside(self) -> Interior | None:
        """The interior as it is now, or None; worked out again only when the shape has changed."""
        tensors = [*self.density_grid.factors, self.aabb, self.occupied, self.extinction]
        state = [(id(v), -1 if v.is_inference() else v._version) for v in tensors]
        if self._interior[0] != state:
            extinction = float(self.extinction)
            self._interior = state, Interior.of(self, extinction, self.cells) if extinction > 0 else None
        return self._interior[1]

    @torch.no_grad()
    def look_inside(self, found: Transfer, inside: Interior) -> Transfer:
        """Finds where rays go on to, beneath the surface they end at."""
        found.places, found.ends = inside.places_along(*self.from_above(found, inside))
        return found

    def from_above(self, found: Transfer, inside: Interior) -> tuple[Tensor, Tensor]:
        """The same rays, starting a little above the surface: origins and directions (N, 3)."""
        return found.point + _CLEAR * inside.spacing * found.view, -found.view

    @torch.no_grad()
    def visibility(self, points: Tensor, normals: Tensor, towards: Tensor) -> Tensor:
        """(N,) in [0, 1]: how much comes through to surfaces at (N, 3), normals (N, 3), from unit directions (N, 3).

        Nothing from behind a surface. The rays start a little above it, for it has a thickness.
        """
        n_l = (normals * towards).sum(-1)
        faces = (n_l > 0).nonzero()[:, 0]
        origins = points[faces] + _CLEAR * self.knot * normals[faces]
        seen = self.visible(origins, towards[faces], self.way_out(origins, towards[faces]), torch.inf)
        visible = torch.zeros_like(n_l)
        visible[faces] = 1 - seen.opacity
        return visible

    def way_out(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """From inside the box, where rays (N, 3) begin and where they leave it (N,)."""
        _, leave, hits = ray_aabb_intersect(origins, directions, self.aabb[None], 0.0, torch.inf)
        leave = torch.where(hits[:, 0], leave[:, 0], 0.0)
        return torch.zeros_like(leave), leave

    # ------------------------------------------------------------------------------------ what every field can do

    @torch.no_grad()
    def outward(self, x: Tensor) -> Tensor:
        """As of every field, but the mean around each position: interpolation between knots has kinks at every one of them."""
        apart = x.new_tensor(_AROUND) * (_APART * self.knot * 2 / (self.aabb[3:] - self.aabb[:3]))
        _, slope = self.density_grid((x + apart[:, None]).clamp(-1, 1).view(-1, 3), "sum", jacobian=True)
        return normalize(-slope.view(len(apart), -1, 3).sum(0) / (self.aabb[3:] - self.aabb[:3]), dim=-1)

    def features(self, x: Tensor) -> Tensor:
        return self.decoder.features(self.appearance_grid(x))

    def colour(self, x: Tensor, directions: Tensor) -> Tensor:
        """sRGB (N, 3) under the field's illumination, were everything visible."""
        outward = self.outward(x)
        looks = self.decoder(self.features(x), -directions, outward, self.basis.places())
        one = torch.ones(len(x), device=x.device)
        sky = one[:, None].expand(-1, SKY) if self.decoder.diffuses else None
        seen = Transfer(opacity=one, depth=one, point=self.denormalise(x), view=-directions, slope=outward, mirrored=one,
                        sky=sky, **looks._asdict())  # fmt: skip
        if (inside := self.inside()) is not None:
            self.look_inside(seen, inside)
        return self.developed(Response(seen, self).lit(self.illumination), one[:, None])

    def render_rays(
        self, origins: Tensor, directions: Tensor, background: Tensor | None = None, jitter: Tensor | None = None
    ) -> Rendering:
        """As of every field: under `illumination`, developed with `exposure`."""
        behind = torch.ones(3, device=origins.device) if background is None else background
        found = self.transfer(origins, directions, jitter)
        opacity = found.opacity[:, None]
        colour = self.developed(Response(found, self).lit(self.illumination), opacity)
        return Rendering(opacity * colour + (1 - opacity) * behind, found.depth, found.opacity, normal=found.normal)

    def developed(self, parts: Parts, opacity: Tensor) -> Tensor:
        """(N, 3) in [0, 1]: the parts that are `shown`, by `exposure` and `tonemap`; straight, not multiplied by opacity (N, 1)."""
        radiance = sum((getattr(parts, name) for name in self.shown), start=torch.zeros_like(parts.scattered))
        return develop(radiance / opacity.clamp(min=1e-6), math.log2(self.exposure), self.tonemap)

    @contextmanager
    def under(self, illumination: Illumination) -> Iterator[None]:
        """Within, this is the light in which the field is seen."""
        before, self.illumination = self.illumination, illumination
        try:
            yield
        finally:
            self.illumination = before
