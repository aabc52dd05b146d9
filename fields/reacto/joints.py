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

from fields.reacto.adjustment import adjust
from fields.reacto.following import SLIDES, TURNS, filled, follow
from fields.reacto.screws import cross_matrix, exponential, move, prismatic, revolute, transformed
from fields.reacto.tracks import Tracks

_TRIED = 768  # axes at first
_KEPT = 12  # of them are looked at more closely
_AROUND = 20  # others near each of those
_ROUNDS = (0.25, 0.1, 0.04)  # how near: radii of the box
_STEPS = 49  # of them that are tried
_PAIRS, _PER_PAIR = 24, 40  # frame pairs, and tracks of each, that an axis is tried on
_LOOKED = 3  # of the joints that were followed, at which a closer look is taken
_QUICKLY, _THOROUGHLY = 3, 8  # adjusted: steps at each scale
_LISTENED = 2500  # tracks, then
_FEWEST = 0.03  # of all tracks, that a part must explain
_STILL = 0.3  # of all tracks, at least, are of what stands still
_FINEST = 0.1  # pixels
_CHUNK = 16  # axes at once
_STRETCH = 0.05  # of the tracks of a part in the time it is best known, that it must have in another
_SIGHTS = 4  # in a frame, that say where a part is
_ALIKE = 0.05  # how far twists, or states, of one joint differ
_NEAR = (0.05, 0.02)  # radii of the box, that points of one surface are apart


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
            seen = tracks.select(left).within(poses[parent])
            for twist, begin in _search(_pairs(seen, generator), tolerance, generator, seen.focal):
                followed = follow(seen, twist, frames, tolerance, *begin)
                along = int((followed.trust == 1).sum())
                candidates.append((along, begin, Part(parent, twist, followed.states)))
        looked = []
        for _, begin, part in sorted(candidates, key=lambda c: -c[0])[:_LOOKED]:
            seen = tracks.select(left).within(poses[part.parent])
            looked.append((*_adjusted(seen, part, tolerance, _QUICKLY, generator), begin))
        explained, part, (first, second, _) = max(looked, key=lambda c: c[0])
        part = _raised(part, parts)
        seen = tracks.select(left).within(poses[part.parent])
        for _ in range(2):  # the better its axis, the surer its states
            step = float(part.states[second] - part.states[first])
            followed = follow(seen, part.twist, frames, tolerance, first, second, step)
            part = Part(part.parent, part.twist, followed.states)
            explained, part = _adjusted(seen, part, tolerance, _THOROUGHLY, generator)
        if explained < _FEWEST * len(tracks):
            break
        parts.append(part)
    parts = _settled(tracks, _merged(tracks, parts, tolerance, say), tolerance, generator, say)
    for b in range(1, len(parts)):
        own = _own(tracks, parts, tolerance)[b]
        parts[b] = _joined(parts[b], own, say) if len(own) else parts[b]
    return _from_first_frame(parts)


def _from_first_frame(parts: list[Part]) -> list[Part]:
    """The same motion, with all joints at zero in the first frame."""
    poses = poses_of(parts, len(parts[0].states))
    return [
        Part(part.parent, transformed(poses[max(0, part.parent)][0], part.twist), part.states - part.states[0])
        for part in parts
    ]


def noise_of(tracks: Tracks, frames: int) -> float:
    """Pixels by which tracks of what stands still are off: some three times what the better part of all of them are."""
    still = torch.eye(4, device=tracks.origins.device).expand(frames, 4, 4)
    return max(_FINEST, 3 * float(tracks.misfit(still).quantile(_STILL)))


def _own(tracks: Tracks, parts: list[Part], tolerance: float) -> list[Tracks]:
    """The tracks of every part, in the frame of its parent."""
    poses = poses_of(parts, len(parts[0].states))
    misfit = torch.stack([tracks.misfit(pose) for pose in poses])
    chosen = [(misfit.argmin(0) == b) & (misfit[b] < 2 * tolerance) for b in range(len(parts))]
    return [
        tracks.select(one.nonzero()[:, 0]).within(poses[max(0, part.parent)])
        for one, part in zip(chosen, parts, strict=True)
    ]


