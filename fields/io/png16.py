"""PNG of 16 bits a channel, whose lower halves Pillow, and with it imageio, throws away.

Format: Portable Network Graphics, third edition, W3C 2025.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from fields.io.reading import INFLATES

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@dataclass(frozen=True)
class Header:
    width: int
    height: int
    bits: int
    colour: int
    """0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""
    interlaced: bool

    @property
    def size(self) -> int:
        """Bytes of the pixels, filters included, before compression."""
        return self.height * (1 + (self.width * _CHANNELS[self.colour] * self.bits + 7) // 8)


def read_header(data: bytes) -> Header:
    """From the beginning of a file. Raises ValueError, saying what is wrong."""
    if not data.startswith(_SIGNATURE):
        raise ValueError("it does not begin as a PNG")
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("its header is truncated")
    width, height, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if colour not in _CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise ValueError(f"its header is damaged: {bits} bits, colour type {colour}")
    return Header(width, height, bits, colour, interlace != 0)


def require_pixels(data: bytes, header: Header) -> None:
    """Raises ValueError for a file that is too short for its header, whatever is in it."""
    if header.size > INFLATES * len(data):
        raise ValueError("its pixels are truncated")


def decode(data: bytes, header: Header) -> np.ndarray:
    """(H, W, C) uint16, top row first; C as in the file. Raises ValueError, saying what is wrong."""
    if header.interlaced:
        raise ValueError("it is interlaced")
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(b"".join(_parts(data)), header.size)
    except zlib.error as error:
        raise ValueError(f"its pixels are damaged: {error}") from None
    if len(raw) < header.size:
        raise ValueError("its pixels are truncated")
    rows = np.frombuffer(raw, np.uint8).reshape(header.height, -1)
    if rows[:, 0].max() > 4:
        raise ValueError("its pixels are damaged: no such filter")
    pixel = 2 * _CHANNELS[header.colour]
    filtered = rows[:, 1:].reshape(header.height, header.width, pixel)
    return _unfilter(filtered, rows[:, 0]).view(">u2").astype(np.uint16)


def encode(values: np.ndarray) -> bytes:
    """A file of (H, W, 3) uint16, top row first. Each row holds its differences from the one above."""
    height, width, _ = values.shape
    rows = np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(height, -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    raw = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], 1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _parts(data: bytes) -> list[bytes]:
    """What IDAT chunks hold. Raises ValueError where one is cut off or changed."""
    parts: list[bytes] = []
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, body, end = data[at + 4 : at + 8], data[at + 8 : at + 8 + size], at + 12 + size
        if kind == b"IEND":
            return parts
        if kind == b"IDAT":
            if end > len(data):
                raise ValueError("its pixels are truncated")
            if zlib.crc32(data[at + 4 : at + 8 + size]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise ValueError("its pixels are damaged: a checksum differs")
            parts.append(body)
        at = end
    raise ValueError("it is truncated")


def _unfilter(filtered: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """(H, W, B) uint8 from what the filter (H,) of each row left of it.

    A pixel follows from those to the left, above and in the corner between, so that an anti-diagonal of them can be had at once.
    """
    if (filters == 2).all():  # as we write them: every row follows from the one above alone
        return np.cumsum(filtered, 0, dtype=np.uint8)
    height, width, size = filtered.shape
    out = np.empty_like(filtered)
    one_back = np.zeros((height + 1, size), np.int16)  # by row, after one row of zeros: the diagonals before
    two_back = np.zeros_like(one_back)
    for k in range(height + width - 1):
        low, high = max(0, k - width + 1), min(height, k + 1)
        rows = np.arange(low, high)
        left, up, corner = one_back[low + 1 : high + 1], one_back[low:high], two_back[low:high]
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        paeth = np.where(to_up <= to_corner, up, corner)
        paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, paeth)
        predicted = np.choose(filters[low:high, None], [np.zeros_like(left), left, up, (left + up) // 2, paeth])
        diagonal = np.zeros_like(one_back)
        diagonal[low + 1 : high + 1] = out[rows, k - rows] = (filtered[rows, k - rows] + predicted) & 255
        one_back, two_back = diagonal, one_back
    return out
