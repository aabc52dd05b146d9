"""Light inside an object: how much of it gets to every place, and what of that leaves along a ray.

The shape a field has learned is taken for a medium that scatters evenly in all directions. Then light inside obeys

    Φ(x) = τ(x) + ω ∫ σ exp(−σ|x − y|) / (4π|x − y|²) Φ(y) dy        (Chandrasekhar: Radiative Transfer, 1950)

with the fluence Φ, its part τ = exp(−σ · way through the object) that comes straight from the light, the extinction σ and the albedo
ω; and a ray that leaves the object carries ∫ exp(−σ t) σ Φ dt / 4π. All of it is linear in the light, and nothing is negative.

What a material really does is left to be learned: a field mixes what has been scattered once with what two albedos make of it, place
by place and channel by channel. But where shadows fall, how far light glows through an ear, how a limb is brighter towards its lamp:
that follows from the shape, for lights that no photograph was taken in as well.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, embedding_bag, max_pool3d, normalize

from fields.core import ClearanceCache, accumulate_along_rays, exclusive_sum, march_rays
from fields.core.grids import dense_sample
from fields.radiance import cell_of
from fields.relighting.basis import fibonacci_sphere

if TYPE_CHECKING:
    from fields.relighting.field import TransferField
    from fields.relighting.lights import Light
    from fields.relighting.transfer import Illumination

ALBEDOS = (0.5, 0.98)
"""Of the media that are worked out. What lies between is a mixture of them."""
ORDERS = 1 + len(ALBEDOS)
"""Kinds of light that leave: scattered once, and what each albedo adds to that."""
SKY = 128
"""Directions from which light of a whole sky is looked for."""
PLACES = 6
"""Along a ray, at which light that leaves is asked for."""

_BALL = (3 / (4 * math.pi)) ** (1 / 3)  # radius of a ball as large as a cube of edge 1
_RAYS = 2**18  # marched at once
_FILLED = 0.05  # of a cell, for it to count


class Reach(NamedTuple):
    """What rays show of the interior: linear in its fluences."""

    knots: Tensor
    """(N, K) int32, of those inside."""
    shares: Tensor
    """(N, K) ≥ 0."""

    def of(self, fluence: Tensor) -> Tensor:
        """(N, C) radiance, of fluences (F, C)."""
        return embedding_bag(self.knots, fluence, per_sample_weights=self.shares.to(fluence), mode="sum")


class Interior:
    """The inside of an object, on cubic cells.

    Args:
        solid: (Nx, Ny, Nz) in [0, 1], even sides: how much of the space around each knot is filled.
        low: (3,) where the first knot is, scene units.
        spacing: of the knots.
        extinction: σ, one per scene unit.
    """

    def __init__(self, solid: Tensor, low: Tensor, spacing: float, extinction: float) -> None:
        self.spacing, self.extinction = spacing, extinction
        size = spacing * torch.tensor([n - 1 for n in solid.shape], device=low.device)
        self.aabb = torch.cat([low, low + size])
        self.solid = solid
        self.cells = (solid > _FILLED).nonzero(as_tuple=True)
        self.filled = solid[self.cells]
        """(F,) of the knots inside."""
        self.places = low + spacing * torch.stack(self.cells, -1)
        """(F, 3) and where they are."""
        # A ray is sampled where a cell between knots may have something in it.
        self._occupied = max_pool3d((solid > 0)[None, None].float(), 3, 1, 1)[0, 0] > 0
        self._clearance = ClearanceCache()
        self._way_to = functools.lru_cache(64)(self._arrival)
        self.lit = functools.lru_cache(2)(self._lit)

    @staticmethod
    @torch.no_grad()
    def of(field: TransferField, extinction: float, cells: int) -> Interior | None:
        """From the shape of a field; None if it has none.

        Args:
            cells: about so many for scattered light, of which each gives to every other; there are eight times as many for light
                that comes straight in.
        """
        box = field.aabb.view(2, 3)
        volume = float((box[1] - box[0]).prod())
        part = float((_solid(field, box[0], (volume / 40**3) ** (1 / 3)) > 0.5).float().mean())
        if part == 0:
            return None
        spacing = (volume * part / cells / 8) ** (1 / 3)
        return Interior(_solid(field, box[0], spacing), box[0], spacing, extinction)

    def with_extinction(self, extinction: float) -> Interior:
        """The same shape of another medium."""
        other = Interior(self.solid, self.aabb[:3], self.spacing, extinction)
        other._way_to = self._way_to
        return other

    # ------------------------------------------------------------------------------------ light that comes straight in

    def way(self, points: Tensor, towards: Tensor, far: Tensor | None = None) -> Tensor:
        """(N,): the length inside the object of rays from points (N, 3) along unit directions (N, 3), at most `far` (N,)."""
        n, step = len(points), self.spacing
        diagonal = (self.aabb[3:] - self.aabb[:3]).norm()
        far = diagonal.expand(n) if far is None else far.clamp(max=float(diagonal))
        _, _, rays, _, x = march_rays(
            points, towards, torch.zeros_like(far), far, self._clearance(self._occupied), self._cell_box, step,
            positions=True,
        )  # fmt: skip
        return step * accumulate_along_rays(self._filled(x), None, rays, n)[:, 0]

    def _arrival(self, light: Light) -> tuple[Tensor, Tensor | float]:
        """(F,) ways from every knot inside to a small light, and how much of its strength is left there."""
        if light.kind == "directional":
            return self.way(self.places, self.places.new_tensor(light.direction).expand_as(self.places)), 1.0
        away = self.places.new_tensor(light.position) - self.places
        far = away.norm(dim=-1).clamp(min=self.spacing)
        return self.way(self.places, normalize(away, dim=-1), far), 1 / far.square()

    def ways(self, towards: Tensor) -> Tensor:
        """(F, L): from every knot inside to lights in unit directions (L, 3)."""
        return torch.stack([self.way(self.places, one.expand_as(self.places)) for one in towards], -1)

    @functools.cached_property
    def sky(self) -> Tensor:
        """(F, SKY): how much comes straight in from directions all over the sphere."""
        return torch.exp(-self.extinction * self.ways(fibonacci_sphere(SKY).to(self.places)))

    def entering(self, illumination: Illumination) -> Tensor:
        """(F, 3): fluence that comes straight from all lights."""
        total = self.places.new_zeros(len(self.places), 3)
        for light in illumination.lights:
            way, weaker = self._way_to(replace(light, rgb=(1.0, 1.0, 1.0)))
            total = total + (torch.exp(-self.extinction * way) * weaker)[:, None] * total.new_tensor(light.rgb)
        for environment in illumination.environments:
            total = total + self.sky @ environment.spots(SKY).to(total)
        return total

    # ------------------------------------------------------------------------------------ and is scattered there

    def fluence(self, entering: Tensor) -> Tensor:
        """(F, ORDERS, C) of lights (F, C): what comes straight, and what each of the albedos adds."""
        coarse = self._pool(entering)
        # What is added, (1 − ω K)⁻¹ ω K x, is all there is in the end but for what came straight.
        added = [torch.linalg.lu_solve(*factors, coarse).sub_(coarse).clamp_(min=0) for factors in self._exchange]
        orders = self._unpool(torch.cat(added, -1)).split(entering.shape[1], -1)
        return torch.stack([entering, *orders], 1)

    @functools.cached_property
    def _exchange(self) -> list[tuple[Tensor, Tensor]]:
        """Factors of 1 − ω K for every albedo, where K (N, N) is how much of the fluence of each coarse cell gets to each other one."""
        fraction = self._fraction[self._coarse.unbind(-1)]
        edge, sigma = 2 * self.spacing, self.extinction
        places = edge * self._coarse
        distance = torch.cdist(places, places).clamp(min=edge / 2)
        spread = _between_middles(sigma * edge, sigma * distance) * fraction
        spread.diagonal().copy_(-torch.expm1(-_BALL * sigma * edge * fraction ** (1 / 3)))
        spread = spread / spread.sum(1, keepdim=True).clamp(min=1)  # to rounding no cell gets more than there is
        one = torch.eye(len(spread), device=spread.device, dtype=spread.dtype)
        return [torch.linalg.lu_factor(one - albedo * spread) for albedo in ALBEDOS]

    @functools.cached_property
    def _fraction(self) -> Tensor:
        return avg_pool3d(self.solid[None, None], 2)[0, 0]

    @functools.cached_property
    def _coarse(self) -> Tensor:
        return (self._fraction > _FILLED).nonzero()

    def _pool(self, values: Tensor) -> Tensor:
        """(F, C) to the means (N, C) of coarse cells."""
        dense = values.new_zeros(*self.solid.shape, values.shape[1])
        dense[self.cells] = self.filled[:, None] * values
        pooled = avg_pool3d(dense.permute(3, 0, 1, 2)[:, None], 2)[:, 0].permute(1, 2, 3, 0)
        x, y, z = self._coarse.unbind(-1)
        return pooled[x, y, z] / self._fraction[x, y, z, None]

    def _unpool(self, values: Tensor) -> Tensor:
        """(N, C) to (F, C): interpolated between coarse cells, of which only filled ones say anything."""
        dense = values.new_zeros(*self._fraction.shape, values.shape[1] + 1)
        x, y, z = self._coarse.unbind(-1)
        weight = self._fraction[x, y, z, None]
        dense[x, y, z] = torch.cat([weight * values, weight], -1)
        edge = 2 * self.spacing
        low = self.aabb[:3] + self.spacing / 2
        size = edge * torch.tensor([n - 1 for n in self._fraction.shape], device=low.device)
        found: Any = dense_sample((self.places - low) * (2 / size) - 1, dense)
        return found[:, :-1] / found[:, -1:].clamp(min=1e-4)

    @functools.cached_property
    def uniform(self) -> Tensor:
        """(F, ORDERS) of a sky of radiance 1."""
        return self.fluence(4 * math.pi * self.sky.mean(1, keepdim=True))[..., 0]

    # ------------------------------------------------------------------------------------ and leaves

    def _lit(self, illumination: Illumination) -> Tensor:
        """(F, ORDERS × 3) fluences under all lights. As `lit` it is worked out once for all rays."""
        return self.fluence(self.entering(illumination)).flatten(1)

    @torch.no_grad()
    def places_along(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Where what leaves towards the origins of rays (N, 3), (N, 3) was scattered last.

        Returns:
            (N, PLACES, 3), each of the same weight; and that of them all (N,): how much of the ray ends in the object.
        """
        n, step = len(origins), self.spacing / 2
        far = (self.aabb[3:] - self.aabb[:3]).norm().expand(n)
        starts, ends, rays, packed, x = march_rays(
            origins, directions, torch.zeros_like(far), far, self._clearance(self._occupied), self._cell_box, step,
            positions=True,
        )  # fmt: skip
        depth = self.extinction * step * self._filled(x)
        before = exclusive_sum(depth, packed_info=packed)
        weight = torch.exp(-before) * -torch.expm1(-depth)
        total = accumulate_along_rays(weight, None, rays, n)[:, 0]
        # Quantiles of all rays with one search: the k-th ray's share of its weight runs from k to k + 1.
        share = (exclusive_sum(weight, packed_info=packed) + weight / 2) / total[rays].clamp(min=1e-9)
        wanted = torch.arange(n, device=x.device, dtype=torch.float64)[:, None]
        wanted = wanted + (torch.arange(PLACES, device=x.device) + 0.5) / PLACES
        if len(x) == 0:
            return origins[:, None].expand(-1, PLACES, -1), total
        found = torch.searchsorted(rays.double() + share.clamp(0, 1 - 1e-6).double(), wanted)
        last = packed.sum(1, keepdim=True) - 1
        found = torch.minimum(torch.maximum(found, packed[:, :1]), torch.maximum(last, packed[:, :1]))
        at = ((starts + ends) / 2)[found.clamp(0, len(x) - 1)] * (packed[:, 1:] > 0)
        return origins[:, None] + at[..., None] * directions[:, None], total

    def reach(self, places: Tensor, weight: Tensor) -> Reach:
        """Which knots' fluences leave along rays with such `places_along`, and how much of each."""
        at = (places - self.aabb[:3]) / self.spacing
        sides = self._row.shape
        low = torch.stack([v.floor().clamp(0, n - 2) for v, n in zip(at.unbind(-1), sides, strict=True)], -1)
        up = (at - low).clamp(0, 1)
        i, j, k = low.long().unbind(-1)
        first = (i * sides[1] + j) * sides[2] + k
        knots, shares = [], []
        row, filled = self._row.flatten(), self.solid.flatten()
        for corner in itertools.product((0, 1), repeat=3):
            cell = first + (corner[0] * sides[1] + corner[1]) * sides[2] + corner[2]
            x, y, z = (v if c else 1 - v for c, v in zip(corner, up.unbind(-1), strict=True))
            knots.append(row[cell])
            shares.append(x * y * z * filled[cell] * (row[cell] >= 0))
        share = torch.stack(shares, -1)
        share = share / share.sum(-1, keepdim=True).clamp(min=1e-4)  # knots outside say nothing
        share = share * (weight / (4 * math.pi * places.shape[1]))[:, None, None]
        return Reach(torch.stack(knots, -1).clamp(min=0).flatten(1), share.flatten(1))

    @functools.cached_property
    def _row(self) -> Tensor:
        """(Nx, Ny, Nz) int32: where a knot is among those inside, or −1."""
        row = torch.full(self.solid.shape, -1, dtype=torch.int32, device=self.solid.device)
        row[self.cells] = torch.arange(len(self.places), dtype=torch.int32, device=row.device)
        return row

    # ------------------------------------------------------------------------------------ where things are

    @property
    def _cell_box(self) -> Tensor:
        """(6,): as many cells as knots, each around one of them."""
        half = self.spacing / 2
        return torch.cat([self.aabb[:3] - half, self.aabb[3:] + half])

    def _filled(self, x: Tensor) -> Tensor:
        """(M,) how much is filled around positions (M, 3) in [-1, 1] over the cells."""
        return self.solid[cell_of(x, self.solid.shape).unbind(-1)]


