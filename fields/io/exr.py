"""OpenEXR pictures, by way of the official package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fields.errors import ShapeError
from fields.io.atomic import write_atomically

_HALF_MAX = 65_504.0
_MOST_PIXELS = 2**28
_EMPTIEST = 1024  # display windows in data windows: more would be memory for nothing
_MAGIC = b"\x76\x2f\x31\x01"
# Scanlines that are compressed together, and how many bytes of pixels one byte stands for at most, or more.
_CHUNKS = {"NO": (1, 1), "RLE": (1, 128), "ZIPS": (1, 1032), "ZIP": (16, 1032), "PXR24": (16, 1032), "PIZ": (32, 1032)}
_OTHER_CHUNKS = (256, 2**20)


@dataclass(frozen=True)
class Header:
    data: tuple[int, int, int, int]
    """The window that has pixels: left, top, right, bottom, the last two included."""
    display: tuple[int, int, int, int]
    """The window of the picture."""
    channels: tuple[str, ...]
    """Those that make the picture, in the order R, G, B, A; or a single one for all three."""
    least: int
    """Bytes that a whole file has at least."""

    @property
    def width(self) -> int:
        return self.display[2] - self.display[0] + 1

    @property
    def height(self) -> int:
        return self.display[3] - self.display[1] + 1


def read_header(path: Path) -> Header:
    """Raises ValueError, saying what is wrong."""
    import OpenEXR

    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise ValueError("it does not begin as an OpenEXR file")
    try:
        with OpenEXR.File(str(path), header_only=True) as file:
            header = dict(file.header())  # closing empties its own
    except Exception as error:  # whatever a damaged file makes of the library
        raise ValueError("its header is damaged") from error
    if header["type"] not in (OpenEXR.scanlineimage, OpenEXR.tiledimage):
        raise ValueError("its pixels are deep")
    channels = {c.name: c for c in header["channels"]}
    names = tuple("RGBA" if "A" in channels else "RGB")
    if not set("RGB") & set(channels) and "Y" in channels and not {"RY", "BY"} & set(channels):
        names = ("Y",)
    if missing := [name for name in names if name not in channels]:
        raise ValueError(f"it has no channel {missing[0]}, only {', '.join(sorted(channels))[:200]}")
    if any((channels[n].xSampling, channels[n].ySampling) != (1, 1) for n in names):
        raise ValueError("its channels are subsampled")
    data, display = (tuple(int(v) for v in np.ravel(header[f"{w}Window"])) for w in ("data", "display"))
    lines, ratio = _CHUNKS.get(header["compression"].name.removesuffix("_COMPRESSION"), _OTHER_CHUNKS)
    width, height = data[2] - data[0] + 1, data[3] - data[1] + 1
    if width * height > _MOST_PIXELS:
        raise ValueError(f"its data window has {width} × {height} pixels")
    if (display[2] - display[0] + 1) * (display[3] - display[1] + 1) > _EMPTIEST * width * height:
        raise ValueError("its data window is a speck of its display window")
    # A chunk has a place in a table, its own number, and its size.
    least = -(-height // lines) * 16 + 2 * len(channels) * width * height // ratio
    return Header(data, display, names, least if header["type"] == OpenEXR.scanlineimage else 0)  # type: ignore[arg-type]


def decode(path: Path, header: Header) -> np.ndarray:
    """(H, W, C) float32, top row first; zero where the display window has no pixels. Raises ValueError, saying what is wrong."""
    import OpenEXR

    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = file.channels()
            pixels = [channels[name].pixels for name in header.channels]
    except Exception as error:  # the library leaves out a part that it cannot decode
        raise ValueError("its pixels are truncated or damaged") from error
    if any(p is None or p.dtype.kind != "f" for p in pixels):
        raise ValueError("its channels are integers, or damaged")
    found = np.stack(pixels, -1).astype(np.float32)
    if header.data == header.display:
        return found
    image = np.zeros((header.height, header.width, found.shape[2]), np.float32)
    left, top, right, bottom = (a - b for a, b in zip(header.data, header.display[:2] * 2, strict=True))
    rows, columns = slice(max(top, 0), max(bottom + 1, 0)), slice(max(left, 0), max(right + 1, 0))
    room = image[rows, columns]
    room[:] = found[max(-top, 0) :, max(-left, 0) :][: room.shape[0], : room.shape[1]]
    return image


def write_exr(path: Path, layers: Mapping[str, Tensor]) -> None:
    """Writes linear pictures of one size as half floats; what is beyond ±65504 becomes that.

    Args:
        layers: (H, W, 3 or 4), whose channels become "name.R" and so on, and those of the layer "" plain "R" and so on; or (H, W),
            which become one channel "name". That of "depth" has 32 bits.

    Raises:
        ShapeError: another shape, or several sizes. FieldsError: it cannot be written.
    """
    import OpenEXR

    channels: dict[str, Any] = {}
    for name, layer in layers.items():
        if layer.shape[:2] != next(iter(layers.values())).shape[:2] or not (
            (layer.ndim == 2 and name) or (layer.ndim == 3 and layer.shape[2] in (3, 4))
        ):
            raise ShapeError(
                f"Layer {name!r} has shape {tuple(layer.shape)}; expected (H, W, 3), (H, W, 4) or (H, W), of one size."
            )
        layer = layer.detach().cpu().float()
        if name != "depth":
            layer = layer.clamp(-_HALF_MAX, _HALF_MAX).half()
        if layer.ndim == 2:
            channels[name] = np.ascontiguousarray(layer.numpy())
        else:
            for letter, values in zip("RGBA", layer.unbind(-1), strict=False):
                channels[f"{name}.{letter}" if name else letter] = np.ascontiguousarray(values.numpy())
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}

    def write(file: Path) -> None:
        try:
            OpenEXR.File(header, channels).write(str(file))
        except RuntimeError as error:  # of the library: no space, for one
            raise OSError(0, str(error).split(os.linesep)[0]) from error

    write_atomically(path, write)
