"""Few bytes for a plane or a line of numbers, in layers: each halves the step of those before it.

Planes go through the CDF 9/7 wavelet (PyWavelets' bior4.4), lines stay as they are. Magnitudes are whole numbers of steps;
the first layer holds their upper bits, coded as Laplace distributed numbers, every other one bit more of each, and the sign
where it is the first bit that is not 0. `constriction` is the range coder. Its models depend on one byte per band, so that
both ends agree on them to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import constriction
import numpy as np
import pywt

from fields.errors import CheckpointError, ShapeError

_WAVELET, _MODE, _LEVELS = "bior4.4", "periodization", 3
_LARGEST = 20  # bits of a magnitude in the first layer
_CENTRE = 0.45  # where between two steps a magnitude is taken to lie: small ones are more frequent


def encode(values: np.ndarray, step: float, layers: int = 1) -> list[bytes]:
    """A plane (H, W) or line (L,) as so many layers, the last of which is `step` fine.

    Raises:
        ShapeError: other dimensions, numbers that are not finite, or too large for the step.
    """
    if values.ndim not in (1, 2) or not values.size or not np.isfinite(values).all():
        raise ShapeError(f"Only finite planes and lines can be coded, not {values.shape} {values.dtype}.")
    bands = _bands(values.astype(np.float64))
    signs = [np.sign(b).astype(np.int32).ravel() for b in bands]
    ratios = [np.floor(np.abs(b) / step).ravel() for b in bands]
    if max(r.max() for r in ratios) >= 2.0 ** (_LARGEST + layers - 1):
        raise ShapeError(f"A step of {step:g} is too fine for numbers up to {np.abs(values).max():g}.")
    sizes = [r.astype(np.int64) for r in ratios]
    return [_pack_first(signs, [m >> (layers - 1) for m in sizes])] + [
        _pack_more(signs, [m >> (layers - 1 - k) for m in sizes]) for k in range(1, layers)
    ]


def decode(data: Sequence[bytes], shape: tuple[int, ...], step: float, layers: int = 1) -> np.ndarray:
    """The float32 plane or line of this shape, as exactly as the first of its `layers` say, of which `data` has some.

    Raises:
        CheckpointError: bytes that `encode` did not make.
    """
    shapes = _band_shapes(shape)
    try:
        numbers = _unpack_first(data[0], shapes)
        for more in data[1:]:
            numbers = _unpack_more(more, numbers)
    except (ValueError, AssertionError, IndexError) as error:
        raise CheckpointError(f"a layer cannot be decoded: {error}") from None
    step *= 2 ** (layers - len(data))
    values = [np.sign(n) * (np.abs(n) + _CENTRE) * step for n in numbers]
    return _assemble([v.reshape(s) for v, s in zip(values, shapes, strict=True)], shape).astype(np.float32)


# ---------------------------------------------------------------------------------------- layers


def _pack_first(signs: list[np.ndarray], sizes: list[np.ndarray]) -> bytes:
    encoder, head = constriction.stream.queue.RangeEncoder(), bytearray()
    for sign, size in zip(signs, sizes, strict=True):
        bits = int(size.max()).bit_length()
        width = 0 if not bits else round(2 * math.log2(max(float(size.mean()), 2.0**-12))) + 64
        head += bytes([bits, width])
        if bits:
            encoder.encode((sign * size).astype(np.int32), _laplace(bits, width))
    return bytes(head) + encoder.get_compressed().astype("<u4").tobytes()


def _unpack_first(data: bytes, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    head, decoder = _open(data, 2 * len(shapes))
    numbers = []
    for bits, width, shape in zip(head[::2], head[1::2], shapes, strict=True):
        if bits > _LARGEST:
            raise ValueError("a magnitude of too many bits")
        count = math.prod(shape)
        numbers.append(decoder.decode(_laplace(bits, width), count) if bits else np.zeros(count, np.int32))
    return numbers


def _laplace(bits: int, width: int) -> constriction.stream.model.QuantizedLaplace:
    return constriction.stream.model.QuantizedLaplace(-(2**bits), 2**bits, 0.0, 2.0 ** ((width - 64) / 2))


def _pack_more(signs: list[np.ndarray], sizes: list[np.ndarray]) -> bytes:
    """One bit more: sizes are with it."""
    encoder, head = constriction.stream.queue.RangeEncoder(), bytearray()
    for sign, size in zip(signs, sizes, strict=True):
        new = size < 2
        first, later = np.where(size > 0, np.where(sign > 0, 1, 2), 0)[new], (size & 1)[~new]
        rare = _rarity(first > 0)
        head += bytes([rare])
        if rare:
            encoder.encode(first.astype(np.int32), _three(rare))
        if len(later):
            encoder.encode(later.astype(np.int32), _EVEN)
    return bytes(head) + encoder.get_compressed().astype("<u4").tobytes()


def _unpack_more(data: bytes, numbers: list[np.ndarray]) -> list[np.ndarray]:
    head, decoder = _open(data, len(numbers))
    finer = []
    for rare, before in zip(head, numbers, strict=True):
        new = before == 0
        now = before * 2
        if rare and new.any():
            symbols = decoder.decode(_three(rare), int(new.sum()))
            now[new] = np.where(symbols == 2, -1, symbols)
        if not new.all():
            now[~new] += np.sign(before[~new]) * decoder.decode(_EVEN, int((~new).sum()))
        finer.append(now)
    return finer


_EVEN = constriction.stream.model.Uniform(2)


def _rarity(which: np.ndarray) -> int:
    """A byte for how many are: eighths of a power of 2; 0 for none."""
    part = float(which.mean()) if which.size else 0.0
    return 0 if not part else max(1, min(255, round(-8 * math.log2(part)) + 8))


def _three(rare: int) -> constriction.stream.model.Categorical:
    part = min(2.0 ** (-(rare - 8) / 8), 0.98)
    return constriction.stream.model.Categorical(np.array([1 - part, part / 2, part / 2], np.float32), perfect=False)


def _open(data: bytes, size: int) -> tuple[bytes, constriction.stream.queue.RangeDecoder]:
    head, body = data[:size], data[size:]
    if len(head) < size or len(body) % 4:
        raise ValueError("it is too short")
    return head, constriction.stream.queue.RangeDecoder(np.frombuffer(body, "<u4").astype(np.uint32))


# ---------------------------------------------------------------------------------------- wavelets


def _levels(shape: tuple[int, ...]) -> int:
    """Of the wavelet: none for lines, and no more than its filter of ten numbers fits into."""
    return 0 if len(shape) == 1 else min(_LEVELS, pywt.dwt_max_level(min(shape), _WAVELET))


def _bands(values: np.ndarray) -> list[np.ndarray]:
    """Coarse to fine."""
    if not (levels := _levels(values.shape)):
        return [values]
    coarse, *details = pywt.wavedec2(values, _WAVELET, _MODE, levels)
    return [coarse, *(band for three in details for band in three)]


def _band_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    sizes = [shape]
    for _ in range(_levels(shape)):
        sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
    return [sizes[-1], *(size for size in sizes[:0:-1] for _ in range(3))]


def _assemble(bands: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    value = bands[0]
    for i in range(1, len(bands), 3):
        value = value[: bands[i].shape[0], : bands[i].shape[1]]  # an odd size was padded by one
        value = pywt.idwt2((value, tuple(bands[i : i + 3])), _WAVELET, _MODE)
    return value[: shape[0], : shape[1]] if value.ndim == 2 else value
