"""Small scenes written to disk: a ball with a painted surface, seen by pinholes from all around."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fields.data import Cameras

RADIUS = 0.8


def ring(n: int = 12, width: int = 40, height: int = 30, distance: float = 4.03, focal: float = 48.0) -> Cameras:
    """Cameras on a rising spiral around the origin, all looking at it."""
    t = torch.arange(n, dtype=torch.float64) / n
    a, e = t * 4 * math.pi, 0.2 + 0.8 * t
    eye = distance * torch.stack([a.cos() * e.cos(), a.sin() * e.cos(), e.sin()], -1)
    return Cameras.look_at(eye, torch.zeros(3), focal=focal, width=width, height=height)


def picture(cameras: Cameras, i: int) -> np.ndarray:
    """(H, W, 4) uint8: the ball at the origin, transparent around it."""
    o, d = cameras.image_rays(i)
    b = (o * d).sum(-1)
    disc = b * b - (o * o).sum(-1) + RADIUS**2
    hit = disc > 0
    p = o + d * (-b - disc.clamp_min(0).sqrt())[..., None]
    rgb = 0.5 + 0.4 * torch.sin(7 * p)
    return (torch.cat([rgb, hit[..., None].float()], -1) * 255 * hit[..., None]).byte().numpy()


def save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_blender(path: Path, n: int = 12, **kwargs) -> Cameras:
    """transforms_train.json and transforms_test.json with RGBA images; every fourth is a test image."""
    c = ring(n, **kwargs)
    for split in ("train", "test"):
        frames = []
        for i in range(n):
            if (i % 4 == 0) == (split == "test"):
                save(picture(c, i), path / split / f"r_{i}.png")
                frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": c.world_from_camera[i].tolist()})
        angle = 2 * math.atan(0.5 * float(c.width[0]) / float(c.fx[0]))
        (path / f"transforms_{split}.json").write_text(
            json.dumps({"camera_angle_x": angle, "frames": frames}, indent=1)
        )
    return c


def write_transforms(path: Path, n: int = 9, meta: dict | None = None, **kwargs) -> Cameras:
    """One transforms.json with opaque images; `meta` adds to its top level."""
    c = ring(n, **kwargs)
    frames = []
    for i in range(n):
        save(picture(c, i)[:, :, :3], path / "images" / f"{i:03}.png")
        frames.append({"file_path": f"images/{i:03}.png", "transform_matrix": c.world_from_camera[i].tolist()})
    top = {"fl_x": float(c.fx[0]), "w": int(c.width[0]), "h": int(c.height[0]), "frames": frames}
    (path / "transforms.json").write_text(json.dumps({**top, **(meta or {})}, indent=1))
    return c


def quat_wxyz(r: np.ndarray) -> np.ndarray:
    """Of a rotation matrix whose trace may be anything: the eigenvector of the largest eigenvalue."""
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    v = np.linalg.eigh(k / 3)[1][:, -1]
    return v[[3, 0, 1, 2]]


def write_colmap(path: Path, n: int = 9, binary: bool = True, model: str = "sparse/0", images: bool = True) -> Cameras:
    """A PINHOLE model with 200 points of the ball, in COLMAP's own conventions (camera_from_world, +Z
    forward)."""
    c = ring(n)
    folder = path / model
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 3))
    points *= RADIUS / np.linalg.norm(points, axis=1, keepdims=True)
    camera_text, image_text, camera_bytes, image_bytes = "# cameras\n", "# images\n", b"", b""
    k = [float(c.fx[0]), float(c.fy[0]), float(c.cx[0]), float(c.cy[0])]
    camera_text += "1 PINHOLE 40 30 " + " ".join(map(str, k)) + "\n"
    camera_bytes += struct.pack("<iiQQ4d", 1, 1, 40, 30, *k)
    for i in range(n):
        pose = c.world_from_camera[i].double().numpy() @ np.diag([1.0, -1, -1, 1])
        r = pose[:3, :3].T
        q, t = quat_wxyz(r), -r @ pose[:3, 3]
        name = f"a/{i:03}.png"
        image_text += f"{i + 1} {' '.join(map(str, [*q, *t]))} 1 {name}\n1.5 2.5 7 3.5 4.5 -1\n"
        image_bytes += struct.pack("<i7di", i + 1, *q, *t, 1) + name.encode() + b"\0"
        image_bytes += struct.pack("<QddqDdq".replace("D", "d"), 2, 1.5, 2.5, 7, 3.5, 4.5, -1)
        if images:
            save(picture(c, i)[:, :, :3], path / "images" / name)
    if binary:
        (folder / "cameras.bin").write_bytes(struct.pack("<Q", 1) + camera_bytes)
        (folder / "images.bin").write_bytes(struct.pack("<Q", n) + image_bytes)
        table = [struct.pack("<Q3d3BdQii", i + 1, *p, 9, 9, 9, 0.5, 1, 1, 0) for i, p in enumerate(points)]
        (folder / "points3D.bin").write_bytes(struct.pack("<Q", len(points)) + b"".join(table))
    else:
        (folder / "cameras.txt").write_text(camera_text)
        (folder / "images.txt").write_text(image_text)
        rows = [f"{i + 1} {p[0]} {p[1]} {p[2]} 9 9 9 0.5 1 0" for i, p in enumerate(points)]
        (folder / "points3D.txt").write_text("\n".join(rows))
    return c


def write_llff(path: Path, n: int = 9, folder: str = "images", factor: int = 1) -> Cameras:
    """poses_bounds.npy with axes (down, right, backwards); images reduced `factor` times against what it
    says."""
    c = ring(n)
    rows = []
    for i in range(n):
        m = c.world_from_camera[i].double().numpy()
        hwf = np.array([30 * factor, 40 * factor, 48 * factor])
        rows.append([*np.stack([-m[:3, 1], m[:3, 0], m[:3, 2], m[:3, 3], hwf], -1).ravel(), 3.0, 5.0])
        save(picture(c, i)[:, :, :3], path / folder / f"{i:03}.png")
    np.save(path / "poses_bounds.npy", np.array(rows))
    return c


def write_nsvf(path: Path, n: int = 9, matrix: bool = True) -> Cameras:
    """intrinsics.txt, bbox.txt, pose/ (OpenCV axes) and rgb/, every third image a test image."""
    c = ring(n)
    (path / "pose").mkdir(parents=True)
    fx, cx, cy = float(c.fx[0]), float(c.cx[0]), float(c.cy[0])
    text = (
        f"{fx} 0 {cx} 0\n0 {fx} {cy} 0\n0 0 1 0\n0 0 0 1\n"
        if matrix
        else f"{fx} {cx} {cy} 0.\n0. 0. 0.\n0.\n1.\n30 40\n"
    )
    (path / "intrinsics.txt").write_text(text)
    (path / "bbox.txt").write_text("-1 -1 -1 1 1 1.5 0.4\n")
    for i in range(n):
        name = f"{2 if i % 3 == 0 else 0}_{i:03}"
        np.savetxt(path / "pose" / f"{name}.txt", c.world_from_camera[i].numpy() @ np.diag([1.0, -1, -1, 1]))
        save(picture(c, i)[:, :, :3], path / "rgb" / f"{name}.png")
    return c
