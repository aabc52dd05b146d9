"""Measuring a field on held-out images, and showing it beside them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fields.data.scene import Scene, Split
from fields.io.images import colour_depth, colour_map, side_by_side, write_image
from fields.metrics import psnr, ssim
from fields.rendering import Field, render
from fields.training.pixels import composite


@dataclass
class Evaluation:
    """Averages over images, and each image's own figures."""

    results: dict[str, float | None]
    per_image: list[dict]
    render_seconds_per_image: float

    def as_json(self) -> dict:
        seconds = round(self.render_seconds_per_image, 4)
        return {"render_seconds_per_image": seconds, "results": self.results, "per_image": self.per_image}


def background_of(scene: Scene) -> Tensor:
    """White, unless the scene says black: what images with alpha are compared on."""
    return torch.full((3,), 0.0 if scene.background == "black" else 1.0, device=scene.aabb.device)


def compare(field: Field, scene: Scene, split: Split, i: int) -> tuple[dict, Tensor]:
    """Figures of image i, and a picture (H, W', 3): truth, rendering, error (0 to 0.2), depth."""
    background = background_of(scene)
    began = time.perf_counter()
    image = render(field, split.cameras, i, background)
    if image.rgb.is_cuda:
        torch.cuda.synchronize(image.rgb.device)
    seconds = time.perf_counter() - began
    truth = composite(split.images.image(i), background)
    mask = split.images.mask(i) if split.images.masks is not None else None
    score = {
        "name": split.names[i],
        "psnr": psnr(image.rgb, truth, mask),
        "ssim": ssim(image.rgb, truth),
        "seconds": seconds,
    }
    error = colour_map((image.rgb - truth).abs().mean(-1), 0, 0.2, "inferno")
    seen = image.depth[image.opacity > 0.5] / image.opacity[image.opacity > 0.5]
    low, high = (float(seen.quantile(q)) for q in (0.01, 0.99)) if 0 < len(seen) < 2**24 else (0.0, 1.0)
    return score, side_by_side(truth, image.rgb, error, colour_depth(image.depth, image.opacity, low, high))


def evaluate(
    field: Field,
    scene: Scene,
    split: Split,
    folder: Path | None = None,
    watch: Callable[[int, int], None] | None = None,
    compare: Callable[..., tuple[dict, Tensor]] = compare,
) -> Evaluation:
    """Renders every image of a split and compares; writes the pictures to `folder` if given."""
    per_image = []
    for i in range(len(split)):
        score, picture = compare(field, scene, split, i)
        if folder is not None:
            write_image(folder / f"{Path(split.names[i]).stem}.png", picture)
        per_image.append(score)
        if watch:
            watch(i + 1, len(split))
    n = max(len(per_image), 1)
    seconds = sum(s.pop("seconds") for s in per_image) / n
    results: dict[str, float | None] = {k: sum(s[k] for s in per_image) / n for k in ("psnr", "ssim")}
    return Evaluation(results | {"lpips": None}, per_image, seconds)
