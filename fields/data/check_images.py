"""What the pixels of a scene tell: damaged, blurred, repeated, unevenly exposed or wrongly masked images."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fields.data.frames import Capture, Frame
from fields.data.images import ImageHeader, decode, read_header
from fields.data.validate import Problem
from fields.errors import DataError

BLUR_RATIO = 0.25
"""An image whose Laplacian varies less than this share of the median image's is called blurred."""


@dataclass
class ImageFacts:
    """What one image looks like, measured on a copy of about 512 pixels."""

    frame: Frame
    header: ImageHeader | None = None
    problem: Problem | None = None
    sharpness: float = 0.0
    """Variance of the Laplacian of the grey image, opaque pixels only."""
    brightness: float = 0.0
    """log2 of the mean linear intensity of the opaque pixels: in stops."""
    opaque: float = 1.0
    """Share of pixels with alpha above one half."""
    usable: float | None = None
    """Share of white pixels in its mask."""
    thumbnail: np.ndarray | None = None


def gather_facts(frames: Sequence[Frame]) -> list[ImageFacts]:
    """Decode every image once, in parallel. Images that do not exist are left to
    `validate.frame_problems`."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(_facts, frames))


def _facts(frame: Frame) -> ImageFacts:
    facts = ImageFacts(frame)
    if not frame.image.is_file():
        return facts
    try:
        facts.header = read_header(frame.image)
        rgba = decode(frame.image, 4, max(1, max(facts.header.width, facts.header.height) // 512))
        if frame.mask is not None and frame.mask.path.is_file():
            mask = decode(frame.mask.path, 1) > 127
            facts.usable = float(mask.mean() if not frame.mask.inverted else 1 - mask.mean())
    except DataError as e:
        what, _, fix = str(e).partition("\n")
        facts.problem = Problem("error", what, fix)
        return facts
    grey = rgba[:, :, :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    opaque = rgba[:, :, 3] > 127
    facts.opaque = float(opaque.mean())
    if min(grey.shape) > 2:
        laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
        inside = opaque[1:-1, 1:-1] & opaque[:-2, 1:-1] & opaque[2:, 1:-1] & opaque[1:-1, :-2] & opaque[1:-1, 2:]
        facts.sharpness = float(laplacian[inside].var()) if inside.any() else 0.0
    linear = (grey / 255) ** 2.2
    facts.brightness = float(np.log2(max(linear[opaque].mean() if opaque.any() else 0.0, 1e-4)))
    small = Image.fromarray(rgba).convert("RGBa").resize((32, 32), Image.Resampling.BOX)
    facts.thumbnail = np.asarray(small, dtype=np.int16).ravel()
    return facts


def image_findings(capture: Capture, facts: Sequence[ImageFacts]) -> tuple[list[tuple[str, str]], list[Problem]]:
    """Sentences and problems from facts without errors."""
    sentences, problems = [], []
    sharpness = np.array([f.sharpness for f in facts])
    median = float(np.median(sharpness))
    blurred = [f.frame.name for f in facts if f.sharpness < BLUR_RATIO * median]
    sentences.append(("sharpness", f"median {median:.0f} (variance of the Laplacian), {len(blurred)} blurred"))
    if blurred:
        problems.append(
            Problem(
                "warning",
                f"{len(blurred)} of {len(facts)} images are blurred against the others: {_some(blurred)}.",
                "Remove them (or their frames), or record with a shorter exposure.",
            )
        )
    stops = np.array([f.brightness for f in facts])
    spread = float(np.percentile(stops, 95) - np.percentile(stops, 5))
    sentences.append(("exposure", f"mean brightness varies over {spread:.2f} stops"))
    if spread > 1.5 and capture.real:
        problems.append(
            Problem(
                "warning",
                f"The images' brightness varies over {spread:.1f} stops: exposure was probably automatic.",
                "Lock exposure and white balance when recording; until then expect haze between views.",
            )
        )
    opaque = np.array([f.opaque for f in facts])
    if (opaque < 1).any():
        sentences.append(("transparency", f"{100 * opaque.mean():.0f} % of the pixels are opaque"))
        empty = [f.frame.name for f in facts if f.opaque < 1e-4]
        if empty:
            problems.append(
                Problem(
                    "warning",
                    f"Nothing is visible in {_some(empty)}.",
                    "Remove these frames, or repair their alpha.",
                )
            )
    problems += _mask_problems(facts, sentences, capture.masks_are_alpha)
    problems += _duplicates(facts)
    return sentences, problems


def _mask_problems(facts: Sequence[ImageFacts], sentences: list[tuple[str, str]], alpha: bool) -> list[Problem]:
    masked = [f for f in facts if f.usable is not None]
    if not masked:
        return []
    share = float(np.mean([f.usable for f in masked]))
    role = "cut out the object" if alpha else "mark the pixels to use"
    sentences.append(("masks", f"{len(masked)} of {len(facts)} images; they {role}, {100 * share:.0f} % white"))
    black = [f.frame.name for f in masked if f.usable is not None and f.usable < 0.005]
    if not black:
        return []
    return [Problem("warning", f"The masks of {_some(black)} are black: no pixel is used.", "Invert or repair them.")]


def _duplicates(facts: Sequence[ImageFacts]) -> list[Problem]:
    table = np.stack([f.thumbnail for f in facts if f.thumbnail is not None])
    pairs = []
    for i in range(len(table) - 1):
        difference = np.abs(table[i + 1 :] - table[i]).max(axis=1)
        pairs += [(i, i + 1 + int(j)) for j in np.flatnonzero(difference <= 1)]
    if not pairs:
        return []
    moved = [p for p in pairs if not _same_pose(facts[p[0]].frame, facts[p[1]].frame)]
    i, j = (moved or pairs)[0]
    names = f"{facts[i].frame.name} and {facts[j].frame.name}"
    if moved:
        what = f"{names} show the same picture from different poses ({len(moved)} pairs): one is wrong."
        return [Problem("warning", what, "Remove one of each pair, and estimate the poses again if there are many.")]
    return [Problem("warning", f"{names} are the same image ({len(pairs)} such pairs).", "Remove one of each pair.")]


def _same_pose(a: Frame, b: Frame) -> bool:
    return a.pose is not None and b.pose is not None and bool(np.abs(a.pose - b.pose).max() < 1e-3)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
