"""Radiance pictures (.hdr, .rgbe, .pic): three mantissas with one exponent, run-length coded.

Format: Ward, "Real Pixels", Graphics Gems II, 1991; and Radiance's `filefmts`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_RESOLUTION = re.compile(rb"([-+])([XY]) +(\d{1,9}) +([-+])([XY]) +(\d{1,9}) *")
_LONGEST_HEADER = 65_536


@dataclass(frozen=True)
class Header:
    width: int
    height: int
    exposure: np.ndarray
    """(3,) what the pixels have been multiplied by already."""
    order: re.Match[bytes]
    """The resolution line: which way scanlines run, and which way they follow each other."""
    end: int
    """Bytes before the first scanline."""


def read_header(data: bytes) -> Header:
    """Raises ValueError, saying what is wrong."""
    if not data.startswith(b"#?"):
        raise ValueError("it does not begin with #?RADIANCE")
    exposure = np.ones(3)
    at = 0
    while True:
        end = data.find(b"\n", at, _LONGEST_HEADER)
        if end < 0:
            raise ValueError("its header is truncated")
        line, at = data[at:end].strip(), end + 1
        if not line:
            break
        key, _, value = line.partition(b"=")
        if key == b"FORMAT" and value.strip() != b"32-bit_rle_rgbe":
            raise ValueError(f"its pixels are {value.strip().decode('ascii', 'replace')[:40]!r}, not RGBE")
        if key in (b"EXPOSURE", b"COLORCORR"):  # these add up where a picture went through several programs
            factors = np.array(value.split(), dtype=float)
            if len(factors) != (1 if key == b"EXPOSURE" else 3) or not (np.isfinite(factors) & (factors > 0)).all():
                raise ValueError(f"its {key.decode()} is {value.decode('ascii', 'replace')[:40]!r}")
            exposure = exposure * factors
    end = data.find(b"\n", at, _LONGEST_HEADER)
    order = _RESOLUTION.fullmatch(data[at:end]) if end >= 0 else None
    if order is None or order[2] == order[5]:
        raise ValueError("its header is truncated or has no line such as -Y 512 +X 1024")
    sizes = {order[2]: int(order[3]), order[5]: int(order[6])}
    return Header(sizes[b"X"], sizes[b"Y"], exposure, order, end + 1)


def decode(data: bytes, header: Header) -> np.ndarray:
    """(H, W, 3) float32, top row first. Raises ValueError, saying what is wrong.

    A mantissa m stands for m/256, as in most readers; Radiance itself takes (m + ½)/256, with which black would not be 0.
    """
    count, length = int(header.order[3]), int(header.order[6])
    # A scanline has at least one pixel, or one run, of four bytes.
    if len(data) - header.end < 4 * count:
        raise ValueError("its pixels are truncated")
    if 8 <= length < 32_768 and data[header.end : header.end + 4] == bytes([2, 2, length >> 8, length & 255]):
        rgbe = _new_runs(data, header.end, count, length)
    else:
        rgbe = _old_runs(np.frombuffer(data, np.uint8, offset=header.end), count * length).reshape(count, length, 4)
    scale = np.ldexp(1.0, np.arange(256) - 136)
    scale[0] = 0  # black, whatever the mantissas
    with np.errstate(over="ignore"):  # an absurd exposure gives infinity, which whoever reads pixels looks for
        image = (rgbe[..., :3] * scale[rgbe[..., 3]][..., None] / header.exposure).astype(np.float32)
    if header.order[4] == b"-":
        image = image[:, ::-1]
    if header.order[1] == b"-":
        image = image[::-1]
    # So far rows and columns increase along the axes that they are named for, of which Y points upwards.
    if header.order[2] == b"X":
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[::-1])


def _new_runs(data: bytes, at: int, count: int, length: int) -> np.ndarray:
    """(count, length, 4) uint8: each scanline has all of its reds, then greens, blues and exponents, in runs and literals."""
    start = bytes([2, 2, length >> 8, length & 255])
    out = bytearray()
    for row in range(count):
        if data[at : at + 4] != start:
            raise ValueError(f"scanline {row} of {count} is truncated or damaged")
        at += 4
        for channel in range(1, 5):
            end = (4 * row + channel) * length
            while (left := end - len(out)) > 0:
                code = data[at] if at < len(data) else 0
                size = code - 128 if code > 128 else code
                after = at + 2 if code > 128 else at + 1 + code
                if not 0 < size <= left or after > len(data):
                    raise ValueError(f"scanline {row} of {count} is truncated or damaged")
                out += data[at + 1 : after] * size if code > 128 else data[at + 1 : after]
                at = after
    return np.frombuffer(out, np.uint8).reshape(count, 4, length).transpose(0, 2, 1)


def _old_runs(data: np.ndarray, pixels: int) -> np.ndarray:
    """(pixels, 4) uint8: of pixels one after the other, where (1, 1, 1, n) repeats the one before n times, and in a chain of such
    each counts 256 times the one before."""
    quads = data[: len(data) // 4 * 4].reshape(-1, 4)[:pixels]
    is_run = (quads[:, :3] == 1).all(1)
    if not is_run.any():
        counts = np.ones(len(quads), np.int64)
    else:
        place = np.arange(len(quads))
        last_pixel = np.maximum.accumulate(np.where(is_run, -1, place))
        chain = place - last_pixel - 1  # of a run: how many come before it in its chain
        if last_pixel[0] < 0 or chain.max() > 3:
            raise ValueError("its runs are damaged")
        counts = np.where(is_run, quads[:, 3].astype(np.int64) << (8 * chain.clip(0)), 1)
        quads = quads[last_pixel]
    total = np.cumsum(counts)
    used = int(np.searchsorted(total, pixels)) + 1
    if used > len(counts) or total[used - 1] != pixels:
        raise ValueError("its pixels are truncated or damaged")
    return np.repeat(quads[:used], counts[:used], axis=0)
