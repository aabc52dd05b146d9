"""Who is drawn for next.

Everything that renders is an iterator that does a little at each step: a tile of somebody's picture, or of a film. Whoever
owns the field (a thread of the viewer, or a training between its iterations) calls `turn`, and so nothing else runs on the
field meanwhile: no locks, and a new camera waits for one tile at most.
"""

from __future__ import annotations

import threading
import time
import traceback
from typing import Protocol


class Actor(Protocol):
    """Somebody who wants to be drawn for."""

    left: bool
    """Whether its browser has gone, and what is sent there is lost."""

    def urgency(self) -> int:
        """0: nothing to do now; more is more urgent."""

    def act(self) -> None:
        """A little of the work: some ten milliseconds."""


class Stage:
    """Gives turns to actors, the most urgent first, and among equals the one that has waited longest."""

    def __init__(self) -> None:
        self._actors: list[Actor] = []
        self._woken = threading.Event()
        self._stopped = False

    def enter(self, actor: Actor) -> None:
        self._actors = [*self._actors, actor]  # a new list: the thread that takes turns may be reading the old one
        self.wake()

    def leave(self, actor: Actor) -> None:
        self._actors = [other for other in self._actors if other is not actor]

    def turn(self) -> bool:
        """One step of one actor; False when nobody has anything to do."""
        waiting = [(actor.urgency(), actor) for actor in self._actors]
        best = max((urgency for urgency, _ in waiting), default=0)
        if not best:
            return False
        actor = next(actor for urgency, actor in waiting if urgency == best)
        if actor in self._actors:  # to the back of the queue
            self._actors = [*(other for other in self._actors if other is not actor), actor]
        try:
            actor.act()
        except Exception:  # one browser's trouble is not that of the others
            self.leave(actor)
            if not actor.left:
                traceback.print_exc()
        return True

    def wake(self) -> None:
        """Something may have become urgent."""
        self._woken.set()

    def run(self) -> None:
        """Takes turns until `stop`."""
        while not self._stopped:
            self._woken.clear()
            if not self.turn():
                self._woken.wait(0.02)  # rest is a matter of time, which wakes nobody

    def run_for(self, seconds: float) -> None:
        """Takes turns for about so long, and no longer than there is something to do."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.turn():
            pass

    def stop(self) -> None:
        self._stopped = True
        self.wake()
