"""Make the demo scene: a small still life, modelled in numpy and ray-traced with Mitsuba 3.

A glazed vase with billy buttons and eucalyptus, a nautilus, a trefoil knot, a bowl of fruit and a few painted
balls on a round oak plinth, seen by cameras on the upper hemisphere. Everything is a formula in this file: no
mesh, texture or picture is read. The output is in the Blender-synthetic layout (see `demo/README.md`) and is
dedicated to the public domain (CC0 1.0).

    pip install mitsuba numpy && python assets/make_demo.py

remakes the committed files in about seven minutes on two CPU cores. Seeds are fixed, so two runs agree up to the order
of floating-point additions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import mitsuba as mi
import numpy as np

mi.set_variant("scalar_rgb")
import drjit as dr  # noqa: E402

TAU = 2 * np.pi
DISTANCE = 4.0  # of the cameras from the origin, scene units; the still life fits in [-1.2, 1.2]^3
CAMERA_ANGLE_X = 0.6911  # horizontal field of view, radians
GROUND = -0.70  # height of the top of the plinth

Grid = np.ndarray  # (nu, nv, 3) points or linear colours of a parametric surface, closed along v


# --- colour -----------------------------------------------------------------------------------------------------


def srgb(code: str) -> np.ndarray:
    """Linear colour of an sRGB hex code: `"e07a3f"` -> (3,)."""
    c = np.frombuffer(bytes.fromhex(code), np.uint8) / 255.0
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear -> sRGB in [0, 1]: the inverse of the curve in `srgb`."""
    c = np.clip(linear, 0.0, 1.0)
    return np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055)


def step(lo: float, hi: float, x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at `lo` to 1 at `hi`."""
    t = np.clip((x - lo) / (hi - lo), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def mix(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Colour `a` where `t` is 0 and `b` where it is 1; `t` lacks the colour axis."""
    return a + (b - a) * np.asarray(t)[..., None]


def ramp(t: np.ndarray, *codes: str) -> np.ndarray:
    """Colours evenly spaced over t in [0, 1]."""
    table, at = np.array([srgb(c) for c in codes]), np.linspace(0, 1, len(codes))
    return np.stack([np.interp(t, at, table[:, k]) for k in range(3)], -1)


# --- shapes: every one is a grid of points, closed along its second axis -----------------------------------------


def lathe(profile: list[tuple[float, float]], nu: int = 240, nv: int = 360) -> Grid:
    """Turn a Catmull-Rom curve through (radius, height) points about the z axis."""
    p = np.array([profile[0], *profile, profile[-1]])
    s = np.linspace(0, len(profile) - 1, nu)
    i = np.minimum(s.astype(int), len(profile) - 2)
    t = (s - i)[:, None]
    a, b, c, d = (p[i + k] for k in range(4))
    r, z = (b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))).T
    v = np.arange(nv) / nv * TAU
    r = np.maximum(r, 0)[:, None]
    return np.stack([r * np.cos(v), r * np.sin(v), np.broadcast_to(z[:, None], (nu, nv))], -1)


def ball(radius: float, nu: int = 96, nv: int = 144) -> Grid:
    u, v = np.linspace(0, np.pi, nu)[:, None], np.arange(nv) / nv * TAU
    return radius * np.stack([np.sin(u) * np.cos(v), np.sin(u) * np.sin(v), np.cos(u) + 0 * v], -1)


def tube(path: np.ndarray, radius: np.ndarray | float, ref: tuple[float, float, float], nv: int = 48) -> Grid:
    """Sweep a circle along `path` (nu, 3); `ref` is any direction the path never points in."""
    tangent = np.gradient(path, axis=0)
    side = np.cross(tangent, ref)
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    up = np.cross(side, tangent)
    up /= np.linalg.norm(up, axis=-1, keepdims=True)
    v = (np.arange(nv) / nv * TAU)[:, None]
    circle = side[:, None] * np.cos(v) + up[:, None] * np.sin(v)
    return path[:, None] + np.broadcast_to(radius, len(path))[:, None, None] * circle


def moved(grid: Grid, to: tuple[float, float, float], turn: float = 0.0, tilt: float = 0.0) -> Grid:
    """Tilt about x, then turn about z (both in degrees), then translate."""
    (a, b), (c, d) = ((np.cos(w), np.sin(w)) for w in np.radians([turn, tilt]))
    return grid @ (np.array([[a, -b, 0], [b, a, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -d], [0, d, c]])).T + to


