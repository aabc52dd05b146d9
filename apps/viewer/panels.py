"""Tabs of what only some runs have.

A panel is any class with what `Panel` says, registered as an entry point of the group `fields.panels`. The viewer shows those
whose `suits` holds. In its constructor a panel adds controls with `viewer.server.gui`, which then belong to its tab, and
things in space with `viewer.server.scene`; it may replace `viewer.subject.field`, and calls `viewer.redraw` after any change
of what is to be seen.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch

from fields.rendering import Field

if TYPE_CHECKING:
    from fields.apps.viewer.viewer import Subject, Viewer


class Panel(Protocol):
    """One tab."""

    title: ClassVar[str]
    in_scene: bool
    """Whether something of it stands in the scene now that the field may hide."""

    @staticmethod
    def suits(subject: Subject) -> bool:
        """Whether the tab has anything to say of what is looked at."""
        ...

    def __init__(self, viewer: Viewer) -> None: ...


def panels_for(subject: Subject) -> list[type[Panel]]:
    """Of all that are installed, in the order of their titles."""
    found = [point.load() for point in entry_points(group="fields.panels")]
    return sorted((kind for kind in found if kind.suits(subject)), key=lambda kind: kind.title)


class SizePanel:
    """How large a file may be: the levels of a .slim file, with their bytes and their quality."""

    title: ClassVar[str] = "Size"
    in_scene = False

    @staticmethod
    def suits(subject: Subject) -> bool:
        return _slim_file(subject) is not None

    def __init__(self, viewer: Viewer) -> None:
        from fields.slimmerf import container

        self.viewer = viewer
        file = _slim_file(viewer.subject)
        assert file is not None
        self.slim = container.read(file)
        self.known: dict[int, Field] = {}
        count = len(self.slim.chunks)
        gui = viewer.server.gui
        gui.add_markdown(f"`{file.name}`: {count} levels. Its first bytes are a smaller model.")
        self.level = gui.add_slider("Levels", 1, max(count, 2), 1, count)
        self.facts = gui.add_markdown("")
        self.level.on_update(lambda _: self._show())
        self._describe(count)

    def _show(self) -> None:
        level = min(int(self.level.value), len(self.slim.chunks))
        self._describe(level)
        if level not in self.known:
            from fields.slimmerf.slim import from_slim

            self.known[level] = from_slim(self.slim, level).to(self.viewer.device).eval().requires_grad_(False)
        self.viewer.subject.field = self.known[level]
        self.viewer.redraw()

    def _describe(self, level: int) -> None:
        row = self.slim.table[level - 1]
        measured = (
            f"**{row['psnr']:.2f} dB**" if isinstance(row.get("psnr"), float) else "not measured: `fields slim --curve`"
        )
        self.facts.content = f"**{row['end'] / 1e6:.3f} MB**, {measured}"


def _slim_file(subject: Subject) -> Path | None:
    """The .slim file that is looked at, or that belongs to the run."""
    if subject.path is None or not subject.path.is_dir():
        return subject.path
    return next(iter(sorted((subject.path / "exports").glob("*.slim"))), None)


class BoxesPanel:
    """Where the boxes of a Strivec are."""

    title: ClassVar[str] = "Boxes"

    @staticmethod
    def suits(subject: Subject) -> bool:
        from fields.strivec.field import Strivec

        return isinstance(subject.field, Strivec) and subject.path is not None  # while it trains, boxes come and go

    def __init__(self, viewer: Viewer) -> None:
        from fields.strivec.field import Strivec

        self.viewer = viewer
        field = viewer.subject.field
        assert isinstance(field, Strivec)
        gui, scene = viewer.server.gui, viewer.server.scene
        self.shown, self.lines = [], []
        colours = [(200, 70, 50), (50, 120, 190), (60, 150, 80), (150, 90, 170)]
        for i, (index, half) in enumerate(zip(field.boxes, field.half_edge, strict=True)):
            label = f"Scale {i + 1}: {len(index.centres)} boxes of {2 * half:.3g}"
            shown = gui.add_checkbox(label, False)
            self.shown.append(shown)
            segments = box_edges(index.centres, half)
            self.lines.append(
                scene.add_line_segments(f"/boxes/{i}", segments, colors=colours[i % 4], line_width=1.0, visible=False)
            )
            shown.on_update(lambda _: self._show())

    @property
    def in_scene(self) -> bool:
        return any(shown.value for shown in self.shown)

    def _show(self) -> None:
        for shown, lines in zip(self.shown, self.lines, strict=True):
            lines.visible = shown.value
        self.viewer.redraw()


def box_edges(centres: torch.Tensor, half: float) -> np.ndarray:
    """(12 B, 2, 3): the edges of cubes around centres (B, 3)."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)  # (8, 3)
    pairs = [(a, b) for a in range(8) for b in range(a) if int((corners[a] != corners[b]).sum()) == 1]
    ends = torch.stack([corners[list(pair)] for pair in pairs])  # (12, 2, 3)
    edges = centres.cpu()[:, None, None] + half * ends
    return edges.reshape(-1, 2, 3).numpy()
