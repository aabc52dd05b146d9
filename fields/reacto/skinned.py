"""REACTO as published: one canonical field that bones bend, almost rigidly.

Song, Wei, Foo, Lin, Liu: REACTO: Reconstructing Articulated Objects from a Single Video. CVPR 2024. Its training code was never released; the canonical
field is a level set on tensorial factors here, and motion begins as what optical flow says (`fields.reacto.joints`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from fields.core import (
    accumulate_along_rays,
    march_rays,
    occupancy_clearance,
    ray_aabb_intersect,
    render_weight_from_density,
    rises,
)
from fields.geometry.rigid import inverse, move, within
from fields.radiance import dilate
from fields.reacto.bones import Bones, Skin
from fields.reacto.dual_quaternions import blended, carried, dual_quaternions
from fields.reacto.field import COLOURS, MovingField, PartField
from fields.reacto.screws import exponential
from fields.rendering import Rendering

_KNOT = 4.0  # frames, that knots of the motion's splines are apart
_LIVE = 0.01  # of its weight: where less of a place is of a bone, rays of that bone do not look
_REACH = 3**0.5  # radii, to the corners of the scene's box
_CHUNK = 65_536


class Warped(NamedTuple):
    """Samples of rays; lengths are radii of the scene's box, about its middle."""

    rays: Tensor
    """(M,) ascending, nearest first."""
    posed: Tensor
    """(M, 3) where they are."""
    canonical: Tensor
    """(M, 3) where that was taken from."""
    skin: Skin
    weights: Tensor
    """(M,) by how much each shows."""


