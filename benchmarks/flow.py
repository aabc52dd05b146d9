"""What the steps of the flow are worth, where nothing but the flow can fail: ``python -m fields.benchmarks.flow OUT``.

A small denoiser learns one object of four fragments by heart, with fragments turned anew and points drawn anew every time, and puts it
together in several ways from the same noise. With a wrong sign or frame all of them stay where an untrained network is.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from fields.apps.common import Progress
from torch import Tensor

from fields.garf import flow
from fields.garf.clouds import cloud_of
from fields.garf.config import GarfConfig
from fields.garf.metrics import mean_of, reassembly_errors
from fields.garf.objects import HELD_OUT, broken
from fields.garf.presentation import Presented, presented
from fields.garf.sampling import start
from fields.garf.training import GarfTraining
from fields.geometry.rigid import pose_of
from fields.io.atomic import write_json
from fields.methods import shipped

PIECES = 4
SESSIONS: dict[str, tuple[int, ...]] = {
    "one step": (1,),
    "10 steps from noise": (10,),
    "20 steps from noise": (20,),
    "40 steps from noise": (40,),
    "one step, then 20": (1, 20),
    "20, then 20": (20, 20),
    "one step, then 20, then 20": (1, 20, 20),
}
"""Each begins at σ = 1, where the one before has led."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--presentations", type=int, default=64, help="of the object, to measure with")
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    _, fragments, rng = broken(HELD_OUT, PIECES, "vase")
    cloud_of(fragments, rng).save(out / "object.npz")
    config = GarfConfig(
        start_from=str(shipped("assets") / "garf"), encoder_iterations=0, flow_iterations=arguments.iterations, batch=8, tokens=160
    )  # fmt: skip
    training = GarfTraining(config, [out / "object.npz"], 0)
    results = {"untrained": measured(training, arguments.presentations, (20,))}
    began = time.perf_counter()
    with Progress("flow") as progress:
        for i in range(arguments.iterations):
            progress.step(i + 1, arguments.iterations, training.step(i))
    training.finish()
    minutes = (time.perf_counter() - began) / 60
    results |= {way: measured(training, arguments.presentations, steps) for way, steps in SESSIONS.items()}
    write_json(out / "flow.json", {"minutes": minutes, "iterations": arguments.iterations, "results": results})
    print(f"{arguments.iterations} iterations, {minutes:.1f} min\n\n{table(results)}")


@torch.no_grad()
def measured(training: GarfTraining, count: int, sessions: tuple[int, ...]) -> dict[str, float]:
    """Mean errors of the object in `count` presentations, put together all at once."""
    torch.manual_seed(1)
    denoiser = training.model.denoiser.eval()  # type: ignore[union-attr]
    batch = presented([training._remember(0)] * count, training.config.tokens, None)

    def velocity(translation: Tensor, rotation: Tensor, sigma: float) -> Tensor:
        return denoiser(*batch.shown, translation, rotation, batch.anchor, torch.full((count,), sigma), batch.tokens)

    poses = start(batch)
    for steps in sessions:
        poses = flow.reassembled(velocity, poses, batch.anchor, steps, preassembly=False)[-1]
    return mean_of(errors(batch, poses, k) for k in range(count))


def errors(batch: Presented, poses: tuple[Tensor, Tensor], k: int) -> dict[str, float]:
    """Of presentation k."""
    mine = torch.nonzero(batch.object_of == k)[:, 0]
    translation, rotation = poses
    found, true = pose_of(rotation, translation)[mine], pose_of(batch.rotation, batch.translation)[mine]
    points, size, of = batch.shown[1][k], batch.shown[3], batch.tokens.fragment[k]
    clouds = [points[of == i] * size[i] for i in mine.tolist()]
    return reassembly_errors(clouds, found, true, int(batch.anchor[mine].nonzero()))


def table(results: dict[str, dict[str, float]]) -> str:
    lines = ["| sampler | RMSE(R) | geodesic | RMSE(T) × 100 |", "|---|---|---|---|"]
    for way, mean in results.items():
        lines.append(f"| {way} | {mean['rmse_r']:.1f}° | {mean['geodesic']:.1f}° | {100 * mean['rmse_t']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
