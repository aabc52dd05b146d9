"""The transfer image: all a view needs to be lit again, at no cost of marching."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from fields.data.cameras import Cameras
from fields.io.atomic import write_tensors
from fields.relighting.field import TransferField
from fields.relighting.response import Response
from fields.relighting.transfer import Illumination, Parts, Transfer

_CHUNK = 16_384  # rays at once
_THIN = 1 / 512  # opacity below which a pixel is empty: less than half a step of 8 bits
_FINER = ((9, 5), (7, 11), (13, 9), (5, 3), (3, 13), (1, 7), (11, 15), (15, 1))
"""Rays of a pixel at an edge, in sixteenths of it: no two in one row or column, so that edges along either have eight steps."""
_CHANGE = 0.1  # of opacity
_STEP = 4.0  # knots, or widths of a pixel, of depth between neighbours that are an edge


@dataclass
class TransferImage:
    """A view of a field before there is light.

    A pixel is a ray through its middle; at edges it is the mean of eight.
    """

    field: TransferField
    directions: Tensor
    """(H, W, 3) unit, of the rays through the middles of pixels."""
    pixels: Tensor
    """(P,) int64: which pixel each ray belongs to, row by row."""
    weights: Tensor
    """(P,) and what part of it the ray is."""
    rays: Transfer
    """(P, …) of those that show something."""

    @staticmethod
    @torch.no_grad()
    def of(field: TransferField, cameras: Cameras, index: int = 0) -> TransferImage:
        """Marches once through every pixel of a view, and more finely where edges are."""
        origins, directions = (v.to(field.aabb.device) for v in cameras.image_rays(index))
        height, width = directions.shape[:2]
        every = torch.arange(height * width, device=directions.device)
        opacity, depth = (
            torch.zeros(height * width, device=every.device),
            torch.zeros(height * width, device=every.device),
        )
        middles = []
        for some in every.split(_CHUNK):
            part = field.transfer(origins.view(-1, 3)[some], directions.view(-1, 3)[some])
            opacity[some], depth[some] = part.opacity, part.depth
            middles.append(_shown(part, some))
        angle = (directions[height // 2, width // 2] - directions[height // 2, width // 2 - 1]).norm()
        step = _STEP * torch.maximum(angle * depth, angle.new_tensor(field.knot))
        edges = _edges(opacity.view(height, width), depth.view(height, width), step)
        whole = [(part.map(lambda v, rows=~edges[pixels]: v[rows]), pixels[~edges[pixels]]) for part, pixels in middles]  # type: ignore[misc]
        on_edges = edges.nonzero()[:, 0]
        finer = []
        for x, y in _FINER:
            at = torch.stack([on_edges % width + x / 16, on_edges // width + y / 16], -1)
            for some, places in zip(on_edges.split(_CHUNK), at.split(_CHUNK), strict=True):
                rays = cameras.rays(torch.full_like(some, index), places)
                finer.append(_shown(field.transfer(*rays), some))
        parts, pixels = zip(*whole, *finer, strict=True)
        pixel = torch.cat(pixels)
        weights = torch.where(edges[pixel], 1 / len(_FINER), 1.0)
        return TransferImage(field, directions, pixel, weights, Transfer.cat(parts))

    @property
    def height(self) -> int:
        return self.directions.shape[0]

    @property
    def width(self) -> int:
        return self.directions.shape[1]

    @functools.cached_property
    def response(self) -> Response:
        """All of the rays that does not depend on the light."""
        return Response(self.rays, self.field)

    @torch.no_grad()
    def lit(self, illumination: Illumination) -> Parts:
        """Linear radiances (P, 3) along the rays under any light."""
        return self.response.lit(illumination)

    def image(self, values: Tensor) -> Tensor:
        """(H, W, C) of values (P, C) or (P,) along the rays; zero elsewhere."""
        values = values[:, None] if values.ndim == 1 else values
        image = values.new_zeros(self.height * self.width, values.shape[1])
        image.index_add_(0, self.pixels, self.weights[:, None] * values)
        return image.view(self.height, self.width, -1)

    def relight(self, illumination: Illumination) -> Tensor:
        """(H, W, 3) linear radiance, over black."""
        return self.image(self.lit(illumination).total)

    def save(self, path: Path) -> None:
        """Writes the transfer of every ray, in half precision, as safetensors."""
        tensors = {k: v for k, v in vars(self.rays).items() if v is not None}
        if self.response.inside is not None:
            tensors["held"] = self.response.gains
        halves = {k: v if k in ("depth", "point", "places") else v.half() for k, v in tensors.items()}
        basis = {"soft_lights": self.field.basis.matrix().detach(), "axes": self.field.basis.axes}
        size = {"width": self.width, "height": self.height, "sharpness": self.field.basis.sharpness}
        write_tensors(path, halves | basis | {"pixels": self.pixels, "weights": self.weights}, size)


def _shown(part: Transfer, pixels: Tensor) -> tuple[Transfer, Tensor]:
    shown = (part.opacity > _THIN).nonzero()[:, 0]
    return part.map(lambda values: values[shown]), pixels[shown]


def _edges(opacity: Tensor, depth: Tensor, step: Tensor) -> Tensor:
    """(H·W,) bool: whether opacity or depth (H, W) change from a pixel to its neighbours; depth by more than `step` (H·W,)."""
    known = torch.stack([opacity, depth])[None]
    opaque, deep = (max_pool2d(known, 3, 1, 1) + max_pool2d(-known, 3, 1, 1))[0].flatten(1)
    return (opaque > _CHANGE) | (deep > step)