def _sights(own: Tracks, frames: int) -> Tensor:
    """(N, T) bool: which tracks are seen in which frames."""
    seen = torch.zeros(len(own), frames, dtype=torch.bool, device=own.seen.device)
    return seen.index_put((own.seen.nonzero()[:, 0], own.frame[own.seen]), seen.new_tensor(True))


def _merged(tracks: Tracks, parts: list[Part], tolerance: float, say: Callable[[str], None]) -> list[Part]:
    """With one part in place of two that share a joint and do not move against each other: no point of it is seen before and after some moment,
    for it is hidden then, or turns its other side to the camera."""
    sights = torch.stack([_sights(own, len(parts[0].states)).sum(0) for own in _own(tracks, parts, tolerance)])
    parents = {part.parent for part in parts}
    for b in sorted(set(range(1, len(parts))) - parents, key=lambda b: int(sights[b].sum())):
        for a in set(range(1, len(parts))) - {b}:
            way = _way(parts[a].twist, parts[b].twist)
            if way is None or parts[a].parent != parts[b].parent:
                continue
            apart, both = way * parts[b].states - parts[a].states, sights[[a, b]].amin(0) >= _SIGHTS
            shift = apart[both].median() if both.any() else apart.new_tensor(0.0)  # which is found when all is known
            if both.any() and float((apart[both] - shift).abs().median()) > _ALIKE:
                continue
            say(f"parts {a} and {b} are one, on one joint")
            states = torch.where(sights[a] >= sights[b], parts[a].states, way * parts[b].states - shift)
            parts = [*parts]
            parts[a] = Part(parts[a].parent, parts[a].twist, filled(states, sights[[a, b]].amax(0) >= _SIGHTS))
            return _merged(tracks, [_without(part, b) for k, part in enumerate(parts) if k != b], tolerance, say)
    return parts


def _joined(part: Part, own: Tracks, say: Callable[[str], None]) -> Part:
    """Its states, where it was hidden for a while. No track says how far it moved then; that all that is seen of it is of one shape does."""
    from scipy.sparse.csgraph import connected_components

    frames = len(part.states)
    seen = _sights(own, frames)
    shared = seen.mT.float() @ seen.float()
    _, stretch = connected_components((shared >= _SIGHTS).cpu().numpy())
    label = torch.from_numpy(stretch).to(seen.device)
    there = shared.diagonal() >= _SIGHTS
    points = own.triangulate(exponential(part.states[:, None] * part.twist))[0]
    of_track = label[own.frame[:, 0]]
    known = torch.bincount(of_track[of_track >= 0], minlength=int(label.max()) + 1)
    there &= (known > _STRETCH * known.max())[label]  # what is seen for a moment only says little
    stretches = sorted(label[there].unique().tolist(), key=lambda k: -int(known[k]))
    states, done = part.states.clone(), there & (label == stretches[0])
    placed = points[of_track == stretches[0]]
    together = there[1:] & (label[1:] == label[:-1])
    speed = float(states.diff().abs()[together].max()) if together.any() else 0.0
    for k in stretches[1:]:
        here, more = there & (label == k), points[of_track == k]
        apart = (here.nonzero() - done.nonzero()[:, 0]).abs()
        j, i = divmod(int(apart.argmin()), apart.shape[1])
        jump = float(states[here.nonzero()[j, 0]] - states[done.nonzero()[i, 0]])
        shift = _aligned(
            placed, more, part.twist, jump, speed * float(apart.min())
        )  # it was not faster than it was seen to be
        say(f"it is hidden, and then {shift:+.3f} from where it was")
        states[here] -= shift
        placed, done = torch.cat([placed, move(exponential(shift * part.twist), more)]), done | here
    return Part(part.parent, part.twist, filled(states, there))


