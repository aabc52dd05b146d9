"""The states of a joint whose axis is known, frame by frame.

Of two bodies on one axis, as drawers are, each frame alone may show one or the other. So states grow from the frame pair that shows them best to
either side, and only tracks that went along so far have a say in where the joint is next.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fields.geometry.rigid import move
from fields.reacto.screws import exponential, slides
from fields.reacto.tracks import Tracks, planes, solved

TURNS, SLIDES = 0.7, 0.5  # the most from one frame to the next: radians, radii of the box
_STEPS = 57  # of them that are tried at first
_FINER, _ROUNDS = 7, 3  # tried around the best, so much closer together each time
_HEARD = 300  # tracks in one frame
_SLOPE = 3  # frames, whose states say how fast a joint was when it was last seen
_LASTS = 6.0  # frames, by which that falls to 1/e
_FEWEST = 4  # of them must agree
_DOUBTED = 0.3  # what a track that was not tested yet counts


@dataclass
class Followed:
    states: Tensor
    """(T,), zero in the frame it began with."""
    known: Tensor
    """(T,) bool; the others are interpolated."""
    trust: Tensor
    """(N,) 1 for tracks that go along, 0 for those that do not, between them those that were not tested."""


def follow(
    tracks: Tracks, twist: Tensor, frames: int, tolerance: float, first: int, second: int, step: float
) -> Followed:
    """States of a joint along `twist` (6,), in the frame of whose parent the tracks are.

    Args:
        first, second, step: training frames, and by how much the joint moves from one to the other.
    """
    return _Following(tracks, twist, frames, tolerance).run(first, second, step)


@dataclass
class _Following:
    tracks: Tracks
    twist: Tensor
    frames: int
    tolerance: float
    found: Followed = field(init=False)

    def __post_init__(self) -> None:
        tracks, device = self.tracks, self.twist.device
        self.found = Followed(
            torch.zeros(self.frames, device=device),
            torch.zeros(self.frames, dtype=torch.bool, device=device),
            torch.full((len(tracks),), _DOUBTED, device=device),
        )
        self.origins, self.directions = tracks.origins.clone(), tracks.directions.clone()
        self.known = torch.zeros_like(
            tracks.seen
        )  # sightings, in frames whose state is known; their rays are moved to where it is zero
        self.reach = SLIDES if slides(self.twist) else TURNS
        self.distance = float(tracks.origins[:, 0].norm(dim=-1).median())

    def run(self, first: int, second: int, step: float) -> Followed:
        self._fix(first, 0.0)
        self._test(second, step)
        self._fix(second, step)
        for t in sorted(range(self.frames), key=lambda t: min(abs(t - first), abs(t - second)))[2:]:
            near = min(self.found.known.nonzero()[:, 0].tolist(), key=lambda k: abs(k - t))
            if (state := self._state(t, float(self.found.states[near]), abs(t - near))) is not None:
                self._test(t, state)
                self._fix(t, state)
        self.found.states = filled(self.found.states, self.found.known)
        return self.found

    def _fix(self, t: int, state: float) -> None:
        self.found.states[t], self.found.known[t] = state, True
        at = (self.tracks.frame == t) & self.tracks.seen
        back = exponential(-state * self.twist)
        self.origins[at] = move(back, self.origins[at])
        self.directions[at] = self.directions[at] @ back[:3, :3].mT
        self.known |= at

    def _heard(self, t: int) -> tuple[Tensor, Tensor]:
        """Tracks with a say in frame t, and which of their sightings is in it."""
        there = (self.tracks.frame == t) & self.tracks.seen & self.known.any(1, keepdim=True)
        row, slot = (there & (self.found.trust > 0)[:, None]).nonzero(as_tuple=True)
        return row, slot

    def _off(self, row: Tensor, slot: Tensor, states: Tensor) -> Tensor:
        """(A, M) pixels by which sightings are off where the rest of their tracks is, with the joint in states (A,)."""
        across, b = planes(self.origins[row], self.directions[row])
        rest, m = self.known[row][..., None], torch.arange(len(row))
        rest_across, rest_b = (across * rest[..., None]).sum(1), (b * rest).sum(1)
        back = exponential(-states[:, None] * self.twist)[:, None]
        o = move(back, self.origins[row][m, slot])
        d = (back[..., :3, :3] @ self.directions[row][m, slot][..., None])[..., 0]
        own_across, own_b = planes(o, d)
        return self.tracks.pixels_off(solved(rest_across + own_across, rest_b + own_b), o, d)

    def _state(self, t: int, before: float, apart: int) -> float | None:
        """Of frame t, by vote; None if too few tracks say anything."""
        row, slot = self._heard(t)
        if len(row) > _HEARD:
            first = self.found.trust[row].argsort(descending=True, stable=True)[:_HEARD]
            row, slot = row[first], slot[first]
        weight = self.found.trust[row]
        if float(weight.sum()) < _FEWEST:
            return None
        reach = self.reach * min(apart, 3)
        tried = before + reach * torch.linspace(-1, 1, _STEPS, device=self.twist.device)
        apart_by = 2 * reach / (_STEPS - 1)
        for _ in range(_ROUNDS):
            pixels = 0.3 * apart_by * self.tracks.focal / self.distance  # that the object moves by from one to the next
            width = max(2 * self.tolerance, pixels)
            off = self._off(row, slot, tried)
            votes = (weight / (1 + (off / width).square()).square()).sum(1)
            best = votes.argmax()
            centre = float(tried[best])
            tried = centre + apart_by * torch.linspace(-1, 1, 2 * _FINER + 1, device=self.twist.device)
            apart_by /= _FINER
        return centre if float(votes[best]) >= _FEWEST else None

    def _test(self, t: int, state: float) -> None:
        row, slot = self._heard(t)
        off = self._off(row, slot, self.twist.new_tensor([state]))[0]
        self.found.trust[row] = (off < 3 * self.tolerance).to(off)


def filled(states: Tensor, known: Tensor) -> Tensor:
    """States (T,), those that are not known (T,) in a straight line between those that are. Before the first and after the last it goes on, ever slower,
    and no farther than it was seen to go."""
    import numpy as np

    at, values = known.nonzero()[:, 0].cpu().numpy(), states[known].cpu().numpy()
    there = np.interp(np.arange(len(states)), at, values)
    for end, inner, beyond in (
        (0, at <= at[0] + _SLOPE, np.s_[: at[0]]),
        (-1, at >= at[-1] - _SLOPE, np.s_[at[-1] + 1 :]),
    ):
        if inner.sum() > 1:
            speed = np.polyfit(at[inner], values[inner], 1)[0]
            away = np.arange(len(states))[beyond] - at[end]
            slower = np.sign(away) * _LASTS * (1 - np.exp(-np.abs(away) / _LASTS))
            there[beyond] = np.clip(values[end] + speed * slower, values.min(), values.max())
    return torch.from_numpy(there).to(states)
