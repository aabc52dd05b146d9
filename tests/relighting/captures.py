"""A white ball, photographed in many lights, written in the conventions of every layout that is read."""

import json
import math

import numpy as np
import torch
from PIL import Image

from fields.io.hdr import encode_srgb, write_exr
from fields.relighting.lights import Light
from tests.data.scenes import RADIUS
from tests.io.pictures import png_file

WIDTH, HEIGHT, FOCAL = 40, 30, 48.0
INTENSITY = [8.0, 7.0, 6.0]
LIGHTS = [[2.0, 1.0, 2.0], [-2.0, 2.0, 0.5], [0.5, -1.0, 2.5]]
EYES = [[0.0, 0.0, 4.0], [2.5, 0.5, 3.0], [-2.0, 2.0, 2.5]]
QUANTISED = {".exr": 1e-3, ".npy": 1e-3, ".png": 0.5 / 255 + 1e-3, "srgb": 2.4 * 0.5 / 255 + 1e-3}


def ball(cameras, i, light):
    """Radiance (H, W, 3) of a white ball in this light and where it is seen (H, W)."""
    o, d = cameras.image_rays(i)
    b = (o * d).sum(-1)
    disc = b * b - (o * o).sum(-1) + RADIUS**2
    p = o + d * (-b - disc.clamp_min(0).sqrt())[..., None]
    if light.kind == "point":
        towards = torch.tensor(light.position) - p
        irradiance = torch.tensor(light.rgb) / (towards**2).sum(-1, keepdim=True)
    else:
        towards, irradiance = torch.tensor(light.direction).expand_as(p), torch.tensor(light.rgb)
    cosine = (p / RADIUS * torch.nn.functional.normalize(towards, dim=-1)).sum(-1, keepdim=True).clamp_min(0)
    hit = disc > 0
    return torch.where(hit[..., None], irradiance / math.pi * cosine, 0.0), hit


def point(position, rgb=INTENSITY):
    return Light("point", tuple(rgb), position=tuple(position))


