"""Pictures of high dynamic range, written byte by byte as their formats say, and what is wrong with one."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from fields.errors import DataError
from fields.io.hdr import read_linear

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""For properties of files."""


def rgbe_file(path, rgbe, order=b"-Y %d +X %d", header=b"", runs="none"):
    """Writes (n, m, 4) uint8, m pixels to a scanline."""
    n, m = rgbe.shape[:2]
    coded = {"none": lambda line: line.tobytes(), "old": old_runs, "new": new_runs}[runs]
    body = b"".join(coded(line) for line in rgbe)
    path.write_bytes(
        b"#?RADIANCE\n# made by a test\nFORMAT=32-bit_rle_rgbe\n" + header + b"\n" + order % (n, m) + b"\n" + body
    )
    return path


def old_runs(line):
    """Every pixel, then a run of how often it comes again."""
    out, i = b"", 0
    while i < len(line):
        n = 1
        while i + n < len(line) and (line[i + n] == line[i]).all():
            n += 1
        out += line[i].tobytes()
        again = n - 1
        while again:  # chains of runs count in base 256
            out += bytes([1, 1, 1, again & 255])
            again >>= 8
        i += n
    return out


def new_runs(line):
    """Runs where three or more bytes are the same, literals elsewhere."""
    out = bytes([2, 2, len(line) >> 8, len(line) & 255])
    for channel in line.T:
        i = 0
        while i < len(line):
            n = 1
            while i + n < len(line) and channel[i + n] == channel[i] and n < 127:
                n += 1
            out += bytes([128 + n, channel[i]]) if n > 2 else bytes([n]) + channel[i : i + n].tobytes()
            i += n
    return out


def meaning(rgbe):
    """(…, 3) of (…, 4) uint8, in words of the format: mantissa / 256 · 2^(exponent − 128)."""
    value = rgbe[..., :3] / 256 * 2.0 ** (rgbe[..., 3:].astype(float) - 128)
    return np.where(rgbe[..., 3:] > 0, value, 0)


def random_rgbe(n, m, seed=0):
    """With runs in it; never the marks (1, 1, 1, …) and (2, 2, …) of coded scanlines."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.integers(3, 256, (n, -(-m // 4), 4), np.uint8), 4, axis=1)[:, :m] & np.array(
        [255, 255, 255, 159], np.uint8
    )


def png_file(path, values, filters):
    """Writes (H, W, C) uint16 with a filter of choice for each row."""
    height, width, channels = values.shape
    raw = values.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    size, lines = 2 * channels, []
    above = np.zeros(raw.shape[1] + size, int)
    for row, kind in zip(raw, filters, strict=True):
        line = np.concatenate([np.zeros(size, int), row])
        left, up, corner = line[:-size], above[size:], above[:-size]
        p = left + up - corner
        distance = np.stack([abs(p - left), abs(p - up), abs(p - corner)])
        paeth = np.choose(distance.argmin(0), [left, up, corner])  # the first of equals, as the standard wants
        guess = [0 * left, left, up, (left + up) // 2, paeth][kind]
        lines.append(bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        above = line
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    write_png(path, struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0), zlib.compress(b"".join(lines)))
    return path


def write_png(path, header, data):
    chunks = ((b"IHDR", header), (b"IDAT", data[: len(data) // 2]), (b"IDAT", data[len(data) // 2 :]), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def save_exr(path, channels, header=None, compression="ZIP"):
    import OpenEXR

    kinds = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    OpenEXR.File(kinds | (header or {}), channels).write(str(path))
    return path


def assert_fails(path, match):
    """Of two lines, of which the second is the fix."""
    with pytest.raises(DataError, match=match) as caught:
        read_linear(path)
    lines = str(caught.value).split("\n")
    assert lines[0].startswith(str(path)) and len(lines) == 2 and lines[1].endswith("."), lines