def _way(a: Tensor, b: Tensor) -> int | None:
    """Which way a joint with twist b goes along one with twist a, 1 or −1; None if they are not one."""
    slides = [bool(twist[:3].norm() < 0.5) for twist in (a, b)]
    if slides[0] != slides[1]:
        return None
    way = 1 if float(a[3:] @ b[3:] if slides[0] else a[:3] @ b[:3]) > 0 else -1
    return way if float((a - way * b).norm()) < _ALIKE else None


def _raised(part: Part, parts: list[Part]) -> Part:
    """Hung as high as it can be: of two joints on one axis, the second may as well hang where the first does."""
    while (parent := parts[part.parent]).parent >= 0 and (way := _way(part.twist, parent.twist)) is not None:
        part = Part(parent.parent, part.twist, part.states + way * parent.states)
    return part


def _aligned(one: Tensor, other: Tensor, twist: Tensor, about: float, reach: float) -> float:
    """The state, so near to `about`, by which a joint leads points (M, 3) to where they meet most of others (N, 3)."""
    from scipy.spatial import cKDTree

    tree, best = cKDTree(one.cpu().numpy()), about
    for near in _NEAR:  # in radii of the box
        tried = best + reach * torch.linspace(-1, 1, 181, device=twist.device)
        moved = move(exponential(tried[:, None] * twist)[:, None], other)
        apart = torch.from_numpy(tree.query(moved.reshape(-1, 3).cpu().numpy())[0]).view(len(tried), -1)
        votes = (1 / (1 + (apart / near).square())).sum(1)
        best, reach = float(tried[votes.argmax()]), reach / 20
    return best


def _settled(
    tracks: Tracks, parts: list[Part], tolerance: float, generator: torch.Generator, say: Callable[[str], None]
) -> list[Part]:
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
        own = _own(tracks, parts, 2 * tolerance)[b]
        if len(own):
            parts[b] = _adjusted(own, parts[b], tolerance, _THOROUGHLY, generator)[1]
    return parts


def _without(part: Part, dropped: int) -> Part:
    return Part(part.parent - (part.parent > dropped), part.twist, part.states)


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
        slides = some[:, :3].norm(dim=-1) < 1e-6
        reach = torch.where(slides, SLIDES, TURNS)[:, None]
        steps = reach * torch.linspace(-1, 1, _STEPS, device=some.device)
        width = (0.6 * reach / _STEPS * focal / distance).clamp(min=2 * tolerance)[..., None]
        off = _off(pairs, some, steps, focal)
        fits = (1 / (1 + (off / width).square()).square() * pairs.valid[:, None, None]).sum(-1)  # (P, H, A)
        value, index = fits.max(2)
        scores.append(value.mT)
        best.append(steps.gather(1, index.mT))
    return torch.cat(scores), torch.cat(best)


def _search(
    pairs: _Pairs, tolerance: float, generator: torch.Generator, focal: float
) -> list[tuple[Tensor, tuple[int, int, float]]]:
    """A few twists (6,), the best turning and the best sliding one among them, each with the frames, and the step between them, in which it
    explains most."""
    device = pairs.o1.device
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


def _adjusted(
    tracks: Tracks, part: Part, tolerance: float, rounds: int, generator: torch.Generator
) -> tuple[float, Part]:
    """The part, its twist and states adjusted to tracks in its parent's frame; and how many it explains."""
    some = torch.randperm(len(tracks), generator=generator, device=tracks.frame.device)[:_LISTENED]
    twist, states = adjust(tracks.select(some), part.twist, part.states, tolerance, rounds)
    off = tracks.misfit(exponential(states[:, None] * twist))
    return float((off < 2 * tolerance).sum()), Part(part.parent, twist, states)
