"""Relighting against what else there is: `python -m fields.benchmarks.relighting SET [SET ...] --out FOLDER`.

Sets are those of `python -m fields.benchmarks.translucent`. All that is trained shares grids, shape, schedule and rays; contenders differ in
how they answer to light:

ours             what `fields train relighting` does
no interior      the same, but all that is scattered is learned
surface          Lambert and GGX with marched shadows: no scattering
harmonics        spherical harmonics to degree 4 in place of soft lights, responses of any sign; and GGX
conditioned      a network is told a light's direction and whether it is seen, and answers for this light alone; and GGX

Two are not trained, and only know cameras that photographs were taken from:

nearest light    the camera's photograph under the nearest light
between lights   a mixture of those under the three lights around
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fields.core import _backend
from fields.io.atomic import write_json
from fields.io.images import side_by_side, write_image
from fields.methods import method
from fields.relighting.basis import LightBasis, fibonacci_sphere
from fields.relighting.config import RelightingConfig
from fields.relighting.evaluation import INSIDE, developed_pair, score
from fields.relighting.field import Looks, TransferField, TransferHead
from fields.relighting.image import TransferImage
from fields.relighting.interior import SKY
from fields.relighting.scene import LitScene, Photographs, load_scene
from fields.relighting.stage import Stage
from fields.relighting.training import RelightingTraining
from fields.relighting.transfer import Illumination, Transfer
from fields.tensors.colour import spherical_harmonics

Relit = Callable[[Photographs, int], Callable[[int], Tensor | None]]
"""Of photographs and a camera: the radiance (H, W, 3) that is predicted for each of its slots; None where there is nothing to say."""


# ---------------------------------------------------------------------------------------- copies


def nearest(directions: Tensor, wanted: Tensor) -> Tensor:
    """(L,) weights of lights in unit directions (L, 3): all of it to the one that is nearest to (3,)."""
    return torch.nn.functional.one_hot((directions @ wanted).argmax(), len(directions)).to(directions)


def between(directions: Tensor, wanted: Tensor) -> Tensor:
    """(L,) weights, ≥ 0, of sum 1: barycentric in the triangle of lights that (3,) lies in."""
    from scipy.spatial import ConvexHull

    triangles = torch.from_numpy(ConvexHull(directions.numpy()).simplices).long()
    inside = torch.linalg.solve(directions[triangles].transpose(1, 2), wanted.expand(len(triangles), 3))
    best = inside.min(1).values.argmax()
    weights = torch.zeros(len(directions)).index_add(0, triangles[best], inside[best].clamp(min=0))
    return weights / weights.sum()


def copied(scene: LitScene, weigh: Callable[[Tensor, Tensor], Tensor]) -> Relit:
    """Photographs from the same camera, mixed."""
    learned = scene.photographs

    def from_camera(photographs: Photographs, view: int) -> Callable[[int], Tensor | None]:
        apart = (learned.cameras.world_from_camera - photographs.cameras.world_from_camera[view]).abs().amax((1, 2))
        same = int(apart.argmin())

        def relit(slot: int) -> Tensor | None:
            light = photographs.lights[int(photographs.slots[view, slot])]
            if float(apart[same]) > 1e-5 or light.kind != "directional":
                return None
            slots = [j for j, i in enumerate(learned.slots[same].tolist()) if i >= 0]
            directions = torch.tensor([learned.lights[int(learned.slots[same, j])].direction for j in slots])
            weights = weigh(directions, torch.tensor(light.direction))
            return sum(w * learned.image(same, j)[0] for w, j in zip(weights, slots, strict=True) if w > 0)  # type: ignore[return-value]

        return relit

    return from_camera


# ---------------------------------------------------------------------------------------- other answers to light


class SurfaceHead(TransferHead):
    """What would be scattered is reflected diffusely, once the means have shown the shape."""

    def forward(self, features: Tensor, view: Tensor, outward: Tensor, soft_lights: Tensor) -> Looks:
        looks = super().forward(features, view, outward, soft_lights)
        if not self.diffuses:
            return looks
        return looks._replace(diffuse=looks.diffuse + looks.scatter.sum(1), scatter=torch.zeros_like(looks.scatter))


class SurfaceField(TransferField):
    head_class = SurfaceHead


class Harmonics(LightBasis):
    """Spherical harmonics to degree 4, as the lobes can make them. Of 25 functions that span them any are as good as others."""

    def __init__(self, rank: int, lobes: int, sharpness: float) -> None:
        super().__init__(rank, lobes, sharpness)
        everywhere = fibonacci_sphere(4096).double()
        powers = [(a, b, d - a - b) for d in (3, 4) for a in range(d + 1) for b in range(d + 1 - a)]
        monomials = torch.stack([(everywhere ** torch.tensor(p)).prod(-1) for p in powers], -1)
        orthonormal = torch.linalg.qr(monomials)[0] * 64 / (4 * torch.pi) ** 0.5
        self.register_buffer("mixture", torch.linalg.lstsq(self.lobes(everywhere.float()), orthonormal.float())[0].T)

    def learn(self, seen: Tensor, known: Tensor, strength: Tensor) -> None:
        pass

    def matrix(self) -> Tensor:
        return self.mixture  # type: ignore[return-value]


class HarmonicsHead(TransferHead):
    """Responses of any sign."""

    def forward(self, features: Tensor, view: Tensor, outward: Tensor, soft_lights: Tensor) -> Looks:
        looks = super().forward(features, view, outward, soft_lights)
        around = torch.cat([features, spherical_harmonics(view), spherical_harmonics(looks.normal)], -1)
        return looks._replace(scatter=self.scatter(around).view(-1, self.rank + 1, 3)[:, :-1])


class HarmonicsField(TransferField):
    head_class, basis_class = HarmonicsHead, Harmonics


class EvenTraining(RelightingTraining):
    """Errors are weighed by what a ray shows on the whole.

    Relative to the prediction, as ours are, one that is black where the truth is not would count beyond all measure.
    """

    def colour_loss(self, radiance: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        # What would be below zero is shown as black, but still learns.
        radiance = radiance + (radiance.clamp(min=0) - radiance).detach()
        if self.means_only:
            return super().colour_loss(radiance, truth, known)
        whole = (truth * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
        return ((radiance - truth).square() / (whole + 0.01) * known).sum() / known.sum().clamp(min=1)


class HarmonicsTraining(EvenTraining):
    field_class = HarmonicsField


class SurfaceTraining(EvenTraining):
    field_class = SurfaceField


class ConditionedHead(TransferHead):
    """What is scattered is a code of the place and the eye, which `answer` takes together with a light."""

    def __init__(self, channels: int, feature_dim: int, hidden: int, rank: int) -> None:
        super().__init__(channels, feature_dim, hidden, rank)
        self.answer = nn.Sequential(
            nn.Linear(3 * rank + 27 + 1, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(),
            nn.Linear(2 * hidden, 3),
        )  # fmt: skip

    def forward(self, features: Tensor, view: Tensor, outward: Tensor, soft_lights: Tensor) -> Looks:
        looks = super().forward(features, view, outward, soft_lights)
        around = torch.cat([features, spherical_harmonics(view), spherical_harmonics(looks.normal)], -1)
        return looks._replace(scatter=self.scatter(around).view(-1, self.rank + 1, 3)[:, :-1])

    def under(self, code: Tensor, towards: Tensor, visible: Tensor) -> Tensor:
        """(N, J, 3) per irradiance of lights in directions (N, J, 3), of which (N, J) comes through, by codes (N, R, 3)."""
        waves = torch.cat([towards * 2**k for k in range(4)], -1)
        light = torch.cat([towards, waves.sin(), waves.cos(), visible[..., None]], -1)
        code = code.flatten(1)[:, None].expand(-1, towards.shape[1], -1)
        return torch.exp(self.answer(torch.cat([code, light], -1)).clamp(max=3) - 1)


class ConditionedField(TransferField):
    head_class = ConditionedHead


class ConditionedStage(Stage):
    def __init__(self, head: ConditionedHead, *others: Any) -> None:
        super().__init__(*others)
        self.head = head

    def scattered(self, rays: Transfer, which: Tensor) -> Tensor:
        """While only the means are learned from; later `surface` knows what is seen."""
        if self.head.reflects:
            return rays.point.new_zeros(*which.shape, 3)
        towards, irradiance = self.arriving(rays.point, which)
        return self.head.under(rays.scatter, towards.expand(*which.shape, 3), torch.ones(which.shape)) * irradiance

    def surface(self, rays: Transfer, which: Tensor, visible: Tensor) -> Tensor:
        towards, irradiance = self.arriving(rays.point, which)
        return super().surface(rays, which, visible) + self.head.under(rays.scatter, towards, visible) * irradiance


class ConditionedTraining(RelightingTraining):
    field_class = ConditionedField

    def __init__(self, config: RelightingConfig, scene: LitScene, seed: int) -> None:
        super().__init__(config, scene, seed)
        head: Any = self.field.decoder
        self.stage = ConditionedStage(head, self.photographs.lights, self.field.basis, scene.aabb.mean(0))


@torch.no_grad()
def conditioned(image: TransferImage, illumination: Illumination) -> Tensor:
    """As `TransferImage.relight`: one answer per light; a map is as many lights as the interior sees of it."""
    rays, field, head = image.rays, image.field, image.field.decoder
    assert isinstance(head, ConditionedHead)

    def answer(towards: Tensor, irradiance: Tensor) -> Tensor:
        visible = field.visibility(rays.point, rays.normal, towards)
        return head.under(rays.scatter, towards[:, None], visible[:, None])[:, 0] * irradiance

    total = torch.zeros_like(rays.point)
    for light in illumination.lights:
        total += answer(*rays.arriving(light))
    for environment in illumination.environments:
        for direction, spot in zip(fibonacci_sphere(SKY), environment.spots(SKY), strict=True):
            total += answer(direction.expand_as(total), spot)
    return image.image(image.lit(illumination).reflected + rays.opacity[:, None] * total)


# ---------------------------------------------------------------------------------------- in one table

TRAINED: dict[str, tuple[type[RelightingTraining], dict[str, Any]]] = {
    "ours": (RelightingTraining, {}),
    "no interior": (RelightingTraining, {"interior": False}),
    "surface": (SurfaceTraining, {"interior": False, "diffuse": True}),
    "harmonics": (HarmonicsTraining, {"interior": False, "rank": 25}),
    "conditioned": (ConditionedTraining, {"interior": False, "dim": 0.0}),
}
COPIED = {"nearest light": nearest, "between lights": between}


def contender(name: str, scene: LitScene, arguments: argparse.Namespace) -> Relit:
    """By its name, trained if it has to be."""
    if name in COPIED:
        return copied(scene, COPIED[name])
    training, changes = TRAINED[name]
    config = replace(method("relighting").configure("fast").scaled(arguments.iterations), **changes)
    run = training(config, scene, arguments.seed)
    for i in range(arguments.iterations):
        run.step(i)

    def from_camera(photographs: Photographs, view: int) -> Callable[[int], Tensor]:
        image = TransferImage.of(run.field, photographs.cameras, view)

        def relit(slot: int) -> Tensor:
            light = Illumination.of(photographs.lights[int(photographs.slots[view, slot])])
            return conditioned(image, light) if name == "conditioned" else image.relight(light)

        return relit

    return from_camera


def measure(scene: LitScene, relit: Relit) -> tuple[dict[str, float], list[Tensor | None]]:
    """Figures by group; and pictures, the first of every group and of every camera's last."""
    photographs, figures, pictures = scene.held_out, {}, []
    for view, groups in enumerate(photographs.groups):
        predict = relit(photographs, view)
        for slot, group in enumerate(groups):
            radiance = predict(slot)
            truth, coverage = photographs.image(view, slot)
            if radiance is not None:
                scores = score(radiance, truth, coverage)[0]
                figures.setdefault(group, []).append((scores["psnr"], scores["ssim"]))
            if shown(photographs, view, slot):
                pictures.append(None if radiance is None else developed_pair(radiance, truth, coverage > INSIDE)[0])
    means: dict[str, float] = {}
    for group, values in figures.items():
        means[group], means[f"{group} ssim"] = (round(sum(v) / len(v), 4) for v in zip(*values, strict=True))
    return means, pictures


