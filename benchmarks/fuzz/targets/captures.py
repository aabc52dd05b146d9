"""Photographs under lights, lights, and videos of what moves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from fields.benchmarks.fuzz.targets.pictures import write_linear
from fields.benchmarks.fuzz.targets.sample import (
    FOCAL,
    INFLATED,
    H,
    N,
    Target,
    W,
    image,
    poses_around,
    write_json,
    write_pictures,
)


def _lit(kind: str, folder: Path) -> None:
    """Frames whose lights are said in the way of a layout."""
    light, intensity = [2.0, 1.0, 2.0], [8.0, 7.0, 6.0]
    names = [f"images/{i}.png" for i in range(N)]
    said: list[dict] = [
        {"file_path": name, "transform_matrix": pose} for name, pose in zip(names, poses_around().tolist(), strict=True)
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
    write_pictures(where, names, alpha=True)
    if kind == "lit-transforms":
        said[0]["light"] = {"type": "sg", "direction": [0, 0, 1], "kappa": 4.0, "rgb": intensity}
        said[1]["light"] = {"type": "directional", "direction": [0, 0, 1], "rgb": intensity}
        said[2] |= {"set": "held", "normal_path": "normals.npy"}
        np.save(folder / "normals.npy", np.ones((H, W, 3), np.float32))
    write_json(where / "transforms_train.json", {"fl_x": FOCAL, "w": W, "h": H, "frames": said})


def _diligent(folder: Path) -> None:
    names = [f"{i}.png" for i in range(8)]
    write_pictures(folder, names)
    image(0, alpha=True).getchannel(3).save(folder / "mask.png")
    np.save(folder / "normal_gt.npy", np.ones((H, W, 3)))
    (folder / "filenames.txt").write_text("\n".join(names))
    np.savetxt(folder / "light_directions.txt", [[0, 0.6, 0.8]] * 8)
    np.savetxt(folder / "light_intensities.txt", [[1, 1.1, 1.2]] * 8)


def _uw_ps(folder: Path) -> None:
    for name in ("pot", "chrome"):
        write_pictures(folder / name, [f"{name}.{i}.png" for i in range(8)])
        for file in (folder / name).iterdir():  # with a highlight
            image(4).point(lambda value: 255 if value > 100 else value).save(file)
        image(0, alpha=True).getchannel(3).convert("RGB").save(folder / name / f"{name}.mask.png")


def _read_lit(folder: Path) -> None:
    from fields.relighting.scene import load_scene

    load_scene(folder)


def _lights(folder: Path) -> None:
    write_linear(".hdr", folder)
    rgb = [1.0, 2.0, 3.0]
    turned = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    write_json(folder / "a.json", [{"type": "directional", "direction": [0, 0, 1], "rgb": rgb}, {"type": "point", "position": [1, 2, 3], "rgb": rgb},
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
    write_pictures(folder, names, alpha=True)
    poses = np.concatenate([poses_around(), poses_around()]).tolist()
    frames = [{"file_path": name, "transform_matrix": pose} for name, pose in zip(names, poses, strict=True)]
    lens = {"fl_x": FOCAL, "w": W, "h": H}
    write_json(folder / "transforms_train.json", {**lens, "frames": frames[:6]})
    write_json(folder / "transforms_test.json", {**lens, "frames": frames[6:]})
    for i in range(3):
        write_flow(folder / "flow" / "fw_1" / f"{i}.png", np.zeros((H, W, 2)), np.ones((H, W), bool))
    points = np.random.default_rng(0).normal(size=(20, 3))
    np.savez(folder / "truth.npz", points=points, normals=points, part=np.arange(20) % 2, seen=np.ones(20, bool))
    joint = {"type": "revolute", "parent": 0, "child": 1, "axis": [1, 0, 0], "pivot": [0, 0, 0], "states": [0.1] * 8}
    write_json(folder / "joints.json", {"size": 0.6, "joints": [joint]})


def _read_video(folder: Path) -> None:
    from fields.reacto.evaluation import Truth
    from fields.reacto.scene import load_scene

    Truth.beside(load_scene(folder))


TARGETS: dict[str, Target] = {
    **{f"lit-{kind}": Target(partial(_lit, kind), _read_lit, "*.json") for kind in ("lit-transforms", "nrhints", "sss-gs", "bigs")},
    "lit-diligent": Target(_diligent, _read_lit, "*", INFLATED),
    "lit-uw-ps": Target(_uw_ps, lambda folder: _read_lit(folder / "pot"), "*", INFLATED),
    "lights": Target(_lights, _read_lights),
    "video": Target(_video, _read_video, "*.[jn][sp]*", INFLATED),
}  # fmt: skip
