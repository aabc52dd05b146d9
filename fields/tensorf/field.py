"""The tensorial radiance field and its volume rendering.

Chen, Xu, Geiger, Yu, Su: TensoRF: Tensorial Radiance Fields. ECCV 2022. Equation numbers are the paper's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fields.core import (
    ClearanceCache,
    accumulate_along_rays,
    fourier_encode,
    fused_decoder,
    march_rays,
    ray_aabb_intersect,
    render_weight_from_density,
    visible_samples,
)
from fields.core.decoder import encoded_width
from fields.core.optional import nerfacc_march, tinycudann_network
from fields.rendering import Field, Rendering
from fields.tensors import FactorisedGrid


class TensoRF(Field):
    """Density and appearance as factorised grids over a box, decoded to colour.

    Args:
        aabb: lowest and highest corner, six numbers in scene units.
        resolution: knots along x, y, z.
        near, far: distances along the unit ray between which is marched.
        The rest: see `fields.tensorf.config.TensorfConfig`.
    """

    occupied: Tensor

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
        super().__init__()
        self.near, self.far = near, far
        self.decoder, self.frequencies, self.marching = decoder, frequencies, marching
        self.density_shift, self.distance_scale = density_shift, distance_scale
        self.step_ratio, self.shading_threshold = step_ratio, shading_threshold
        self.arguments = {
            "near": near, "far": far, "layout": layout, "density_rank": density_rank, "appearance_rank": appearance_rank,
            "decoder": decoder, "feature_dim": feature_dim, "hidden": hidden, "frequencies": frequencies,
            "density_shift": density_shift, "distance_scale": distance_scale, "step_ratio": step_ratio,
            "shading_threshold": shading_threshold, "marching": marching,
        }  # fmt: skip
        modes, scale = (3, 0.1) if layout == "vm" else (1, 0.2)
        self.register_buffer("aabb", torch.tensor(aabb, dtype=torch.float32))
        self.register_buffer("occupied", torch.ones(*(occupancy_resolution or resolution), dtype=torch.bool))
        self._clearance = ClearanceCache()
        self._step: tuple = (None, 0, None, 0.0)
        self.density_grid = FactorisedGrid(layout, resolution, [density_rank] * modes, scale)
        self.appearance_grid = FactorisedGrid(layout, resolution, [appearance_rank] * modes, scale)
        feature_dim = {"mlp": feature_dim, "tcnn": feature_dim, "sh": 27, "rgb": 3}[decoder]
        self.basis = nn.Linear(appearance_rank * modes, feature_dim, bias=False)
        self.mlp = nn.ModuleList()
        inputs = encoded_width(feature_dim, frequencies, frequencies)
        if decoder == "tcnn":
            self.mlp.append(tinycudann_network(inputs, hidden))
        if decoder == "mlp":
            last = nn.Linear(hidden, 3)
            nn.init.zeros_(last.bias)
            self.mlp.extend([nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), last])

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
            size = (box[3:] - box[:3]).cpu()
            step = float(self.step_ratio * (size / (torch.tensor(resolution) - 1)).mean())
            self._step = box, version, resolution, step
        return step

    # ------------------------------------------------------------------------------------ the field itself

    def normalise(self, points: Tensor) -> Tensor:
        """Scene coordinates (N, 3) to [-1, 1] over the box."""
        return (points - self.aabb[:3]) * (2 / (self.aabb[3:] - self.aabb[:3])) - 1

    def density(self, x: Tensor) -> Tensor:
        """σ (N,) at normalised positions (N, 3), before `distance_scale`: eq. 7 and the softplus of section 4.3."""
        return nn.functional.softplus(self.density_grid(x, "sum") + self.density_shift)

    def colour(self, x: Tensor, directions: Tensor) -> Tensor:
        """sRGB colour (N, 3) at normalised positions (N, 3) seen along unit directions (N, 3): eq. 4."""
        features = self.appearance_grid(x)
        if self.decoder == "mlp":
            weights, biases = [m.weight for m in self.mlp], [m.bias for m in self.mlp]
            return fused_decoder(
                features, directions, self.basis.weight, weights, biases, self.frequencies, self.frequencies
            )
        features = self.basis(features)
        if self.decoder == "tcnn":
            return self.mlp[0](fourier_encode(features, directions, self.frequencies, self.frequencies)).to(x.dtype)
        if self.decoder == "rgb":
            return torch.sigmoid(features)
        harmonics = spherical_harmonics(directions)
        return torch.relu((features.view(-1, 3, 9) * harmonics[:, None]).sum(-1) + 0.5)

    # ------------------------------------------------------------------------------------ rendering

    def render_rays(
        self, origins: Tensor, directions: Tensor, background: Tensor | None = None, jitter: Tensor | None = None
    ) -> Rendering:
        """Volume rendering, eq. 1, of rays with unit directions.

        Args:
            origins, directions: (N, 3) in scene units.
            background: (3,) or (N, 3) sRGB; white by default.
            jitter: (N,) in [0, 1), the offset of each ray's samples in steps; none by default.

        Gradients: of rgb, depth and opacity to the field's parameters. Without gradients, geometry is rendered in one
        pass that stores only what shows.

        On a GPU the host waits three times (once without gradients): for the number of samples on the rays, of those
        in sight, and of those that are coloured; memory for each has to be found.
        """
        n, step = origins.shape[0], self.step_size
        t_min, t_max = self._span(origins, directions)
        if jitter is not None:
            t_min = t_min + jitter * step
        clearance = self._clearance(self.occupied)
        behind = torch.ones(3, device=origins.device) if background is None else background
        if not torch.is_grad_enabled() and isinstance(self.density_grid, FactorisedGrid):
            seen = visible_samples(origins, directions, t_min, t_max, clearance, self.aabb,
                                   list(self.density_grid.factors), self.density_grid.layout, step,
                                   shift=self.density_shift, scale=self.distance_scale,
                                   threshold=self.shading_threshold)  # fmt: skip
            colour = self.colour(seen.x, directions[seen.ray_indices])
            rgb = accumulate_along_rays(seen.weights, colour, seen.ray_indices, n)
            rgb = rgb + (1 - seen.opacity[:, None]) * behind
            return Rendering(rgb, seen.depth, seen.opacity, samples=seen.walked.sum())
        if self.marching == "nerfacc":
            marched = nerfacc_march(origins, directions, t_min, t_max, self.occupied, self.aabb, step)
        else:
            marched = march_rays(origins, directions, t_min, t_max, clearance, self.aabb, step, positions=True)
        t_starts, t_ends, rays, _, x = marched
        with torch.no_grad():  # a cheap look ahead: what lies behind a surface needs neither gradients nor colour
            visible = (self._weights(x, t_starts, t_ends, rays, n)[1] > 1e-4).nonzero()[:, 0]
        if len(visible) < len(x):
            x, t_starts, t_ends, rays = (v[visible] for v in (x, t_starts, t_ends, rays))
        weights, _ = self._weights(x, t_starts, t_ends, rays, n)

        shaded = (weights.detach() > self.shading_threshold).nonzero()[:, 0]
        on_rays = rays[shaded]
        colour = self.colour(x[shaded], directions[on_rays])
        rgb = accumulate_along_rays(weights[shaded], colour, on_rays, n)
        opacity = accumulate_along_rays(weights, None, rays, n)
        depth = accumulate_along_rays(weights, ((t_starts + t_ends) / 2)[:, None], rays, n)[:, 0]
        return Rendering(rgb + (1 - opacity) * behind, depth, opacity[:, 0], samples=torch.tensor(x.shape[0]))

    def _span(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Where rays enter and leave the box (N,), between near and far; an empty span where they miss it."""
        t_min, t_max, hits = ray_aabb_intersect(origins, directions, self.aabb[None], self.near, self.far)
        return t_min[:, 0], torch.where(hits[:, 0], t_max[:, 0], t_min[:, 0])

    def _weights(self, x: Tensor, t_starts: Tensor, t_ends: Tensor, rays: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Weights and transmittance (M,) of packed samples."""
        sigmas = self.density(x) * self.distance_scale
        weights, transmittance, _ = render_weight_from_density(t_starts, t_ends, sigmas, ray_indices=rays, n_rays=n)
        return weights, transmittance

    # ------------------------------------------------------------------------------------ occupancy

    @torch.no_grad()
    def opacity_grid(self, resolution: tuple[int, int, int]) -> Tensor:
        """Opacity of one step (without `distance_scale`, as in the paper's code) at the centres of a grid of cells."""
        opacity = torch.empty(resolution, device=self.aabb.device)
        y, z = (_centres(k, self.aabb.device) for k in resolution[1:])
        for i, x in enumerate(_centres(resolution[0], self.aabb.device)):
            points = torch.stack(torch.meshgrid(x[None], y, z, indexing="ij"), dim=-1).view(-1, 3)
            opacity[i] = -torch.expm1(-self.density(points) * self.step_size).view(resolution[1:])
        return opacity

    @torch.no_grad()
    def update_occupancy(self, threshold: float, resolution: tuple[int, int, int]) -> None:
        """Marks as empty what is below `threshold` in a neighbourhood of 3³ cells, or was empty before."""
        opacity = nn.functional.max_pool3d(self.opacity_grid(resolution)[None, None], 3, 1, 1)[0, 0]
        before = nn.functional.interpolate(self.occupied[None, None].float(), resolution, mode="trilinear")[0, 0]
        self.occupied = (opacity > threshold) & (before > 0)

    @torch.no_grad()
    def reaches(self, origins: Tensor, directions: Tensor) -> Tensor:
        """(N,) bool: whether rays pass an occupied cell, looking every half cell of their whole way through the box."""
        cells = torch.tensor(self.occupied.shape, device=self.aabb.device)
        step = 0.5 * float(((self.aabb[3:] - self.aabb[:3]) / cells).min())
        clearance = self._clearance(self.occupied)
        span = self._span(origins, directions)
        return march_rays(origins, directions, *span, clearance, self.aabb, step, limit=1)[3][:, 1] > 0

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
            (((_centres(n, box.device) + 1) / 2 * (box[3 + a] - box[a]) + box[a] - self.aabb[a])
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


def _centres(n: int, device: torch.device) -> Tensor:
    """Centres of n cells that fill [-1, 1]."""
    return (torch.arange(n, device=device) + 0.5) * (2 / n) - 1


def spherical_harmonics(d: Tensor) -> Tensor:
    """(N, 9): real spherical harmonics to degree 2 of unit directions (N, 3), orthonormal, Condon-Shortley phase."""
    x, y, z = d.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.5 / math.sqrt(math.pi)),
            *(math.sqrt(3 / (4 * math.pi)) * v for v in (-y, z, -x)),
            *(math.sqrt(15 / (4 * math.pi)) * v for v in (x * y, -y * z)),
            math.sqrt(5 / (16 * math.pi)) * (3 * z * z - 1),
            -math.sqrt(15 / (4 * math.pi)) * x * z,
            math.sqrt(15 / (16 * math.pi)) * (x * x - y * y),
        ],
        dim=-1,
    )
