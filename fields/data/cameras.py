"""`Cameras`: a batch of calibrated cameras, with exact rays and exact projection.

Convention: world_from_camera maps camera space (OpenGL: +X right, +Y up, looking along -Z) to the world.
Pixel (column j, row i) covers [j, j+1) x [i, i+1); its centre is (j + 0.5, i + 0.5); cx, cy are in the same
units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fields.data import lenses
from fields.data.lenses import N_DISTORTION, Lens
from fields.errors import ShapeError


@dataclass(eq=False)
class Cameras:
    """N cameras; each may have its own size, focal length and lens.

    Gradients: `rays` and `project` are differentiable in `world_from_camera` (and `project` in the points),
    once and exactly."""

    world_from_camera: Tensor
    """(N, 4, 4) float32, rigid."""
    fx: Tensor
    """(N,) float32, pixels."""
    fy: Tensor
    cx: Tensor
    """(N,) float32, pixels from the left edge of the image (not from the centre of its first pixel)."""
    cy: Tensor
    width: Tensor
    """(N,) int64, pixels."""
    height: Tensor
    model: Tensor = None  # type: ignore[assignment]
    """(N,) int64 codes of `Lens`; all pinholes when None."""
    distortion: Tensor = None  # type: ignore[assignment]
    """(N, K <= 13) float32, columns as `Lens` says; padded with zeros."""

    def __post_init__(self) -> None:
        pose = self.world_from_camera
        if pose.ndim != 3 or pose.shape[1:] != (4, 4):
            raise ShapeError(f"Cameras: world_from_camera has shape {tuple(pose.shape)}; expected (N, 4, 4).")
        n, device = pose.shape[0], pose.device
        self.world_from_camera = pose.float()
        for name in ("fx", "fy", "cx", "cy", "width", "height"):
            dtype = torch.int64 if name in ("width", "height") else torch.float32
            value = torch.as_tensor(getattr(self, name), dtype=dtype, device=device)
            if value.ndim == 0:
                value = value.expand(n).clone()
            if value.shape != (n,):
                raise ShapeError(f"Cameras: {name} has shape {tuple(value.shape)}; expected ({n},), one per pose.")
            setattr(self, name, value)
        model = torch.zeros(n, dtype=torch.int64) if self.model is None else self.model
        self.model = torch.as_tensor(model, dtype=torch.int64, device=device)
        given = torch.zeros(n, 0) if self.distortion is None else torch.as_tensor(self.distortion)
        self.distortion = F.pad(given.to(device, torch.float32), (0, N_DISTORTION - given.shape[-1]))
        if self.model.shape != (n,) or self.distortion.shape != (n, N_DISTORTION):
            raise ShapeError(f"Cameras: model must be ({n},) and distortion ({n}, K <= {N_DISTORTION}).")
        # Looked up once here: asking the device at every call would stall a GPU.
        self._lenses = [Lens(code) for code in self.model.unique().tolist()]
        self._short = not bool(self.distortion[:, 4:].any())

    # -- batches --

    def __len__(self) -> int:
        return self.world_from_camera.shape[0]

    def __getitem__(self, which: int | slice | list[int] | Tensor) -> Cameras:
        """A sub-batch; an int gives a batch of one."""
        if isinstance(which, int):
            if not -len(self) <= which < len(self):
                raise IndexError(f"camera {which} of {len(self)}")
            which = slice(which, which + 1 or None)
        elif isinstance(which, list):
            which = torch.tensor(which, dtype=torch.int64, device=self.device)
        return self._map(lambda t: t[which])

    @property
    def device(self) -> torch.device:
        return self.world_from_camera.device

    def to(self, device: torch.device | str) -> Cameras:
        return self._map(lambda t: t.to(device))

    def _map(self, f: Any) -> Cameras:
        return Cameras(**{x.name: f(getattr(self, x.name)) for x in fields(self)})

    @staticmethod
    def cat(batches: list[Cameras]) -> Cameras:
        """One batch from several."""
        return Cameras(**{x.name: torch.cat([getattr(b, x.name) for b in batches]) for x in fields(Cameras)})

    def downscaled(self, factor: float) -> Cameras:
        """The cameras of images reduced by area averaging; a remainder at the right and bottom is cut."""
        if factor == 1:
            return self
        return replace(
            self,
            **{k: getattr(self, k) / factor for k in ("fx", "fy", "cx", "cy")},
            width=(self.width / factor).floor().long().clamp_min(1),
            height=(self.height / factor).floor().long().clamp_min(1),
        )

    # -- geometry --

    def rays(self, index: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Rays through image points.

        Args:    index (M,) int64, which camera; xy (M, 2) pixels, pixel centres at +0.5.
        Returns: origins (M, 3) and unit directions (M, 3), world."""
        u = (xy[:, 0] - self.cx[index]) / self.fx[index]
        v = (xy[:, 1] - self.cy[index]) / self.fy[index]
        if len(self._lenses) <= 1:
            lens = self._lenses[0] if self._lenses else Lens.PINHOLE
            coefficients = self.distortion if lens == Lens.PINHOLE else self.distortion[index]
            d = lenses.unproject(lens, u, v, coefficients, self._short)
        else:
            d = torch.empty(len(u), 3, device=u.device, dtype=u.dtype)
            of_ray = self.model[index]
            for lens in self._lenses:
                m = of_ray == lens
                d[m] = lenses.unproject(lens, u[m], v[m], self.distortion[index[m]], self._short)
        pose = self.world_from_camera[index, :3]
        rotation, origins = pose[:, :, :3], pose[:, :, 3]
        d = torch.cat([d[:, :1], -d[:, 1:]], -1)  # OpenCV's axes to OpenGL's
        directions = F.normalize((rotation * d[:, None, :]).sum(-1), dim=-1)
        for lens in set(self._lenses) & set(lenses.DISPLACED):
            shift = lenses.displacement(lens, u, v, self.distortion[index]) * (self.model[index] == lens)[:, None]
            shift = torch.cat([shift[:, :1], -shift[:, 1:]], -1)
            origins = origins + (rotation * shift[:, None, :]).sum(-1)
        return origins, directions

    def project(self, index: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """The exact inverse of `rays`.

        Args:    index (M,) int64; points (M, 3), world.
        Returns: xy (M, 2) pixels, NaN where the lens cannot see the point; depth (M,), scene units along
                 the viewing axis ("z"), but the distance for a panorama, which has no axis. A point may
                 fall outside the picture."""
        pose = self.world_from_camera[index]
        p = (pose[:, :3, :3] * (points - pose[:, :3, 3])[:, :, None]).sum(1)  # R^T (x - t)
        p = torch.cat([p[:, :1], -p[:, 1:]], -1)
        if len(self._lenses) <= 1:
            lens = self._lenses[0] if self._lenses else Lens.PINHOLE
            u, v = lenses.project(lens, p, self.distortion[index].to(p.dtype))
        else:
            u, v = torch.empty_like(p[:, 0]), torch.empty_like(p[:, 0])
            for lens in self._lenses:
                m = self.model[index] == lens
                u[m], v[m] = lenses.project(lens, p[m], self.distortion[index[m]].to(p.dtype))
        depth = p[:, 2]
        for lens in set(self._lenses) & set(lenses.PANORAMAS):
            depth = torch.where(self.model[index] == lens, p.norm(dim=-1), depth)
        x, y = u * self.fx[index] + self.cx[index], v * self.fy[index] + self.cy[index]
        return torch.stack([x, y], -1), depth

    def image_rays(self, i: int, downscale: float = 1) -> tuple[Tensor, Tensor]:
        """Rays through all pixel centres of camera i, reduced by `downscale`: origins (H, W, 3), unit
        directions (H, W, 3)."""
        one = self[i].downscaled(downscale)
        w, h = int(one.width), int(one.height)
        origins, directions = one.rays_of(0, torch.arange(h * w, device=self.device))
        return origins.view(h, w, 3), directions.view(h, w, 3)

    def rays_of(self, i: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Rays through the centres of some pixels of camera i: of pixels (M,) int64, counted row by row."""
        width = self.width[i]
        xy = torch.stack([pixels % width, pixels // width], -1) + 0.5
        return self.rays(torch.full_like(pixels, i), xy)

    @property
    def centres(self) -> Tensor:
        """(N, 3) camera positions, world."""
        return self.world_from_camera[:, :3, 3]

    @property
    def forward(self) -> Tensor:
        """(N, 3) unit viewing directions, world."""
        return -self.world_from_camera[:, :3, 2]

    @property
    def fov_y(self) -> Tensor:
        """(N,) vertical field of view, radians, of a pinhole with this height and focal length."""
        return 2 * torch.atan(self.height / (2 * self.fy))

    # -- construction --

    @staticmethod
    def look_at(
        eye: Any,
        target: Any,
        up: Any = (0.0, 0.0, 1.0),
        *,
        fov_x: float | None = None,
        focal: float | None = None,
        width: int,
        height: int,
    ) -> Cameras:
        """Pinholes at `eye` (3,) or (N, 3) looking at `target`, image up towards `up` (both broadcast).

        Give `fov_x` (horizontal, radians) or `focal` (pixels); neither means 50 degrees."""
        eye, target, up = (torch.as_tensor(x, dtype=torch.float64) for x in (eye, target, up))
        eye, target, up = torch.broadcast_tensors(torch.atleast_2d(eye), target, up)
        back = F.normalize(eye - target, dim=-1)
        # Looking straight along `up` leaves the roll open: pick the axis least aligned with the view.
        side = torch.linalg.cross(up, back)
        fallback = F.one_hot(back.abs().argmin(-1), 3).double()
        side = torch.where(side.norm(dim=-1, keepdim=True) > 1e-9, side, torch.linalg.cross(fallback, back))
        right = F.normalize(side, dim=-1)
        pose = torch.eye(4, dtype=torch.float64).repeat(len(eye), 1, 1)
        pose[:, :3] = torch.stack([right, torch.linalg.cross(back, right), back, eye], -1)
        if focal is None:
            focal = 0.5 * width / math.tan(0.5 * (math.radians(50) if fov_x is None else fov_x))
        numbers = (focal, focal, width / 2, height / 2, width, height)
        return Cameras(pose, *(torch.tensor(x) for x in numbers))
