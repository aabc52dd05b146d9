"""Parts and joints from tracks, before anything is known of shapes.

A pixel that is seen again tells nothing of its depth alone, but all pixels of a part share one motion, and a joint leaves that motion one
degree of freedom. So an axis can be tried without any geometry: with it, each frame has one number to find, and two sightings of a point
must lie in one plane with the two places they are seen from. The axis that explains most tracks that nothing explains yet is the next
joint; then axis, states and points are adjusted together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fields.reacto.screws import exponential, prismatic, revolute
from fields.reacto.tracks import Tracks

_TRIED = 768  # axes at first
_KEPT = 12  # of them are looked at more closely
_AROUND = 20  # others near each of those
_ROUNDS = (0.25, 0.1, 0.04)  # how near: radii of the box
_TURNS, _SLIDES = 0.7, 0.5  # the most from one frame to the next: radians, radii of the box
_STEPS = 49  # of them that are tried
_PAIRS, _PER_PAIR = 24, 40  # frame pairs, and tracks of each, that an axis is tried on
_LOOKED, _ADJUSTED = 80, 300  # iterations
_FEWEST = 0.02  # of all tracks, that a part must explain
_STILL = 0.3  # of all tracks, at least, are of what stands still
_FINEST = 0.1  # pixels
_CHUNK = 16  # axes at once


@dataclass
class Part:
    """parts[0] stands still."""

    parent: int
    twist: Tensor
    """(6,) of its joint, where all joints are at zero."""
    states: Tensor
    """(T,) of its joint, in every training frame."""


def poses_of(parts: list[Part], frames: int) -> list[Tensor]:
    """(T, 4, 4) of every part, by the product of exponentials of its ancestors' joints."""
    like = parts[0].twist
    poses: list[Tensor] = []
    for part in parts:
        if part.parent < 0:
            poses.append(torch.eye(4, dtype=like.dtype, device=like.device).expand(frames, 4, 4))
        else:
            poses.append(poses[part.parent] @ exponential(part.states[:, None] * part.twist))
    return poses


def find_parts(
    tracks: Tracks, frames: int, most: int, generator: torch.Generator, say: Callable[[str], None] = lambda line: None
) -> list[Part]:
    """One joint after the other, while there are tracks to explain.

    Args:
        frames: how many training frames there are.
        most: parts.
    """
    device = tracks.origins.device
    tracks = tracks.select((tracks.seen.sum(-1) > 1).nonzero()[:, 0])
    tolerance = noise_of(tracks, frames)
    say(f"flow is off by {tolerance:.2f} pixels")
    parts = [Part(-1, torch.zeros(6, device=device), torch.zeros(frames, device=device))]
    while len(parts) < most:
        poses = poses_of(parts, frames)
        misfit = torch.stack([tracks.misfit(pose) for pose in poses])
        left = (misfit.amin(0) > 3 * tolerance).nonzero()[:, 0]
        say(f"{len(parts)} parts leave {len(left)} of {len(tracks)} tracks unexplained")
        if len(left) < _FEWEST * len(tracks):
            break
        candidates = []
        for parent in range(len(parts)):
            pairs = _pairs(tracks.select(left), poses[parent], generator)
            for twist, steps in _search(pairs, tolerance, generator, tracks.focal):
                states = torch.zeros(frames, device=device)
                states[pairs.second] = steps
                part = Part(parent, twist, states.cumsum(0))
                candidates.append(_adjusted(tracks.select(left), [*parts, part], tolerance, _LOOKED))
        part = max(candidates, key=lambda found: found[0])[1]
        explained, part = _adjusted(tracks.select(left), [*parts, part], tolerance, _ADJUSTED)
        if explained < _FEWEST * len(tracks):
            break
        parts.append(part)
    return _settled(tracks, parts, tolerance, say)


def noise_of(tracks: Tracks, frames: int) -> float:
    """Pixels by which tracks of what stands still are off: some three times what the better part of all of them are."""
    still = torch.eye(4, device=tracks.origins.device).expand(frames, 4, 4)
    return max(_FINEST, 3 * float(tracks.misfit(still).quantile(_STILL)))


def _settled(tracks: Tracks, parts: list[Part], tolerance: float, say: Callable[[str], None]) -> list[Part]:
    """Without the parts that others can do without: what was found first may have been a bit of several. The rest is adjusted again,
    to what is now left to it."""
    frames, fewest = len(parts[0].states), _FEWEST * len(tracks)
    while len(parts) > 1:
        misfit = torch.stack([tracks.misfit(pose) for pose in poses_of(parts, frames)])
        leaves = set(range(1, len(parts))) - {part.parent for part in parts}
        needed = {}
        for b in leaves:
            others = torch.cat([misfit[:b], misfit[b + 1 :]]).amin(0)
            needed[b] = int(((misfit[b] < 2 * tolerance) & (others > 3 * tolerance)).sum())
        least = min(needed, key=lambda b: needed[b])
        if needed[least] >= fewest:
            break
        say(f"part {least} explains only {needed[least]} tracks that no other part does, and is dropped")
        parts = [_without(part, least) for k, part in enumerate(parts) if k != least]
    for b in range(1, len(parts)):
        misfit = torch.stack([tracks.misfit(pose) for pose in poses_of(parts, frames)])
        own = (misfit.argmin(0) == b) & (misfit[b] < 4 * tolerance)
        if own.any():
            parts[b] = _adjusted(tracks.select(own.nonzero()[:, 0]), parts[: b + 1], tolerance, _ADJUSTED)[1]
    return parts


def _without(part: Part, dropped: int) -> Part:
    return Part(part.parent - (part.parent > dropped), part.twist, part.states)