def shown(photographs: Photographs, view: int, slot: int) -> bool:
    """Whether a picture of it is kept: of some cameras the first of every group."""
    groups = photographs.groups[view]
    return view % 3 == 0 and groups.index(groups[slot]) == slot


def truths(scene: LitScene) -> list[Tensor]:
    p = scene.held_out
    chosen = [(v, s) for v, groups in enumerate(p.groups) for s in range(len(groups)) if shown(p, v, s)]
    images = [p.image(v, s) for v, s in chosen]
    return [developed_pair(image, image, coverage > INSIDE)[1] for image, coverage in images]


def sheet(columns: list[list[Tensor | None]]) -> Tensor:
    """A row for every picture, a column for every contender, the truth first; white where one has nothing to say."""
    rows = []
    for row in zip(*columns, strict=True):
        blank = torch.ones_like(row[0])  # type: ignore[arg-type]
        rows.append(side_by_side(*(blank if tile is None else tile for tile in row)))
    return torch.cat(rows)


def table(rows: list[dict]) -> list[str]:
    """PSNR in Markdown, a line for every contender."""
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        groups = list(dict.fromkeys(k for row in of_set for k in row["figures"] if not k.endswith(" ssim")))
        lines += ["", f"| {name} | " + " | ".join(groups) + " | seconds |", "|---" + "|---:" * (len(groups) + 1) + "|"]
        for row in of_set:
            values = [row["figures"].get(g) for g in groups]
            shown = " | ".join("" if v is None else f"{v:.2f}" for v in values)
            lines.append(f"| {row['contender']} | {shown} | {row['seconds']:.0f} |")
    return lines