def solid(grid: Grid, colour: np.ndarray | str, gloss: float = 0.35) -> mi.Mesh:
    """A Mitsuba mesh of a grid with one colour per point, as a glossy plastic of roughness `gloss`."""
    nu, nv, _ = grid.shape
    i, j = np.mgrid[: nu - 1, :nv]
    k = (j + 1) % nv
    a, b, c, d = i * nv + j, (i + 1) * nv + j, (i + 1) * nv + k, i * nv + k
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    colour = np.broadcast_to(srgb(colour) if isinstance(colour, str) else colour, grid.shape)
    coat = {
        "type": "principled",
        "roughness": gloss,
        "specular": 0.5,
        "base_color": {"type": "mesh_attribute", "name": "vertex_color"},
    }
    props = mi.Properties()
    props["bsdf"] = mi.load_dict({"type": "twosided", "bsdf": coat})
    mesh = mi.Mesh("solid", nu * nv, len(faces), has_vertex_normals=True, props=props)
    mesh.add_attribute("vertex_color", 3, colour.astype(np.float32).ravel())
    params = mi.traverse(mesh)
    params["vertex_positions"] = dr.scalar.ArrayXf(grid.astype(np.float32).ravel())
    params["faces"] = dr.scalar.ArrayXu(faces.astype(np.uint32).ravel())
    params.update()
    return mesh


# --- the still life ---------------------------------------------------------------------------------------------


def plinth() -> list[mi.Mesh]:
    """Oak, with a marquetry ring of maple and blue-black ebony."""
    g = lathe(
        [
            (0, -0.17),
            (0.5, -0.17),
            (0.86, -0.17),
            (0.90, -0.165),
            (0.905, -0.13),
            (0.915, -0.10),
            (0.965, -0.09),
            (0.975, -0.06),
            (0.975, -0.03),
            (0.965, -0.004),
            (0.94, 0),
            (0.75, 0),
            (0.5, 0),
            (0.25, 0),
            (0, 0),
        ],
        nu=500,
        nv=720,
    )
    x, y, z = np.moveaxis(g, -1, 0)
    r, v, top = np.hypot(x, y), np.arctan2(y, x), z > -0.01
    grain = np.sin(16 * (x + 0.10 * np.sin(2.3 * y + 1) + 0.05 * np.sin(5.1 * y + 3 * x)) + 1.2 * np.sin(3 * x))
    colour = mix(srgb("d9a566"), srgb("bd8144"), step(-0.6, 1.0, grain))
    colour = mix(colour, srgb("8a5229"), step(-0.09, -0.11, z))
    colour = mix(colour, srgb("3b2418"), step(0.785, 0.793, r) * step(0.903, 0.895, r) * top)
    tiles = mix(srgb("1f3a44"), srgb("f3dfb8"), step(-0.25, 0.25, np.sin(24 * v)))
    ring = (step(0.800, 0.808, r) * step(0.888, 0.880, r) * top)[..., None]
    return [solid(moved(g, (0, 0, GROUND)), colour * (1 - ring) + tiles * ring, 0.45)]


def vase(at: tuple[float, float, float]) -> list[mi.Mesh]:
    """Stoneware under a running turquoise glaze, with two gilded bands and gentle, twisted flutes."""
    g = lathe(
        [
            (0, 0),
            (0.15, 0),
            (0.175, 0.02),
            (0.165, 0.05),
            (0.24, 0.17),
            (0.315, 0.36),
            (0.32, 0.50),
            (0.25, 0.67),
            (0.145, 0.79),
            (0.115, 0.88),
            (0.135, 0.96),
            (0.19, 1.02),
            (0.195, 1.035),
            (0.18, 1.035),
            (0.115, 0.95),
            (0.09, 0.88),
            (0.10, 0.80),
            (0, 0.78),
        ],
        nu=400,
    )
    x, y, z = np.moveaxis(g, -1, 0)
    v = np.arctan2(y, x)
    flute = 1 + 0.022 * np.cos(12 * v + 5 * z) * step(0.08, 0.3, z) * step(0.8, 0.6, z)
    g = g * np.stack([flute, flute, np.ones_like(z)], -1)
    run = 0.19 + 0.045 * np.cos(5 * v) + 0.025 * np.cos(8 * v + 1) + 0.015 * np.cos(13 * v + 2)
    glaze = ramp(np.clip(z / 1.0 - 0.1, 0, 1), "0d3b66", "0f6f8c", "1aa6a0", "59c9b0", "c9ead0")
    colour = mix(srgb("d8b48a"), glaze, step(-0.008, 0.008, z - run))
    for low, high in ((0.735, 0.765), (0.785, 0.797)):
        colour = mix(colour, srgb("e2a93b"), step(low - 0.006, low, z) * step(high + 0.006, high, z))
    return [solid(moved(g, at), colour, 0.28)]


