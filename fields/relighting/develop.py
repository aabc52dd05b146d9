"""From linear radiance to something to look at."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from fields.io.hdr import encode_srgb

Tonemap = Literal["none", "srgb", "filmic", "log"]

_BRIGHTEST = 0.9  # where the 99th percentile goes


def auto_exposure(radiance: Tensor) -> float:
    """Stops that bring the 99th percentile of the brightest channel of radiances (P, 3) to 0.9; 0 where there is no light."""
    if not len(radiance):
        return 0.0
    brightest = radiance.max(-1).values
    high = float(brightest.kthvalue(max(1, math.ceil(0.99 * len(brightest)))).values)
    return math.log2(_BRIGHTEST / high) if high > 0 else 0.0


def develop(radiance: Tensor, stops: float = 0.0, tonemap: Tonemap = "srgb") -> Tensor:
    """Linear radiance (…, 3) to display values in [0, 1].

    none: linear, clipped. srgb: the sRGB curve, clipped. filmic: a curve with shoulder and toe (the fit of Narkowicz, 2016, to the
    ACES reference) before it. log: log(1 + x) before it.
    """
    x = radiance * 2.0**stops
    if tonemap == "none":
        return x.clamp(0, 1)
    if tonemap == "filmic":
        x = x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)
    elif tonemap == "log":
        x = torch.log1p(x)
    return encode_srgb(x)


def clipped(radiance: Tensor, stops: float) -> float:
    """What part of radiances (P, 3) is brighter than a display shows."""
    return float((radiance * 2.0**stops > 1).any(-1).float().mean()) if len(radiance) else 0.0
