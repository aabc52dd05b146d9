"""What a trained relighting run holds to: `python -m fields.benchmarks.transfer RUN [--size 800]`.

shape        how far its surface lies from the true one (`surface.ply` of the set), how solid it looks
furnace      what leaves under a uniform light of radiance 1, and what the truth has, where the set has such a picture
reciprocity  light from c, seen from afar from a, against light from a, seen from c
times        marching a view, lighting it anew, projecting a map
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fields.geometry import extract_mesh, stopping_density
from fields.io.atomic import write_json
from fields.io.run import load, load_config, scene_of
from fields.relighting.basis import fibonacci_sphere
from fields.relighting.environment import Environment
from fields.relighting.field import TransferField
from fields.relighting.image import TransferImage
from fields.relighting.lights import Light
from fields.relighting.response import Response
from fields.relighting.scene import LitScene
from fields.relighting.transfer import Illumination

WHITE = Illumination.of(Environment.constant((1.0, 1.0, 1.0)))
_POINTS = 50_000  # of each surface
_PAIRS = 16
_SIDE = 96  # rays across an orthographic view


def shape(field: TransferField, scene: LitScene, images: list[TransferImage]) -> dict[str, float]:
    """Means over the surface in scene units, each way; and the share of whole pixels whose opacity is at least 0.99."""
    import trimesh
    from scipy.spatial import cKDTree

    facts = {}
    if (truth := scene.path / "surface.ply").is_file():
        cameras = scene.train.cameras
        mesh = extract_mesh(field, stopping_density(field, cameras), cameras)
        wanted = trimesh.load(truth, process=False)
        wanted.apply_transform(np.asarray(scene.world_from_input))
        ours = trimesh.Trimesh(mesh.positions, mesh.faces, process=False).sample(_POINTS, seed=0)
        theirs = wanted.sample(_POINTS, seed=0)
        facts["to the true surface"] = float(cKDTree(theirs).query(ours)[0].mean())
        facts["from the true surface"] = float(cKDTree(ours).query(theirs)[0].mean())
        facts["diagonal"] = float(np.linalg.norm(np.ptp(theirs, 0)))
    solid = []
    for view, image in enumerate(images):
        opacity = image.image(image.rays.opacity)[..., 0]
        coverage = scene.held_out.coverage.image(view)[..., 0]
        solid.append(opacity[coverage == 255] >= 0.99)
    return facts | {"solid": float(torch.cat(solid).float().mean())}


def furnace(scene: LitScene, images: list[TransferImage]) -> dict[str, list[float] | float]:
    """Mean of each channel and the largest of any pixel, over whole pixels; and the truth's mean."""
    photographs = scene.held_out
    seen, true = [], []
    for view, image in enumerate(images):
        radiance = image.relight(WHITE)
        whole = photographs.coverage.image(view)[..., 0] == 255
        seen.append(radiance[whole])
        for slot, index in enumerate(photographs.slots[view, : len(photographs.names[view])].tolist()):
            light = photographs.lights[index]
            if light.kind == "env" and bool((light.environment().radiance == 1).all()):
                true.append(photographs.image(view, slot)[0][whole])
    facts: dict[str, list[float] | float] = {
        "mean": torch.cat(seen).mean(0).tolist(),
        "largest": float(torch.cat(seen).max()),
    }
    return facts | ({"true mean": torch.cat(true).mean(0).tolist()} if true else {})


@torch.no_grad()
def flux(field: TransferField, towards: Tensor, light: Tensor) -> Tensor:
    """(3,) sent in a direction (3,) per irradiance from another (3,), over all of the object."""
    middle, radius = field.aabb.view(2, 3).mean(0), float((field.aabb[3:] - field.aabb[:3]).norm()) / 2
    side = torch.nn.functional.normalize(torch.linalg.cross(towards, torch.eye(3)[towards.abs().argmin()]), dim=0)
    at = (torch.arange(_SIDE) + 0.5) * (2 * radius / _SIDE) - radius
    y, x = torch.meshgrid(at, at, indexing="ij")
    plane = x.reshape(-1, 1) * side + y.reshape(-1, 1) * torch.linalg.cross(towards, side)
    origins = middle + radius * towards + plane
    found = field.transfer(origins, -towards.expand_as(origins))
    lamp = Light("directional", (1.0, 1.0, 1.0), direction=tuple(light.tolist()))
    lit = Response(found, field).lit(Illumination.of(lamp))
    return lit.total.sum(0) * (2 * radius / _SIDE) ** 2


def reciprocity(field: TransferField, seed: int = 0) -> dict[str, float]:
    """Mean and largest |ratio − 1| of random pairs that are within 120° of each other, all channels."""
    draw = torch.Generator().manual_seed(seed)
    directions, apart = fibonacci_sphere(64), []
    while len(apart) < _PAIRS:
        a, c = directions[torch.randperm(64, generator=draw)[:2]]
        if a @ c > -0.5:
            apart.append((flux(field, a, c) / flux(field, c, a) - 1).abs())
    return {"mean": float(torch.stack(apart).mean()), "largest": float(torch.stack(apart).max())}


def seconds(what: Callable[[], object], rounds: int = 5) -> float:
    what()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        what()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def times(field: TransferField, scene: LitScene, size: int) -> dict[str, float]:
    """Seconds: marching one held-out view at a size, lighting it with a turned map and with a lamp elsewhere, projecting a 1k map."""
    cameras = scene.held_out.cameras[[0]]
    cameras = cameras.downscaled(float(cameras.width[0]) / size)
    march = seconds(lambda: TransferImage.of(field, cameras), 2)
    image = TransferImage.of(field, cameras)
    sky = Environment.spherical_gaussians([((0.3, 0.8, 0.5), 40, (6, 5, 4))], 0.2)
    sky.blurred()
    angles = iter(range(360))

    def lamp() -> Illumination:
        direction = tuple(fibonacci_sphere(360)[next(angles)].tolist())
        return Illumination.of(Light("directional", (3.0, 3.0, 3.0), direction=direction))

    radiance = torch.rand(512, 1024, 3, generator=torch.Generator().manual_seed(0))

    def project() -> None:
        environment = Environment(radiance)
        environment.project(field.basis.axes, field.basis.sharpness)
        environment.spots(128)
        environment.blurred()

    return {
        "march": march,
        "map": seconds(lambda: image.relight(Illumination.of(sky.turned(next(angles))))),
        "lamp": seconds(lambda: image.relight(lamp())),
        "project 1k": seconds(project),
        "rays": len(image.pixels),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--size", type=int, default=800)
    arguments = parser.parse_args()
    field, config = load(arguments.run), load_config(arguments.run)
    scene = scene_of(arguments.run, config)
    images = [TransferImage.of(field, scene.held_out.cameras, view) for view in range(len(scene.held_out))]  # type: ignore[attr-defined]
    facts = {
        "shape": shape(field, scene, images),  # type: ignore[arg-type]
        "furnace": furnace(scene, images),  # type: ignore[arg-type]
        "reciprocity": reciprocity(field),  # type: ignore[arg-type]
        "times": times(field, scene, arguments.size),  # type: ignore[arg-type]
        "megabytes": (arguments.run / "model.safetensors").stat().st_size / 1e6,
    }
    for name, values in facts.items():
        print(f"{name:12}", values, flush=True)
    write_json(arguments.run / "transfer.json", facts)


if __name__ == "__main__":
    main()
