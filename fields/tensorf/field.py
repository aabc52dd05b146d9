"""The tensorial radiance field and its volume rendering.

Chen, Xu, Geiger, Yu, Su: TensoRF: Tensorial Radiance Fields. ECCV 2022. Equation numbers are the paper's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fields.core import accumulate_along_rays, visible_samples
from fields.core.optional import nerfacc_march
from fields.core.visible import VisibleSamples
from fields.radiance import RadianceField, centres
from fields.rendering import Rendering
from fields.tensors import FactorisedGrid
from fields.tensors.colour import ColourDecoder


class TensoRF(RadianceField):
    """Density and appearance as factorised grids over a box, decoded to colour.

    Args:
        aabb: lowest and highest corner, six numbers in scene units.
        resolution: knots along x, y, z.
        near, far: distances along the unit ray between which is marched.
        The rest: see `fields.tensorf.config.TensorfConfig`.
    """

    def __init__(
        self,
        *,
        aabb: list[float],
        resolution: list[int],
        near: float,
        far: float,
        layout: str = "vm",
        density_rank: int = 16,
        appearance_rank: int = 48,
        decoder: str = "mlp",
        feature_dim: int = 27,
        hidden: int = 128,
        frequencies: int = 2,
        density_shift: float = -10.0,
        distance_scale: float = 25.0,
        step_ratio: float = 0.5,
        shading_threshold: float = 1e-4,
        marching: str = "fields",
        occupancy_resolution: list[int] | None = None,
    ) -> None:
        super().__init__(
            aabb=aabb, near=near, far=far, occupancy_resolution=occupancy_resolution or resolution,
            density_shift=density_shift, distance_scale=distance_scale, step_ratio=step_ratio,
            shading_threshold=shading_threshold,
        )  # fmt: skip
        self.marching = marching
        self.arguments = {
            "near": near, "far": far, "layout": layout, "density_rank": density_rank, "appearance_rank": appearance_rank,
            "decoder": decoder, "feature_dim": feature_dim, "hidden": hidden, "frequencies": frequencies,
            "density_shift": density_shift, "distance_scale": distance_scale, "step_ratio": step_ratio,
            "shading_threshold": shading_threshold, "marching": marching,
        }  # fmt: skip
        modes, scale = (3, 0.1) if layout == "vm" else (1, 0.2)
        self._step: tuple = (None, 0, None, 0.0)
        self.density_grid = FactorisedGrid(layout, resolution, [density_rank] * modes, scale)
        self.appearance_grid = FactorisedGrid(layout, resolution, [appearance_rank] * modes, scale)
        self.decoder = ColourDecoder(appearance_rank * modes, decoder, feature_dim, hidden, frequencies)

    def constructor_arguments(self) -> dict:
        """Plain data from which `TensoRF(**…)` makes a field that this one's tensors fit into."""
        shape = {"resolution": list(self.resolution), "occupancy_resolution": list(self.occupied.shape)}
        return {"aabb": self.aabb.tolist(), **shape, **self.arguments}

    @property
    def resolution(self) -> tuple[int, int, int]:
        return self.density_grid.resolution

    @property
    def step_size(self) -> float:
        """Marching step in scene units: `step_ratio` of the mean knot spacing."""
        box, resolution = self.aabb, self.resolution
        version = -1 if box.is_inference() else box._version
        *known, step = self._step
        if known[0] is not box or known[1:] != [version, resolution]:  # to ask a GPU for its box is to wait for it
            low, high = box.view(2, 3).tolist()
            spacings = [(b - a) / (n - 1) for a, b, n in zip(low, high, resolution, strict=True)]
            step = self.step_ratio * sum(spacings) / 3
            self._step = box, version, resolution, step
        return step

    @property
    def knot(self) -> float:
        """Mean spacing of the knots, scene units."""
        return self.step_size / self.step_ratio

    # ------------------------------------------------------------------------------------ the field itself

    density_shown: int | None = None
    """How many density components of each mode are there; None: all."""

    def density_feature(self, x: Tensor) -> Tensor:
        """(N,) at normalised positions (N, 3): eq. 7."""
        return self.density_grid(x, "sum", first=self.density_shown)

    def steepen(self, times: float) -> None:
        """Makes the level so many times as high everywhere."""
        self.density_grid.multiply(times)
        self.density_shift *= times
        self.arguments["density_shift"] = self.density_shift

    def colour(self, x: Tensor, directions: Tensor) -> Tensor:
        """sRGB colour (N, 3) at normalised positions (N, 3) seen along unit directions (N, 3): eq. 4."""
        return self.decoder(self.appearance_grid(x), directions)

    def features(self, x: Tensor) -> Tensor:
        return self.decoder.basis(self.appearance_grid(x))

    # ------------------------------------------------------------------------------------ rendering

    def render_rays(
        self, origins: Tensor, directions: Tensor, background: Tensor | None = None, jitter: Tensor | None = None
    ) -> Rendering:
        """As of every RadianceField. Without gradients, geometry is rendered in one pass that stores only what shows."""
        if torch.is_grad_enabled():
            return super().render_rays(origins, directions, background, jitter)
        behind = torch.ones(3, device=origins.device) if background is None else background
        seen = self.visible(origins, directions, self.span(origins, directions, jitter), self.shading_threshold)
        colour = self.colour(seen.x, directions[seen.ray_indices])
        rgb = accumulate_along_rays(seen.weights, colour, seen.ray_indices, origins.shape[0])
        rgb = rgb + (1 - seen.opacity[:, None]) * behind
        return Rendering(
            rgb,
            seen.depth,
            seen.opacity,
            samples=torch.stack([seen.walked.sum(), seen.walked.new_full((), len(colour))]),
        )

    def visible(
        self, origins: Tensor, directions: Tensor, span: tuple[Tensor, Tensor], threshold: float
    ) -> VisibleSamples:
        """What shows along rays (N, 3) within a span (N,), (N,), and weighs more than a threshold; without gradients."""
        return visible_samples(origins, directions, *span, self._clearance(self.occupied), self.aabb,
                               self.density_grid.first(self.density_shown), self.density_grid.layout, self.step_size,
                               shift=self.density_shift, scale=1.0 if self.level_set else self.distance_scale,
                               threshold=threshold, level_set=self.level_set)  # fmt: skip

    def march(
        self, origins: Tensor, directions: Tensor, jitter: Tensor | None = None, room: int | None = None
    ) -> tuple[Tensor, ...]:
        if self.marching == "fields":
            return super().march(origins, directions, jitter, room)
        span = self.span(origins, directions, jitter)
        t_starts, t_ends, rays, packed, x = nerfacc_march(
            origins, directions, *span, self.occupied, self.aabb, self.step_size
        )
        return t_starts, t_ends, rays, x, packed

    # ------------------------------------------------------------------------------------ occupancy

    @torch.no_grad()
    def update_occupancy(self, threshold: float, resolution: tuple[int, int, int]) -> None:
        """Marks as empty what is below `threshold` in a neighbourhood of 3³ cells, or was empty before."""
        opacity = nn.functional.max_pool3d(self.opacity_grid(resolution)[None, None], 3, 1, 1)[0, 0]
        before = nn.functional.interpolate(self.occupied[None, None].float(), resolution, mode="trilinear")[0, 0]
        self.occupied = (opacity > threshold) & (before > 0)

    @torch.no_grad()
    def shrink(self) -> None:
        """Cuts box, grids and occupancy to the occupied extent, at whole knots.

        Does nothing to an empty field: the caller decides what that means.
        """
        if not self.occupied.any():
            return
        first, last, low, high = [], [], [], []
        for axis in range(3):
            filled = self.occupied.transpose(0, axis).flatten(1).any(1)
            cells = filled.nonzero()[:, 0]
            knots, n = self.resolution[axis], self.occupied.shape[axis]
            first.append(math.floor(int(cells[0]) / n * (knots - 1)))
            last.append(max(math.ceil((int(cells[-1]) + 1) / n * (knots - 1)), first[-1] + 1))
        for axis in range(3):
            size, corner = self.aabb[3 + axis] - self.aabb[axis], self.aabb[axis]
            low.append(corner + size * first[axis] / (self.resolution[axis] - 1))
            high.append(corner + size * last[axis] / (self.resolution[axis] - 1))
        box = torch.stack(low + high)
        # The occupancy of the new box, at the resolution of the new grids, read from the cells of the old one.
        resolution = [b - a + 1 for a, b in zip(first, last, strict=True)]
        near = [
            (((centres(n, box.device) + 1) / 2 * (box[3 + a] - box[a]) + box[a] - self.aabb[a])
             / (self.aabb[3 + a] - self.aabb[a]) * self.occupied.shape[a]).long().clamp(0, self.occupied.shape[a] - 1)
            for a, n in enumerate(resolution)
        ]  # fmt: skip
        self.occupied = self.occupied[near[0][:, None, None], near[1][None, :, None], near[2][None, None, :]]
        self.density_grid.crop(first, last)
        self.appearance_grid.crop(first, last)
        self.aabb = box

    def upsample(self, resolution: tuple[int, int, int]) -> None:
        self.density_grid.resample(resolution)
        self.appearance_grid.resample(resolution)
