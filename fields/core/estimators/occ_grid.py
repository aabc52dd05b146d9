"""Skipping empty space with an occupancy grid that is learned while training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fields.core.march import ClearanceCache, march_rays
from fields.core.rays import nested_boxes, ray_aabb_intersect
from fields.core.volrend import render_visibility_from_alpha, render_visibility_from_density
from fields.errors import ShapeError


class OccGridEstimator(nn.Module):
    """A binary grid, possibly nested, of where the field is not empty.

    Args:
        roi_aabb: six numbers, the box of the innermost level.
        resolution: cells per axis, one number or three.
        levels: nested grids; level l covers the box scaled by 2^l about its centre.
    """

    resolution: Tensor
    aabbs: Tensor
    occs: Tensor
    binaries: Tensor
    grid_coords: Tensor
    grid_indices: Tensor

    def __init__(
        self, roi_aabb: Tensor | list[float], resolution: int | list[int] | Tensor = 128, levels: int = 1
    ) -> None:
        super().__init__()
        box = torch.as_tensor(roi_aabb, dtype=torch.float32)
        cells = torch.as_tensor(resolution, dtype=torch.int32).expand(3).clone()
        if box.shape != (6,) or not (box[3:] > box[:3]).all() or (cells < 1).any() or levels < 1:
            raise ShapeError(
                "An occupancy grid needs six numbers of a box that is not empty, and at least one cell and level."
            )
        shape = cells.tolist()
        self.levels, self.cells_per_lvl = levels, int(cells.prod())
        self._clearance = ClearanceCache()
        self.register_buffer("resolution", cells)
        self.register_buffer("aabbs", nested_boxes(box, levels))
        self.register_buffer("occs", torch.zeros(levels * self.cells_per_lvl))
        self.register_buffer("binaries", torch.zeros(levels, *shape, dtype=torch.bool))
        grid = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"), -1).view(-1, 3)
        self.register_buffer("grid_coords", grid, persistent=False)
        self.register_buffer("grid_indices", torch.arange(self.cells_per_lvl), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.occs.device

    @torch.no_grad()
    def sampling(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        sigma_fn: Callable | None = None,
        alpha_fn: Callable | None = None,
        near_plane: float = 0.0,
        far_plane: float = 1e10,
        t_min: Tensor | None = None,
        t_max: Tensor | None = None,
        render_step_size: float = 1e-3,
        early_stop_eps: float = 1e-4,
        alpha_thre: float = 0.0,
        stratified: bool = False,
        cone_angle: float = 0.0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Samples in occupied cells and, with a density or opacity function, in sight.

        Args:
            rays_o, rays_d: (n_rays, 3).
            sigma_fn, alpha_fn: (t_starts, t_ends, ray_indices) → (n,) of the samples; used to drop those behind
                transmittance `early_stop_eps` or of opacity below `alpha_thre`.
            t_min, t_max: (n_rays,) bounds per ray, on top of the planes.
            stratified: shift the samples of each ray by a random part of a step.
            cone_angle: growth of steps with distance.

        Returns:
            ray_indices, t_starts, t_ends, each (n,).
        Gradients: none.
        """
        n = rays_o.shape[0]
        near = torch.full((n,), near_plane, dtype=rays_o.dtype, device=rays_o.device)
        far = torch.full_like(near, far_plane)
        near = near if t_min is None else torch.maximum(near, t_min)
        far = far if t_max is None else torch.minimum(far, t_max)
        if stratified:
            near = near + torch.rand_like(near) * render_step_size
        # Intervals are counted from the box on, so that a far camera costs no more than a near one.
        enter, _, hits = ray_aabb_intersect(rays_o, rays_d, self.aabbs[-1:].to(rays_o.dtype), 0.0, miss_value=0.0)
        if cone_angle == 0:
            skipped = ((enter[:, 0] - near) / render_step_size).floor().clamp(min=0)
            near = torch.where(hits[:, 0], near + skipped * render_step_size, near)
        t_starts, t_ends, rays, _ = march_rays(
            rays_o,
            rays_d,
            near,
            far,
            self._clearance(self.binaries),
            self.aabbs[0].to(rays_o.dtype),
            render_step_size,
            cone_angle,
        )
        alpha_thre = min(alpha_thre, float(self.occs.mean()))  # at first everything is faint
        if (sigma_fn is not None or alpha_fn is not None) and (alpha_thre > 0 or early_stop_eps > 0) and len(t_starts):
            packing: Any = {
                "ray_indices": rays,
                "n_rays": n,
                "early_stop_eps": early_stop_eps,
                "alpha_thre": alpha_thre,
            }
            if sigma_fn is not None:
                visible = render_visibility_from_density(t_starts, t_ends, sigma_fn(t_starts, t_ends, rays), **packing)
            else:
                assert alpha_fn is not None
                visible = render_visibility_from_alpha(alpha_fn(t_starts, t_ends, rays), **packing)
            rays, t_starts, t_ends = rays[visible], t_starts[visible], t_ends[visible]
        return rays, t_starts, t_ends

    @torch.no_grad()
    def update_every_n_steps(
        self,
        step: int,
        occ_eval_fn: Callable[[Tensor], Tensor],
        occ_thre: float = 1e-2,
        ema_decay: float = 0.95,
        warmup_steps: int = 256,
        n: int = 16,
    ) -> None:
        """Every n steps in training mode: looks at random points of cells, all of them until `warmup_steps`, later a
        quarter at random and the occupied ones; a cell keeps the larger of what it sees and its decayed memory.

        Args:
            occ_eval_fn: positions (m, 3) → occupancy (m,) or (m, 1), such as density times step.
            occ_thre: cells at or below min(mean, occ_thre) are empty.

        Raises:
            RuntimeError: called in evaluation mode.
        """
        if not self.training:
            raise RuntimeError("The occupancy grid is updated in training mode only: call .train() first.")
        if step % n:
            return
        for level in range(self.levels):
            cells = self.grid_indices if step < warmup_steps else self._some_cells(level)
            first = level * self.cells_per_lvl
            cells = cells[self.occs[first + cells] >= 0]  # cells no camera sees stay out
            inside = (self.grid_coords[cells] + torch.rand(len(cells), 3, device=self.device)) / self.resolution
            low, high = self.aabbs[level].split(3)
            found = occ_eval_fn(low + inside * (high - low)).reshape(-1)
            self.occs[first + cells] = torch.maximum(self.occs[first + cells] * ema_decay, found)
        seen = self.occs[self.occs >= 0]
        threshold = min(float(seen.mean()), occ_thre) if len(seen) else occ_thre
        self.binaries = (self.occs > threshold).view(self.binaries.shape)

    def _some_cells(self, level: int) -> Tensor:
        """A quarter of the cells at random, and as many of the occupied ones at most."""
        quarter = max(self.cells_per_lvl // 4, 1)
        anywhere = torch.randint(self.cells_per_lvl, (quarter,), device=self.device)
        occupied = self.binaries[level].flatten().nonzero()[:, 0]
        if len(occupied) > quarter:
            occupied = occupied[torch.randint(len(occupied), (quarter,), device=self.device)]
        return torch.cat([anywhere, occupied]).unique()

    @torch.no_grad()
    def mark_invisible_cells(
        self, K: Tensor, c2w: Tensor, width: int, height: int, near_plane: float = 0.0, chunk: int = 32**3
    ) -> None:
        """Takes out the cells no camera sees: their occs become −1, and they are never updated.

        Args:
            K: (m, 3, 3) or (1, 3, 3) intrinsics, pixels.
            c2w: (m, 3 or 4, 4) camera to world with OpenCV axes (+Z forward), as nerfacc has them.
            width, height: of the images, pixels.
            near_plane: cells nearer to a camera than this do not count as seen by it.
        """
        rotation, centre = c2w[:, :3, :3], c2w[:, :3, 3]
        for level in range(self.levels):
            low, high = self.aabbs[level].split(3)
            for cells in self.grid_indices.split(chunk):
                points = low + (self.grid_coords[cells] + 0.5) / self.resolution * (high - low)
                local = (points[None] - centre[:, None]) @ rotation  # (m, cells, 3)
                image = local @ K.mT
                xy = image[..., :2] / image[..., 2:]
                seen = (local[..., 2] >= near_plane) & (xy >= 0).all(-1) & (xy[..., 0] < width) & (xy[..., 1] < height)
                unseen = ~(seen & (local[..., 2] > 0)).any(0)
                at = level * self.cells_per_lvl + cells
                self.occs[at] = torch.where(unseen, torch.full_like(self.occs[at], -1.0), self.occs[at].clamp(min=0))
                flat = self.binaries[level].view(-1)
                flat[cells] &= ~unseen

    @torch.no_grad()
    def dilate(self, cells: int = 1) -> None:
        """Marks as occupied everything within `cells` cells of an occupied one."""
        grown = nn.functional.max_pool3d(self.binaries[:, None].float(), 2 * cells + 1, 1, cells)
        self.binaries = grown[:, 0] > 0
