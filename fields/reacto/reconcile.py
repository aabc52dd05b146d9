"""Parts that were found one after the other, as one account: none too many, none twice, and none lost while it was hidden."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fields.geometry.rigid import move
from fields.reacto.following import filled
from fields.reacto.parts import Part, adjusted, own_tracks, poses_of
from fields.reacto.screws import exponential, slides
from fields.reacto.tracks import Tracks

_STRETCH = 0.05  # of the tracks of a part in the time it is best known, that it must have in another
_SIGHTS = 4  # in a frame, that say where a part is
_ALIKE = 0.05  # how far twists, or states, of one joint differ
_NEAR = (0.05, 0.02)  # radii of the box, that points of one surface are apart


def settled(
    tracks: Tracks,
    parts: list[Part],
    tolerance: float,
    fewest: float,
    rounds: int,
    generator: torch.Generator,
    say: Callable[[str], None],
) -> list[Part]:
    """Without the parts that others can do without: what was found first may have been a bit of several. The rest is adjusted again,
    to what is now left to it."""
    frames = len(parts[0].states)
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
        own = own_tracks(tracks, parts, 2 * tolerance)[b]
        if len(own):
            parts[b] = adjusted(own, parts[b], tolerance, rounds, generator)[1]
    return parts


def _without(part: Part, dropped: int) -> Part:
    return Part(part.parent - (part.parent > dropped), part.twist, part.states)


def merged(tracks: Tracks, parts: list[Part], tolerance: float, say: Callable[[str], None]) -> list[Part]:
    """With one part in place of two that share a joint and do not move against each other: no point of it is seen before and after some moment,
    for it is hidden then, or turns its other side to the camera."""
    sights = torch.stack([_sights(own, len(parts[0].states)).sum(0) for own in own_tracks(tracks, parts, tolerance)])
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
            return merged(tracks, [_without(part, b) for k, part in enumerate(parts) if k != b], tolerance, say)
    return parts


def joined(part: Part, own: Tracks, say: Callable[[str], None]) -> Part:
    """Its states, where it was hidden for a while. No track says how far it moved then; that all that is seen of it is of one shape does."""
    from scipy.sparse.csgraph import connected_components

    if not len(own):
        return part
    seen = _sights(own, len(part.states))
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
        reach = speed * float(apart.min())  # it was not faster than it was seen to be
        shift = _aligned(placed, more, part.twist, jump, reach)
        say(f"it is hidden, and then {shift:+.3f} from where it was")
        states[here] -= shift
        placed, done = torch.cat([placed, move(exponential(shift * part.twist), more)]), done | here
    return Part(part.parent, part.twist, filled(states, there))


def _way(a: Tensor, b: Tensor) -> int | None:
    """Which way a joint with twist b goes along one with twist a, 1 or −1; None if they are not one."""
    if slides(a) != slides(b):
        return None
    way = 1 if float(a[3:] @ b[3:] if slides(a) else a[:3] @ b[:3]) > 0 else -1
    return way if float((a - way * b).norm()) < _ALIKE else None


def raised(part: Part, parts: list[Part]) -> Part:
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


def _sights(own: Tracks, frames: int) -> Tensor:
    """(N, T) bool: which tracks are seen in which frames."""
    seen = torch.zeros(len(own), frames, dtype=torch.bool, device=own.seen.device)
    return seen.index_put((own.seen.nonzero()[:, 0], own.frame[own.seen]), seen.new_tensor(True))
