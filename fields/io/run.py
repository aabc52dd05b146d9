"""The run folder: plain data and relative paths, so that it can be moved, mailed and archived.

config.json         schema version, method, settings, constructor arguments of the field
model.safetensors   its tensors
metrics.json        what `fields train` and `fields eval` measured
events…             TensorBoard
renders/            images and videos
exports/            meshes and point clouds
checkpoints/        what `--resume` needs
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.data.scene import Scene
from fields.errors import CheckpointError, DataError
from fields.io.atomic import read_json, read_tensors, write_json, write_tensors
from fields.methods import learner, method

SCHEMA = 1
_SMALL = 1 << 20  # numbers


def save_field(folder: Path, field: Any, name: str, settings: dict, scene: dict) -> None:
    """Writes model.safetensors, then config.json: a folder with a config has a whole model."""
    arguments = field.constructor_arguments()
    write_tensors(folder / "model.safetensors", field.state_dict(), {"schema": SCHEMA, "method": name})
    config = {"schema": SCHEMA, "method": name, "settings": settings, "field": arguments, "scene": scene}
    write_json(folder / "config.json", config)


def load_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a run folder, checked for being one; of a model in a single file, what it has in its place."""
    folder = Path(folder)
    if reader := _reader(folder):
        return reader.load_config(folder)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not {"schema", "method", "field"} <= config.keys():
        raise CheckpointError(
            f"{folder / 'config.json'}: not the config of a run. Give a folder that `fields train` wrote."
        )
    if config["schema"] != SCHEMA:
        raise CheckpointError(
            f"{folder / 'config.json'}: written in schema {config['schema']}, this version reads {SCHEMA}. "
            "Install the version of fields that trained it."
        )
    return config


def load(folder: str | Path, device: str | torch.device = "cpu") -> torch.nn.Module:
    """A trained field from its run folder or .slim file, in evaluation mode. Runs no code from the files.

    Raises:
        CheckpointError: a folder that is not a run, or a model that is damaged or does not fit its config.
    """
    folder = Path(folder)
    if reader := _reader(folder):
        return reader.load(folder).to(device)
    config = load_config(folder)
    tensors, _ = read_tensors(folder / "model.safetensors")
    try:
        make = partial(learner(config["method"]).load_field(), **config["field"])
        _require_size(make, sum(tensor.numel() for tensor in tensors.values()))
        field = make()
        field.load_state_dict(tensors)
        if broken := [k for k, v in tensors.items() if not v.isfinite().all()]:
            raise ValueError(f"{broken[0]} holds numbers that are not finite")
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{folder}: model.safetensors does not fit config.json ({reason}). Restore the folder from a copy."
        ) from None
    return field.to(device).eval().requires_grad_(False)


def _require_size(make: Callable[[], torch.nn.Module], stored: int) -> None:
    """Raises ValueError where a field is made that would be much larger than the numbers that are there for it; takes no memory."""
    try:
        with torch.device("meta"):
            numbers = sum(tensor.numel() for tensor in make().state_dict().values())
    except (NotImplementedError, RuntimeError):  # it looks at values as it is made, and only those of fixed sizes do
        return
    if numbers > 2 * stored + _SMALL:
        raise ValueError(f"a field of {numbers} numbers, of which {stored} are there")


def world_from_input(folder: str | Path) -> Tensor:
    """(4, 4) float64: the similarity from the coordinates of the files a run was trained on to those of its field.

    Raises:
        CheckpointError: the run does not have it.
    """
    try:
        similarity = torch.tensor(load_config(folder)["scene"]["world_from_input"], dtype=torch.float64)
        if similarity.shape != (4, 4) or not similarity.isfinite().all() or not similarity.det():
            raise ValueError(f"shape {list(similarity.shape)}, or not invertible")
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{Path(folder) / 'config.json'}: world_from_input is missing or damaged ({error}). "
            "Restore it from a copy, or do without: --frame scene."
        ) from None
    return similarity


def _reader(path: Path) -> Any:
    """The module with `load` and `load_config` for a model in a single file: the entry point of the group `fields.files`
    that is named like its ending."""
    if path.is_dir():
        return None
    found = entry_points(group="fields.files", name=path.suffix[1:].lower())
    return next(iter(found)).load() if found else None


def results_folder(run: Path) -> Path:
    """Where what is made of a run goes: its folder; of a single file, the folder beside it that is named like it."""
    return run.with_suffix("") if run.is_file() else run


def scene_of(folder: Path, config: dict, path: Path | None = None, downscale: int | None = None) -> Scene:
    """The scene a run was trained on, or the same scene at another `path`.

    Raises:
        DataError: the scene has moved.
    """
    scene = config.get("scene", {})
    where = path or Path(scene.get("path", ""))
    if path is None and not where.exists():
        raise DataError(f"{folder}: its scene is no longer at {where}. Say where it is with --data.")
    return method(config["method"]).load_scene(where, downscale=downscale or scene.get("downscale", 1))