def bouquet(at: tuple[float, float, float]) -> list[mi.Mesh]:
    """Billy buttons and eucalyptus on thin stems; `at` is the mouth of the vase."""
    t, parts = np.linspace(0, 1, 40), []
    stems = [
        (20, 0.34, 0.50, 0),
        (95, 0.20, 0.74, 0),
        (165, 0.42, 0.58, 0),
        (235, 0.26, 0.66, 0),
        (310, 0.36, 0.70, 0),
        (60, 0.50, 0.42, 1),
        (200, 0.52, 0.36, 1),
        (345, 0.54, 0.34, 1),
        (275, 0.40, 0.52, 1),
    ]
    for turn, reach, height, leafy in stems:
        path = np.stack([0.03 + reach * t**1.8, 0.06 * np.sin(2.5 * t), -0.12 + (height + 0.12) * t - 0.1 * t**3], -1)
        path = moved(path, at, turn)
        parts.append(solid(tube(path, 0.013 - 0.004 * t, (0.3, 0.9, 0.0), nv=12), "6f8f4e", 0.6))
        if not leafy:
            head = ball(0.082)
            n = head / 0.082
            bump = np.sin(26 * n[..., 0]) * np.sin(26 * n[..., 1]) * np.sin(26 * n[..., 2])
            parts.append(
                solid(
                    moved(head * (1 + 0.03 * bump[..., None]), path[-1]),
                    mix(srgb("f2b21b"), srgb("d98a10"), step(0.3, -0.6, bump)),
                    0.7,
                )
            )
            continue
        for k, s in enumerate(np.linspace(0.42, 1, 6)):
            leaf = ball(1.0, 24, 32) * (0.075 * (1.25 - 0.5 * s), 0.06 * (1.25 - 0.5 * s), 0.006) + (0.07, 0, 0)
            leaf[..., 2] += 3 * leaf[..., 0] ** 2 - 2 * leaf[..., 1] ** 2
            fade = np.clip(leaf[..., 0] / 0.15, 0, 1)
            aim = turn + (0 if s == 1 else 75 * (-1) ** k)
            parts.append(
                solid(
                    moved(leaf, path[int(s * 39)], aim, 18 * (-1) ** k), ramp(fade, "5f8f7a", "86b39a", "a9cdb2"), 0.55
                )
            )
    return parts


def knot(at: tuple[float, float, float], turn: float) -> list[mi.Mesh]:
    """A trefoil standing upright, coral to crimson."""
    t = np.linspace(0, TAU, 480)
    r = 0.20 + 0.085 * np.cos(3 * t)
    path = np.stack([r * np.cos(2 * t), r * np.sin(2 * t), 0.085 * np.sin(3 * t)], -1)
    g = tube(path, 0.062, (0, 0, 1))
    colour = ramp(0.5 - 0.5 * np.cos(t), "f4703f", "e2344a", "a31245")
    return [solid(moved(g, at, turn, 90), np.broadcast_to(colour[:, None], g.shape), 0.3)]


def nautilus(at: tuple[float, float, float], turn: float) -> list[mi.Mesh]:
    """A logarithmic spiral with flame-shaped stripes, darkening towards the heart."""
    t = np.linspace(0, 2.6, 640)  # whorls
    r = 0.245 * 2.9 ** (t - 2.6)
    path = np.stack([r * np.cos(TAU * t), r * np.sin(TAU * t), 0 * t], -1)
    g = tube(path, 0.62 * r, (0, 0, 1))
    v = np.arange(48) / 48 * TAU
    outside = 0.5 - 0.5 * np.cos(v)
    wave = np.sin(TAU * 9 * t[:, None] + 1.6 * np.cos(2 * v))
    stripe = step(-0.1, 0.35, wave) * step(2.35, 2.0, t)[:, None] * (0.35 + 0.65 * outside)
    colour = mix(mix(srgb("fbeede"), srgb("f2c9ae"), 1 - outside) + 0 * g, srgb("a8432a"), stripe)
    return [solid(moved(g, at, turn, 90), colour, 0.32)]


