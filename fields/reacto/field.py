"""An articulated field: rigid parts, each a level set in a box of its own, that joints move.

Song, Wei, Foo, Lin, Liu: REACTO: Reconstructing Articulated Objects from a Single Video. CVPR 2024. There one canonical field is bent by
bones whose weights are all but one-hot; where they are one-hot, it is this: a ray goes through every part in the part's own frame, and what
it meets is put in order along it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from fields.core import accumulate_along_rays, render_weight_from_density, rises
from fields.geometry.rigid import within
from fields.reacto.screws import exponential, rescaled
from fields.rendering import Field, Rendering
from fields.tensorf.field import TensoRF

COLOURS = (
    (0.27, 0.47, 0.67),
    (0.93, 0.4, 0.47),
    (0.13, 0.53, 0.2),
    (0.8, 0.73, 0.27),
    (0.4, 0.8, 0.93),
    (0.67, 0.2, 0.47),
)
"""Of parts, to tell them apart: Paul Tol's bright scheme."""


class PartField(TensoRF):
    """Shape and colour of one part, in its own frame."""

    level_set = True


class MovingField(Field):
    """What can be shown in any state, and with its parts in colours."""

    times: list[float]
    posed: Tensor | None = None
    """Poses of what moves; None: as in the first frame."""
    labelled = False

    def poses(self, states: Tensor) -> Tensor:
        """(B, 4, 4) of what moves, in a state."""
        raise NotImplementedError

    def states_at(self, time: float) -> Tensor:
        """Between those that are known, smoothly; before the first and after the last, those."""
        raise NotImplementedError

    @contextmanager
    def in_state(self, states: Tensor) -> Iterator[None]:
        """Within, it is rendered in that state; otherwise as in the first frame."""
        before, self.posed = self.posed, self.poses(states)
        try:
            yield
        finally:
            self.posed = before

    @contextmanager
    def coloured_by_part(self) -> Iterator[None]:
        """Within, everything that moves has one colour, and what is between the mean of theirs."""
        self.labelled = True
        try:
            yield
        finally:
            self.labelled = False


