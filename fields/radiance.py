"""Radiance fields over a box, and their volume rendering: what the methods that march rays share.

A method says what density and colour are at a point; marching, compositing and occupancy are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fields.core import (
    ClearanceCache,
    accumulate_along_rays,
    crossings,
    march_rays,
    ray_aabb_intersect,
    render_weight_from_density,
    rises,
)
from fields.rendering import Field, Rendering

_PASSES = 1e-4  # of the light: what lies behind less is neither differentiated nor coloured


@dataclass(frozen=True)
class Room:
    """How many samples to make memory for where their numbers are not asked for."""

    samples: int
    """On all rays."""
    coloured: int
    """Of them."""


@dataclass(frozen=True)
class Crop:
    """A box that may be turned."""

    world_from_box: Tensor
    """(4, 4) rigid."""
    size: Tensor
    """(3,) whole edges, scene units; the middle of the box is its origin."""

    def span(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (N,) along unit directions at which rays enter and leave; leaving before entering where they miss."""
        rotation, middle = self.world_from_box[:3, :3], self.world_from_box[:3, 3]
        start, along = (origins - middle) @ rotation, directions @ rotation
        along = torch.where(along == 0, 1e-12, along)
        one, other = (-self.size / 2 - start) / along, (self.size / 2 - start) / along
        return torch.minimum(one, other).amax(-1), torch.maximum(one, other).amin(-1)