class SkinnedField(MovingField):
    """A canonical field, bones in it, and their motion.

    Args:
        shape: constructor arguments of the canonical field, whose lengths are radii of the scene's box, about its middle.
        bones: how many.
        times: of the frames that were learned from, ascending.
        aabb: around all of it in all those frames, six numbers in scene units.
        blend: of motions: "dual-quaternion"; "linear", of matrices; "hard", of the bone with the most weight only.
        isotropic: bones are balls.
    """

    aabb: Tensor
    begun: Tensor
    basis: Tensor
    sharpness: Tensor

    def __init__(
        self,
        *,
        shape: dict,
        bones: int,
        times: list[float],
        aabb: list[float],
        blend: str = "dual-quaternion",
        isotropic: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.bones = PartField(**shape), Bones(bones, isotropic)
        self.times, self.blend, self.isotropic = list(times), blend, isotropic
        self.register_buffer("aabb", torch.tensor(aabb, dtype=torch.float32))
        self.register_buffer("begun", torch.eye(4).repeat(len(times), bones, 1, 1))
        """(T, B, 4, 4) rigid: what moved the canonical places of a bone in each frame, at first."""
        self.register_buffer("basis", _splines(times), persistent=False)
        self.knots = nn.Parameter(torch.zeros(self.basis.shape[1], bones, 6))
        """(K, B, 6) of the splines in time, of twists that come on top."""
        self.register_buffer("sharpness", torch.tensor(1.0))
        """γ."""
        self.live: list[Tensor] = []
        """Where each bone has a say, as `march_rays` wants it; empty where that is to be found."""

    def constructor_arguments(self) -> dict:
        return {"shape": self.shape.constructor_arguments(), "bones": len(self.bones), "times": self.times, "aabb": self.aabb.tolist(),
                "blend": self.blend, "isotropic": self.isotropic}  # fmt: skip

    # ------------------------------------------------------------------------------------ motion

    def motions(self) -> Tensor:
        """(T, B, 4, 4) of bones, from the canonical places to those in each frame that was learned from."""
        twists = torch.einsum("tk,kbi->tbi", self.basis, self.knots)
        return exponential(twists) @ self.begun

    @torch.no_grad()
    def states_at(self, time: float) -> Tensor:
        """(B, 4, 4) the motions, between frames by cubic splines; before the first and after the last, those."""
        from scipy.interpolate import CubicSpline
        from scipy.spatial.transform import Rotation, RotationSpline

        known, time = self.motions().double().cpu().numpy(), min(max(time, self.times[0]), self.times[-1])
        there = np.tile(np.eye(4), (len(self.bones), 1, 1))
        there[:, :3, 3] = CubicSpline(self.times, known[..., :3, 3])(time)
        for b in range(len(self.bones)):
            there[b, :3, :3] = RotationSpline(self.times, Rotation.from_matrix(known[:, b, :3, :3]))(time).as_matrix()
        return torch.from_numpy(there).to(self.aabb)

    def poses(self, states: Tensor) -> Tensor:
        """The states of bones are their motions."""
        return states

    def blended(self, motions: Tensor, which: Tensor, weights: Tensor, points: Tensor) -> Tensor:
        """Points (M, 3) moved by the mean, by weights (M, B), of those motions (T, B, 4, 4) that `which` (M,) says."""
        if self.blend == "hard":
            return move(motions.flatten(0, 1).index_select(0, which * len(self.bones) + weights.argmax(1)), points)
        if self.blend == "linear":
            return move((weights[..., None, None] * motions.index_select(0, which)).sum(1), points)
        return carried(blended(dual_quaternions(motions).index_select(0, which), weights), points)

    def backward(self, motions: Tensor, which: Tensor, posed: Tensor) -> tuple[Tensor, Skin]:
        """Canonical places of posed ones (M, 3), by bones where they are at that time."""
        back = inverse(motions)
        skin = self.bones.skin(move(back.index_select(0, which), posed[:, None]), self.sharpness)
        return self.blended(back, which, skin.weights, posed), skin

    def forward(self, motions: Tensor, which: Tensor, canonical: Tensor) -> tuple[Tensor, Skin]:
        """Posed places of canonical ones (M, 3), by bones where they are at rest."""
        skin = self.bones.skin(canonical, self.sharpness)
        return self.blended(motions, which, skin.weights, canonical), skin

    # ------------------------------------------------------------------------------------ rendering

    @property
    def middle(self) -> Tensor:
        return (self.aabb[:3] + self.aabb[3:]) / 2

    @property
    def radius(self) -> Tensor:
        return (self.aabb[3:] - self.aabb[:3]).max() / 2

    def render_rays(self, origins: Tensor, directions: Tensor, background: Tensor | None = None) -> Rendering:
        motions = self.motions()[:1] if self.posed is None else self.posed[None]
        which = torch.zeros(len(origins), dtype=torch.long, device=origins.device)
        return self.render_posed(origins, directions, motions, which, background)[0]

    def render_posed(
        self,
        origins: Tensor,
        directions: Tensor,
        motions: Tensor,
        which: Tensor,
        background: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Rendering, Warped]:
        """Volume rendering of rays (N, 3) in scene units, each of which meets bones that have motions (T, B, 4, 4) of the frame `which` (N,).

        Gradients: to the shape, the bones and the motions.
        """
        n = len(origins)
        behind = torch.ones(3, device=origins.device) if background is None else background
        o = (origins - self.middle) / self.radius
        rays, t = self._samples(o, directions, motions, which, jitter)
        posed = o[rays] + t[:, None] * directions[rays]
        canonical, skin = self.backward(motions, which[rays], posed)
        x = self.shape.normalise(canonical)
        inside = (x.abs() < 1).all(-1)
        thick = softplus(self.shape.level(x.clamp(-1, 1))) * inside
        zero = torch.zeros_like(t)
        weights, _, _ = render_weight_from_density(zero, zero + 1, rises(thick, rays), ray_indices=rays, n_rays=n)
        shown = (weights.detach() > self.shape.shading_threshold).nonzero()[:, 0]
        if self.labelled:
            palette = torch.tensor(COLOURS, device=x.device)
            colour = skin.weights[shown] @ palette[torch.arange(len(self.bones)) % len(palette)]
        else:
            colour = self.shape.colour(x[shown], directions[rays[shown]])
        rgb = accumulate_along_rays(weights[shown], colour, rays[shown], n)
        opacity = accumulate_along_rays(weights, None, rays, n)
        depth = self.radius * accumulate_along_rays(weights, t[:, None], rays, n)[:, 0]
        counts = torch.tensor([len(t), len(shown)], device="cpu")
        rendering = Rendering(rgb + (1 - opacity) * behind, depth, opacity[:, 0], samples=counts)
        return rendering, Warped(rays, posed, canonical, skin, weights)

    @torch.no_grad()
    def _samples(
        self, origins: Tensor, directions: Tensor, motions: Tensor, which: Tensor, jitter: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Rays (M,) and distances (M,) of samples that some bone's own motion takes to where it lives: all on one lattice along each ray."""
        step, shape = self.shape.step_size, self.shape
        along = -(origins * directions).sum(-1)
        first = (along - _REACH).clamp(min=0)
        if jitter is not None:
            first = first + jitter * step
        count = int(2 * _REACH / step) + 2
        found = []
        for b, live in enumerate(self._living()):
            o, d = within(motions[which, b], origins, directions)
            enter, leave, hits = (v[:, 0] for v in ray_aabb_intersect(o, d, shape.aabb[None], 0.0, float("inf")))
            skipped = ((enter - first) / step).clamp(min=0).ceil()
            start = first + skipped * step
            end = torch.where(hits, torch.minimum(leave, along + _REACH), start)
            t, _, rays, _ = march_rays(o, d, start, end, live, shape.aabb, step)
            found.append(rays * count + ((t - first[rays]) / step).round().long().clamp(0, count - 1))
        keys = torch.cat(found).unique()
        rays = keys // count
        return rays, first[rays] + (keys % count + 0.5) * step

    @torch.no_grad()
    def _living(self) -> list[Tensor]:
        if not self.live:
            occupied = self.shape.occupied
            cells = occupied.nonzero()
            size = torch.tensor(occupied.shape, device=cells.device)
            low, high = self.shape.aabb.view(2, 3)
            places = low + (high - low) * (cells + 0.5) / size
            weights = torch.cat([self.bones.skin(some, self.sharpness).weights for some in places.split(_CHUNK)])
            for weight in weights.unbind(1):
                where = torch.zeros_like(occupied)
                where[cells[weight > _LIVE].unbind(-1)] = True
                self.live.append(occupancy_clearance(dilate(where)))
        return self.live

    def changed(self) -> None:
        """Bones, γ or occupied cells are not what they were."""
        self.live = []

    def normals(self, origins: Tensor, directions: Tensor) -> Tensor:
        motions = self.motions()[:1] if self.posed is None else self.posed[None]
        which = torch.zeros(len(origins), dtype=torch.long, device=origins.device)
        _, seen = self.render_posed(origins, directions, motions, which)
        shown = (seen.weights.detach() > self.shape.shading_threshold).nonzero()[:, 0]
        outward = self.shape.outward(self.shape.normalise(seen.canonical[shown].detach()))
        turned = motions[0, seen.skin.weights[shown].argmax(1), :3, :3] @ outward[..., None]
        return normalize(
            accumulate_along_rays(seen.weights[shown], turned[..., 0], seen.rays[shown], len(origins)), dim=-1
        )


def _splines(times: list[float]) -> Tensor:
    """(T, K): by how much each knot of a cubic spline is in what it is at each time."""
    from scipy.interpolate import BSpline

    first, last = times[0], times[-1]
    inner = np.linspace(first, last, max(1, round((last - first) / _KNOT)) + 1)
    knots = np.concatenate([[first] * 3, inner, [last] * 3])
    return torch.from_numpy(BSpline.design_matrix(np.asarray(times), knots, 3).toarray()).float()
