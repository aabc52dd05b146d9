"""Objects as the flow is shown them: each fragment in a frame of its own, the world that of the anchor."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from fields.garf.clouds import Cloud
from fields.garf.denoiser import Tokens
from fields.garf.encoder import normalised
from fields.garf.model import Garf
from fields.geometry.rigid import pose_of


@dataclass
class Remembered:
    """An object as the flow needs it: half precision, for thousands of them are kept."""

    points: Tensor
    """(N, 3) in [−1, 1], each in the frame of its fragment: see `own_frames`."""
    normals: Tensor
    """(N, 3)."""
    fragment: Tensor
    """(N,) int64, ascending."""
    broken: Tensor
    """(N,) how likely a point is break."""
    features: Tensor
    """(N, F) what the denoiser is shown of it."""
    size: Tensor
    """(P,) by which points are to be multiplied."""
    translation: Tensor
    """(P, 3) of those frames in that in which the object was given."""
    rotation: Tensor
    """(P, 3, 3)."""

    @classmethod
    @torch.no_grad()
    def of(cls, model: Garf, cloud: Cloud) -> Remembered:
        translation, rotation = own_frames(cloud)
        points, normals, size = normalised(cloud, rotation.mT)
        seen = model.encoder(cloud, rotation.mT)
        broken, features = seen.break_logit.sigmoid(), seen.features
        if model.size == "cpu":
            features = torch.cat([features, seen.lock, seen.key, broken[:, None]], 1)
        return cls(points.half(), normals.half(), cloud.fragment, broken, features.half(), size, translation, rotation)


def own_frames(cloud: Cloud) -> tuple[Tensor, Tensor]:
    """Where frames of their own lie in fragments, whichever way these were given: middles (P, 3) and principal axes (P, 3, 3).

    The axis along which a fragment is thinnest comes first; each points to the side with the longer tail, the last as it must.
    (As published, fragments are turned at random, and the world is that in which the object was made, upright. In a world turned at
    random, which gives nothing away, 5000 iterations do not teach a small network to turn the four fragments of one object.)
    """
    middles, axes = [], []
    for i in range(cloud.pieces):
        points = cloud.points[cloud.fragment == i]
        middles.append(points.mean(0))
        points = points - middles[-1]
        along = torch.linalg.eigh(points.T @ points)[1]
        along = along * torch.where((points @ along).pow(3).sum(0) < 0, -1.0, 1.0)
        axes.append(torch.stack([along[:, 0], along[:, 1], torch.linalg.cross(along[:, 0], along[:, 1])], 1))
    return torch.stack(middles), torch.stack(axes)


@dataclass
class Presented:
    """Objects as they are shown to the denoiser; fragments of all of them are numbered together."""

    shown: tuple[Tensor, Tensor, Tensor, Tensor]
    """Features (B, N, F), points and normals (B, N, 3), sizes (P,)."""
    tokens: Tokens
    translation: Tensor
    """(P, 3) where fragments belong, if they were given assembled, in the anchor's frame."""
    rotation: Tensor
    """(P, 3, 3)."""
    anchor: Tensor
    """(P,) bool."""
    object_of: Tensor
    """(P,) int64."""
    given: Tensor
    """(B, 4, 4) from the anchor's frame to that in which an object was given: rigid, but where training changes its scale."""

    def select(self, objects: Tensor) -> tuple[Presented, Tensor]:
        """Those of these numbers (n,), ascending, and (P,) bool: which fragments are theirs."""
        here = torch.isin(self.object_of, objects)
        number = here.cumsum(0) - 1
        features, points, normals, size = self.shown
        return Presented(
            (features[objects], points[objects], normals[objects], size[here]), Tokens(number[self.tokens.fragment[objects]]),
            self.translation[here], self.rotation[here], self.anchor[here], torch.searchsorted(objects, self.object_of[here]), self.given[objects],
        ), here  # fmt: skip


def presented(objects: list[Remembered], count: int, draw: random.Random | None) -> Presented:
    """Draws `count` points of each object, most of them on breaks.

    The world is the frame of the anchor, the fragment with most points: nothing of where the object stood is left. Training (`draw`) also
    changes the scale by a quarter, and fixes other large fragments as well, so that at any time some can be held (multi-anchor training).
    """
    rows: list[tuple[Tensor, ...]] = []
    base = 0
    for number, one in enumerate(objects):
        pieces, amount = len(one.size), torch.bincount(one.fragment)
        index = chosen_points(one.fragment, one.broken, count)
        first = int(amount.argmax())
        scale = draw.uniform(0.75, 1.25) if draw else 1.0
        world = one.rotation[first]
        back = pose_of(world / scale, one.translation[first])
        anchor = torch.arange(pieces) == first
        if draw and pieces > 2 and draw.random() < 1 - 1 / pieces:
            large = [i for i in range(pieces) if i != first and amount[i] > 0.05 * len(one.points)]
            if large:
                anchor[draw.sample(large, draw.randint(1, min(len(large), pieces - 2)))] = True
        rows.append((
            one.features[index].float(), one.points[index].float(), one.normals[index].float(), scale * one.size, one.fragment[index] + base,
            scale * (one.translation - one.translation[first]) @ world, world.T @ one.rotation, anchor, torch.full((pieces,), number), back,
        ))  # fmt: skip
        base += pieces
    features, points, facing, sizes, fragments, *poses, anchors, numbers, backs = map(list, zip(*rows, strict=True))
    shown = torch.stack(features), torch.stack(points), torch.stack(facing), torch.cat(sizes)
    translations, rotations = map(torch.cat, poses)
    return Presented(
        shown, Tokens(torch.stack(fragments)), translations, rotations, torch.cat(anchors), torch.cat(numbers), torch.stack(backs)
    )  # fmt: skip


def chosen_points(fragment: Tensor, broken: Tensor, count: int, least: int = 8) -> Tensor:
    """(count,) of points (N,), ascending by fragment: `least` of each, the rest where break (N,) is likely; all, where there are no more."""
    if count >= len(fragment):
        return torch.arange(len(fragment))
    weight = broken.clamp(0, 1) + 0.15
    pieces = int(fragment[-1]) + 1
    index = []
    for i in range(pieces):
        mine = torch.nonzero(fragment == i)[:, 0]
        index.append(mine[torch.multinomial(weight[mine], min(least, count // pieces))])
    if rest := count - sum(map(len, index)):
        index.append(torch.multinomial(weight, rest))
    chosen = torch.cat(index)
    return chosen[fragment[chosen].sort(stable=True)[1]]