class ArticulatedField(MovingField):
    """Parts and joints.

    Args:
        parts: constructor arguments of each part's field; their boxes are in frames of their own.
        parents: of each part's joint; the first part stands still and has −1.
        times: of the frames that joint states are known in, ascending.
        aabb: around all of it in all those states, six numbers in scene units.
    """

    aabb: Tensor
    frames: Tensor

    def __init__(self, *, parts: list[dict], parents: list[int], times: list[float], aabb: list[float]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(PartField(**arguments) for arguments in parts)
        self.parents, self.times = list(parents), list(times)
        self.register_buffer("aabb", torch.tensor(aabb, dtype=torch.float32))
        self.register_buffer("frames", torch.eye(4).repeat(len(parts), 1, 1))
        """(B, 4, 4) rigid: from the frame of each part to the scene's, where all joints are at zero."""
        self.twists = nn.Parameter(torch.zeros(len(parts), 6))
        """(B, 6) of the joints, where all of them are at zero; lengths are radii of the box, about its middle. See `fields.reacto.screws`."""
        self.states = nn.Parameter(torch.zeros(len(parts), len(times)))
        """(B, T) of the joints, at each time."""

    def constructor_arguments(self) -> dict:
        parts: list[dict[str, Any]] = [part.constructor_arguments() for part in self.parts]  # type: ignore[operator]
        return {"parts": parts, "parents": self.parents, "times": self.times, "aabb": self.aabb.tolist()}

    # ------------------------------------------------------------------------------------ motion

    def screws(self) -> Tensor:
        """(B, 6) the twists in scene units."""
        low, high = self.aabb.view(2, 3)
        return rescaled(self.twists, (high - low).max() / 2, (low + high) / 2)

    def poses(self, states: Tensor) -> Tensor:
        """(…, B, 4, 4): from each part's frame to the scene's, with joints in states (…, B)."""
        moved: list[Tensor] = []
        twists = self.screws()
        for b, parent in enumerate(self.parents):
            own = exponential(states[..., b, None] * twists[b])
            moved.append(own if parent < 0 else moved[parent] @ own)
        return torch.stack(moved, -3) @ self.frames

    def states_at(self, time: float) -> Tensor:
        """(B,) by a cubic spline through those that are known; before the first and after the last, those."""
        from scipy.interpolate import CubicSpline

        spline = CubicSpline(self.times, self.states.detach().cpu().numpy(), axis=1)
        return torch.from_numpy(spline(min(max(time, self.times[0]), self.times[-1]))).to(self.aabb)

    # ------------------------------------------------------------------------------------ rendering

    def render_rays(self, origins: Tensor, directions: Tensor, background: Tensor | None = None) -> Rendering:
        poses = self.poses(self.states[:, 0]) if self.posed is None else self.posed
        return self.render_posed(origins, directions, poses[None], background)

    def render_posed(
        self,
        origins: Tensor,
        directions: Tensor,
        poses: Tensor,
        background: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> Rendering:
        """Volume rendering of rays (N, 3), each of which meets the parts in its own poses (N or 1, B, 4, 4).

        Gradients: to the parts, and to the poses by where in a part a sample is.
        """
        n = len(origins)
        behind = torch.ones(3, device=origins.device) if background is None else background
        found = [self._samples(b, origins, directions, poses[:, b], jitter) for b in range(len(self.parts))]
        rays, t, depth = (torch.cat([f[k] for f in found]) for k in range(3))
        order = (rays.double() + 0.5 * t / t.amax().clamp(min=1e-9) if len(t) else rays).argsort()
        rays = rays[order]
        zero = torch.zeros_like(t)
        weights, _, _ = render_weight_from_density(zero, zero + 1, depth[order], ray_indices=rays, n_rays=n)
        weights = torch.empty_like(weights).index_copy(0, order, weights)  # back by part
        opacity = accumulate_along_rays(weights[order], None, rays, n)[:, 0]
        distance = accumulate_along_rays(weights[order], t[order][:, None], rays, n)[:, 0]
        rgb = torch.zeros(n, 3, device=origins.device)
        made = shaded = 0
        for b, (own, _, _, x, along) in enumerate(found):
            part: Any = self.parts[b]
            weight, made = weights[made : made + len(own)], made + len(own)
            shown = (weight.detach() > part.shading_threshold).nonzero()[:, 0]
            shaded += len(shown)
            colour = part.colour(x[shown], along.index_select(0, own[shown]))
            if self.labelled:
                colour = colour.new_tensor(COLOURS[b % len(COLOURS)]).expand_as(colour)
            rgb = rgb.index_add(0, own[shown], weight[shown, None] * colour)
        counts = torch.tensor([made, shaded], device="cpu")
        return Rendering(rgb + (1 - opacity[:, None]) * behind, distance, opacity, samples=counts)

    def _samples(
        self, b: int, origins: Tensor, directions: Tensor, pose: Tensor, jitter: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Of rays through part b: rays (M,), distances (M,), optical depths (M,), positions (M, 3), and the rays' directions there."""
        part: Any = self.parts[b]
        o, d = within(pose, origins, directions)
        with torch.no_grad():
            _, t, rays, _, _ = part.march(o, d, jitter)
        x = part.normalise(
            o.index_select(0, rays) + t[:, None] * d.index_select(0, rays)
        )  # whose gradients come in one order
        return rays, t, rises(softplus(part.level(x)), rays), x, d

    def normals(self, origins: Tensor, directions: Tensor) -> Tensor:
        poses = (self.poses(self.states[:, 0]) if self.posed is None else self.posed)[None]
        total = torch.zeros_like(origins)
        for b, module in enumerate(self.parts):
            part: Any = module
            o, d = within(poses[:, b], origins, directions)
            total = total + part.accumulate(o, d, part.outward) @ poses[0, b, :3, :3].mT
        return normalize(total, dim=-1)