def bowl(at: tuple[float, float, float]) -> list[mi.Mesh]:
    """Celadon outside, saffron inside, filled with plums and oranges."""
    g = lathe(
        [
            (0, 0),
            (0.09, 0),
            (0.10, 0.015),
            (0.10, 0.03),
            (0.17, 0.07),
            (0.225, 0.14),
            (0.245, 0.20),
            (0.238, 0.205),
            (0.225, 0.195),
            (0.20, 0.13),
            (0.14, 0.075),
            (0, 0.06),
        ]
    )
    inside = (np.arange(len(g)) / len(g) > 0.64)[:, None]
    colour = mix(srgb("a9cfae"), srgb("f0d9a0"), inside * np.ones(g.shape[:2]))
    parts = [solid(moved(g, at), colour, 0.32)]
    fruit = [(0.095, 30, "e8772e"), (0.105, 120, "6b2a5b"), (0.10, 215, "f29a2e"), (0.09, 300, "8e2f5c")]
    for out, angle, code in fruit:
        centre = np.array([out * np.cos(np.radians(angle)), out * np.sin(np.radians(angle)), 0.165])
        parts.append(solid(moved(ball(0.085), centre + at), code, 0.35))
    parts.append(solid(moved(ball(0.078), np.array([0.0, 0.0, 0.27]) + at), "f6c445", 0.35))
    return parts


def marbles() -> list[mi.Mesh]:
    """Painted balls; one of them striped, one of them in halves."""
    parts = []
    for x, y, radius, code in [
        (0.10, -0.70, 0.075, "f3b61f"),
        (-0.74, 0.12, 0.09, "d7263d"),
        (0.70, 0.30, 0.08, "2e86ab"),
    ]:
        parts.append(solid(moved(ball(radius), (x, y, GROUND + radius)), code, 0.3))
    g = ball(0.15)
    colour = mix(srgb("fbf3e4"), srgb("27408b"), step(-0.12, 0.12, np.sin(34 * g[..., 2] + 0.4)))
    parts.append(solid(moved(g, (0.02, -0.44, GROUND + 0.15), 30, 35), colour, 0.28))
    g = ball(0.11)
    colour = mix(srgb("fbf3e4"), srgb("1b998b"), step(-0.003, 0.003, g[..., 2]))
    return [*parts, solid(moved(g, (0.60, 0.52, GROUND + 0.11), 60, 50), colour, 0.28)]


def sky(height: int = 128) -> mi.Bitmap:
    """Latitude-longitude radiance, z up: a cool dome, a warm floor, one key light, one rim light and one fill light."""
    theta = (np.arange(height) + 0.5)[:, None] / height * np.pi
    phi = (np.arange(2 * height) + 0.5) / (2 * height) * TAU
    d = np.stack([np.sin(theta) * np.sin(phi), np.sin(theta) * np.cos(phi), np.cos(theta) + 0 * phi], -1)
    light = ramp(d[..., 2] / 2 + 0.5, "a08468", "b8a590", "a9bcd2", "b4cdea") * 0.85
    for azimuth, elevation, sharpness, power, code in [
        (-50, 48, 40, 15, "ffe2b8"),
        (150, 30, 30, 4.5, "bcd6ff"),
        (40, 20, 14, 1.2, "ffd9d0"),
    ]:
        a, e = np.radians([azimuth, elevation])
        axis = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        light += power * srgb(code) * np.exp(sharpness * (d @ axis - 1))[..., None]
    return mi.Bitmap(light.astype(np.float32))


def still_life() -> mi.Scene:
    parts = [
        *plinth(),
        *vase((0.04, 0.12, GROUND)),
        *bouquet((0.04, 0.12, GROUND + 0.95)),
        *knot((0.56, -0.30, GROUND + 0.33), 35),
        *nautilus((-0.48, -0.30, GROUND + 0.38), -20),
        *bowl((-0.26, 0.60, GROUND)),
        *marbles(),
    ]
    up = mi.ScalarTransform4f().rotate([1, 0, 0], 90)  # Mitsuba's sky has y up
    light = {"type": "envmap", "bitmap": sky(), "to_world": up}
    path = {"type": "path", "max_depth": 6, "hide_emitters": True}
    return mi.load_dict(
        {"type": "scene", "integrator": path, "light": light, **{f"part{i:03d}": mesh for i, mesh in enumerate(parts)}}
    )


# --- cameras and pictures ----------------------------------------------------------------------------------------


def look_from(azimuth: float, elevation: float) -> np.ndarray:
    """OpenGL camera-to-world (+X right, +Y up, looking along -Z), aimed at the origin; world z up. Radians."""
    back = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, DISTANCE * back], -1)
    return pose


