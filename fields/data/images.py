"""`ImageStore`: all images of a split in one flat block of bytes.

300 images at 1080p are 1.9 GB this way, in a file (`fields.data.blocks`). They may differ in size, and a batch of
pixels from all over them is one gather.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fields.data.blocks import Block, Rows
from fields.data.frames import Mask
from fields.errors import DataError
from fields.io.reading import INFLATES

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""Of others Pillow would start programs: Ghostscript, for one."""
_PIXELS_OF_A_BYTE = 8 * INFLATES
"""At most, and of a small file _FREE in any case; memory is taken before pixels are decoded."""
_FREE = 1 << 22
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_EXIF_ORIENTATION = 274
_DECODING = 1 << 29  # bytes of images that are being decoded at once


@dataclass(eq=False)
class ImageStore:
    """N images of 8-bit sRGB with straight alpha if there is any; row-major, top row first."""

    data: Tensor
    """(P, C) uint8, all pixels of all images one after the other; C = 3 or 4. It may lie in a file: pixels are asked of
    `rows` and `image`, which keep little of it in memory."""
    offsets: Tensor
    """(N,) int64, the row of `data` where each image starts."""
    width: Tensor
    """(N,) int64, pixels."""
    height: Tensor
    masks: Tensor | None = None
    """(P,) bool, True where a pixel may be used; None when all may."""
    blocks: tuple[Block, ...] = ()
    """Where `data` and `masks` lie, unless that is memory of their own."""

    def __len__(self) -> int:
        return self.offsets.shape[0]

    @property
    def channels(self) -> int:
        return self.data.shape[1]

    @property
    def device(self) -> torch.device:
        return self.data.device

    @property
    def nbytes(self) -> int:
        return self.data.numel() + (self.masks.numel() if self.masks is not None else 0)

    def to(self, device: torch.device | str) -> ImageStore:
        masks = None if self.masks is None else self.masks.to(device)
        data, offsets, width, height = (t.to(device) for t in (self.data, self.offsets, self.width, self.height))
        return ImageStore(data, offsets, width, height, masks, self.blocks if data is self.data else ())

    def select(self, which: list[int]) -> ImageStore:
        """The images of these indices, in this order."""
        width, height = self.width[which], self.height[which]
        chosen = _empty_store(width, height, self.channels, self.masks is not None)
        for k, i in enumerate(which):
            chosen.image(k).copy_(self.image(i))
            if chosen.masks is not None:
                chosen.mask(k).copy_(self.mask(i))
        return chosen.to(self.device)

    def rows(self, which: Tensor) -> Tensor:
        """(M, C) uint8: a copy of these rows of `data` (M,) int64."""
        return self.blocks[0][which] if self.blocks else self.data[which]

    def usable_rows(self) -> Rows | None:
        """Those that the masks allow; None for all."""
        if self.masks is None:
            return None
        usable = (self.offsets[i] + self.mask(i).flatten().nonzero()[:, 0] for i in range(len(self)))
        return Rows(usable, self.device)

    def flat_index(self, index: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Rows of `data` of pixels (column x, row y) of images `index`; all (M,) int64."""
        return self.offsets[index] + y * self.width[index] + x

    def locate(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse of `flat_index`: rows of `data` (M,) -> index, x, y. Drawing rows evenly draws pixels
        evenly whatever the sizes, and rows from `masks.nonzero()` draws only usable ones."""
        index = torch.searchsorted(self.offsets, flat, right=True) - 1
        rest = flat - self.offsets[index]
        return index, rest % self.width[index], rest // self.width[index]

    def pixels(self, index: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """(M, C) uint8 of pixels (column x, row y) of images `index`; all (M,) int64."""
        return self.rows(self.flat_index(index, x, y))

    def usable(self, index: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """(M,) bool: whether the mask lets these pixels be used."""
        if self.masks is None:
            return torch.ones_like(index, dtype=torch.bool)
        return self.masks[self.flat_index(index, x, y)]

    def _rows(self, i: int) -> tuple[slice, int, int]:
        i = range(len(self))[i]
        start, w, h = int(self.offsets[i]), int(self.width[i]), int(self.height[i])
        for block in self.blocks:
            block.will_read(w * h * block.data.stride(0))
        return slice(start, start + w * h), h, w

    def image(self, i: int) -> Tensor:
        """(H, W, C) uint8, a view."""
        rows, h, w = self._rows(i)
        return self.data[rows].view(h, w, -1)

    def mask(self, i: int) -> Tensor:
        """(H, W) bool, True where usable."""
        rows, h, w = self._rows(i)
        if self.masks is None:
            return torch.ones(h, w, dtype=torch.bool, device=self.device)
        return self.masks[rows].view(h, w)


def _empty_store(width: Tensor, height: Tensor, channels: int, masked: bool) -> ImageStore:
    """For images of these sizes (N,), on the CPU, whose pixels are yet to be written."""
    width, height = width.cpu(), height.cpu()
    sizes = width * height
    total = int(sizes.sum())
    blocks = [Block((total, channels))] + ([Block((total,), torch.bool, "masks")] if masked else [])
    masks = blocks[1].data if masked else None
    return ImageStore(blocks[0].data, sizes.cumsum(0) - sizes, width, height, masks, tuple(blocks))


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its image before any pixel is decoded."""

    width: int
    height: int
    has_alpha: bool
    rotated: bool
    """EXIF asks viewers to turn the image. The pixels are used as stored, as structure-from-motion tools
    do."""


def read_header(path: Path) -> ImageHeader:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > max(_FREE, _PIXELS_OF_A_BYTE * path.stat().st_size):
                raise ValueError(f"it says {image.width} × {image.height} pixels and is too short for them")
            alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
            # Pillow decodes a whole PNG to look for a late EXIF chunk; only an early one is worth knowing
            # about.
            exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
            rotated = exif.get(_EXIF_ORIENTATION, 1) not in (0, 1)
            return ImageHeader(*image.size, alpha, rotated)
    except FileNotFoundError:
        raise DataError(
            f"{path}: this image does not exist.\nPut it there, or remove its frame from the scene."
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(
            f"{path}: not a readable image ({_reason(e, path)}).\nReplace the file, or remove its frame."
        ) from e


def decode(path: Path, channels: int, downscale: int = 1) -> np.ndarray:
    """(H, W, channels) uint8; channels 1 (grey), 3 or 4. Reduced by averaging blocks of downscale x
    downscale pixels, weighted by alpha, so that transparent pixels bleed no colour; an incomplete last
    block is cut off."""
    try:
        with Image.open(path, formats=_FORMATS) as file:
            file.load()
            image = _to_8_bit(file, {1: "L", 3: "RGB", 4: "RGBA"}[channels])
            if downscale > 1:
                w, h = (max(n // downscale, 1) for n in image.size)
                box = (0, 0, min(w * downscale, image.width), min(h * downscale, image.height))
                image = image.reduce(downscale, box=box)  # averages RGBA premultiplied
            array = np.asarray(image)
            return array[:, :, None] if channels == 1 else array
    except FileNotFoundError:
        raise DataError(
            f"{path}: this image does not exist.\nPut it there, or remove its frame from the scene."
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as e:
        raise DataError(
            f"{path}: the image is truncated or damaged ({_reason(e, path)}).\n"
            "Copy it again from its source, or remove its frame from the scene."
        ) from e


def _reason(error: Exception, path: Path) -> str:
    return str(error).replace(repr(str(path)), "file").split("\n")[0] or type(error).__name__


def _to_8_bit(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; 16-bit colour arrives already reduced
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels; save it as 8-bit or 16-bit PNG")
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def load_images(
    paths: Sequence[Path],
    headers: Sequence[ImageHeader],
    *,
    masks: Sequence[Mask | None] = (),
    masks_are_alpha: bool = False,
    downscale: int = 1,
) -> ImageStore:
    """Decode all images in parallel threads into one store (the decoders release Python's lock).

    With `masks_are_alpha` a mask becomes the alpha channel, otherwise `ImageStore.masks`. It may have another
    resolution than its image, of the same shape."""
    sizes = torch.tensor([(max(h.width // downscale, 1), max(h.height // downscale, 1)) for h in headers]).view(-1, 2)
    any_mask = any(m is not None for m in masks)
    channels = 4 if any(h.has_alpha for h in headers) or (any_mask and masks_are_alpha) else 3
    store = _empty_store(sizes[:, 0].contiguous(), sizes[:, 1].contiguous(), channels, any_mask and not masks_are_alpha)

    def load(i: int) -> bool:
        """Whether all of the image is opaque."""
        array = decode(paths[i], channels, downscale)
        width, height = sizes[i].tolist()
        if array.shape[:2] != (height, width):
            raise DataError(f"{paths[i]}: the image changed while it was being read.\nRun the command again.")
        image = store.image(i).numpy()
        image[:] = array
        one = masks[i] if i < len(masks) else None
        mask = None
        if one is not None:
            mask = _load_mask(one.path, (width, height), downscale, (headers[i].width, headers[i].height))
            mask = 255 - mask if one.inverted else mask
            if masks_are_alpha:
                image[:, :, 3] = mask
        if store.masks is not None:
            store.mask(i).numpy()[:] = True if mask is None else mask > 127
        return bool((image[:, :, 3] == 255).all()) if channels == 4 else True

    largest = max((h.width * h.height for h in headers), default=1)
    at_once = max(1, min(8, os.cpu_count() or 1, _DECODING // (3 * 4 * largest)))  # as decoded, converted and reduced
    with ThreadPoolExecutor(at_once) as pool:
        opaque = all(list(pool.map(load, range(len(paths)))))
    if channels == 4 and opaque:
        store.blocks[0].first_columns(3)
        store.data = store.blocks[0].data
    return store


def _load_mask(path: Path, size: tuple[int, int], downscale: int, full: tuple[int, int]) -> np.ndarray:
    header = read_header(path)
    same = (header.width, header.height) == full
    if abs(header.width * full[1] - header.height * full[0]) > max(full):  # more than rounding
        raise DataError(
            f"{path}: a mask of {header.width} × {header.height} pixels for an image of {full[0]} × {full[1]}.\n"
            "Give the mask of this image."
        )
    array = decode(path, 4 if header.has_alpha else 1, downscale if same else 1)
    # A mask stored in the alpha of an otherwise constant picture is common enough to understand.
    mask = array[:, :, 3] if header.has_alpha and array[:, :, 3].min() < 255 else array[:, :, 0]
    if not same:
        mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BOX))
    return mask
