"""Layouts of scenes, each with four small pictures."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import numpy as np
from fields.benchmarks.fuzz.targets.sample import (
    FOCAL,
    INFLATED,
    H,
    N,
    Target,
    W,
    poses_around,
    write_json,
    write_pictures,
)


def _blender(folder: Path) -> None:
    poses = poses_around().tolist()
    for split in ("train", "test"):
        write_pictures(folder / split, [f"r_{i}.png" for i in range(N)], alpha=True)
        frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": pose} for i, pose in enumerate(poses)]
        write_json(folder / f"transforms_{split}.json", {"camera_angle_x": 0.8, "frames": frames})


def _transforms(folder: Path) -> None:
    names = [f"images/{i}.png" for i in range(N)]
    write_pictures(folder, names)
    write_pictures(folder, ["mask.png"])
    frames: list[dict] = [
        {"file_path": name, "transform_matrix": pose} for name, pose in zip(names, poses_around().tolist(), strict=True)
    ]
    frames[0]["mask_path"] = "mask.png"
    lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": 6, "cy": 5, "w": W, "h": H, "k1": 0.01, "k2": 0.0, "p1": 0.0}
    whole = {"camera_model": "OPENCV", "ply_file_path": "points.ply", "applied_transform": np.eye(4)[:3].tolist(),
             "applied_scale": 1.0, "train_filenames": names[:3], "test_filenames": names[3:]}  # fmt: skip
    write_json(folder / "transforms.json", {**lens, **whole, "frames": frames})
    _ply(folder / "points.ply", "binary_little_endian")


def _ply(file: Path, kind: str) -> None:
    points = np.random.default_rng(0).normal(size=(60, 3)).astype("<f4")
    header = f"ply\nformat {kind} 1.0\nelement vertex 60\n" + "".join(f"property float {a}\n" for a in "xyz")
    body = points.tobytes() if kind != "ascii" else "\n".join(" ".join(map(str, p)) for p in points.tolist()).encode()
    file.write_bytes(header.encode() + b"end_header\n" + body)


def _instant_ngp(folder: Path) -> None:
    names = [f"{i}.jpg" for i in range(N)]
    write_pictures(folder, names)
    frames = [{"file_path": n, "transform_matrix": p} for n, p in zip(names, poses_around().tolist(), strict=True)]
    write_json(folder / "transforms.json", {"camera_angle_x": 0.8, "aabb_scale": 4, "scale": 0.33, "offset": [0.5, 0.5, 0.5],
                                       "camera_model": "OPENCV_FISHEYE", "k1": 0.01, "w": W, "h": H, "frames": frames})  # fmt: skip


def _nsvf(folder: Path) -> None:
    write_pictures(folder / "rgb", [f"{i % 3}_{i}.png" for i in range(N)])
    (folder / "pose").mkdir()
    for i, pose in enumerate(poses_around()):
        np.savetxt(folder / "pose" / f"{i % 3}_{i}.txt", pose @ np.diag([1.0, -1, -1, 1]))
    (folder / "intrinsics.txt").write_text(f"{FOCAL} 6 5 0.\n0. 0. 0.\n0.\n1.\n10 12\n")
    (folder / "bbox.txt").write_text("-1 -1 -1 1 1 1.5 0.4\n")


def _llff(folder: Path) -> None:
    write_pictures(folder / "images", [f"{i}.png" for i in range(N)])
    size = np.array([H, W, FOCAL])
    rows = [[*np.stack([-m[:3, 1], m[:3, 0], m[:3, 2], m[:3, 3], size], -1).ravel(), 3.0, 5.0] for m in poses_around()]
    np.save(folder / "poses_bounds.npy", np.array(rows))


def _dtu(folder: Path) -> None:
    write_pictures(folder / "image", [f"{i:03}.png" for i in range(N)])
    write_pictures(folder / "mask", [f"{i:03}.png" for i in range(N)])
    lens = np.array([[FOCAL, 0, 5.5, 0], [0, FOCAL, 4.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    arrays = {
        f"world_mat_{i}": lens @ np.linalg.inv(p @ np.diag([1.0, -1, -1, 1])) for i, p in enumerate(poses_around())
    }
    np.savez(folder / "cameras_sphere.npz", **arrays, scale_mat_0=np.eye(4))


def _colmap(folder: Path, binary: bool) -> None:
    from scipy.spatial.transform import Rotation

    names = [f"{i}.png" for i in range(N)]
    write_pictures(folder / "images", names)
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    points = np.random.default_rng(0).normal(size=(60, 3))
    lens = (FOCAL, FOCAL, 6.0, 5.0)
    images_bin, images_txt = struct.pack("<Q", N), "# images\n"
    for i, pose in enumerate(poses_around()):
        camera_from_world = np.linalg.inv(pose @ np.diag([1.0, -1, -1, 1]))
        x, y, z, w = Rotation.from_matrix(camera_from_world[:3, :3]).as_quat()
        numbers = (i + 1, w, x, y, z, *camera_from_world[:3, 3], 1)
        images_bin += struct.pack("<i7di", *numbers) + names[i].encode() + b"\0" + struct.pack("<Qddq", 1, 1.5, 2.5, 7)
        images_txt += f"{' '.join(map(str, numbers))} {names[i]}\n1.5 2.5 7\n"
    if binary:
        (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ4d", 1, 1, 1, W, H, *lens))
        (model / "images.bin").write_bytes(images_bin)
        rows = [struct.pack("<Q3d3BdQii", i + 1, *p, 9, 9, 9, 0.5, 1, 1, 0) for i, p in enumerate(points)]
        (model / "points3D.bin").write_bytes(struct.pack("<Q", len(points)) + b"".join(rows))
    else:
        (model / "cameras.txt").write_text(f"1 PINHOLE {W} {H} {' '.join(map(str, lens))}\n")
        (model / "images.txt").write_text(images_txt)
        rows_txt = (f"{i + 1} {p[0]} {p[1]} {p[2]} 9 9 9 0.5 1 0" for i, p in enumerate(points))
        (model / "points3D.txt").write_text("\n".join(rows_txt))


def _load_scene(folder: Path) -> None:
    from fields.data import load_scene

    load_scene(folder)


def _check_scene(folder: Path) -> None:
    from fields.data.check import check_scene

    check_scene(folder)


TARGETS: dict[str, Target] = {
    "scene-blender": Target(_blender, _load_scene, "*.json"),
    "scene-transforms": Target(_transforms, _load_scene, "*.[jp][sl][oy]*"),
    "scene-instant-ngp": Target(_instant_ngp, _load_scene, "*.json"),
    "scene-nsvf": Target(_nsvf, _load_scene, "*.txt"),
    "scene-llff": Target(_llff, _load_scene, "*.npy"),
    "scene-dtu": Target(_dtu, _load_scene, "*.npz", INFLATED),
    "scene-colmap-text": Target(partial(_colmap, binary=False), _load_scene, "*.txt"),
    "scene-colmap-binary": Target(partial(_colmap, binary=True), _load_scene, "*.bin"),
    "scene-pictures": Target(_blender, _load_scene, "*.png", INFLATED),
    "check": Target(_transforms, _check_scene, "*", INFLATED),
}  # fmt: skip
