"""What is fuzzed: each reader, with a small valid sample of what it reads.

Nothing of `fields` is imported before it is used, so that a fuzzer can watch it being imported.
"""

from __future__ import annotations

import contextlib
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SMALL, INFLATED = 64, 1 << 14
"""Bytes of memory that reading may take for each byte of the input, besides `fields.benchmarks.fuzz.running.ROOM`: of plain formats, and
of compressed ones. Deflate makes 1032 bytes of one, and they become numbers of up to eight times their size, and copies."""


@dataclass(frozen=True)
class Target:
    build: Callable[[Path], Any]
    """Fills a folder with a valid sample."""
    read: Callable[[Path], Any]
    """Reads what lies in such a folder."""
    damaged: str = "*"
    """Which of its files are damaged: a pattern for `Path.rglob`."""
    factor: int = SMALL


# ---------------------------------------------------------------------------------------- scenes

_N, _W, _H, _FOCAL = 4, 12, 10, 14.0


def _poses() -> np.ndarray:
    """(N, 4, 4) world_from_camera, OpenGL axes, all around the origin."""
    import torch

    from fields.data import Cameras

    t = torch.arange(_N) * 2 * math.pi / _N
    eye = 4 * torch.stack([t.cos(), t.sin(), 0.3 + 0.1 * t], -1)
    return Cameras.look_at(eye, torch.zeros(3), focal=_FOCAL, width=_W, height=_H).world_from_camera.double().numpy()


def _image(i: int, alpha: bool = False) -> Any:
    from PIL import Image

    row, column = np.indices((_H, _W))
    inside = np.hypot(row - _H / 2, column - _W / 2) < 4
    pixels = np.stack([row * 20, column * 20, np.full_like(row, 40 * i), inside * 255], -1).astype(np.uint8)
    return Image.fromarray(pixels if alpha else np.ascontiguousarray(pixels[..., :3]))


def _pictures(folder: Path, names: list[str], alpha: bool = False) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _image(i, alpha).save(folder / name)


def _json(file: Path, data: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data))


def _blender(folder: Path) -> None:
    poses = _poses().tolist()
    for split in ("train", "test"):
        _pictures(folder / split, [f"r_{i}.png" for i in range(_N)], alpha=True)
        frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": pose} for i, pose in enumerate(poses)]
        _json(folder / f"transforms_{split}.json", {"camera_angle_x": 0.8, "frames": frames})


def _transforms(folder: Path) -> None:
    names = [f"images/{i}.png" for i in range(_N)]
    _pictures(folder, names)
    _pictures(folder, ["mask.png"])
    frames: list[dict] = [
        {"file_path": name, "transform_matrix": pose} for name, pose in zip(names, _poses().tolist(), strict=True)
    ]
    frames[0]["mask_path"] = "mask.png"
    lens = {"fl_x": _FOCAL, "fl_y": _FOCAL, "cx": 6, "cy": 5, "w": _W, "h": _H, "k1": 0.01, "k2": 0.0, "p1": 0.0}
    whole = {"camera_model": "OPENCV", "ply_file_path": "points.ply", "applied_transform": np.eye(4)[:3].tolist(),
             "applied_scale": 1.0, "train_filenames": names[:3], "test_filenames": names[3:]}  # fmt: skip
    _json(folder / "transforms.json", {**lens, **whole, "frames": frames})
    _ply(folder / "points.ply", "binary_little_endian")


def _ply(file: Path, kind: str) -> None:
    points = np.random.default_rng(0).normal(size=(60, 3)).astype("<f4")
    header = f"ply\nformat {kind} 1.0\nelement vertex 60\n" + "".join(f"property float {a}\n" for a in "xyz")
    body = points.tobytes() if kind != "ascii" else "\n".join(" ".join(map(str, p)) for p in points.tolist()).encode()
    file.write_bytes(header.encode() + b"end_header\n" + body)