def train_poses(n: int) -> list[np.ndarray]:
    """A golden spiral, even in area, from 10 degrees below the horizon to 80 above it."""
    height = np.linspace(np.sin(np.radians(-10)), np.sin(np.radians(80)), n)
    return [look_from(k * np.pi * (3 - np.sqrt(5)), np.arcsin(h)) for k, h in enumerate(height)]


def test_poses(n: int) -> list[np.ndarray]:
    """One and a half smooth turns that climb from 5 to 65 degrees."""
    t = np.linspace(0, 1, n)
    return [look_from(-1.4 + 1.5 * TAU * s, np.radians(5 + 60 * s)) for s in t]


def render(scene: mi.Scene, pose: np.ndarray, size: int, spp: int, seed: int) -> np.ndarray:
    """One picture, (size, size, 4) uint8: sRGB with *straight* alpha, so that rgb * a + (1 - a) is it over white."""
    flip = np.diag([-1.0, 1.0, -1.0, 1.0])  # Mitsuba's camera has +X left and looks along +Z
    sensor = mi.load_dict(
        {
            "type": "perspective",
            "fov": float(np.degrees(CAMERA_ANGLE_X)),
            "fov_axis": "x",
            "near_clip": 0.1,
            "to_world": mi.ScalarTransform4f(pose @ flip),
            "film": {
                "type": "hdrfilm",
                "width": size,
                "height": size,
                "pixel_format": "rgba",
                "rfilter": {"type": "gaussian", "stddev": 0.45},
            },
            "sampler": {"type": "multijitter", "sample_count": spp},
        }
    )
    image = np.array(mi.render(scene, sensor=sensor, spp=spp, seed=seed))
    alpha = np.clip(image[..., 3:], 0.0, 1.0)
    colour = encode(image[..., :3] / np.maximum(alpha, 1e-6)) * (alpha > 0.5 / 255)  # linear was premultiplied
    return np.round(255 * np.concatenate([colour, alpha], -1)).astype(np.uint8)


def write_split(scene: mi.Scene, out: Path, name: str, poses: list[np.ndarray], size: int, spp: int) -> None:
    (out / name).mkdir(parents=True, exist_ok=True)
    frames = []
    for k, pose in enumerate(poses):
        file = f"{name}/r_{k:03d}"
        mi.Bitmap(render(scene, pose, size, spp, seed=k)).write(str(out / f"{file}.png"))
        frames.append({"file_path": f"./{file}", "transform_matrix": np.round(pose, 9).tolist()})
        print(f"{file}.png", flush=True)
    text = json.dumps({"camera_angle_x": CAMERA_ANGLE_X, "frames": frames}, indent=1)
    (out / f"transforms_{name}.json").write_text(text + "\n")


def write_surface(scene: mi.Scene, out: Path, poses: list[np.ndarray], apart: float, pixels: int = 60) -> None:
    """surface.ply: points of the true surface that cameras see, at most one per cube of the edge `apart`."""
    tangent = np.tan(CAMERA_ANGLE_X / 2) * (2 * (np.arange(pixels) + 0.5) / pixels - 1)
    found = []
    for pose in poses:
        for v in tangent:
            for u in tangent:
                direction = pose[:3, :3] @ [u, v, -1.0]
                ray = mi.Ray3f(pose[:3, 3].tolist(), (direction / np.linalg.norm(direction)).tolist())
                hit = scene.ray_intersect_preliminary(ray)
                if hit.is_valid():
                    found.append(np.array(ray(hit.t)))
    points = np.array(found, "<f4")
    points = points[np.unique(np.floor(points / apart).astype(int), axis=0, return_index=True)[1]]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [*(f"property float {axis}" for axis in "xyz"), "end_header", ""]
    (out / "surface.ply").write_bytes("\n".join(header).encode() + points.tobytes())
    print(f"surface.ply: {len(points)} points")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "demo", help="folder to write")
    parser.add_argument("--size", type=int, default=200, help="width and height in pixels")
    parser.add_argument("--spp", type=int, default=196, help="samples per pixel")
    parser.add_argument("--views", type=int, nargs=2, default=(60, 12), metavar=("TRAIN", "TEST"))
    args = parser.parse_args()
    scene = still_life()
    write_surface(scene, args.out, train_poses(60), 0.02)
    write_split(scene, args.out, "train", train_poses(args.views[0]), args.size, args.spp)
    write_split(scene, args.out, "test", test_poses(args.views[1]), args.size, args.spp)


if __name__ == "__main__":
    main()
