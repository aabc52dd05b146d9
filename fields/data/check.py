"""`fields data check DIR`: everything that can be told about a scene before hours go into training on it.

report = check_scene("data/fox", out_dir="runs/check")
rich.print(report.render())
report.ok          # False: some problem is an error, and training would refuse the scene
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fields.data import read_capture, validate
from fields.data.assemble import assemble, headers_of, split_frames
from fields.data.check_cameras import camera_findings
from fields.data.check_images import ImageFacts, gather_facts, image_findings
from fields.data.frames import Capture
from fields.data.images import ImageHeader
from fields.data.scene import Scene
from fields.data.validate import Problem
from fields.errors import DataError

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN = 12
"""How many problems of one kind are printed; the rest are counted."""


@dataclass
class Report:
    """What was found: facts as (name, sentence), problems, and where the picture of the bounds went."""

    path: Path
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    picture: Path | None = None

    @property
    def ok(self) -> bool:
        """No errors; warnings are allowed."""
        return not any(p.severity == "error" for p in self.problems)

    def render(self) -> RenderableType:
        """For rich's console."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, sentence in self.facts:
            table.add_row(name, Text(sentence))
        parts: list[RenderableType] = [Text(f"Scene {self.path}", style="bold"), table]
        for severity, style in (("error", "bold red"), ("warning", "yellow")):
            some = [p for p in self.problems if p.severity == severity]
            for p in some[:_SHOWN]:
                parts.append(Text.assemble((f"{severity}: ", style), p.what, "\n  fix: ", (p.fix, "italic")))
            if len(some) > _SHOWN:
                parts.append(Text(f"… and {len(some) - _SHOWN} more {severity}s of this kind", style=style))
        if self.picture is not None:
            parts.append(Text(f"Bounds drawn in {self.picture}"))
        verdict = "This scene is ready for training." if self.ok else "This scene cannot be trained on as it is."
        parts.append(Text(verdict, style="bold green" if self.ok else "bold red"))
        return Group(*parts)


def check_scene(path: str | Path, out_dir: str | Path | None = None) -> Report:
    """Look at everything and list all problems, rather than stop at the first. Draws `bounds.png` into
    `out_dir`."""
    report = Report(Path(path))
    try:
        capture = read_capture(path)
    except DataError as e:
        report.problems.append(_problem(e))
        return report
    report.facts.append(("format", capture.format))
    report.problems += validate.frame_problems(capture)
    facts = gather_facts(capture.frames)
    report.problems += [f.problem for f in facts if f.problem is not None]
    _describe_files(report, capture, facts)
    if not report.ok:
        return report
    headers = headers_of([f for f in capture.frames])
    report.problems += validate.size_problems(capture.frames, headers)
    if not report.ok:
        return report
    sentences, problems = image_findings(capture, facts)
    report.facts += sentences
    report.problems += problems
    try:
        # Statistics do not need more pixels than this, and the box is the one that training would choose.
        largest = max(max(h.width, h.height) for h in headers)
        reduced = max(1, largest // 400)
        scene = assemble(capture, downscale=reduced)
    except DataError as e:
        report.problems.append(_problem(e))
        return report
    sentences, problems = camera_findings(scene, reduced)
    report.facts += sentences
    report.problems += problems
    report.facts += [("note", note) for note in scene.notes]
    if out_dir is not None:
        report.picture = draw_bounds(scene, Path(out_dir))
    return report


def _problem(error: DataError) -> Problem:
    what, _, fix = str(error).partition("\n")
    return Problem("error", what, fix or "See the message.")


def _describe_files(report: Report, capture: Capture, facts: Sequence[ImageFacts]) -> None:
    train, test = split_frames(capture, 8)
    invented = all(f.split is None for f in capture.frames)
    custom = " (no split in the files: every 8th is a test image)" if invented and capture.frames else ""
    report.facts.append(("images", f"{len(train)} train, {len(test)} test{custom}"))
    sizes = Counter((f.header.width, f.header.height) for f in facts if f.header is not None)
    if sizes:
        listed = ", ".join(f"{w} x {h}" + (f" ({n})" if len(sizes) > 1 else "") for (w, h), n in sizes.most_common(4))
        report.facts.append(("sizes", listed + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else "")))
    lenses = Counter(f.intrinsics.lens.name.lower() for f in capture.frames)
    if lenses:
        report.facts.append(("lens", ", ".join(k + (f" ({n})" if len(lenses) > 1 else "") for k, n in lenses.items())))
    turned = [f.frame.name for f in facts if f.header is not None and f.header.rotated]
    if turned:
        report.problems.append(
            Problem(
                "warning",
                f"{len(turned)} images ask to be turned (EXIF), first {turned[0]}; the tag is ignored.",
                "Fine with poses from COLMAP, which ignores it too. Else turn the images and drop it.",
            )
        )


def draw_bounds(scene: Scene, folder: Path) -> Path:
    """bounds.png: the cameras, the box and the sparse points from above and from two sides."""
    from fields.data.bounds_picture import draw

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return draw(scene, folder / "bounds.png")
    except OSError as e:
        raise DataError(f"{folder}: cannot write bounds.png ({e.strerror}).\nGive a folder that can be written.") from e


__all__ = ["ImageHeader", "Problem", "Report", "check_scene", "draw_bounds"]
