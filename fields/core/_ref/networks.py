"""Plain-PyTorch twin of ``fields.core.networks``."""

from __future__ import annotations

import torch
from torch import Tensor


def small_networks(inputs: Tensor, weights: Tensor, widths: list[int], slope: float) -> Tensor:
    x, at = inputs.expand(len(weights), *inputs.shape[-2:]), 0
    for layer, (below, above) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        if layer:
            x = torch.nn.functional.leaky_relu(x, slope)
        matrix = weights[:, at : at + above * below].view(-1, above, below)
        bias = weights[:, at + above * below : at + above * below + above]
        x = torch.baddbmm(bias[:, None], x, matrix.mT)
        at += above * (below + 1)
    return x
