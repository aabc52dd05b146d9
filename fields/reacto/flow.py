"""Optical flow: in files, as KITTI's 16-bit PNG, which holds 64ths of a pixel and where flow is known; or estimated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fields.errors import DataError
from fields.io import png16
from fields.io.atomic import write_atomically

_UNIT, _ZERO = 64.0, 32768
_UNDONE = 0.5  # pixels that going there and back may be off by


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


def estimate_flow(first: np.ndarray, second: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Flow there and back between images (H, W, 4) uint8 RGBA: pixels (H, W, 2), and where (H, W) it is known, which it is on the object where one
    undoes the other.

    By dense inverse search (Kroeger, Timofte, Dai, Van Gool: Fast Optical Flow using Dense Inverse Search, 2016), of OpenCV.

    Raises:
        DataError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise DataError(
            "There is no optical flow beside the frames, and to estimate it OpenCV is missing: pip install 'fields[video]'"
        ) from None
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    search.setFinestScale(0)  # of full pixels: objects are small in their frames
    grey = [_on_grey(image) for image in (first, second)]
    inside = [
        cv2.erode((image[..., 3] > 127).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0 for image in (first, second)
    ]
    there, back = search.calc(grey[0], grey[1], None), search.calc(grey[1], grey[0], None)
    x, y = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in grey[0].shape[::-1]))
    found = []
    for flow, other, mask, goal in ((there, back, inside[0], inside[1]), (back, there, inside[1], inside[0])):
        to = x + flow[..., 0], y + flow[..., 1]
        returned = cv2.remap(other, *to, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(1e6, 1e6))
        arrives = cv2.remap(goal.astype(np.float32), *to, cv2.INTER_LINEAR) > 0.5
        found.append((flow, mask & arrives & (np.linalg.norm(flow + returned, axis=-1) < _UNDONE)))
    return found


def _on_grey(image: np.ndarray) -> np.ndarray:
    import cv2

    alpha = image[..., 3:].astype(np.float32) / 255
    return cv2.cvtColor(np.round(alpha * image[..., :3] + 127 * (1 - alpha)).astype(np.uint8), cv2.COLOR_RGB2GRAY)