def floors(folder: Path, scene: LitScene) -> dict[str, float]:
    """What the noiseless truth would have, by group."""
    noise = json.loads((folder / "noise.json").read_text())
    kinds = {group: [v for k, v in noise.items() if k.split("/")[0] == group] for group in scene.held_out.groups[0]}
    kinds |= {group: [noise[group]] for groups in scene.held_out.groups for group in groups if group in noise}
    return {group: sum(values) / len(values) for group, values in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--only", nargs="+", default=[*TRAINED, *COPIED], choices=[*TRAINED, *COPIED])
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("relighting"))
    arguments = parser.parse_args()
    _backend.keep_freed_memory()
    rows: list[dict] = []
    for folder in arguments.sets:
        scene = load_scene(folder)
        rows.append({"set": scene.name, "contender": "noise floor", "figures": floors(folder, scene), "seconds": 0})
        columns: list[list[Tensor | None]] = [[*truths(scene)]]
        for name in arguments.only:
            began = time.perf_counter()
            relit = contender(name, scene, arguments)
            seconds = time.perf_counter() - began
            figures, pictures = measure(scene, relit)
            rows.append({"set": scene.name, "contender": name, "figures": figures, "seconds": seconds})
            columns.append(pictures)
            print(scene.name, name, figures, f"{seconds:.0f} s", flush=True)
            write_json(arguments.out / "relighting.json", {"iterations": arguments.iterations, "rows": rows})
            write_image(arguments.out / f"{scene.name}.png", sheet(columns))
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