def save(path, rgb, hit, kind=".exr"):
    """In one of the ways that pictures are stored: kind is ".exr", ".npy", ".png" (8 bits, as they are), or "srgb"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind in (".exr", ".npy"):
        rgba = torch.cat([rgb, hit[..., None].float()], -1)
        write_exr(path, {"": rgba}) if kind == ".exr" else np.save(path, rgba.numpy())
    else:
        encoded = encode_srgb(rgb) if kind == "srgb" else rgb
        eight = (torch.cat([encoded, hit[..., None].float()], -1) * 255).round().byte().numpy()
        Image.fromarray(eight).save(path)


def write_json(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def edit(file, change):
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def lens():
    return {"fl_x": FOCAL, "w": WIDTH, "h": HEIGHT}


def pose(cameras, i):
    return cameras.world_from_camera[i].tolist()


def write_lit(path, cameras, kind=".exr", top=None, intensity=INTENSITY):
    """Cameras 0 and 1 with lights 0 and 1 to learn from; camera 0 with light 2 is held out, and camera 2 with light 0."""
    ending = ".png" if kind == "srgb" else kind
    frames = {"train": [], "test": []}
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
        split = "train" if i < 2 and j < 2 else "test"
        save(path / "images" / f"{i}_{j}{ending}", *ball(cameras, i, point(LIGHTS[j])), kind)
        record = {"file_path": f"images/{i}_{j}{ending}", "transform_matrix": pose(cameras, i),
                  "light": {"type": "point", "position": LIGHTS[j], "rgb": intensity}}  # fmt: skip
        frames[split].append(record | ({"set": "cameras"} if i == 2 else {}))
    for split, records in frames.items():
        write_json(path / f"transforms_{split}.json", {**lens(), **(top or {}), "frames": records})


def write_nrhints(path, cameras, kind=".png", intrinsics=False):
    angle = 2 * math.atan(0.5 * WIDTH / FOCAL)
    top = {"camera_intrinsics": [WIDTH / 2, HEIGHT / 2, FOCAL, FOCAL]} if intrinsics else {"camera_angle_x": angle}
    for split, pairs in (("train", [(0, 0), (1, 1), (2, 1)]), ("test", [(2, 2)])):
        frames = []
        for k, (i, j) in enumerate(pairs):
            save(path / split / f"r_{k}{kind}", *ball(cameras, i, point(LIGHTS[j])), kind)
            frames.append({"file_path": f"./{split}/r_{k}", "file_ext": kind, "transform_matrix": pose(cameras, i),
                           "pl_pos": LIGHTS[j], "pl_intensity": INTENSITY})  # fmt: skip
        write_json(path / f"transforms_{split}.json", {**top, "frames": frames})


def write_sss_gs(path, cameras):
    for split, views in (("train", (0, 1)), ("test", (2,))):
        frames = []
        for i in views:
            for j, light in enumerate(LIGHTS):
                save(path / "resized" / f"c{i}.0_{j}.png", *ball(cameras, i, point(light)), "srgb")
            frames.append({"file_paths": [f"./resized/c{i}.0_{j}" for j in range(3)], "light_positions": LIGHTS,
                           "light_intensities": [INTENSITY] * 3, "transform_matrix": pose(cameras, i), "width": WIDTH,
                           "height": HEIGHT, "fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2})  # fmt: skip
        write_json(path / f"transforms_{split}.json", {"frames": frames})


def write_bigs(path, cameras, numbers=(2, 10, 41)):
    for number, (x, y, z) in zip(numbers, LIGHTS, strict=True):
        folder, frames = path / f"olat_{number}", []
        for i in range(2):
            rgb, hit = ball(cameras, i, point([x, y, z]))
            save(folder / "images" / f"{i}.exr", rgb, hit)
            save(folder / "masks" / f"{i}.png", hit[..., None].expand(-1, -1, 3).float(), hit, ".png")
            frames.append({"file_path": f"images/{i}.exr", "obj_mask_path": f"masks/{i}.png", "transform_matrix": pose(cameras, i),
                           "light": {"type": "point", "position": [-x, y, -z], "intensity": INTENSITY}})  # fmt: skip
        write_json(folder / "transforms_train.json", {**lens(), "frames": frames})
    write_json(path / "olat_all_on" / "transforms_train.json", {**lens(), "frames": [{"file_path": "no light"}]})


def sphere(width, height, radius):
    """Normals (H, W, 3) of a sphere in the middle, seen along −z, x right and y up, and where it is seen."""
    row, column = np.indices((height, width)) + 0.5
    x, y = (column - width / 2) / radius, (height / 2 - row) / radius
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, None))
    return np.stack([x, y, z], -1), x * x + y * y < 1


def directions(count):
    angle = np.arange(count) * 2.4
    tilt = 0.15 + 0.5 * np.arange(count) / count
    return np.stack([np.cos(angle) * np.sin(tilt), np.sin(angle) * np.sin(tilt), np.cos(tilt)], -1)


def write_diligent(path, count=12, folder="images"):
    """A ball of albedo 0.7 that fills 3/4 of the picture's width; every light has a brightness and a colour of its own."""
    (path / folder).mkdir(parents=True)
    normals, hit = sphere(32, 24, 12)
    towards, rows = directions(count), np.array([0.6, 0.9, 1.2]) * (1 + np.arange(count)[:, None] / count) / 2
    for i in range(count):
        cosine = (normals @ towards[i]).clip(0)[..., None] * hit[..., None]
        png_file(
            path / folder / f"{i + 1:03}.png", (0.7 * rows[i] * cosine * 65_535).round(), [i % 5 for i in range(24)]
        )
    Image.fromarray((hit * 255).astype(np.uint8)).save(path / "mask.png")
    np.savetxt(path / "light_directions.txt", towards, "%.5f")
    np.savetxt(path / "light_intensities.txt", rows, "%.5f")
    (path / "filenames.txt").write_text("".join(f"{i + 1:03}.png\n" for i in range(count)))


def write_uw_ps(path, count=12):
    """pot/, a ball of albedo 0.7, and chrome/, a mirror that shows lamps of 4 degrees' radius."""
    for name, radius in (("pot", 20), ("chrome", 40)):
        folder = path / name
        folder.mkdir(parents=True)
        normals, hit = sphere(100, 90, radius)
        mirrored = 2 * normals[..., 2:] * normals - [0, 0, 1]
        for i, towards in enumerate(directions(count)):
            lamp = (mirrored @ towards > math.cos(math.radians(4))) * 1.0
            grey = (0.7 * (normals @ towards).clip(0) if name == "pot" else lamp) * hit
            save(
                folder / f"{name}.{i}.png",
                torch.from_numpy(grey)[..., None].expand(-1, -1, 3),
                torch.from_numpy(hit),
                ".png",
            )
            rgb = np.asarray(Image.open(folder / f"{name}.{i}.png"))[..., :3]
            Image.fromarray(np.ascontiguousarray(rgb)).save(folder / f"{name}.{i}.png")
        Image.fromarray((hit * 255).astype(np.uint8)).convert("RGB").save(folder / f"{name}.mask.png")
