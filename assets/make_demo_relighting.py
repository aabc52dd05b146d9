"""Make the relighting demo: a waxen creature, path-traced with Mitsuba 3 under one light at a time.

A bumpy ball with two thin ears and a ring, of an index-matched scattering medium under a thin gloss: light goes through the ears, a
third of the way into the body, and no light is refracted, which would be far noisier. Everything is a formula in this file. The
output is in the layout `docs/relighting.md` describes, and is dedicated to the public domain (CC0 1.0).

    pip install mitsuba && python assets/make_demo_relighting.py

remakes the committed files in about seven minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import mitsuba as mi
import numpy as np
import torch
import trimesh
from skimage.measure import marching_cubes

from fields.io.hdr import write_exr
from fields.relighting.basis import fibonacci_sphere
from fields.relighting.environment import STUDIOS

mi.set_variant("scalar_rgb")

SIZE = 96  # pixels
FIELD_OF_VIEW = 30.0  # degrees
DISTANCE = 2.4  # of the cameras from the origin; the creature fits in [-0.5, 0.5]^3
CAMERAS, TEST_CAMERAS = 19, (3, 9, 15)
LIGHTS, PER_CAMERA = 64, 16  # every eighth light is held out; its neighbour in the list is left out, too
SAMPLES = {"train": 64, "olat": 512, "map": 256, "coverage": 256}  # per pixel


# --- the creature -----------------------------------------------------------------------------------------------


def blend(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """The union of two shapes given by distances, rounded where they meet."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b * (1 - h) + a * h - k * h * (1 - h)


def capsule(p: np.ndarray, start: tuple, end: tuple, radius: float) -> np.ndarray:
    start, along = np.array(start), np.array(end) - np.array(start)
    t = np.clip((p - start) @ along / (along @ along), 0, 1)
    return np.linalg.norm(p - start - t[..., None] * along, axis=-1) - radius


def creature(resolution: int = 128) -> trimesh.Trimesh:
    """Its surface; normals point outwards."""
    at = np.linspace(-0.6, 0.6, resolution)
    p = np.stack(np.meshgrid(at, at, at, indexing="ij"), -1)
    ball = np.linalg.norm(p - (0, -0.1, 0), axis=-1) - 0.28 + 0.015 * np.sin(18 * p).prod(-1)
    body = blend(ball, capsule(p, (-0.1, 0.1, 0), (-0.2, 0.45, 0.02), 0.055), 0.05)
    body = blend(body, capsule(p, (0.1, 0.1, 0), (0.2, 0.45, -0.02), 0.055), 0.05)
    ring = np.hypot(np.hypot(p[..., 0], p[..., 2]) - 0.36, p[..., 1] + 0.2) - 0.06
    vertices, faces, _, _ = marching_cubes(blend(body, ring, 0.03), 0, spacing=(at[1] - at[0],) * 3)
    mesh = trimesh.Trimesh(vertices + at[0], faces)
    trimesh.repair.fix_normals(mesh)
    assert mesh.is_watertight and mesh.volume > 0  # else the medium would leak
    return mesh


def waxen(surface: Path) -> dict:
    """8 % of the light is reflected in a rough lobe, the rest enters without being bent; it flies 0.1 between two scatterings."""
    gloss = {"type": "roughconductor", "material": "none", "distribution": "ggx", "alpha": 0.15}
    return {
        "type": "ply",
        "filename": str(surface),
        "bsdf": {"type": "mask", "opacity": 0.08, "coat": {"type": "twosided", "gloss": gloss}},
        "interior": {
            "type": "homogeneous",
            "sigma_t": 1.0,  # a medium takes no colour above one, but a scale
            "scale": 10.0,
            "albedo": {"type": "rgb", "value": [0.95, 0.85, 0.70]},
        },
    }


# --- pictures ---------------------------------------------------------------------------------------------------


def sensor(eye: np.ndarray, samples: int) -> mi.Sensor:
    pose = mi.ScalarTransform4f().look_at(origin=eye.tolist(), target=[0, 0, 0], up=[0, 1, 0])
    film = {"type": "hdrfilm", "width": SIZE, "height": SIZE, "rfilter": {"type": "box"}, "pixel_format": "rgba"}
    sampler = {"type": "independent", "sample_count": samples}
    return mi.load_dict(
        {"type": "perspective", "fov": FIELD_OF_VIEW, "to_world": pose, "film": film, "sampler": sampler}
    )


