"""What the cameras of a scene tell: from where it is seen, how densely, and whether they look at the box."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fields.data.bounds import focus
from fields.data.cameras import Cameras
from fields.data.lenses import PANORAMAS, Lens
from fields.data.scene import Scene
from fields.data.validate import Problem

COVERED = math.radians(20)
"""A direction counts as covered if a camera sees the scene from within this angle of it."""


def camera_findings(scene: Scene, downscale: int = 1) -> tuple[list[tuple[str, str]], list[Problem]]:
    """Sentences and problems about the training cameras of a scene loaded at `downscale`."""
    cameras = scene.train.cameras
    sentences = [("focal length", _focal(cameras))]
    problems = _lens_problems(scene)
    centre, distance, converges = focus(cameras)
    if len(cameras) < 10:
        problems.append(
            Problem(
                "warning",
                f"Only {len(cameras)} training images.",
                "Take at least 30; 50 to 150 make a good scene.",
            )
        )
    if converges:
        share, gap, text = coverage(cameras, centre)
        sentences.append(("coverage", f"cameras {distance:.3g} units from what they look at, {text}"))
        fine, problem = _resolution(scene, distance, downscale)
        sentences.append(("resolution", fine))
        problems += problem
        if share < 0.05:
            problems.append(
                Problem(
                    "warning",
                    f"The views cover {100 * share:.0f} % of the directions: other sides will be guesswork.",
                    "Add images from further around the object, if it is to be seen from there.",
                )
            )
        if gap > math.radians(20):
            problems.append(
                Problem(
                    "warning",
                    f"Neighbouring views are {math.degrees(gap):.0f} degrees apart (median).",
                    "Take more images in between; under 15 degrees is comfortable.",
                )
            )
    else:
        sentences.append(("coverage", "the cameras do not look at a common point (forward-facing or inside-out)"))
    problems += _box_problems(scene) + _strays(scene)
    return sentences, problems


def coverage(cameras: Cameras, centre: Tensor) -> tuple[float, float, str]:
    """Share of all directions seen, median angle to the nearest other view (radians), and both in words."""
    d = F.normalize(cameras.centres.double().cpu() - centre, dim=-1)
    n = 2000
    z = 1 - (2 * torch.arange(n, dtype=torch.float64) + 1) / n
    turn = torch.arange(n, dtype=torch.float64) * math.pi * (3 - math.sqrt(5))
    r = (1 - z * z).sqrt()
    sphere = torch.stack([r * turn.cos(), r * turn.sin(), z], -1)  # Fibonacci: even
    share = float(((sphere @ d.T).amax(-1) > math.cos(COVERED)).double().mean())
    cosine = d @ d.T - 3 * torch.eye(len(d), dtype=torch.float64)
    gap = float(cosine.amax(-1).clamp(-1, 1).acos().median()) if len(d) > 1 else math.pi
    elevation = torch.rad2deg(d[:, 2].asin())
    return (
        share,
        gap,
        (
            f"covering {100 * share:.0f} % of all directions, elevations {float(elevation.min()):.0f}° to "
            f"{float(elevation.max()):.0f}°, nearest neighbours {math.degrees(gap):.1f}° apart"
        ),
    )


def _resolution(scene: Scene, distance: float, downscale: int) -> tuple[str, list[Problem]]:
    """How finely a grid of the usual size resolves what the cameras look at."""
    voxel = float((scene.aabb[1] - scene.aabb[0]).prod()) ** (1 / 3) / 300
    pixels = voxel / distance * float(scene.train.cameras.fx.median()) * downscale
    sentence = f"a voxel of a 300³ grid is {pixels:.1f} pixels wide where the cameras look"
    if pixels < 6:
        return sentence, []
    what = f"The box is large for what the cameras look at: {pixels:.0f} pixels per voxel of a 300³ grid."
    fix = f"Train at downscale={max(2, round(pixels / 3))}, or mask the background, or give a tighter box."
    return sentence, [Problem("warning", what, fix)]


def _focal(c: Cameras) -> str:
    fov = torch.rad2deg(2 * torch.atan(0.5 * c.width / c.fx))
    many = float(fov.max() - fov.min()) > 0.1
    return f"horizontal field of view {float(fov.min()):.1f}°" + (f" to {float(fov.max()):.1f}°" if many else "")


def _which(scene: Scene, bad: Tensor) -> str:
    first, n = scene.train.names[int(bad.nonzero()[0])], int(bad.sum())
    return first if n == 1 else f"{first} and {n - 1} more"


def _lens_problems(scene: Scene) -> list[Problem]:
    problems = []
    c = scene.train.cameras
    n = len(c)
    perspective = (c.model == Lens.PINHOLE) | (c.model == Lens.OPENCV)
    fov = torch.rad2deg(2 * torch.atan(0.5 * c.width / c.fx))
    odd = perspective & ((fov < 5) | (fov > 140))
    if odd.any():
        problems.append(
            Problem(
                "warning",
                f"{_which(scene, odd)}: a field of view of {float(fov[odd][0]):.0f} degrees.",
                "Is the focal length in pixels of this very image size, and the angle in radians?",
            )
        )
    off = ((c.cx / c.width - 0.5).abs() > 0.2) | ((c.cy / c.height - 0.5).abs() > 0.2)
    if off.any():
        problems.append(
            Problem(
                "warning",
                f"{_which(scene, off)}: the principal point is far from the middle.",
                "Check cx and cy; for cropped images this can be right.",
            )
        )
    index = torch.arange(n).repeat_interleave(4)
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).repeat(n, 1)
    xy = corner * torch.stack([c.width, c.height], -1)[index]
    o, d = c.rays(index, xy)
    back, _ = c.project(index, o + d * scene.far)
    panoramic = torch.isin(c.model, torch.tensor([int(x) for x in PANORAMAS]))
    folded = ~((back - xy).norm(dim=-1) < 0.5).view(n, 4).all(-1) & ~panoramic
    if folded.any():
        problems.append(
            Problem(
                "warning",
                f"{_which(scene, folded)}: the lens distortion folds over in the picture.",
                "Calibrate again with fewer coefficients, or crop or mask the corners.",
            )
        )
    return problems


def _box_problems(scene: Scene) -> list[Problem]:
    c = scene.train.cameras
    d = torch.where(c.forward.abs() < 1e-9, torch.full_like(c.forward, 1e-9), c.forward)
    a, b = (scene.aabb[0] - c.centres) / d, (scene.aabb[1] - c.centres) / d
    t_in, t_out = torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)
    misses = t_out < t_in.clamp_min(0)
    problems = []
    if bool(misses.any()) and not bool(torch.isin(c.model, torch.tensor([int(x) for x in PANORAMAS])).any()):
        names = [scene.train.names[int(i)] for i in misses.nonzero()[:5]]
        problems.append(
            Problem(
                "warning",
                f"{int(misses.sum())} cameras do not look at the box, such as {', '.join(names)}.",
                "Look at bounds.png. Check those poses, and the box if the files give one.",
            )
        )
    if scene.points is not None and len(scene.points):
        share = float(((scene.points >= scene.aabb[0]) & (scene.points <= scene.aabb[1])).all(-1).float().mean())
        if share < 0.7:
            problems.append(
                Problem(
                    "warning",
                    f"Only {100 * share:.0f} % of the sparse points lie in the box.",
                    "What lies outside cannot be rendered. Correct the box if the files give one, or mask the background.",
                )
            )
    return problems


def _strays(scene: Scene) -> list[Problem]:
    """Cameras far away from all others: usually a failed registration."""
    o = scene.train.cameras.centres
    r = (o - o.median(0).values).norm(dim=-1)
    far = r > 8 * r.median().clamp_min(1e-9)
    if not far.any():
        return []
    names = [scene.train.names[int(i)] for i in far.nonzero()[:5]]
    return [
        Problem(
            "warning",
            f"{int(far.sum())} cameras stand far away from the others: {', '.join(names)}.",
            "Their registration probably failed: remove these frames.",
        )
    ]
