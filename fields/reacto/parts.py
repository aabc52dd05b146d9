"""Parts by their motion alone, and the tracks that are of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fields.reacto.adjustment import adjust
from fields.reacto.screws import exponential, transformed
from fields.reacto.tracks import Tracks

_STILL = 0.3  # of all tracks, at least, are of what stands still
_FINEST = 0.1  # pixels
_LISTENED = 2500  # tracks, at the most, that a part is adjusted to


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


def noise_of(tracks: Tracks, frames: int) -> float:
    """Pixels by which tracks of what stands still are off: some three times what the better part of all of them are."""
    still = torch.eye(4, device=tracks.origins.device).expand(frames, 4, 4)
    return max(_FINEST, 3 * float(tracks.misfit(still).quantile(_STILL)))


def own_tracks(tracks: Tracks, parts: list[Part], tolerance: float) -> list[Tracks]:
    """The tracks of every part, in the frame of its parent."""
    poses = poses_of(parts, len(parts[0].states))
    misfit = torch.stack([tracks.misfit(pose) for pose in poses])
    chosen = [(misfit.argmin(0) == b) & (misfit[b] < 2 * tolerance) for b in range(len(parts))]
    return [
        tracks.select(one.nonzero()[:, 0]).within(poses[max(0, part.parent)])
        for one, part in zip(chosen, parts, strict=True)
    ]


def adjusted(
    tracks: Tracks, part: Part, tolerance: float, rounds: int, generator: torch.Generator
) -> tuple[float, Part]:
    """The part, its twist and states adjusted to tracks in its parent's frame; and how many it explains."""
    some = torch.randperm(len(tracks), generator=generator, device=tracks.frame.device)[:_LISTENED]
    twist, states = adjust(tracks.select(some), part.twist, part.states, tolerance, rounds)
    off = tracks.misfit(exponential(states[:, None] * twist))
    return float((off < 2 * tolerance).sum()), Part(part.parent, twist, states)


def from_first_frame(parts: list[Part]) -> list[Part]:
    """The same motion, with all joints at zero in the first frame."""
    poses = poses_of(parts, len(parts[0].states))
    return [
        Part(part.parent, transformed(poses[max(0, part.parent)][0], part.twist), part.states - part.states[0])
        for part in parts
    ]