def _instant_ngp(folder: Path) -> None:
    names = [f"{i}.jpg" for i in range(_N)]
    _pictures(folder, names)
    frames = [{"file_path": n, "transform_matrix": p} for n, p in zip(names, _poses().tolist(), strict=True)]
    _json(folder / "transforms.json", {"camera_angle_x": 0.8, "aabb_scale": 4, "scale": 0.33, "offset": [0.5, 0.5, 0.5],
                                       "camera_model": "OPENCV_FISHEYE", "k1": 0.01, "w": _W, "h": _H, "frames": frames})  # fmt: skip


def _nsvf(folder: Path) -> None:
    _pictures(folder / "rgb", [f"{i % 3}_{i}.png" for i in range(_N)])
    (folder / "pose").mkdir()
    for i, pose in enumerate(_poses()):
        np.savetxt(folder / "pose" / f"{i % 3}_{i}.txt", pose @ np.diag([1.0, -1, -1, 1]))
    (folder / "intrinsics.txt").write_text(f"{_FOCAL} 6 5 0.\n0. 0. 0.\n0.\n1.\n10 12\n")
    (folder / "bbox.txt").write_text("-1 -1 -1 1 1 1.5 0.4\n")


def _llff(folder: Path) -> None:
    _pictures(folder / "images", [f"{i}.png" for i in range(_N)])
    size = np.array([_H, _W, _FOCAL])
    rows = [[*np.stack([-m[:3, 1], m[:3, 0], m[:3, 2], m[:3, 3], size], -1).ravel(), 3.0, 5.0] for m in _poses()]
    np.save(folder / "poses_bounds.npy", np.array(rows))


