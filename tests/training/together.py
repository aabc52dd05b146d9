"""Every registered method and model, small, trained in this process or in its part of several."""

from __future__ import annotations

import dataclasses
import json
import os
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from fields.core.box_adam import BoxAdam
from fields.errors import ProcessError
from fields.methods import Method, learner
from fields.training import processes
from fields.training.loop import Loop

SMALL: dict[str, dict[str, Any]] = {
    "strivec": {"parameters": "60k", "geometry_iterations": 10, "geometry_cells": 24**3, "imitate": False, "upsample_at": (4,), "replace_at": (9,)},
    "slimmerf": {"unlock_from": 2, "unlock_every": 1},
    "relighting": {"interior": False, "mean_until": 1, "voxels": (24**3, 32**3)},
    "reacto": {"tracks": 60, "parts": 2, "voxels": (4096, 16384)},
    "qrbs": {"tracks": 60, "parts": 2, "voxels": (4096, 16384), "sparse_at": (0, 1)},
    "garf": {"objects": 3, "joint_objects": 2, "encoder_iterations": 2, "encoder_batch": 2, "flow_iterations": 2, "batch": 2, "tokens": 200},
    "neumadiff": {"materials": 24, "fit_iterations": 10, "picture_iterations": 2, "iterations": 4, "batch": 8},
}  # fmt: skip
GRIDS = ("tensorf-vm", "tensorf-cp", "slimmerf")
THOROUGHLY = {"tensorf-vm": 16, "strivec": 16, "slimmerf": 16}
"""Iterations, in which everything happens that changes a field; the others have as many as they need to do all they do."""


def iterations(name: str) -> int:
    return THOROUGHLY.get(name, 4 if name == "garf" else 2)


def parts(name: str, folder: Path) -> tuple[type, tuple, tuple]:
    """The training of a method, what it begins with, and what it is resumed with."""
    chosen = learner(name)
    begin: Any = chosen.load_training()
    if not isinstance(chosen, Method):
        config = dataclasses.replace(chosen.config(), **SMALL.get(name, {}))
        known = begin.gather(config, folder / "objects", lambda done, total: None)
        return begin, (config, known, 0), (config, known, 0)
    views = chosen.load_scene(downscale=4).with_views(6) if name in (*GRIDS, "strivec") else chosen.load_scene()
    config = chosen.configure("fast" if "fast" in chosen.presets() else "paper")
    small: dict[str, Any] = {"rays": 256} | SMALL.get(name, {})
    if name in GRIDS:
        small |= {"voxels": (16**3, 24**3), "upsample_at": (6, 11), "occupancy_at": (4, 9), "density_shift": -4.0}
    config = dataclasses.replace(config.scaled(THOROUGHLY.get(name, 40)), **small)
    return begin, (config, views, 0), (config, views)


def trained(name: str, folder: Path, resume: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """What a training is after its first iteration and after its last, and its losses. It begins anew and leaves a
    checkpoint of that in its folder, or begins from such a checkpoint."""
    begin, new, known = parts(name, folder)
    loop = Loop(name, {}, 0, "", folder / name)
    training, _, _ = loop.begin(partial(begin, *new), partial(begin.resume, *known), resume)
    if not resume:
        loop._save(training, 0, 0.0)
    losses, first = [], {}
    for i in range(iterations(name)):
        numbers = training.step(i)
        losses.append(float(numbers.get("loss", numbers.get("flow", numbers.get("label")))))
        if i == 0:
            first = {k: v.detach().clone() for k, v in training.state()[0].items()}
    return first, training.state()[0], losses


def exchanged(rank: int) -> dict[str, Any]:
    """What two processes tell each other of things small enough to work out by hand."""
    both, one, none, boxes = (Parameter(torch.zeros(*shape)) for shape in ((2,), (2,), (2,), (4, 1)))
    both.grad = torch.tensor([1.0, 10.0 * rank])
    one.grad = torch.tensor([6.0, 2.0]) if rank else None
    boxes.grad = torch.tensor([[[8.0], [0.0], [4.0], [0.0]], [[0.0], [0.0], [2.0], [6.0]]][rank])
    processes.mean_of_gradients(torch.optim.Adam([both, one, none]), BoxAdam([boxes]))
    same, different = {"x": torch.ones(3)}, {"x": torch.ones(3), "y": torch.tensor(0.0 if rank else -0.0)}
    processes.require_same(same)
    try:
        processes.require_same(different)
        said = ""
    except ProcessError as error:
        said = str(error)
    return {
        "gradients": [p.grad for p in (both, one, none, boxes)],
        "share": processes.share(torch.arange(6)),
        "mean": processes.mean(torch.tensor(3.0 * rank), torch.tensor([1.0, rank])),
        "weights": processes.weights(torch.tensor(1 + 2 * rank)),
        "greatest": processes.greatest(torch.tensor([rank, 1 - rank])),
        "agreed": processes.agreed(rank == 1, False),
        "writer": processes.writer(),
        "said": said,
    }


def leave(rank: int, count: int, folder: Path, port: int) -> None:
    """One of several processes, as torchrun starts them: meets the others, trains, and says which threads are left."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="localhost", MASTER_PORT=str(port))
    with processes.joined(learner("tensorf-vm"), torch.device("cpu")):
        torch.optim.Adam([Parameter(torch.zeros(1))])
        processes.wait()
    threads = sorted(file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm"))
    (folder / f"threads-{rank}.json").write_text(json.dumps(threads))


def work(rank: int, count: int, folder: Path, names: list[str]) -> None:
    """One of several processes: exchanges, then trains all of these, one after the other."""
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", meeting, timedelta(minutes=3), count, rank)
    torch.save(exchanged(rank), folder / f"exchanged-{rank}.pt")
    for name in names:
        result = trained(name, folder, resume=name not in THOROUGHLY)
        torch.save(result, folder / f"{name}-{rank}.pt")
    torch.distributed.destroy_process_group()
