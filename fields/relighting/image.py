"""The transfer image: all a view needs to be lit again, at no cost of marching."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fields.data.cameras import Cameras
from fields.io.atomic import write_tensors
from fields.relighting.field import TransferField
from fields.relighting.transfer import Illumination, Parts, Transfer

_CHUNK = 16_384  # rays at once
_THIN = 1 / 512  # opacity below which a pixel is empty: less than half a step of 8 bits


@dataclass
class TransferImage:
    """A view of a field before there is light."""

    field: TransferField
    directions: Tensor
    """(H, W, 3) unit, of the rays through the pixels."""
    pixels: Tensor
    """(P,) int64: the pixels that show something, row by row."""
    rays: Transfer
    """(P, …) of them."""

    @staticmethod
    @torch.no_grad()
    def of(field: TransferField, cameras: Cameras, index: int = 0) -> TransferImage:
        """Marches once through every pixel of a view."""
        origins, directions = (v.to(field.aabb.device) for v in cameras.image_rays(index))
        pixels, parts = [], []
        for k, rays in enumerate(
            zip(origins.view(-1, 3).split(_CHUNK), directions.view(-1, 3).split(_CHUNK), strict=True)
        ):
            part = field.transfer(*rays)
            shown = (part.opacity > _THIN).nonzero()[:, 0]
            pixels.append(k * _CHUNK + shown)
            parts.append(part.map(lambda values, rows=shown: values[rows]))  # type: ignore[misc]
        return TransferImage(field, directions, torch.cat(pixels), Transfer.cat(parts))

    @property
    def height(self) -> int:
        return self.directions.shape[0]

    @property
    def width(self) -> int:
        return self.directions.shape[1]

    @torch.no_grad()
    def lit(self, illumination: Illumination) -> Parts:
        """Linear radiances (P, 3) of the pixels under any light."""
        return self.rays.lit(illumination, self.field)

    def image(self, values: Tensor) -> Tensor:
        """(H, W, C) of values (P, C) or (P,); zero elsewhere."""
        values = values[:, None] if values.ndim == 1 else values
        image = values.new_zeros(self.height * self.width, values.shape[1])
        image[self.pixels] = values
        return image.view(self.height, self.width, -1)

    def relight(self, illumination: Illumination) -> Tensor:
        """(H, W, 3) linear radiance, over black."""
        return self.image(self.lit(illumination).total)

    def save(self, path: Path) -> None:
        """Writes the transfer of every pixel, in half precision, as safetensors."""
        tensors = {k: v for k, v in vars(self.rays).items() if v is not None}
        halves = {k: v if k in ("depth", "point") else v.half() for k, v in tensors.items()}
        basis = {"soft_lights": self.field.basis.matrix().detach(), "axes": self.field.basis.axes}
        size = {"width": self.width, "height": self.height, "sharpness": self.field.basis.sharpness}
        write_tensors(path, halves | basis | {"pixels": self.pixels}, size)
