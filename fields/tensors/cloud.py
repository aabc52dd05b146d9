"""A learnable cloud of tri-vectors: the vectors of boxes whose places somebody else keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fields.core.boxes import BoxIndex
from fields.core.cloud import tri_vector_sample
from fields.tensors.factorised import _resample_axis


class TriVectorCloud(nn.Module):
    """The vectors of one to four scales of boxes, each (boxes, 3, knots, rank).

    Args:
        boxes: how many, per scale.
        knots: per vector, per scale.
        ranks: per scale.
        scale: standard deviation of the normal noise the vectors start from.
        sampling: further arguments of `fields.core.cloud.tri_vector_sample`.
    """

    def __init__(
        self, boxes: Sequence[int], knots: Sequence[int], ranks: Sequence[int], scale: float, **sampling
    ) -> None:
        super().__init__()
        self.sampling = sampling
        self.vectors = nn.ParameterList(
            scale * torch.randn(b, 3, k, r) for b, k, r in zip(boxes, knots, ranks, strict=True)
        )

    @property
    def ranks(self) -> list[int]:
        return [v.shape[3] for v in self.vectors]

    def forward(self, x: Tensor, boxes: Sequence[BoxIndex], reduce: str = "concat") -> Tensor:
        """(N,) or (N, sum of ranks) at positions (N, 3) in the frame of the boxes."""
        return tri_vector_sample(x, list(self.vectors), boxes, reduce, **self.sampling)  # type: ignore[arg-type,return-value]

    @torch.no_grad()
    def resample(self, knots: Sequence[int]) -> None:
        """Interpolates every vector to new knots over the same boxes (linear, corner aligned)."""
        for s, k in enumerate(knots):
            self.vectors[s] = nn.Parameter(_resample_axis(self.vectors[s].detach(), 2, k).contiguous())

    @torch.no_grad()
    def keep(self, kept: Sequence[Tensor]) -> None:
        """Drops all boxes but those of the given indices (or masks), per scale."""
        for s, rows in enumerate(kept):
            self.vectors[s] = nn.Parameter(self.vectors[s].detach()[rows].contiguous())
