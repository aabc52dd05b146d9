"""Image metrics as the field reports them: on clamped sRGB in [0, 1], averaged over images."""

from __future__ import annotations

import torch
from torch import Tensor

_WINDOW = 11  # pixels, of SSIM
_BAND = 1 << 21  # pixels whose similarity is found at once: it takes some fifteen times their memory


def psnr(image: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of (H, W, 3) images; over the True pixels of `mask` (H, W) if given."""
    error = (image.clamp(0, 1) - truth).square()
    mse = float(error.mean() if mask is None else error[mask].mean())
    return float("inf") if mse == 0 else float(-10 * torch.log10(torch.tensor(mse, dtype=torch.float64)))


def ssim(image: Tensor, truth: Tensor) -> float:
    """Structural similarity of (H, W, 3) images: Gaussian window of 11 pixels and σ = 1.5, borders left out.

    Reference: Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, 2004; the convention of NeRF.
    """
    from kornia.metrics import ssim as kornia_ssim

    height, width = image.shape[:2]
    rows = max(_BAND // width, 1)
    if height - _WINDOW + 1 <= rows:
        rows = height
    total, count = 0.0, 0
    for start in range(0, max(height - _WINDOW + 1, 1), rows):
        band = slice(start, start + rows + _WINDOW - 1)  # windows that begin in so many rows
        one, other = (x[band].clamp(0, 1).permute(2, 0, 1)[None] for x in (image, truth))
        similar = kornia_ssim(one, other, window_size=_WINDOW, padding="valid")
        total, count = total + float(similar.mean()) * similar.numel(), count + similar.numel()
    return total / count


def iou(one: Tensor, other: Tensor) -> float:
    """Intersection over union of two masks of one shape; 1 of two empty ones."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0