class RadianceField(Field):
    """A density and a colour at every point of a box.

    Args:
        aabb: lowest and highest corner, six numbers in scene units.
        near, far: distances along the unit ray between which is marched.
        occupancy_resolution: cells along x, y, z of the grid of occupied cells.
        density_shift: σ = softplus(feature + shift).
        distance_scale: optical depth per unit of σ and length.
        step_ratio: marching step in units of the method's knot spacing.
        shading_threshold: samples of lower weight are not coloured.
    """

    aabb: Tensor
    occupied: Tensor
    level_set = False
    """Whether density tells how deep below a surface a place is, so that light is lost to its rise along a ray (see
    `fields.core.rises`); else to its integral. `render_rays_in` knows integrals only."""
    crop: Crop | None = None
    """What rays see is cut to this box; see `cropped`."""

    def __init__(
        self,
        *,
        aabb: list[float],
        near: float,
        far: float,
        occupancy_resolution: list[int],
        density_shift: float,
        distance_scale: float,
        step_ratio: float,
        shading_threshold: float,
    ) -> None:
        super().__init__()
        self.near, self.far = near, far
        self.density_shift, self.distance_scale = density_shift, distance_scale
        self.step_ratio, self.shading_threshold = step_ratio, shading_threshold
        self.register_buffer("aabb", torch.tensor(aabb, dtype=torch.float32))
        self.register_buffer("occupied", torch.ones(*occupancy_resolution, dtype=torch.bool))
        self._clearance = ClearanceCache()

    # ------------------------------------------------------------------------------------ what a method says

    @property
    def step_size(self) -> float:
        """Marching step in scene units."""
        raise NotImplementedError

    def density_feature(self, x: Tensor) -> Tensor:
        """(N,) at normalised positions (N, 3), before the softplus."""
        raise NotImplementedError

    def colour(self, x: Tensor, directions: Tensor) -> Tensor:
        """sRGB colour (N, 3) at normalised positions (N, 3) seen along unit directions (N, 3)."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """(N, C) what colour is decoded from at normalised positions (N, 3), whatever the direction."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------ what follows from it

    def normalise(self, points: Tensor) -> Tensor:
        """Scene coordinates (N, 3) to [-1, 1] over the box."""
        return (points - self.aabb[:3]) * (2 / (self.aabb[3:] - self.aabb[:3])) - 1

    def denormalise(self, x: Tensor) -> Tensor:
        """[-1, 1] over the box (N, 3) to scene coordinates."""
        return torch.addcmul(self.aabb[:3], x + 1, (self.aabb[3:] - self.aabb[:3]) / 2)

    def level(self, x: Tensor) -> Tensor:
        """(N,) at normalised positions (N, 3): of a level set, how deep below the surface they are, in units of its thickness."""
        return self.density_feature(x) + self.density_shift

    def density(self, x: Tensor) -> Tensor:
        """σ (N,) at normalised positions (N, 3), before `distance_scale`: the softplus of TensoRF, section 4.3."""
        return nn.functional.softplus(self.level(x))

    def render_rays(
        self, origins: Tensor, directions: Tensor, background: Tensor | None = None, jitter: Tensor | None = None
    ) -> Rendering:
        """Volume rendering (TensoRF, eq. 1) of rays with unit directions.

        Args:
            origins, directions: (N, 3) in scene units.
            background: (3,) or (N, 3) sRGB; white by default.
            jitter: (N,) in [0, 1), the offset of each ray's samples in steps; none by default.

        Gradients: of rgb, depth and opacity to the field's parameters.

        On a GPU the host waits three times: for the number of samples on the rays, of those in sight, and of those that
        are coloured; memory for each has to be found.
        """
        n = origins.shape[0]
        behind = torch.ones(3, device=origins.device) if background is None else background
        x, t_starts, t_ends, rays, weights, made = self.in_sight(origins, directions, jitter)
        shaded = (weights.detach() > self.shading_threshold).nonzero()[:, 0]
        on_rays = rays[shaded]
        colour = self.colour(x[shaded], directions[on_rays])
        rgb = accumulate_along_rays(weights[shaded], colour, on_rays, n)
        opacity = accumulate_along_rays(weights, None, rays, n)
        depth = accumulate_along_rays(weights, ((t_starts + t_ends) / 2)[:, None], rays, n)[:, 0]
        return Rendering(
            rgb + (1 - opacity) * behind, depth, opacity[:, 0], samples=torch.tensor([made, len(shaded)], device="cpu")
        )

    def render_rays_in(
        self, room: Room, origins: Tensor, directions: Tensor, background: Tensor, jitter: Tensor | None = None
    ) -> Rendering:
        """`render_rays` in tensors of given sizes, so that the host never waits and a CUDA graph can record it.

        Where the numbers of samples reach the room, some may be missing.
        """
        n = origins.shape[0]
        t_starts, t_ends, rays, x, packed = self.march(origins, directions, jitter, room.samples)
        sigmas = self.density(x) * self.distance_scale
        weights, transmittance, _ = render_weight_from_density(t_starts, t_ends, sigmas, packed_info=packed)
        weights = weights * (transmittance > _PASSES)
        shows = weights.detach() > self.shading_threshold
        shaded, count = first_of(shows, room.coloured)
        real = torch.arange(room.coloured, device=x.device) < count
        on_rays = torch.where(real, rays[shaded], n)
        colour = self.colour(x[shaded], directions[on_rays.clamp(max=n - 1)])
        rgb = accumulate_along_rays(weights.gather(0, shaded) * real, colour, on_rays, n)
        opacity = accumulate_along_rays(weights, None, rays, n)
        depth = accumulate_along_rays(weights, ((t_starts + t_ends) / 2)[:, None], rays, n)[:, 0]
        used = torch.stack([packed[:, 1].sum(), count])
        return Rendering(rgb + (1 - opacity) * background, depth, opacity[:, 0], samples=used)

    def march(
        self, origins: Tensor, directions: Tensor, jitter: Tensor | None = None, room: int | None = None
    ) -> tuple[Tensor, ...]:
        """Packed samples in occupied cells: t_starts, t_ends, ray_indices (M,), normalised positions (M, 3), and
        packed_info (N, 2). For `room` see `march_rays`. The positions are in the middle; of a level set, at the end."""
        t_min, t_max = self.span(origins, directions, jitter)
        t_starts, t_ends, rays, packed, x = march_rays(
            origins, directions, t_min, t_max, self._clearance(self.occupied), self.aabb, self.step_size,
            positions=True, room=room,
        )  # fmt: skip
        if self.level_set:
            half = (t_ends - t_starts) / 2
            t_starts, t_ends = t_starts - half, t_ends - half
        return t_starts, t_ends, rays, x, packed

    def weights(self, x: Tensor, t_starts: Tensor, t_ends: Tensor, rays: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Weights and transmittance (M,) of packed samples on n rays."""
        return self._weights(self.level(x), t_starts, t_ends, rays, n)

    def _weights(self, levels: Tensor, t_starts: Tensor, t_ends: Tensor, rays: Tensor, n: int) -> tuple[Tensor, Tensor]:
        sigmas = nn.functional.softplus(levels)
        if self.level_set:
            sigmas, t_starts, t_ends = rises(sigmas, rays), torch.zeros_like(t_starts), torch.ones_like(t_ends)
        else:
            sigmas = sigmas * self.distance_scale
        weights, transmittance, _ = render_weight_from_density(t_starts, t_ends, sigmas, ray_indices=rays, n_rays=n)
        return weights, transmittance

    def span(self, origins: Tensor, directions: Tensor, jitter: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Where rays enter and leave the box (N,), between near and far; an empty span where they miss it."""
        t_min, t_max, hits = ray_aabb_intersect(origins, directions, self.aabb[None], self.near, self.far)
        t_min, t_max = t_min[:, 0], torch.where(hits[:, 0], t_max[:, 0], t_min[:, 0])
        if self.crop is not None:
            enter, leave = self.crop.span(origins, directions)
            t_min = torch.maximum(t_min, enter)
            t_max = torch.maximum(torch.minimum(t_max, leave), t_min)
        return (t_min if jitter is None else t_min + jitter * self.step_size), t_max

    def in_sight(self, origins: Tensor, directions: Tensor, jitter: Tensor | None = None) -> tuple[Any, ...]:
        """Samples in sight: middles x, t_starts, t_ends, rays and weights (M, …); and of how many they are what is seen."""
        n = origins.shape[0]
        t_starts, t_ends, rays, x, _ = self.march(origins, directions, jitter)
        with torch.no_grad():  # a cheap look ahead: what lies behind a surface needs neither gradients nor colour
            levels = self.level(x)
            weights, transmittance = self._weights(levels, t_starts, t_ends, rays, n)
            visible = (transmittance > _PASSES).nonzero()[:, 0]
        made = len(x)
        if len(visible) < made:
            x, t_starts, t_ends, rays, weights, levels = (
                v[visible] for v in (x, t_starts, t_ends, rays, weights, levels)
            )
        if torch.is_grad_enabled():
            weights, _ = self.weights(x, t_starts, t_ends, rays, n)
        if self.level_set:  # from the middle between two samples to where the light is lost
            further = (crossings(levels, rays) - 0.5) * (t_ends - t_starts)
            t_starts, t_ends = t_starts + further, t_ends + further
            x = self.normalise(origins[rays] + directions[rays] * ((t_starts + t_ends) / 2)[:, None])
        return x, t_starts, t_ends, rays, weights, made

    @torch.no_grad()
    def accumulate(self, origins: Tensor, directions: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, C): what `of` says of normalised positions (M, 3), each by the part of the ray's light that is from there."""
        x, _, _, rays, weights, _ = self.in_sight(origins, directions)
        shown = (weights > self.shading_threshold).nonzero()[:, 0]
        return accumulate_along_rays(weights[shown], of(x[shown]), rays[shown], origins.shape[0])

    def outward(self, x: Tensor) -> Tensor:
        """(N, 3) unit, world frame: down the slope of the density at normalised positions (N, 3); zero where it has none."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.density_feature(x).sum(), x)
        return normalize(-slope / (self.aabb[3:] - self.aabb[:3]), dim=-1)

    def normals(self, origins: Tensor, directions: Tensor) -> Tensor:
        """(N, 3) unit, world frame: the mean of `outward` along each ray; zero where it meets nothing."""
        return normalize(self.accumulate(origins, directions, self.outward), dim=-1)

    @contextmanager
    def cropped(self, box: Crop | None) -> Iterator[None]:
        """Within, rays see what lies in a box, and from any distance: `near` and `far` are those of the training cameras,
        and whoever looks may stand closer or further away."""
        before = self.crop, self.near, self.far
        self.crop, self.near, self.far = box, 0.0, math.inf
        try:
            yield
        finally:
            self.crop, self.near, self.far = before

    # ------------------------------------------------------------------------------------ occupancy

    @torch.no_grad()
    def opacity_grid(self, resolution: tuple[int, int, int]) -> Tensor:
        """Opacity of one step (without `distance_scale`, as in TensoRF's code) at the centres of a grid of cells."""
        opacity = torch.empty(resolution, device=self.aabb.device)
        y, z = (centres(k, self.aabb.device) for k in resolution[1:])
        for i, x in enumerate(centres(resolution[0], self.aabb.device)):
            points = torch.stack(torch.meshgrid(x[None], y, z, indexing="ij"), dim=-1).view(-1, 3)
            opacity[i] = -torch.expm1(-self.density(points) * self.step_size).view(resolution[1:])
        return opacity

    @torch.no_grad()
    def reaches(self, origins: Tensor, directions: Tensor) -> Tensor:
        """(N,) bool: whether rays pass an occupied cell, looking every half cell of their whole way through the box."""
        cells = torch.tensor(self.occupied.shape, device=self.aabb.device)
        step = 0.5 * float(((self.aabb[3:] - self.aabb[:3]) / cells).min())
        clearance = self._clearance(self.occupied)
        span = self.span(origins, directions)
        return march_rays(origins, directions, *span, clearance, self.aabb, step, limit=1)[3][:, 1] > 0


def first_of(mask: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """Where a mask (M,) holds, ascending, in (room,) int64 with other places behind; and () how many places hold.

    What `nonzero` says, but without asking a GPU how much memory it takes; places that have no room are left out.
    """
    rank = mask.cumsum(0)
    slot = torch.where(mask & (rank <= room), rank - 1, room)  # the last one takes what is to be dropped
    index = torch.arange(len(mask), device=mask.device)
    # Behind: places all over, so that nothing adds to one of them over and over.
    found = (torch.arange(room + 1, device=mask.device) % len(mask)).scatter_(0, slot, index)
    return found[:room], rank[-1].clamp(max=room)


def cell_of(x: Tensor, resolution: Sequence[int]) -> Tensor:
    """(N, 3) int64: which cell of a grid over [-1, 1] holds each position (N, 3), the nearest for those outside."""
    sizes = torch.tensor(resolution, device=x.device)
    return ((x + 1) / 2 * sizes).long().clamp(min=0).minimum(sizes - 1)


def dilate(cells: Tensor) -> Tensor:
    """(Nx, Ny, Nz) bool: those, and the 26 around each."""
    return nn.functional.max_pool3d(cells[None, None].float(), 3, 1, 1)[0, 0] > 0


def cell_centres(resolution: Sequence[int], device: torch.device) -> Tensor:
    """(Nx · Ny · Nz, 3) of cells that fill [-1, 1]³, z fastest."""
    axes = [centres(n, device) for n in resolution]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)


def centres(n: int, device: torch.device) -> Tensor:
    """Centres of n cells that fill [-1, 1]."""
    return (torch.arange(n, device=device) + 0.5) * (2 / n) - 1
