"""What a training is told and what it leaves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fields.benchmarks.fuzz.targets.sample import FOCAL, INFLATED, H, Target, W, write_json


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

    cameras = Cameras.look_at(torch.tensor([[4.0, 0, 1], [0, 4, 1]]), torch.zeros(3), focal=FOCAL, width=W, height=H)
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
    from fields.io.atomic import write_tensors
    from fields.training.loop import Loop

    loop = Loop("tensorf-vm", {"iterations": 3}, 0, "nowhere", folder)
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
    write_json(folder / "path.json", nerfstudio_path(cameras, cameras, 24.0))


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


TARGETS: dict[str, Target] = {
    "run": Target(_run, _read_run, "*", INFLATED),
    "model-garf": Target(partial(_model, "garf"), _read_model),
    "checkpoint": Target(_checkpoint, _read_checkpoint, "*.safetensors", INFLATED),
    "slim": Target(_slim, _read_slim, "*", INFLATED),
    "camera-path": Target(_camera_path, _read_camera_path),
    "sweep": Target(_sweep, _read_sweep, "*.yaml"),
    "preset": Target(_preset, _read_preset),
}  # fmt: skip
