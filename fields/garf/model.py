"""What is learned for reassembly, in one module: the encoder, the verifier, and the flow's denoiser."""

from __future__ import annotations

from typing import Any

from torch import nn

from fields.garf.denoiser import Denoiser, DenoiserConfig
from fields.garf.encoder import CPU, EncoderConfig, FractureEncoder
from fields.garf.transformer import TransformerConfig
from fields.garf.verifier import Verifier

SIZES = {
    "cpu": (EncoderConfig(CPU), DenoiserConfig(CPU.decoder[0] + 2 * EncoderConfig.descriptor + 1, 96, 2, 4, 6, 0.0)),
    "paper": (EncoderConfig(TransformerConfig(), 0), DenoiserConfig()),
}
"""Of the encoder and the denoiser. That of the CPU is also shown what would fit and the probability of break, as the published one is not."""


class Garf(nn.Module):
    """
    Args:
        size: one of `SIZES`.
        flow: whether it has a denoiser.
    """

    def __init__(self, size: str = "cpu", flow: bool = True) -> None:
        super().__init__()
        self.size = size
        encoder, denoiser = SIZES[size]
        self.encoder, self.verifier = FractureEncoder(encoder), Verifier()
        self.denoiser = Denoiser(denoiser) if flow else None

    def constructor_arguments(self) -> dict[str, Any]:
        return {"size": self.size, "flow": self.denoiser is not None}