@dataclass(frozen=True)
class _Pairs:
    """Sightings (P, K) in one frame and in the next, in the frame of a parent."""

    second: Tensor
    """(P,) which frame the next one is."""
    valid: Tensor
    o1: Tensor
    d1: Tensor
    o2: Tensor
    d2: Tensor

    def select(self, rows: Tensor) -> _Pairs:
        return _Pairs(*(getattr(self, name)[rows] for name in ("second", "valid", "o1", "d1", "o2", "d2")))


def _pairs(tracks: Tracks, poses: Tensor, generator: torch.Generator) -> _Pairs:
    origins, directions = tracks.within(poses)
    found = []
    for j in range(1, len(poses)):
        track, slot = ((tracks.frame == j) & tracks.seen & (tracks.frame[:, :1] == j - 1)).nonzero(as_tuple=True)
        if not len(track):
            continue
        some = torch.randperm(len(track), generator=generator, device=track.device)[:_PER_PAIR]
        track, slot = track[some], slot[some]
        valid = torch.zeros(_PER_PAIR, dtype=torch.bool, device=track.device)
        valid[: len(track)] = True
        rays = []
        for value in (origins[track, 0], directions[track, 0], origins[track, slot], directions[track, slot]):
            rays.append(torch.cat([value, value.new_zeros(_PER_PAIR - len(track), 3)]))
        found.append((torch.tensor(j, device=track.device), valid, *rays))
    return _Pairs(*(torch.stack(column) for column in zip(*found, strict=True)))


def _off(pairs: _Pairs, twists: Tensor, steps: Tensor, focal: float) -> Tensor:
    """(H, A, P, K) pixels: how far sightings are from the planes that twists (H, 6), by steps (H, A), leave them."""
    back = exponential(-steps[..., None] * twists[:, None])[:, :, None, None]
    o = (back[..., :3, :3] @ pairs.o2[..., None])[..., 0] + back[..., :3, 3]
    d = (back[..., :3, :3] @ pairs.d2[..., None])[..., 0]
    plane = normalize(torch.linalg.cross(o - pairs.o1, pairs.d1.expand_as(o)), dim=-1)
    return focal * (d * plane).sum(-1).abs()


def _scores(pairs: _Pairs, twists: Tensor, tolerance: float, focal: float) -> tuple[Tensor, Tensor]:
    """(H,) how many sightings twists explain, and (H, P) the steps by which they do."""
    scores, best = [], []
    for some in twists.split(_CHUNK):
        slides = some[:, :3].norm(dim=-1) < 1e-6
        reach = torch.where(slides, _SLIDES, _TURNS)[:, None]
        steps = reach * torch.linspace(-1, 1, _STEPS, device=some.device)
        off = _off(pairs, some, steps, focal)
        fits = (1 / (1 + (off / (2 * tolerance)).square()).square() * pairs.valid).sum(-1)  # (H, A, P)
        value, index = fits.max(1)
        scores.append(value.sum(-1))
        best.append(steps.gather(1, index))
    return torch.cat(scores), torch.cat(best)


def _search(pairs: _Pairs, tolerance: float, generator: torch.Generator, focal: float) -> list[tuple[Tensor, Tensor]]:
    """A few twists (6,), the best turning and the best sliding one among them, with their steps in every frame pair."""
    device = pairs.o1.device
    few = pairs.select(torch.linspace(0, len(pairs.second) - 1, min(_PAIRS, len(pairs.second)), device=device).long())
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
            scores, _ = _scores(few, twist(axes, points), tolerance, focal)
            top = scores.topk(_KEPT).indices
            axes, points = axes[top], points[top]
            axes = torch.cat([axes, (axes[:, None] + spread * noise(_KEPT, _AROUND, 3)).flatten(0, 1)])
            points = torch.cat([points, (points[:, None] + spread * noise(_KEPT, _AROUND, 3)).flatten(0, 1)])
        scores, _ = _scores(few, twist(axes, points), tolerance, focal)
        chosen = twist(axes, points)[scores.topk(2).indices]
        _, steps = _scores(pairs, chosen, tolerance, focal)
        found += list(zip(chosen, steps, strict=True))
    return found


def _adjusted(tracks: Tracks, parts: list[Part], tolerance: float, iterations: int) -> tuple[float, Part]:
    """The last part, its twist and states adjusted to the tracks; and how many it explains."""
    part, frames = parts[-1], len(parts[-1].states)
    parent = poses_of(parts[:-1], frames)[part.parent]
    twist, states = part.twist.clone().requires_grad_(), part.states.clone().requires_grad_()
    slides = bool(part.twist[:3].norm() < 1e-6)
    optimiser = torch.optim.Adam([{"params": [twist], "lr": 0.02}, {"params": [states], "lr": 0.02}])
    for i in range(iterations):
        progress = i / iterations
        scale = tolerance * (1 + 7 * (1 - progress))
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * 0.02**progress
        free = twist * twist.new_tensor([0, 0, 0, 1, 1, 1]) if slides else twist
        off = tracks.misfit(parent @ exponential(states[:, None] * free))
        loss = (off.square() / (off.square() + scale**2)).mean() + 1e-3 * states.diff(n=2).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        free = twist * twist.new_tensor([0, 0, 0, 1, 1, 1]) if slides else twist
        size = (free[3:] if slides else free[:3]).norm()
        done = Part(part.parent, (free / size).detach(), (states * size).detach())
        off = tracks.misfit(parent @ exponential(done.states[:, None] * done.twist))
    return float((off < 2 * tolerance).sum()), done