def camera_to_world(eye: np.ndarray) -> list:
    """OpenGL axes."""
    back = eye / np.linalg.norm(eye)
    right = np.cross((0, 1, 0), back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, eye], -1)
    return pose.tolist()


def render(
    shape: dict, emitter: dict, eye: np.ndarray, samples: int, seed: int, integrator: str = "volpath"
) -> np.ndarray:
    """(SIZE, SIZE, 4)."""
    walk = {"type": integrator, "hide_emitters": True} | ({"max_depth": 32} if integrator == "volpath" else {})
    scene = mi.load_dict({"type": "scene", "integrator": walk, "shape": shape, "light": emitter})
    return np.array(mi.render(scene, sensor=sensor(eye, samples), seed=seed))


def directional(towards: np.ndarray) -> dict:
    irradiance = {"type": "rgb", "value": [np.pi] * 3}
    return {"type": "directional", "direction": (-towards).tolist(), "irradiance": irradiance}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent / "demo-relighting")
    out = parser.parse_args().out
    for folder in ("train", "test", "maps"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    surface = out / "surface.ply"
    creature().export(surface)
    shape = waxen(surface)
    eyes = DISTANCE * fibonacci_sphere(CAMERAS).double().numpy()
    lights = fibonacci_sphere(LIGHTS).double().numpy()
    held_out = [i for i in range(LIGHTS) if i % 8 == 0]
    to_learn = [i for i in range(LIGHTS) if i % 8 > 1]
    for name, studio in STUDIOS.items():
        write_exr(out / "maps" / f"{name}.exr", {"": studio().radiance})
    draw, seed = np.random.default_rng(0), 0
    frames: dict[str, list] = {"train": [], "test": []}

    def take(
        split: str, name: str, eye: np.ndarray, coverage: np.ndarray, emitter: dict, light: dict, group: str
    ) -> None:
        nonlocal seed
        seed += 1
        image = render(shape, emitter, eye, SAMPLES[group], seed)[..., :3]
        pixels = torch.from_numpy(np.concatenate([image, coverage[..., None]], -1)).float().clamp(min=0)
        write_exr(out / split / f"{name}.exr", {"": pixels})
        frame = {"file_path": f"{split}/{name}.exr", "transform_matrix": camera_to_world(eye), "light": light}
        frames[split].append(frame | ({} if split == "train" else {"set": group}))

    for c, eye in enumerate(eyes):
        print(f"camera {c + 1} of {CAMERAS}", flush=True)
        # What the medium lets through counts as transparent: coverage is that of a solid of the same shape.
        solid = {"type": "ply", "filename": str(surface), "bsdf": {"type": "diffuse"}}
        coverage = render(solid, {"type": "constant"}, eye, SAMPLES["coverage"], 0, "direct")[..., 3]
        split, group = ("test", "olat") if c in TEST_CAMERAS else ("train", "train")
        chosen = (
            held_out[1::2] if split == "test" else sorted(draw.choice(to_learn, PER_CAMERA, replace=False).tolist())
        )
        for i in chosen:
            light = {"type": "directional", "direction": lights[i].tolist(), "rgb": [np.pi] * 3}
            take(split, f"c{c:02d}_l{i:02d}", eye, coverage, directional(lights[i]), light, group)
        for name in STUDIOS if split == "test" else ():
            # Mitsuba's rows lie on vertices, which at 256 of them is a third of a degree; its zenith and columns are ours.
            emitter = {"type": "envmap", "filename": str(out / "maps" / f"{name}.exr")}
            take(split, f"c{c:02d}_{name}", eye, coverage, emitter, {"type": "env", "file": f"maps/{name}.exr"}, "map")
    for split, some in frames.items():
        scene = {"camera_angle_x": np.radians(FIELD_OF_VIEW), "w": SIZE, "h": SIZE, "color_space": "linear",
                 "light_unit": "irradiance", "frames": some}  # fmt: skip
        (out / f"transforms_{split}.json").write_text(json.dumps(scene, indent=1))


if __name__ == "__main__":
    main()
