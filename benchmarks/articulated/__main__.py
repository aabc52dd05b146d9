"""Makes videos of articulated objects whose truth is known.

    python -m fields.benchmarks.articulated OUT --track fast --objects laptop scissors

Each is a folder as `fields train reacto` reads it, with the truth beside it: joints.json, and points of the surface.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from fields.apps.common import Progress, parse
from fields.benchmarks.articulated.noise import Noise
from fields.benchmarks.articulated.objects import OBJECTS, Articulated
from fields.benchmarks.articulated.render import (
    Paint,
    bounding_radius,
    cameras_around,
    centre_hits,
    flow,
    joint_state,
    picture,
    poses_of,
    visible,
)
from tyro.conf import Positional

from fields.geometry.points import spread_over
from fields.io.atomic import write_atomically, write_json
from fields.io.images import write_image
from fields.reacto.flow import write_flow

TRACKS = {"ci": (96, 24, (1, 2)), "fast": (256, 100, (1, 2, 4, 8)), "paper": (600, 100, (1, 2, 4, 8))}
"""Pixels along an edge, frames, and how many frames apart there is flow."""
_HELD_OUT = 8
_POINTS = 12_000  # of the surface, per squared radius of the object


@dataclass
class Options:
    out: Annotated[Path, Positional]
    """Folder for the videos, one folder each."""
    track: Literal["ci", "fast", "paper"] = "fast"
    """24 frames of 96², 100 of 256², 100 of 600²."""
    objects: tuple[str, ...] = tuple(OBJECTS)
    """Which."""
    paint: Literal["noise", "plain", "blank"] = "noise"
    """Noise and stripes; one colour per part; one colour."""
    noise: tuple[Literal["mask", "flow", "pose"], ...] = ()
    """What is off: masks by up to two pixels, flow by half a pixel and more, cameras by a degree and a hundredth of the distance."""
    seed: int = 0
    """Of noise in paint and elsewhere."""


def make(
    thing: Articulated, folder: Path, track: str, paint: str, seed: int, watch, noise: tuple[str, ...] = ()
) -> None:
    """Renders one video."""
    size, count, gaps = TRACKS[track]
    states = [[joint_state(joint, k / count) for joint in thing.joints] for k in range(count)]
    middle, radius = bounding_radius(thing, states)
    cameras = cameras_around(middle, radius, count, size)
    poses = [poses_of(thing, one) for one in states]
    colours = Paint(len(thing.parts), 2 * radius, paint, seed)
    surface = surface_points(thing, radius)
    seen = torch.zeros(len(surface[0]), dtype=torch.bool)
    noisy = Noise(noise, seed)
    frames: dict[str, list] = {"train": [], "test": []}
    held_out = [k % _HELD_OUT == _HELD_OUT // 2 for k in range(count)]
    for k in range(count):
        image = picture(thing, poses[k], cameras, k, colours, middle, radius)
        write_image(folder / "rgb" / f"{k:05d}.png", noisy.image(image))
        pose = noisy.pose(cameras.world_from_camera[k], middle)
        frames["test" if held_out[k] else "train"].append(
            {"file_path": f"rgb/{k:05d}.png", "time": k, "transform_matrix": pose.tolist()}
        )
        if not held_out[k]:
            hits = centre_hits(thing, poses[k], cameras, k, middle, radius)
            seen |= visible(surface, hits, poses[k], cameras, k, radius)
            for gap in (g * sign for g in gaps for sign in (1, -1)):
                if 0 <= k + gap < count and not held_out[k + gap]:
                    moved, there = flow(thing, hits, poses[k + gap], cameras, k, k + gap, radius)
                    name = f"{'fw' if gap > 0 else 'bw'}_{abs(gap)}"
                    write_flow(folder / "flow" / name / f"{k:05d}.png", noisy.flow(moved).numpy(), there.numpy())
        watch(k + 1, count)
    for split, listed in frames.items():
        lens = {"w": size, "h": size, "fl_x": float(size), "fl_y": float(size), "cx": size / 2, "cy": size / 2}
        write_json(folder / f"transforms_{split}.json", lens | {"frames": listed})
    joints = [{"type": j.kind, "axis": j.axis, "pivot": j.pivot, "parent": j.parent, "child": b + 1,
               "states": [float(np.radians(s[b])) if j.kind == "revolute" else s[b] for s in states]}
              for b, j in enumerate(thing.joints)]  # fmt: skip
    write_json(folder / "joints.json", {"size": 2 * radius, "times": list(range(count)), "joints": joints})
    write_surface(folder / "truth.npz", surface, seen)


def surface_points(thing: Articulated, radius: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Spread evenly over the surface of every part, joints at zero: where (P, 3), the normals (P, 3), and which part (P,) uint8."""
    points, normals, part = [], [], []
    for b, solid in enumerate(thing.parts):
        mesh = surface_of(solid, radius)
        sides = mesh[:, 1:] - mesh[:, :1]
        area = torch.linalg.cross(sides[:, 0], sides[:, 1]).norm(dim=-1)
        count = round(_POINTS * float(area.sum()) / radius**2)
        generator = torch.Generator().manual_seed(b)
        x = spread_over(mesh, count, generator)[0].requires_grad_()
        (slope,) = torch.autograd.grad(solid(x).sum(), x)
        points.append(x.detach())
        normals.append(torch.nn.functional.normalize(slope, dim=-1))
        part.append(torch.full((count,), b, dtype=torch.uint8))
    return torch.cat(points), torch.cat(normals), torch.cat(part)


def write_surface(file: Path, surface: tuple[torch.Tensor, ...], seen: torch.Tensor) -> None:
    points, normals, part = (one.numpy() for one in surface)

    def save(path: Path) -> None:
        with path.open("wb") as out:
            np.savez_compressed(out, points=points, normals=normals.astype("f2"), part=part, seen=seen.numpy())

    write_atomically(file, save)


def surface_of(solid, radius: float) -> torch.Tensor:
    """(F, 3, 3) corners of triangles."""
    from skimage.measure import marching_cubes

    coarse = torch.linspace(-2, 2, 161) * radius
    points = torch.stack(torch.meshgrid(coarse, coarse, coarse, indexing="ij"), -1).view(-1, 3)
    near = points[solid(points) < 0.03 * radius]
    low, high = near.amin(0) - 0.01 * radius, near.amax(0) + 0.01 * radius
    step = float((high - low).max()) / 250
    axes = [torch.arange(int((b - a) / step) + 2) * step + a for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    vertices, faces, _, _ = marching_cubes(
        solid(grid.view(-1, 3)).view(grid.shape[:3]).numpy(), 0.0, spacing=(step,) * 3
    )
    return torch.from_numpy(vertices[faces.astype(np.int64)]).float() + low


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "python -m fields.benchmarks.articulated", __doc__.splitlines()[0])
    for name in options.objects:
        with Progress(name) as progress:
            make(
                OBJECTS[name](),
                options.out / name,
                options.track,
                options.paint,
                options.seed,
                progress.step,
                options.noise,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
