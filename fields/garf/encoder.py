"""What each point of a fragment is: break or not, and what would fit it.

The trunk and the break head are those of GARF's pretraining. The second head is ours: two descriptors per point, one of
what it is and one of what it wants, so that of two points that belong together each is what the other wants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from fields.garf.clouds import Cloud
from fields.garf.invariants import COUNT
from fields.garf.transformer import Plan, PointTransformer, TransformerConfig

CPU = TransformerConfig(
    inputs=7 + COUNT, encoder=(32, 64, 96), encoder_depths=(1, 1, 2), encoder_heads=(2, 4, 6), decoder=(64, 64),
    decoder_depths=(1, 1), decoder_heads=(4, 4), patch=128, cell=0.05, stem=0, depthwise=True, batch_norm=False, drop_path=0.0,
)  # fmt: skip
"""The trunk that trains on a CPU. It is shown the invariants as well."""


class Seen(NamedTuple):
    """What the encoder says of points (N)."""

    features: Tensor
    """(N, C) of the trunk."""
    break_logit: Tensor
    """(N,) how sure it is that a point lies on a break."""
    lock: Tensor
    """(N, D) unit: what the point is."""
    key: Tensor
    """(N, D) unit: what would fit it."""


@dataclass(frozen=True)
class EncoderConfig:
    trunk: TransformerConfig = field(default_factory=lambda: CPU)
    descriptor: int = 32
    """Numbers that say what fits; 0: no such head, as published."""


class FractureEncoder(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.trunk.decoder[0]
        self.trunk = PointTransformer(config.trunk)
        norm = nn.BatchNorm1d(width) if config.trunk.batch_norm else nn.LayerNorm(width)
        self.break_head = nn.Sequential(norm, nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 1))
        if config.descriptor:
            self.fit_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 2 * config.descriptor))  # fmt: skip
            self.log_sharpness = nn.Parameter(torch.tensor(2.5))

    def forward(self, cloud: Cloud, turn: Tensor | None = None) -> Seen:
        """Of the points of a cloud; `turn` (pieces, 3, 3) rotates each fragment first, as training does."""
        points, normals, size = normalised(cloud, turn)
        plan = Plan(points, cloud.fragment, self.config.trunk)
        inputs = torch.cat([points, normals], 1)
        if self.config.trunk.inputs > 6:
            inputs = torch.cat([inputs, cloud.invariants, size.log()[cloud.fragment][:, None]], 1)
        features = self.trunk(inputs, plan)
        logit = self.break_head(features)[:, 0]
        if not self.config.descriptor:
            return Seen(features, logit, features[:, :0], features[:, :0])
        lock, key = self.fit_head(features).chunk(2, -1)
        return Seen(features, logit, normalize(lock, dim=-1), normalize(key, dim=-1))

    def likeness(self, seen: Seen, rows: Tensor, columns: Tensor) -> Tensor:
        """(rows, columns) how well points fit each other: logits, the same seen from either."""
        a = torch.cat([seen.lock[rows], seen.key[rows]], 1)
        b = torch.cat([seen.key[columns], seen.lock[columns]], 1)
        return self.log_sharpness.exp() / 2 * (a @ b.T)


def normalised(cloud: Cloud, turn: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Points and normals (N, 3) of each fragment in its own frame in [−1, 1]³, and its size (pieces,) in sizes of the
    object: the largest coordinate about the mean of its points, after the turn."""
    fragment, pieces = cloud.fragment, cloud.pieces
    count = torch.bincount(fragment)[:, None]
    middle = torch.zeros(pieces, 3).to(cloud.points).index_add(0, fragment, cloud.points) / count
    points, normals = cloud.points - middle[fragment], cloud.normals
    if turn is not None:
        points = torch.einsum("nij,nj->ni", turn[fragment], points)
        normals = torch.einsum("nij,nj->ni", turn[fragment], normals)
    size = points.new_zeros(pieces).scatter_reduce(0, fragment, points.abs().amax(1), "amax")
    return points / size[fragment][:, None], normals, size


def dice(logit: Tensor, target: Tensor) -> Tensor:
    """1 − twice the overlap over the sum, of all points together (the published loss)."""
    p = logit.sigmoid()
    return 1 - (2 * (p * target).sum() + 1e-6) / (p.sum() + target.sum() + 1e-6)


def mates(cloud: Cloud, within: float = 0.03) -> tuple[Tensor, Tensor]:
    """Pairs of points (M,), (M,) of assembled fragments that touch across a break: for each break point, the nearest one of
    its partner that faces it."""
    broken = torch.nonzero(cloud.partner >= 0)[:, 0]
    p, n, f, partner = cloud.points[broken], cloud.normals[broken], cloud.fragment[broken], cloud.partner[broken]
    fits = (partner[:, None] == f) & (n @ n.T < -0.5)
    distance, nearest = torch.where(fits, torch.cdist(p, p), torch.inf).min(1)
    near = distance < within
    return broken[near], broken[nearest[near]]


def fit_loss(encoder: FractureEncoder, seen: Seen, cloud: Cloud, most: int = 1500) -> Tensor:
    """How badly each break point tells its mate from all break points of other fragments (InfoNCE, van den Oord 2018).

    Points right beside the mate are no wrong answers, nor right ones.
    """
    from_, to = mates(cloud)
    if len(from_) < 2:
        return seen.lock.sum() * 0
    chosen = torch.randperm(len(from_))[:most]
    from_, to = from_[chosen], to[chosen]
    columns, target = torch.unique(to, return_inverse=True)
    logits = encoder.likeness(seen, from_, columns)
    beside = (cloud.points[columns][None] - cloud.points[to][:, None]).norm(dim=-1) < 0.03
    beside &= torch.arange(len(columns)) != target[:, None]
    same = cloud.fragment[from_][:, None] == cloud.fragment[columns]
    return cross_entropy(logits.masked_fill(beside | same, -torch.inf), target)