def _dtu(folder: Path) -> None:
    _pictures(folder / "image", [f"{i:03}.png" for i in range(_N)])
    _pictures(folder / "mask", [f"{i:03}.png" for i in range(_N)])
    lens = np.array([[_FOCAL, 0, 5.5, 0], [0, _FOCAL, 4.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    arrays = {f"world_mat_{i}": lens @ np.linalg.inv(p @ np.diag([1.0, -1, -1, 1])) for i, p in enumerate(_poses())}
    np.savez(folder / "cameras_sphere.npz", **arrays, scale_mat_0=np.eye(4))


def _colmap(folder: Path, binary: bool) -> None:
    from scipy.spatial.transform import Rotation

    names = [f"{i}.png" for i in range(_N)]
    _pictures(folder / "images", names)
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    points = np.random.default_rng(0).normal(size=(60, 3))
    lens = (_FOCAL, _FOCAL, 6.0, 5.0)
    images_bin, images_txt = struct.pack("<Q", _N), "# images\n"
    for i, pose in enumerate(_poses()):
        camera_from_world = np.linalg.inv(pose @ np.diag([1.0, -1, -1, 1]))
        x, y, z, w = Rotation.from_matrix(camera_from_world[:3, :3]).as_quat()
        numbers = (i + 1, w, x, y, z, *camera_from_world[:3, 3], 1)
        images_bin += struct.pack("<i7di", *numbers) + names[i].encode() + b"\0" + struct.pack("<Qddq", 1, 1.5, 2.5, 7)
        images_txt += f"{' '.join(map(str, numbers))} {names[i]}\n1.5 2.5 7\n"
    if binary:
        (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ4d", 1, 1, 1, _W, _H, *lens))
        (model / "images.bin").write_bytes(images_bin)
        rows = [struct.pack("<Q3d3BdQii", i + 1, *p, 9, 9, 9, 0.5, 1, 1, 0) for i, p in enumerate(points)]
        (model / "points3D.bin").write_bytes(struct.pack("<Q", len(points)) + b"".join(rows))
    else:
        (model / "cameras.txt").write_text(f"1 PINHOLE {_W} {_H} {' '.join(map(str, lens))}\n")
        (model / "images.txt").write_text(images_txt)
        rows_txt = (f"{i + 1} {p[0]} {p[1]} {p[2]} 9 9 9 0.5 1 0" for i, p in enumerate(points))
        (model / "points3D.txt").write_text("\n".join(rows_txt))


def _load_scene(folder: Path) -> None:
    from fields.data import load_scene

    load_scene(folder)


def _check_scene(folder: Path) -> None:
    from fields.data.check import check_scene

    check_scene(folder)


# ---------------------------------------------------------------------------------------- pictures


def _picture(suffix: str, folder: Path) -> None:
    _image(1, alpha=suffix in (".png", ".webp", ".tif")).save(folder / f"a{suffix}")


def _read_picture(suffix: str, folder: Path) -> None:
    from fields.data.images import decode, read_header

    header = read_header(folder / f"a{suffix}")
    decode(folder / f"a{suffix}", 4 if header.has_alpha else 3)


def _linear(suffix: str, folder: Path) -> None:
    import torch

    from fields.io import png16
    from fields.io.hdr import write_exr

    file, pixels = folder / f"a{suffix}", np.random.default_rng(0).random((_H, _W, 3)).astype(np.float32)
    if suffix == ".exr":
        write_exr(file, {"": torch.from_numpy(pixels)})
    elif suffix == ".npy":
        np.save(file, pixels)
    elif suffix == ".hdr":
        rows = (255 * np.concatenate([pixels, np.full((_H, _W, 1), 0.5, np.float32)], 2)).astype(np.uint8)
        runs = b"".join(bytes([2, 2, 0, _W]) + b"".join(bytes([_W]) + c.tobytes() for c in row.T) for row in rows)
        file.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\nEXPOSURE=1.0\n\n-Y %d +X %d\n" % (_H, _W) + runs)
    elif suffix == ".jpg":
        _image(1).save(file)
    else:
        file.write_bytes(png16.encode((65_535 * pixels).astype(np.uint16)))


def _read_linear(suffix: str, folder: Path) -> None:
    from fields.errors import DataError
    from fields.io.hdr import has_eight_bits, read_linear, read_vectors

    file = folder / f"a{suffix}"
    if suffix in (".npy", ".exr"):
        read_vectors(file)
    with contextlib.suppress(DataError):
        has_eight_bits(file)
    read_linear(file)


def _flow(folder: Path) -> None:
    from fields.reacto.flow import write_flow

    write_flow(folder / "a.png", np.random.default_rng(0).normal(size=(_H, _W, 2)), np.ones((_H, _W), bool))


def _read_flow(folder: Path) -> None:
    from fields.reacto.flow import read_flow

    read_flow(folder / "a.png")


# ---------------------------------------------------------------------------------------- materials


def _network() -> Any:
    import torch

    from fields.neumadiff.network import DIALECTS, Networks

    return Networks(torch.randn(2, 675, generator=torch.Generator().manual_seed(0)), DIALECTS["sztrajman"])


def _layers() -> list[np.ndarray]:
    shapes = ((21, 6), (21,), (21, 21), (21,), (3, 21), (3,))
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _materials(suffix: str, folder: Path) -> None:
    file = folder / f"a{suffix}"
    if suffix == ".npz":
        from fields.neumadiff.nbrdf import write_networks

        write_networks(folder / "a.nbrdf.npz", _network(), ["gold", "red"], {"scale": "merl"})
    elif suffix == ".h5":
        import h5py

        with h5py.File(file, "w") as h5:
            names, parts = ("dense_1", "dense_2", "dense_3"), iter(_layers())
            h5.attrs["layer_names"] = [name.encode() for name in names]
            for name in names:
                layer = h5.create_group(name)
                layer.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
                layer[f"{name}/kernel:0"], layer[f"{name}/bias:0"] = next(parts).T, next(parts)
    elif suffix == ".npy":
        np.save(file, _network().weights.numpy())
    elif suffix == "_fc1.npy":
        for name, part in zip(("fc1", "b1", "fc2", "b2", "fc3", "b3"), _layers(), strict=True):
            np.save(folder / f"a_{name}.npy", part.T)
    elif suffix == ".pth":
        import torch

        names = [f"fc{k}.{part}" for k in (1, 2, 3) for part in ("weight", "bias")]
        torch.save({name: torch.from_numpy(part) for name, part in zip(names, _layers(), strict=True)}, file)
    elif suffix == ".bsdf":
        from fields.neumadiff.tensor_file import write_tensor_file

        ones = np.ones((2, 2), np.float32)
        write_tensor_file(file, {"theta_i": np.array([0, 1], np.float32), "phi_i": np.zeros(1, np.float32), "sigma": ones, "ndf": ones,
                                 "vndf": np.ones((1, 2, 2, 2), np.float32), "rgb": np.ones((1, 2, 3, 2, 2), np.float32),
                                 "jacobian": np.ones(1, np.uint8)})  # fmt: skip
    else:
        import torch

        from fields.neumadiff.merl import Table, write_merl

        write_merl(file, Table(torch.ones(3, 90, 90, 180, dtype=torch.float64)))


def _read_materials(suffix: str, folder: Path) -> None:
    from fields.neumadiff.files import read_materials, scale_of

    file = folder / ("a.nbrdf.npz" if suffix == ".npz" else f"a{suffix}")
    read_materials(file)
    scale_of(file)


def _fits(folder: Path) -> None:
    colour = "[0.1, 0.2, 0.3]"
    lines = (f"{name} = Aggregate(Lambertian(albedo = {colour}), LowCookTorrance(albedo = {colour}, roughness = 0.02, eta = 1.5))\n"
             for name in ("gold", "red"))  # fmt: skip
    (folder / "a.fit").write_text("".join(lines))


def _read_fits(folder: Path) -> None:
    from fields.neumadiff.fits import read_fits

    read_fits(folder / "a.fit")


# ---------------------------------------------------------------------------------------- fragments


def _meshes(suffix: str, folder: Path) -> None:
    import trimesh

    for i in range(2):
        mesh = trimesh.creation.icosphere(1, radius=1 + i)
        mesh.export(folder / f"a{i}{suffix}")
        if suffix == ".gltf":  # each has buffers of its own
            parts = trimesh.exchange.gltf.export_gltf(trimesh.Scene(mesh))
            parts = {(f"{i}_{n}" if n != "model.gltf" else f"a{i}.gltf"): body for n, body in parts.items()}
            for name, body in parts.items():
                (folder / name).write_bytes(body.replace(b'"gltf_buffer', b'"%d_gltf_buffer' % i))


def _read_fragments(folder: Path) -> None:
    from fields.garf.reading import load_fragments

    load_fragments(folder)


def _hdf5(folder: Path) -> None:
    import trimesh

    from fields.garf.fragment import Fragment
    from fields.garf.hdf5 import write_objects

    box = trimesh.creation.box()
    pieces = [Fragment(f"piece_{i}", box.vertices + [i, 0, 0], np.asarray(box.faces)) for i in range(3)]
    write_objects(folder / "a.hdf5", iter([("artifact/a/b", "train", pieces), ("artifact/c/d", "val", pieces[:2])]))


def _read_hdf5(folder: Path) -> None:
    from fields.garf.hdf5 import object_names, read_object

    for name in object_names(folder / "a.hdf5", "train", 20) + object_names(folder / "a.hdf5"):
        read_object(folder / "a.hdf5", name)


def _cloud(folder: Path) -> None:
    import torch

    from fields.garf.clouds import Cloud

    which = torch.tensor([0, 0, 1, 1])
    Cloud(torch.ones(4, 3), torch.ones(4, 3), which, torch.ones(4, 5), which, 1.0).save(folder / "a.npz")


def _read_cloud(folder: Path) -> None:
    from fields.garf.clouds import Cloud

    Cloud.load(folder / "a.npz")


def _reassembly(folder: Path) -> None:
    import trimesh

    from fields.garf.assembly import Place
    from fields.garf.confidence import Calibration
    from fields.garf.fragment import Fragment
    from fields.garf.reassembly import Joint, Reassembly
    from fields.garf.results import write_fragments, write_poses

    box = trimesh.creation.box()
    pieces = [Fragment(name, np.array(box.vertices), np.array(box.faces)) for name in "ab"]
    found = Reassembly(pieces, 0, np.stack([np.eye(4)] * 2), [0, 1], [1.0, 0.5], [Joint(0, 1, 0.5)], 1.0,
                       [np.zeros(12)] * 2, 0.5, [Place(1, np.eye(4), 0.5)], Calibration(0.1, 0.2))  # fmt: skip
    write_poses(folder, found)
    write_fragments(folder, found)


def _read_reassembly(folder: Path) -> None:
    from fields.garf.results import laid_out, read_results, told

    found = read_results(folder)
    laid_out(found)
    told(found)


# ---------------------------------------------------------------------------------------- runs


def _field() -> Any:
    import torch

    from fields.tensorf.field import TensoRF

    torch.manual_seed(0)
    return TensoRF(aabb=[-1.0, -1, -1, 1, 1, 1], resolution=[8, 8, 8], near=1.0, far=6.0, density_rank=2, appearance_rank=4,
                   feature_dim=4, hidden=8, occupancy_resolution=[8, 8, 8])  # fmt: skip


def _config() -> dict[str, Any]:
    import torch

    from fields.data import Cameras
    from fields.paths import to_json

    cameras = Cameras.look_at(torch.tensor([[4.0, 0, 1], [0, 4, 1]]), torch.zeros(3), focal=_FOCAL, width=_W, height=_H)
    return {"path": "nowhere", "downscale": 1, "world_from_input": np.eye(4).tolist(), "cameras": to_json(cameras)}


def _run(folder: Path) -> None:
    from fields.io.run import save_field

    save_field(folder, _field(), "tensorf-vm", {"iterations": 3}, _config())


def _read_run(folder: Path) -> None:
    from fields.io.run import load, load_config, world_from_input
    from fields.paths import from_json

    world_from_input(folder)
    from_json(load_config(folder)["scene"].get("cameras", {}))
    load(folder)


def _model(name: str, folder: Path) -> None:
    from fields.methods import shipped

    for file in ("config.json", "model.safetensors"):
        (folder / file).write_bytes((shipped("assets") / name / file).read_bytes())


def _read_model(folder: Path) -> None:
    from fields.io.run import load

    load(folder)


def _checkpoint(folder: Path) -> None:
    from fields.training.loop import Loop

    loop = Loop("tensorf-vm", {"iterations": 3}, 0, "nowhere", folder)
    from fields.io.atomic import write_tensors

    write_tensors(
        loop.checkpoint, _field().state_dict(), loop.header | {"iteration": 1, "seconds": 2.0, "training": {}}
    )


def _read_checkpoint(folder: Path) -> None:
    from fields.training.loop import Loop

    field = _field()
    loop = Loop("tensorf-vm", {"iterations": 3}, 0, "nowhere", folder)
    loop.stopped(lambda tensors, plain: field.load_state_dict(tensors))


def _slim(folder: Path) -> None:
    from fields.slimmerf.slim import DEFAULT_STEPS, to_slim

    run = {"schema": 1, "method": "slimmerf", "settings": {}, "scene": _config()}
    (folder / "a.slim").write_bytes(to_slim(_field(), DEFAULT_STEPS, run))


def _read_slim(folder: Path) -> None:
    from fields.io.run import load, load_config

    load_config(folder / "a.slim")
    load(folder / "a.slim")


def _camera_path(folder: Path) -> None:
    from fields.paths import from_json, nerfstudio_path

    cameras = from_json(_config()["cameras"])
    _json(folder / "path.json", nerfstudio_path(cameras, cameras, 24.0))


def _read_camera_path(folder: Path) -> None:
    from fields.paths import parse_nerfstudio_path, read_nerfstudio_path

    read_nerfstudio_path(folder / "path.json")
    parse_nerfstudio_path((folder / "path.json").read_bytes(), "path.json", "keyframes")


def _sweep(folder: Path) -> None:
    (folder / "lego").mkdir()
    (folder / "a.yaml").write_text("scenes: {lego: lego, demo: }\nmethods: {tensorf-vm: {rays: [64, 128]}, tensorf-cp: }\n"
                                   "settings: {config: fast, seed: [0, 1]}\ncpus: 1\nretries: 2\npublished: {paper: {lego: 36.5}}\n")  # fmt: skip


def _read_sweep(folder: Path) -> None:
    from fields.apps.sweep.plan import Sweep

    Sweep.of(folder / "a.yaml")


def _preset(folder: Path) -> None:
    from fields.methods import shipped

    (folder / "a.toml").write_bytes((shipped("configs") / "tensorf-vm-fast.toml").read_bytes())


def _read_preset(folder: Path) -> None:
    from fields.methods import method

    for real in (True, False):
        method("tensorf-vm").configure(folder / "a.toml", real)


# ---------------------------------------------------------------------------------------- light and motion


def _lit(kind: str, folder: Path) -> None:
    """Frames whose lights are said in the way of a layout."""
    light, intensity = [2.0, 1.0, 2.0], [8.0, 7.0, 6.0]
    names = [f"images/{i}.png" for i in range(_N)]
    said: list[dict] = [
        {"file_path": name, "transform_matrix": pose} for name, pose in zip(names, _poses().tolist(), strict=True)
    ]
    for one in said:
        if kind == "lit-transforms":
            one |= {"light": {"type": "point", "position": light, "rgb": intensity}, "set": "train"}
        elif kind == "nrhints":
            one |= {"pl_pos": light, "pl_intensity": intensity}
        elif kind == "sss-gs":
            one |= {"file_paths": [one.pop("file_path")], "light_positions": [light], "light_intensities": [intensity]}
        else:
            one["light"] = {"type": "point", "position": light, "intensity": intensity}
    where = folder / "olat_1" if kind == "bigs" else folder
    _pictures(where, names, alpha=True)
    if kind == "lit-transforms":
        said[0]["light"] = {"type": "sg", "direction": [0, 0, 1], "kappa": 4.0, "rgb": intensity}
        said[1]["light"] = {"type": "directional", "direction": [0, 0, 1], "rgb": intensity}
        said[2] |= {"set": "held", "normal_path": "normals.npy"}
        np.save(folder / "normals.npy", np.ones((_H, _W, 3), np.float32))
    _json(where / "transforms_train.json", {"fl_x": _FOCAL, "w": _W, "h": _H, "frames": said})


def _diligent(folder: Path) -> None:
    names = [f"{i}.png" for i in range(8)]
    _pictures(folder, names)
    _image(0, alpha=True).getchannel(3).save(folder / "mask.png")
    np.save(folder / "normal_gt.npy", np.ones((_H, _W, 3)))
    (folder / "filenames.txt").write_text("\n".join(names))
    np.savetxt(folder / "light_directions.txt", [[0, 0.6, 0.8]] * 8)
    np.savetxt(folder / "light_intensities.txt", [[1, 1.1, 1.2]] * 8)


def _uw_ps(folder: Path) -> None:
    for name in ("pot", "chrome"):
        _pictures(folder / name, [f"{name}.{i}.png" for i in range(8)])
        for file in (folder / name).iterdir():  # with a highlight
            _image(4).point(lambda value: 255 if value > 100 else value).save(file)
        _image(0, alpha=True).getchannel(3).convert("RGB").save(folder / name / f"{name}.mask.png")


def _read_lit(folder: Path) -> None:
    from fields.relighting.scene import load_scene

    load_scene(folder)


def _lights(folder: Path) -> None:
    _linear(".hdr", folder)
    rgb = [1.0, 2.0, 3.0]
    turned = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    _json(folder / "a.json", [{"type": "directional", "direction": [0, 0, 1], "rgb": rgb}, {"type": "point", "position": [1, 2, 3], "rgb": rgb},
                              {"type": "sg", "direction": [0, 1, 0], "kappa": 5.0, "rgb": rgb},
                              {"type": "env", "file": "a.npy", "frame": "zup", "rotation": turned}])  # fmt: skip
    np.save(folder / "a.npy", np.ones((4, 8, 3), np.float32))


def _read_lights(folder: Path) -> None:
    from fields.relighting.lights import load_lights

    for light in load_lights(folder / "a.json"):
        if light.kind in ("sg", "env"):
            light.environment()


def _video(folder: Path) -> None:
    from fields.reacto.flow import write_flow

    names = [f"rgb/{i}.png" for i in range(8)]
    _pictures(folder, names, alpha=True)
    poses = np.concatenate([_poses(), _poses()]).tolist()
    frames = [{"file_path": name, "transform_matrix": pose} for name, pose in zip(names, poses, strict=True)]
    lens = {"fl_x": _FOCAL, "w": _W, "h": _H}
    _json(folder / "transforms_train.json", {**lens, "frames": frames[:6]})
    _json(folder / "transforms_test.json", {**lens, "frames": frames[6:]})
    for i in range(3):
        write_flow(folder / "flow" / "fw_1" / f"{i}.png", np.zeros((_H, _W, 2)), np.ones((_H, _W), bool))
    points = np.random.default_rng(0).normal(size=(20, 3))
    np.savez(folder / "truth.npz", points=points, normals=points, part=np.arange(20) % 2, seen=np.ones(20, bool))
    joint = {"type": "revolute", "parent": 0, "child": 1, "axis": [1, 0, 0], "pivot": [0, 0, 0], "states": [0.1] * 8}
    _json(folder / "joints.json", {"size": 0.6, "joints": [joint]})


def _read_video(folder: Path) -> None:
    from fields.reacto.evaluation import Truth
    from fields.reacto.scene import load_scene

    Truth.beside(load_scene(folder))


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
    **{f"picture{s}": Target(partial(_picture, s), partial(_read_picture, s), "*", INFLATED)
       for s in (".png", ".jpg", ".webp", ".tif", ".bmp")},
    **{f"linear{s}": Target(partial(_linear, s), partial(_read_linear, s), "*", INFLATED if s in (".exr", ".png", ".jpg") else SMALL * 4)
       for s in (".exr", ".hdr", ".png", ".npy", ".jpg")},
    "flow": Target(_flow, _read_flow, "*", INFLATED),
    **{f"material{s}": Target(partial(_materials, s), partial(_read_materials, s), "*", INFLATED if s in (".npz", ".h5", ".pth") else SMALL)
       for s in (".binary", ".bsdf", ".npz", ".h5", ".npy", "_fc1.npy", ".pth")},
    "material.fit": Target(_fits, _read_fits),
    **{f"fragments{s}": Target(partial(_meshes, s), _read_fragments) for s in (".ply", ".obj", ".stl", ".off", ".glb", ".gltf")},
    "fragments.hdf5": Target(_hdf5, _read_hdf5, "*", INFLATED),
    "fragments.npz": Target(_cloud, _read_cloud, "*", INFLATED),
    "reassembly": Target(_reassembly, _read_reassembly, "*.[js][sa]*"),
    "run": Target(_run, _read_run, "*", INFLATED),
    "model-garf": Target(partial(_model, "garf"), _read_model),
    "checkpoint": Target(_checkpoint, _read_checkpoint, "*.safetensors", INFLATED),
    "slim": Target(_slim, _read_slim, "*", INFLATED),
    "camera-path": Target(_camera_path, _read_camera_path),
    "sweep": Target(_sweep, _read_sweep, "*.yaml"),
    "preset": Target(_preset, _read_preset),
    **{f"lit-{kind}": Target(partial(_lit, kind), _read_lit, "*.json") for kind in ("lit-transforms", "nrhints", "sss-gs", "bigs")},
    "lit-diligent": Target(_diligent, _read_lit, "*", INFLATED),
    "lit-uw-ps": Target(_uw_ps, lambda folder: _read_lit(folder / "pot"), "*", INFLATED),
    "lights": Target(_lights, _read_lights),
    "video": Target(_video, _read_video, "*.[jn][sp]*", INFLATED),
}  # fmt: skip
