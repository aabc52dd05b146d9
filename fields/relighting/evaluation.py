"""Measuring a transfer field on photographs that were held out: under unseen lights, from unseen cameras, under maps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from fields.data.scene import Split
from fields.io.hdr import encode_srgb
from fields.io.images import colour_map, side_by_side, write_image
from fields.metrics import psnr, ssim
from fields.relighting.field import TransferField
from fields.relighting.image import TransferImage
from fields.relighting.scene import LitScene, Photographs
from fields.relighting.transfer import Illumination
from fields.training.evaluation import Evaluation

INSIDE = 0.5
"""Coverage above which a pixel counts as of the object."""


def photographs_of(scene: LitScene, split: Split) -> Photographs:
    """The photographs behind the mean images of a split."""
    return scene.photographs if split is scene.train else scene.held_out


def developed_pair(image: Tensor, truth: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Both as sRGB in [0, 1], exposed so that the 99th percentile of the truth's object is 1: what figures are of."""
    brightest = truth[inside].flatten()
    scale = 1 / max(float(brightest.kthvalue(max(1, round(0.99 * len(brightest)))).values), 1e-9)
    return encode_srgb(scale * image), encode_srgb(scale * truth)


@torch.no_grad()
def score(radiance: Tensor, truth: Tensor, coverage: Tensor) -> tuple[dict[str, float], Tensor]:
    """Figures of linear (H, W, 3) against a photograph that may have NaN; and a picture: truth, ours, error (0 to 0.2)."""
    known = truth.isfinite().all(-1)
    truth, radiance = (torch.where(known[..., None], v, 0.0) for v in (truth, radiance))
    inside = (coverage > INSIDE) & known
    image, wanted = developed_pair(radiance, truth, inside)
    bent = [encode_srgb(torch.log1p(v)) for v in (radiance, truth)]
    figures = {
        "psnr": psnr(image, wanted, inside),
        "psnr_whole": psnr(image, wanted),
        "psnr_log": psnr(*bent),
        "ssim": ssim(image, wanted),
    }
    error = colour_map((image - wanted).abs().mean(-1), 0, 0.2, "inferno")
    return figures, side_by_side(wanted, image, error)


def compare(field: TransferField, scene: LitScene, split: Split, i: int) -> tuple[dict, Tensor]:
    """Figures of the first photograph of camera i, and the picture."""
    photographs = photographs_of(scene, split)
    return next(_scores(TransferImage.of(field, photographs.cameras, i), photographs, i))


def evaluate(
    field: TransferField,
    scene: LitScene,
    split: Split,
    folder: Path | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Relights every camera's view for each of its photographs and compares; writes the pictures to `folder` if given.

    Results are means over the photographs of a group; "psnr" and "ssim" are those of the first one; "normals" are degrees, where true
    normals are known.
    """
    photographs = photographs_of(scene, split)
    total, per_image, began = sum(map(len, photographs.names)), [], time.perf_counter()
    apart = []
    for view in range(len(photographs)):
        transfer = TransferImage.of(field, photographs.cameras, view)
        if (truth := photographs.normals[view]) is not None:
            apart.append(angles(transfer, truth))
        for figures, picture in _scores(transfer, photographs, view):
            if folder is not None:
                write_image(folder / f"{Path(figures['name']).stem}.png", picture)
            per_image.append(figures)
            if watch:
                watch(len(per_image), total)
    results: dict[str, float | None] = {}
    for group in dict.fromkeys(f["group"] for f in per_image):
        of_group = [f for f in per_image if f["group"] == group]
        means = {k: sum(f[k] for f in of_group) / len(of_group) for k in ("psnr", "ssim", "psnr_whole", "psnr_log")}
        results |= {
            k if not results else f"{k} {group}": v for k, v in means.items() if not results or k in ("psnr", "ssim")
        }
    if apart:
        results["normals"] = float(torch.cat(apart).mean())
    return Evaluation(results | {"lpips": None}, per_image, (time.perf_counter() - began) / max(total, 1))


def angles(transfer: TransferImage, truth: Tensor) -> Tensor:
    """(N,) degrees between normals and true ones (H, W, 3), at pixels that have both, edges left out."""
    truth = truth.to(transfer.pixels.device).view(-1, 3)[transfer.pixels]
    both = (transfer.weights == 1) & (transfer.rays.opacity > INSIDE) & (truth.norm(dim=-1) > 0.5)
    return torch.rad2deg((transfer.rays.normal * truth).sum(-1).clamp(-1, 1).acos())[both]


def _scores(transfer: TransferImage, photographs: Photographs, view: int) -> Iterator[tuple[dict, Tensor]]:
    """Of each photograph from a camera, whose transfer is known."""
    device = transfer.pixels.device
    for slot, (name, group) in enumerate(zip(photographs.names[view], photographs.groups[view], strict=True)):
        light = photographs.lights[int(photographs.slots[view, slot])]
        radiance = transfer.relight(Illumination.of(light).to(device))
        figures, picture = score(radiance, *photographs.image(view, slot))
        yield {"name": name, "group": group, **figures}, picture
