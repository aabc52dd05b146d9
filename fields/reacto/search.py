"""The axes of joints, before anything is known of shapes.

An axis can be tried without any geometry: with it, two frames have one number between them to find, and two sightings of a point must lie in one
plane with the two places they are seen from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fields.reacto.following import SLIDES, TURNS
from fields.reacto.screws import cross_matrix, exponential, prismatic, revolute, slides
from fields.reacto.tracks import Tracks

_TRIED = 768  # axes at first
_KEPT = 12  # of them are looked at more closely
_AROUND = 20  # others near each of those
_ROUNDS = (0.25, 0.1, 0.04)  # how near: radii of the box
_STEPS = 49  # between two frames, that are tried
_PAIRS, _PER_PAIR = 24, 40  # frame pairs, and tracks of each, that an axis is tried on
_CHUNK = 16  # axes at once


def search(tracks: Tracks, tolerance: float, generator: torch.Generator) -> list[tuple[Tensor, tuple[int, int, float]]]:
    """A few twists (6,), the best turning and the best sliding one among them, each with the frames, and the step between them, in which it
    explains most."""
    device, focal, pairs = tracks.origins.device, tracks.focal, _pairs(tracks, generator)
    found = []
    for turns in (True, False):

        def twist(axis: Tensor, point: Tensor, turns: bool = turns) -> Tensor:
            axis = normalize(axis, dim=-1)
            return revolute(axis, point - (point * axis).sum(-1, keepdim=True) * axis) if turns else prismatic(axis)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        count = _TRIED if turns else _TRIED // 4
        axes, points = normalize(noise(count, 3), dim=-1), 0.5 * noise(count, 3)
        for spread in _ROUNDS:
            scores = _scores(pairs, twist(axes, points), tolerance, focal)[0].sum(1)
            top = scores.topk(_KEPT).indices
            axes, points = axes[top], points[top]
            axes = torch.cat([axes, (axes[:, None] + spread * noise(_KEPT, _AROUND, 3)).flatten(0, 1)])
            points = torch.cat([points, (points[:, None] + spread * noise(_KEPT, _AROUND, 3)).flatten(0, 1)])
        twists = twist(axes, points)
        scores, steps = _scores(pairs, twists, tolerance, focal)
        for h in scores.sum(1).topk(2).indices:
            p = scores[h].argmax()
            found.append((twists[h], (int(pairs.first[p]), int(pairs.second[p]), float(steps[h, p]))))
    return found


@dataclass(frozen=True)
class _Pairs:
    """Sightings (P, K) of the same points in two frames."""

    first: Tensor
    """(P,) frame."""
    second: Tensor
    valid: Tensor
    o1: Tensor
    d1: Tensor
    o2: Tensor
    d2: Tensor


def _pairs(tracks: Tracks, generator: torch.Generator) -> _Pairs:
    """Some, evenly over time, as far apart as it comes."""
    device = tracks.origins.device
    found = []
    begins = tracks.frame[:, 0].unique()
    for i in begins[torch.linspace(0, len(begins) - 1, min(_PAIRS, len(begins)), device=device).long()]:
        here = (tracks.frame[:, 0] == i).nonzero()[:, 0]
        shared = tracks.seen[here, 1:].sum(0)
        ways = (shared >= shared.amax() / 2).nonzero()[:, 0] + 1
        slot = ways[torch.randint(len(ways), (1,), generator=generator, device=device)]
        track = here[tracks.seen[here, slot]]
        track = track[torch.randperm(len(track), generator=generator, device=device)[:_PER_PAIR]]
        valid = torch.zeros(_PER_PAIR, dtype=torch.bool, device=device)
        valid[: len(track)] = True
        rays = []
        for one in (0, slot):
            for value in (tracks.origins[track, one], tracks.directions[track, one]):
                rays.append(torch.cat([value, value.new_zeros(_PER_PAIR - len(track), 3)]))
        found.append((i, tracks.frame[here[0], slot[0]], valid, *rays))
    return _Pairs(*(torch.stack(column) for column in zip(*found, strict=True)))


def _off(pairs: _Pairs, twists: Tensor, steps: Tensor, focal: float) -> Tensor:
    """(P, H, A, K) pixels: how far sightings are from the planes that twists (H, 6), by steps (H, A), leave them: d₂ᵀ E d₁ over |b × d₁|,
    with the essential matrix E = Rᵀ [b]×."""
    back = exponential(-steps[..., None] * twists[:, None])
    turn, shift = back[..., :3, :3], back[..., :3, 3]
    baseline = torch.einsum("haij,pj->phai", turn, pairs.o2[:, 0]) + shift - pairs.o1[:, 0, None, None]
    essential = turn.mT @ cross_matrix(baseline)
    both = (pairs.d2[..., :, None] * pairs.d1[..., None, :]).flatten(2).mT  # (P, 9, K)
    off = essential.flatten(1, 2).flatten(2) @ both
    along = baseline.flatten(1, 2) @ pairs.d1.mT
    plane = (baseline.flatten(1, 2).square().sum(-1, keepdim=True) - along.square()).clamp(min=1e-6).sqrt()
    return (focal * off.abs() / plane).unflatten(1, steps.shape)


def _scores(pairs: _Pairs, twists: Tensor, tolerance: float, focal: float) -> tuple[Tensor, Tensor]:
    """(H, P) how many sightings twists explain in every pair, and the steps (H, P) by which they do."""
    scores, best = [], []
    distance = pairs.o1[:, 0].norm(dim=-1).median()
    for some in twists.split(_CHUNK):
        reach = torch.where(slides(some), SLIDES, TURNS)[:, None]
        steps = reach * torch.linspace(-1, 1, _STEPS, device=some.device)
        width = (0.6 * reach / _STEPS * focal / distance).clamp(min=2 * tolerance)[..., None]
        off = _off(pairs, some, steps, focal)
        fits = (1 / (1 + (off / width).square()).square() * pairs.valid[:, None, None]).sum(-1)  # (P, H, A)
        value, index = fits.max(2)
        scores.append(value.mT)
        best.append(steps.gather(1, index.mT))
    return torch.cat(scores), torch.cat(best)
