"""From appearance features to colour: what a factorised radiance field ends in."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fields.core import fourier_encode, fused_decoder
from fields.core.decoder import encoded_width
from fields.core.optional import tinycudann_network


class ColourDecoder(nn.Module):
    """A matrix that mixes products of factors into features, and what turns those and a view direction into colour.

    Args:
        channels: width of the concatenated products.
        kind: "mlp", a network on Fourier features (TensoRF, section 4.4); "tcnn", the same of tinycudann; "sh", spherical
            harmonics of degree 2; "rgb", colour that no direction changes.
        feature_dim: width of the features; sh and rgb need 27 and 3 of them, whatever this says.
        hidden: width of the two hidden layers.
        frequencies: octaves of the Fourier encoding of features and direction.
    """

    def __init__(
        self, channels: int, kind: str = "mlp", feature_dim: int = 27, hidden: int = 128, frequencies: int = 2
    ) -> None:
        super().__init__()
        self.kind, self.frequencies = kind, frequencies
        feature_dim = {"mlp": feature_dim, "tcnn": feature_dim, "sh": 27, "rgb": 3}[kind]
        self.basis = nn.Linear(channels, feature_dim, bias=False)
        self.mlp = nn.ModuleList()
        inputs = encoded_width(feature_dim, frequencies, frequencies)
        if kind == "tcnn":
            self.mlp.append(tinycudann_network(inputs, hidden))
        if kind == "mlp":
            last = nn.Linear(hidden, 3)
            nn.init.zeros_(last.bias)
            self.mlp.extend([nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), last])

    def forward(self, products: Tensor, directions: Tensor, basis: Tensor | None = None) -> Tensor:
        """sRGB (N, 3) from products (N, channels) seen along unit directions (N, 3).

        `basis` (feature_dim, channels) takes the place of the matrix, for products that are fewer.
        """
        basis = self.basis.weight if basis is None else basis
        if self.kind == "mlp":
            weights, biases = [m.weight for m in self.mlp], [m.bias for m in self.mlp]
            return fused_decoder(products, directions, basis, weights, biases, self.frequencies, self.frequencies)
        features = products @ basis.T
        if self.kind == "tcnn":
            encoded = fourier_encode(features, directions, self.frequencies, self.frequencies)
            return self.mlp[0](encoded).to(products.dtype)
        if self.kind == "rgb":
            return torch.sigmoid(features)
        harmonics = spherical_harmonics(directions)
        return torch.relu((features.view(-1, 3, 9) * harmonics[:, None]).sum(-1) + 0.5)


def spherical_harmonics(d: Tensor) -> Tensor:
    """(N, 9): real spherical harmonics to degree 2 of unit directions (N, 3), orthonormal, Condon-Shortley phase."""
    x, y, z = d.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.5 / math.sqrt(math.pi)),
            *(math.sqrt(3 / (4 * math.pi)) * v for v in (-y, z, -x)),
            *(math.sqrt(15 / (4 * math.pi)) * v for v in (x * y, -y * z)),
            math.sqrt(5 / (16 * math.pi)) * (3 * z * z - 1),
            -math.sqrt(15 / (4 * math.pi)) * x * z,
            math.sqrt(15 / (16 * math.pi)) * (x * x - y * y),
        ],
        dim=-1,
    )
