"""Rendering any field: images, camera paths. The Python API re-exports these as ``fields.render`` and so on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fields.data.cameras import Cameras
from fields.errors import ConfigError

_CHUNK = {"cpu": 16_384, "cuda": 131_072}  # rays at once: they keep all threads busy, and stay small in memory

_IMAGES = ("rgb", "depth", "opacity", "normal")


@dataclass
class Rendering:
    """What a field looks like along rays (N, …), or from a camera (H, W, …)."""

    rgb: Tensor
    """(…, 3) sRGB in [0, 1], composited on the background."""
    depth: Tensor
    """(…,) expected distance along the unit ray, weighted by (not divided by) opacity; scene units."""
    opacity: Tensor
    """(…,) in [0, 1]."""
    normal: Tensor | None = None
    """(…, 3) unit, in the world frame, for fields that have normals."""
    samples: Tensor | None = None
    """(2,) int64, how many samples were made and how many of them coloured: a tensor, so that asking a GPU can wait."""

    def _repr_png_(self) -> bytes | None:
        """The picture in a notebook, where a rendering is the last thing of a cell."""
        from fields.io.images import png

        return png(self.rgb) if self.rgb.ndim == 3 else None


class Field(nn.Module):
    """What the renderer, the viewer and the exports ask of a method's field."""

    aabb: Tensor
    """(6,) lowest and highest corner of what the field fills, scene units."""

    def render_rays(self, origins: Tensor, directions: Tensor, background: Tensor | None = None) -> Rendering:
        """Renders rays (N, 3) with unit directions, in scene units."""
        raise NotImplementedError

    def normals(self, origins: Tensor, directions: Tensor) -> Tensor:
        """(N, 3) unit, world frame: of what rays (N, 3) meet; zero where they meet nothing."""
        raise ConfigError(f"A {type(self).__name__} has no normals.")

    def constructor_arguments(self) -> dict:
        """Plain data from which the class makes a field that this one's tensors fit into."""
        raise NotImplementedError


@torch.no_grad()
def render(
    field: Field, camera: Cameras, index: int = 0, background: Tensor | None = None, *, normal: bool = False
) -> Rendering:
    """Renders one image.

        >>> field = fields.load(run)
        >>> image = fields.render(field, fields.orbit(60, size=(40, 30)), 7)
        >>> image.rgb.shape, image.depth.shape
        (torch.Size([30, 40, 3]), torch.Size([30, 40]))

    Args:
        field: any trained field.
        camera: camera(s), of which `index` is used; full lens models are honoured.
        background: (3,) sRGB; white by default.
        normal: also render normals, which takes about as long again.

    Returns:
        A Rendering of (H, W, …) tensors on the field's device. Besides them, memory is that of a part of the rays.
    """
    device = field.aabb.device
    one = camera[index].to(device)
    shape = int(one.height), int(one.width)
    images: dict[str, Tensor] = {}
    counts = []
    total, chunk = math.prod(shape), _CHUNK.get(device.type, _CHUNK["cpu"])
    for start in range(0, total, chunk):
        rows = slice(start, min(start + chunk, total))
        origins, directions = one.rays_of(0, torch.arange(rows.start, rows.stop, device=device))
        part = field.render_rays(origins, directions, background)
        if normal and part.normal is None:
            part.normal = field.normals(origins, directions)
        if part.samples is not None:
            counts.append(part.samples)
        for name in _IMAGES:
            if (value := getattr(part, name)) is not None:
                if name not in images:
                    images[name] = value.new_empty(total, *value.shape[1:])
                images[name][rows] = value
    images["rgb"].clamp_(0, 1)
    whole = {name: value.view(*shape, *value.shape[1:]) for name, value in images.items()}
    return Rendering(**whole, samples=torch.stack(counts).sum(0) if counts else None)


def render_path(field: Field, cameras: Cameras | Iterable[Cameras]) -> Iterator[Rendering]:
    """Renders one camera after the other."""
    for camera in cameras if not isinstance(cameras, Cameras) else (cameras[i : i + 1] for i in range(len(cameras))):
        yield render(field, camera)


def orbit(
    frames: int = 60,
    *,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    radius: float = 4.0,
    elevation: float = 30.0,
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
    fov: float = 40.0,
    size: tuple[int, int] = (400, 400),
) -> Cameras:
    """Cameras on a circle around `centre`, looking at it.

        >>> fields.orbit(4, radius=2.0, elevation=0.0).centres.norm(dim=-1)
        tensor([2., 2., 2., 2.])

    Args:
        frames: how many, evenly spaced over the whole turn.
        radius: distance from `centre`, scene units.
        elevation: degrees above the plane normal to `up`.
        fov: horizontal field of view, degrees.
        size: width and height, pixels.
    """
    axis = torch.nn.functional.normalize(torch.tensor(up, dtype=torch.float32), dim=0)
    helper = torch.eye(3)[int(axis.abs().argmin())]
    right = torch.nn.functional.normalize(torch.linalg.cross(axis, helper), dim=0)
    forward = torch.linalg.cross(axis, right)
    tilt = math.radians(elevation)
    angles = (torch.arange(frames) * (2 * math.pi / frames))[:, None]
    around = angles.cos() * right + angles.sin() * forward
    target = torch.tensor(centre, dtype=torch.float32)
    eyes = target + radius * (math.cos(tilt) * around + math.sin(tilt) * axis)
    return Cameras.look_at(eyes, target, axis, fov_x=math.radians(fov), width=size[0], height=size[1])
