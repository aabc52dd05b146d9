"""Training iterations as a CUDA graph: recorded once, replayed until what they train changes shape.

An iteration is a few hundred small kernels. Launched one by one they keep a host busy several times as long as the GPU;
replayed as a graph they cost one launch. A graph cannot ask how many samples there are before it makes memory for them,
so it is recorded with room for somewhat more than there were, and again when that gets too small or far too large.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fields.radiance import Room

Numbers = dict[str, Tensor]
Iterate = Callable[[Room | None], tuple[Numbers, Tensor]]

_BEFORE = 3  # iterations launched one by one before recording: their samples are counted
_LOOK_EVERY = 32  # iterations, since to look how many samples there were is to wait for the GPU
_SPARE = 1.25  # of room over what was used
_WASTE = 2.0  # of room over what is used, from which recording again pays
_UNIT = 4096  # samples by which room grows


class Recording:
    """Runs iterations; on a GPU, recorded.

    Args:
        generator: of all randomness in them.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.possible = generator.device.type == "cuda"
        self._most = torch.zeros(2, dtype=torch.int64)
        self._forget([])

    def __call__(self, iterate: Iterate, subject: Sequence[object]) -> Numbers:
        """The next iteration.

        Args:
            iterate: one whole iteration, optimisers and all, in the room given, or in as much as it takes. Returns
                numbers to show, and (2,) how many samples were made and coloured. (Kept here it would be a cycle, and a
                graph has to go when its training goes.)
            subject: whatever the iteration reads or writes that may be replaced; a recording of others is dropped.
        """
        if not self.possible:
            return iterate(None)[0]
        if len(subject) != len(self._subject) or any(a is not b for a, b in zip(subject, self._subject, strict=True)):
            self._forget(subject)
        self._done += 1
        if self._done <= _BEFORE:
            numbers, used = iterate(None)
            self._most = torch.maximum(self._most, used)
            return numbers
        if self._graph is None:
            return self._record(iterate, self._most.tolist())
        if self._done % _LOOK_EVERY == 0 and (needed := self._misfit()):
            return self._record(iterate, needed)
        self._graph.replay()
        return self._numbers

    def _forget(self, subject: Sequence[object]) -> None:
        self._subject, self._done = list(subject), 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._most = torch.zeros(2, dtype=torch.int64, device="cpu")
        self._numbers: Numbers = {}

    def _misfit(self) -> list[int] | None:
        """How many samples to make room for, if the present room is too small or too large."""
        used, room = self._most.tolist(), (self._room.samples, self._room.coloured)
        self._most.zero_()
        if any(u >= r or r > _WASTE * u + _UNIT for u, r in zip(used, room, strict=True)):
            return [2 * u if u >= r else u for u, r in zip(used, room, strict=True)]
        return None

    def _record(self, iterate: Iterate, needed: list[int]) -> Numbers:
        """Runs one more iteration the way it will be recorded, then records."""
        self._graph = None  # and its memory with it
        self._room = Room(*(_UNIT * (1 + int(_SPARE * n) // _UNIT) for n in needed))
        device = self.generator.device
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            numbers = iterate(self._room)[0]
        torch.cuda.current_stream(device).wait_stream(aside)
        self._most = torch.zeros(2, dtype=torch.int64, device=device)
        graph, before = torch.cuda.CUDAGraph(), self.generator.clone_state()
        graph.register_generator_state(self.generator)
        try:
            with _no_collection(), torch.cuda.graph(graph):
                self._numbers, used = iterate(self._room)
                self._most.copy_(torch.maximum(self._most, used))
        except Exception as error:
            self.possible = False
            self.generator.graphsafe_set_state(before)
            why = error.__context__ or error  # ending the recording fails too, and says less
            warnings.warn(f"Iterations cannot be recorded as a CUDA graph ({why}), so they are launched one by one.")
            return numbers
        self._graph = graph
        return numbers


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keeps Python from freeing old graphs in cycles of objects now: CUDA allows nothing of the sort while recording."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
