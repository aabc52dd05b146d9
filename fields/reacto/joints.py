"""Parts and joints from tracks, before anything is known of shapes.

A pixel that is seen again tells nothing of its depth alone, but all pixels of a part share one motion, and a joint leaves that motion one
degree of freedom. The axis that explains most tracks that nothing explains yet is the next joint (`search.py`); it is followed through time
(`following.py`), and axis, states and points are adjusted together (`adjustment.py`). What was found twice, or not needed, or hidden for a while
is dealt with at the end (`reconcile.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from fields.reacto.following import follow
from fields.reacto.parts import Part, adjusted, from_first_frame, noise_of, own_tracks, poses_of
from fields.reacto.reconcile import joined, merged, raised, settled
from fields.reacto.search import search
from fields.reacto.tracks import Tracks

_LOOKED = 3  # of the joints that were followed, at which a closer look is taken
_QUICKLY, _THOROUGHLY = 3, 8  # adjusted: steps at each scale
_FEWEST = 0.03  # of all tracks, that a part must explain


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
        seen = [tracks.select(left).within(pose) for pose in poses]  # from each that may be its parent
        candidates = []
        for parent, there in enumerate(seen):
            for twist, begin in search(there, tolerance, generator):
                followed = follow(there, twist, frames, tolerance, *begin)
                along = int((followed.trust == 1).sum())
                candidates.append((along, begin, Part(parent, twist, followed.states)))
        looked = []
        for _, begin, part in sorted(candidates, key=lambda c: -c[0])[:_LOOKED]:
            looked.append((*adjusted(seen[part.parent], part, tolerance, _QUICKLY, generator), begin))
        explained, part, (first, second, _) = max(looked, key=lambda c: c[0])
        part = raised(part, parts)
        for _ in range(2):  # the better its axis, the surer its states
            step = float(part.states[second] - part.states[first])
            followed = follow(seen[part.parent], part.twist, frames, tolerance, first, second, step)
            part = Part(part.parent, part.twist, followed.states)
            explained, part = adjusted(seen[part.parent], part, tolerance, _THOROUGHLY, generator)
        if explained < _FEWEST * len(tracks):
            break
        parts.append(part)
    parts = merged(tracks, parts, tolerance, say)
    parts = settled(tracks, parts, tolerance, _FEWEST * len(tracks), _THOROUGHLY, generator, say)
    for b in range(1, len(parts)):
        parts[b] = joined(parts[b], own_tracks(tracks, parts, tolerance)[b], say)
    return from_first_frame(parts)
