"""Optical flow in files: KITTI's 16-bit PNG, which holds 64ths of a pixel and where flow is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fields.errors import DataError
from fields.io import png16
from fields.io.atomic import write_atomically

_UNIT, _ZERO = 64.0, 32768


def write_flow(file: Path, flow: np.ndarray, known: np.ndarray) -> None:
    """Pixels (H, W, 2), right and down, and where (H, W) they are known."""
    values = np.clip(np.round(flow * _UNIT) + _ZERO, 0, 65535)
    data = png16.encode(np.concatenate([values, known[..., None]], -1).astype(np.uint16))
    write_atomically(file, lambda path: path.write_bytes(data))


def read_flow(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 2) float32 pixels, and (H, W) bool.

    Raises:
        DataError: not such a file.
    """
    try:
        data = file.read_bytes()
        header = png16.read_header(data)
        if (header.bits, header.colour) != (16, 2):
            raise ValueError(
                f"it has {header.bits} bits and colour type {header.colour}; flow has 16 bits and three channels"
            )
        png16.require_pixels(data, header)
        values = png16.decode(data, header)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: not flow as KITTI's PNG ({error}).\nRemove the folder flow/ to have it estimated."
        ) from None
    return (values[..., :2].astype(np.float32) - _ZERO) / _UNIT, values[..., 2] > 0
