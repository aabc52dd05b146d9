"""Training iterations as a CUDA graph: recorded once, replayed until what they train changes shape.

An iteration is a few hundred small kernels. Launched one by one they keep a host busy several times as long as the GPU;
replayed as a graph they cost one launch. A graph cannot ask how many samples there are before it makes memory for them,
so it is recorded with room for somewhat more than there were, and again when that gets too small or far too large.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
        self.shapes: dict[Hashable, Recorded] = {}
        self._subject: list[object] = []

    def __call__(self, iterate: Iterate, subject: Sequence[object], shape: Hashable = None) -> Numbers:
        """The next iteration.

        Args:
            iterate: one whole iteration, optimisers and all, in the room given, or in as much as it takes. Returns
                numbers to show, and (2,) how many samples were made and coloured. (Kept here it would be a cycle, and a
                graph has to go when its training goes.)
            subject: whatever the iteration reads or writes that may be replaced; recordings of others are dropped.
            shape: whatever else makes one iteration launch other kernels than another; each is recorded for itself.
        """
        if not self.possible:
            return iterate(None)[0]
        if len(subject) != len(self._subject) or any(a is not b for a, b in zip(subject, self._subject, strict=True)):
            self._subject, self.shapes = list(subject), {}
        recorded = self.shapes.setdefault(shape, Recorded())
        try:
            return recorded(iterate, self.generator, self.shapes.values())
        except NotRecordable as error:
            self.possible = False
            warnings.warn(f"Iterations cannot be recorded as a CUDA graph ({error}), so they are launched one by one.")
            return error.numbers


class Recorded:
    """Iterations of one shape."""

    def __init__(self) -> None:
        self.done, self.room = 0, Room(0, 0)
        self.graph: torch.cuda.CUDAGraph | None = None
        self._most = torch.zeros(2, dtype=torch.int64, device="cpu")
        self._numbers: Numbers = {}

    def __call__(self, iterate: Iterate, generator: torch.Generator, all_shapes: Iterable[Recorded]) -> Numbers:
        self.done += 1
        if self.done <= _BEFORE:
            numbers, used = iterate(None)
            self._most = torch.maximum(self._most, used)
            return numbers
        needed = None
        if self.graph is None:
            needed = self._most.tolist()
        elif self.done % _LOOK_EVERY == 0:
            needed = self._misfit()
        if needed is None:
            self.graph.replay()  # type: ignore[union-attr]
            return self._numbers
        self.graph = None  # and its memory with it
        # Whole iterations, of which none needs anything from another: they may use the same memory.
        pool = next((shape.graph.pool() for shape in all_shapes if shape.graph is not None), None)
        return self._record(iterate, generator, needed, pool)

    def _misfit(self) -> list[int] | None:
        """How many samples to make room for, if the present room is too small or too large."""
        used, room = self._most.tolist(), (self.room.samples, self.room.coloured)
        self._most.zero_()
        if any(u >= r or r > _WASTE * u + _UNIT for u, r in zip(used, room, strict=True)):
            return [2 * u if u >= r else u for u, r in zip(used, room, strict=True)]
        return None

    def _record(self, iterate: Iterate, generator: torch.Generator, needed: list[int], pool: Any) -> Numbers:
        """Runs one more iteration the way it will be recorded, then records."""
        self.room = Room(*(_UNIT * (1 + int(_SPARE * n) // _UNIT) for n in needed))
        aside = torch.cuda.Stream(generator.device)
        aside.wait_stream(torch.cuda.current_stream(generator.device))
        with torch.cuda.stream(aside):
            numbers = iterate(self.room)[0]
        torch.cuda.current_stream(generator.device).wait_stream(aside)
        self._most = torch.zeros(2, dtype=torch.int64, device=generator.device)
        graph, before = torch.cuda.CUDAGraph(), generator.clone_state()
        graph.register_generator_state(generator)
        try:
            with _no_collection(), torch.cuda.graph(graph, pool=pool):
                self._numbers, used = iterate(self.room)
                self._most.copy_(torch.maximum(self._most, used))
        except Exception as error:
            generator.graphsafe_set_state(before)
            why = error.__context__ or error  # ending the recording fails too, and says less
            raise NotRecordable(str(why), numbers) from error
        self.graph = graph
        return numbers


class NotRecordable(Exception):
    """What a CUDA graph cannot record; the iteration was done all the same."""

    def __init__(self, why: str, numbers: Numbers) -> None:
        super().__init__(why)
        self.numbers = numbers


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
