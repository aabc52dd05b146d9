"""Linear pictures, of any dynamic range, from files; and the sRGB curve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fields.errors import DataError
from fields.io import exr, png16, rgbe
from fields.io.exr import write_exr as write_exr
from fields.io.reading import read_npy

T = TypeVar("T")

_MOST_PIXELS = 2**28
_DUST = 1e-6  # of the brightest pixel: filters with negative lobes leave that much below zero
_RADIANCE = (".hdr", ".rgbe", ".pic")
_JPEG = (".jpg", ".jpeg")
FORMATS = (*_RADIANCE, ".exr", ".png", ".npy", *_JPEG)


def read_linear(path: Path) -> Tensor:
    """(H, W, C) float32, top row first; C is 4 where there is alpha, otherwise 3: grey is repeated.

    .hdr, .rgbe, .pic, .exr and .npy hold radiance as it is (of .hdr, what its EXPOSURE header multiplied is divided out); of .png and
    .jpg integers become [0, 1], and no curve is undone: see `has_eight_bits` and `decode_srgb`.

    Raises:
        DataError: names the file and what to do, for anything wrong with it. Pixels that are negative, infinite or NaN are.
    """
    width, height = size_of(path)
    if not 0 < width * height <= _MOST_PIXELS:
        raise DataError(
            f"{path}: its header says {width} × {height} pixels; at most {_MOST_PIXELS} are read.\n"
            "Export a smaller picture, or replace the file if it is damaged."
        )
    image = _guarded(path, _DECODERS[path.suffix.lower()])
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] in (1, 2):
        image = np.concatenate([image[..., :1].repeat(3, 2), image[..., 1:]], 2)
    image = np.ascontiguousarray(image, np.float32)
    _require_light(path, image)
    return torch.from_numpy(image)


def read_vectors(path: Path) -> Tensor:
    """(H, W, 3) float32 of the first channels of a .npy or .exr: any finite numbers, negative ones included.

    Raises:
        DataError: names the file and what to do, for anything wrong with it.
    """
    decode = {".exr": _exr, ".npy": _array}.get(path.suffix.lower())
    if decode is None:
        raise DataError(f"{path}: vectors are read from .npy and .exr.\nSave them as one of these.")
    size_of(path)
    image = _guarded(path, decode)
    if image.ndim != 3 or image.shape[2] < 3 or not np.isfinite(image).all():
        raise DataError(f"{path}: it does not hold three finite numbers for every pixel.\nSave it again, as (H, W, 3).")
    return torch.from_numpy(np.ascontiguousarray(image[..., :3], np.float32))


def size_of(path: Path) -> tuple[int, int]:
    """Width and height, pixels; nothing is decoded.

    Raises:
        DataError: as of `read_linear`, of the header.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(
            f"{path}: {suffix or 'no ending'} is no known kind of picture.\nGive one of {', '.join(FORMATS)}."
        )
    if not path.is_file():
        raise DataError(f"{path}: this picture does not exist.\nCheck the path.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: this file is empty.\nCopy it again from its source.")
    return _guarded(path, _size)


def has_eight_bits(path: Path) -> bool:
    """Whether a picture has 8 bits a channel or fewer: it is then sRGB, and white is where it ends.

    Raises:
        DataError: as of `read_linear`, of the header.
    """
    size_of(path)
    suffix = path.suffix.lower()
    return suffix in _JPEG or (suffix == ".png" and _guarded(path, _png_header).bits <= 8)


def decode_srgb(srgb: Tensor) -> Tensor:
    """sRGB in [0, 1] to linear light."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055).clamp(min=0) ** 2.4)


def encode_srgb(linear: Tensor) -> Tensor:
    """Linear light to sRGB in [0, 1]; what is brighter is 1."""
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def _guarded(path: Path, read: Callable[[Path], T]) -> T:
    """What `read` makes of a file; whatever it trips over becomes a DataError."""
    try:
        return read(path)
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        reason = str(error).split("\n")[0].replace(str(path), "it").rstrip(".") or type(error).__name__
        raise DataError(
            f"{path}: not a readable picture: {reason}.\nCopy it again from its source, or export it anew."
        ) from error


def _size(path: Path) -> tuple[int, int]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        shape = _npy(path).shape
        return shape[1], shape[0]
    if suffix in _JPEG:
        with Image.open(path, formats=["JPEG"]) as image:
            return image.size
    header = (
        exr.read_header(path) if suffix == ".exr" else _png_header(path) if suffix == ".png" else _radiance_header(path)
    )
    return header.width, header.height


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _png_header(path: Path) -> png16.Header:
    return png16.read_header(_head(path, 64))


def _radiance_header(path: Path) -> rgbe.Header:
    return rgbe.read_header(_head(path, 2**16))


def _radiance(path: Path) -> np.ndarray:
    data = path.read_bytes()
    return rgbe.decode(data, rgbe.read_header(data))


def _exr(path: Path) -> np.ndarray:
    header = exr.read_header(path)
    if path.stat().st_size < header.least:
        raise ValueError("its pixels are truncated")
    return exr.decode(path, header)


def _png(path: Path) -> np.ndarray:
    data = path.read_bytes()
    header = png16.read_header(data)
    png16.require_pixels(data, header)
    if header.bits == 16:
        return png16.decode(data, header).astype(np.float32) / 65_535
    return _eight_bits(path)


def _eight_bits(path: Path) -> np.ndarray:
    with Image.open(path, formats=["PNG", "JPEG"]) as image:
        has_alpha = "A" in image.mode or "transparency" in image.info
        return np.asarray(image.convert("RGBA" if has_alpha else "RGB"), np.float32) / 255


def _array(path: Path) -> np.ndarray:
    return np.array(_npy(path), np.float32)


def _npy(path: Path) -> np.ndarray:
    try:
        array = read_npy(path)
    except Exception as error:  # the header is Python, in which anything can be wrong
        raise ValueError(str(error) or "its header is damaged") from error
    if array.dtype.kind != "f":
        raise ValueError("it does not hold an array of floating-point numbers")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(f"it holds an array of shape {array.shape}, not (H, W, 3)")
    return array


_DECODERS: dict[str, Callable[[Path], np.ndarray]] = {
    **dict.fromkeys(_RADIANCE, _radiance), **dict.fromkeys(_JPEG, _eight_bits), ".exr": _exr, ".png": _png, ".npy": _array,
}  # fmt: skip


def _require_light(path: Path, image: np.ndarray) -> None:
    """Sets dust below zero to zero, in place. Raises DataError for pixels that are no light."""
    brightest = image.max()
    if not np.isfinite(brightest) or np.isneginf(image.min()):
        bad = ~np.isfinite(image).all(2)
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"{path}: {bad.sum()} of {bad.size} pixels are NaN or infinite, the first at row {row}, column {column}.\n"
            "Export the picture again, or paint over them."
        )
    smallest = image.min()
    if smallest < -_DUST * brightest:
        negative = (image < -_DUST * brightest).any(2)
        raise DataError(
            f"{path}: {negative.sum()} of {negative.size} pixels are negative, down to {smallest:.4g}; light is not.\n"
            "Clamp them at 0 when exporting."
        )
    if smallest < 0:
        np.maximum(image, 0, out=image)
