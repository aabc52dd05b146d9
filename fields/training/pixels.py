"""Drawing training rays: random pixels of all images at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fields.data.blocks import Rows
from fields.data.images import ImageStore
from fields.data.scene import Split
from fields.training.processes import share

_PART = 1 << 17  # rays looked at together


class PixelSampler:
    """Draws batches of rays with the colours of their pixels.

    Nothing is precomputed per ray: a batch is one gather from the bytes of the images, which may lie in a file, and one
    call of the exact lens models. Memory does not grow with the number of images.

    Args:
        split: images to learn from.
        rows: rows of `split.images.data` to draw from; by default all that the masks allow.
        generator: of random numbers; its state is all there is to save.
    """

    def __init__(self, split: Split, generator: torch.Generator, rows: Rows | None = None) -> None:
        self.split, self.generator = split, generator
        self.rows = split.images.usable_rows() if rows is None else rows

    def draw(self, n: int, background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """origins (n, 3), unit directions (n, 3) and sRGB colours (n, 3) over `background` (3,) or (n, 3).

        Of several processes, each gets its `share` of them, over its share of the background.
        """
        store = self.split.images
        total = store.data.shape[0] if self.rows is None else len(self.rows)
        flat = share(torch.randint(total, (n,), generator=self.generator, device=store.device))
        if self.rows is not None:
            flat = self.rows[flat]
        return *self._rays(flat), composite(store.rows(flat), background)

    def keep(self, wanted: Callable[[Tensor, Tensor], Tensor]) -> None:
        """From now on, draw only from the pixels for whose rays `wanted(origins, directions)` is True."""
        store = self.split.images
        rows = Rows.all(store.data.shape[0], store.device) if self.rows is None else self.rows
        kept = rows.where(lambda part: wanted(*self._rays(part)), _PART)
        self.rows = kept if len(kept) else rows

    def _rays(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        index, x, y = self.split.images.locate(rows)
        return self.split.cameras.rays(index, torch.stack([x, y], dim=-1) + 0.5)


def composite(pixels: Tensor, background: Tensor) -> Tensor:
    """uint8 (…, 3 or 4) with straight alpha to sRGB (…, 3) in [0, 1] over `background`."""
    colour = pixels[..., :3].float() / 255
    if pixels.shape[-1] == 3:
        return colour
    alpha = pixels[..., 3:].float() / 255
    return colour * alpha + (1 - alpha) * background


def rows_near_silhouettes(store: ImageStore, radius: int) -> Rows:
    """Rows of the pixels within `radius` pixels of anything not fully transparent."""

    def of_image(i: int) -> Tensor:
        near = (store.image(i)[..., 3] > 0)[None, None].float()
        for window in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
            near = torch.nn.functional.max_pool2d(near, window, 1, [w // 2 for w in window])
        return store.offsets[i] + near.flatten().nonzero()[:, 0]

    return Rows(map(of_image, range(len(store))), store.device)