def _between_middles(edge: float, distance: Tensor) -> Tensor:
    """What part of the fluence of a cube comes from one at a distance, in mean free paths: as between their middles, but so that
    all cubes of endless space together give what they should."""

    def between(distance: Tensor) -> Tensor:
        return edge**3 * torch.exp(-distance) / (4 * math.pi * distance.square())

    far = min(max(math.ceil(6 / edge), 2), 40)  # cubes
    at = edge * torch.arange(-far, far + 1, dtype=torch.float64)
    lattice = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).norm(dim=-1)
    lattice = lattice[(lattice > 0) & (lattice <= far * edge)]
    wanted = math.exp(-_BALL * edge) - math.exp(-far * edge)
    return between(distance) * (wanted / float(between(lattice).sum()))


@torch.no_grad()
def _solid(field: TransferField, low: Tensor, spacing: float) -> Tensor:
    """(Nx, Ny, Nz) in [0, 1] from `low` on: what a ray does not get through; and what that encloses."""
    from scipy.ndimage import binary_fill_holes

    size = field.aabb[3:] - field.aabb[:3]
    counts = [2 * math.ceil((float(v) / spacing + 1) / 2) for v in size]
    axes = [low[a] + spacing * torch.arange(n, device=low.device, dtype=low.dtype) for a, n in enumerate(counts)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)
    solid = low.new_zeros(len(points))
    x = field.normalise(points)
    cell = cell_of(x, field.occupied.shape).unbind(-1)
    there = ((x.abs() <= 1).all(-1) & field.occupied[cell]).nonzero()[:, 0]
    for rows in there.split(_RAYS):
        solid[rows] = torch.sigmoid(field.level(x[rows]))  # what light is lost on the way there from outside
    solid = solid.view(counts)
    walls = solid > 0.5
    enclosed = torch.from_numpy(binary_fill_holes(np.asarray(walls.cpu()))).to(walls.device)
    return torch.where(enclosed & ~walls, 1.0, solid)
