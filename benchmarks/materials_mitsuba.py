"""Spheres by Mitsuba 3, beside our own previews of them: ``python -m fields.benchmarks.materials_mitsuba OUT``.

Whole pictures are compared, edges too; errors are root mean squares, of the picture's own. Two of Mitsuba's, with noise of their own, are rendered of each sphere: the
product of ours' differences from the one and from the other has the square of the true difference as its mean, whatever the noise.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fields.benchmarks.translucent.scene import environment_emitter

from fields.io.images import write_image
from fields.neumadiff.angles import Reflectance
from fields.neumadiff.nbrdf import read_networks
from fields.neumadiff.preview import HALF_WIDTH, light_of, preview
from fields.relighting.develop import develop
from fields.relighting.environment import STUDIOS, Environment

MATERIALS = ("white-fabric", "pure-rubber", "red-plastic", "specular-blue-phenolic", "gold-metallic-paint", "chrome-steel")  # fmt: skip
"""Of the published networks, from the dullest to the glossiest."""
_SIZE = 128  # pixels
_PASS = 256  # samples per pixel rendered at once, which bounds memory


def sphere(material: dict[str, Any], environment: Environment, pixels: int, samples: int, seed: int = 0) -> np.ndarray:
    """(pixels, pixels, 3) linear radiance, over black, of a sphere in distant light; its neighbourhood does not shine on it.

    The eye is far away at +Z, with x to the right and y up; rays are parallel. Pixels are means over their area.

    Args:
        material: a BSDF as `mi.load_dict` takes it: after `fields.neumadiff.mitsuba.register()` {"type": "nbrdf", "filename": …}.
        samples: per pixel.
    """
    import mitsuba as mi

    world_from_map = np.eye(4)
    world_from_map[:3, :3] = environment.world_from_map.numpy()
    turned = {"to_world": mi.ScalarTransform4f(world_from_map)}
    towards = mi.ScalarTransform4f().look_at(origin=[0, 0, 2], target=[0, 0, 0], up=[0, 1, 0])
    film = {"type": "hdrfilm", "width": pixels, "height": pixels, "pixel_format": "rgb", "rfilter": {"type": "box"}}
    scene = mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2, "hide_emitters": True},
            "sensor": {
                "type": "orthographic",
                "to_world": towards @ mi.ScalarTransform4f().scale([HALF_WIDTH, HALF_WIDTH, 1]),
                "film": film,
                "sampler": {"type": "independent", "sample_count": samples},
            },
            "light": environment_emitter(environment) | turned,
            "shape": {"type": "sphere", "material": material},
        }
    )
    return np.array(mi.render(scene, seed=seed))


def white(angles: torch.Tensor) -> torch.Tensor:
    """What Mitsuba calls diffuse, as a reflectance."""
    return torch.full((1, len(angles), 3), 1 / math.pi)


def known_materials() -> dict[str, tuple[Reflectance, dict[str, Any]]]:
    """Each for us and for Mitsuba."""
    import mitsuba as mi

    networks, names = read_networks(Path(os.environ["FIELDS_DATA"]) / "brdf" / "nbrdf_weights.npz")
    found: dict[str, tuple[Reflectance, dict[str, Any]]] = {
        "Lambert": (white, {"type": "diffuse", "reflectance": {"type": "rgb", "value": 1.0}})
    }
    for name in MATERIALS:
        one = networks[names.index(name)]
        weights, dialect = mi.TensorXf(one.weights[0].numpy()), one.dialect.name
        found[name] = one, {"type": "nbrdf", "weights": weights, "dialect": dialect, "conserving": False}
    return found


def difference(ours: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """From Mitsuba's two pictures (H, W, 3) of a sphere, in parts of their root mean square: ours from the mean of both, ours without their noise (0 where it drowns
    in that), and the noise of the mean."""
    mean = (one + other) / 2
    squares = ((ours - mean) ** 2).mean(), ((ours - one) * (ours - other)).mean().clip(0), ((one - other) ** 2).mean() / 4  # fmt: skip
    plain, without_noise, noise = (float(np.sqrt(square / (mean**2).mean())) for square in squares)
    return plain, without_noise, noise


def main() -> None:
    import mitsuba as mi

    from fields.neumadiff.mitsuba import register

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for pictures: Mitsuba's, ours, and four times the difference")
    parser.add_argument("--passes", type=int, default=4, help=f"of {_PASS} samples per pixel, for each of two pictures")
    arguments = parser.parse_args()
    mi.set_variant("llvm_ad_rgb")
    register()
    museum = Environment.load(Path(os.environ["FIELDS_DATA"]) / "envmaps" / "mitsuba_museum.exr", "mitsuba")
    lights = {"white": Environment.constant((1.0, 1, 1)), "studio": STUDIOS["studio"](), "museum": museum}
    print("| material | light | difference % | without Mitsuba's noise % | noise % |\n|---|---|---:|---:|---:|")
    for name, (reflectance, record) in known_materials().items():
        for light, environment in lights.items():
            passes = [sphere(record, environment, _SIZE, _PASS, seed) for seed in range(2 * arguments.passes)]
            one, other = np.mean(passes[::2], 0), np.mean(passes[1::2], 0)
            ours = preview(reflectance, size=_SIZE, light=light_of(environment))[0]
            figures = difference(ours.numpy(), one, other)
            print(f"| {name} | {light} | " + " | ".join(f"{100 * v:.2f}" for v in figures) + " |", flush=True)
            exposed = 1 / ours.max(-1).values.quantile(0.97)
            theirs = torch.from_numpy((one + other) / 2)
            row = [develop(exposed * theirs), develop(exposed * ours), (0.5 + 4 * exposed * (ours - theirs)).clamp(0, 1)]  # fmt: skip
            write_image(arguments.out / f"{name}-{light}.png", torch.cat(row, 1))


if __name__ == "__main__":
    main()
