"""Builds, checks and times everything on a machine with an NVIDIA GPU, in one call of at most ten minutes.

tensorf-vm is looked at closely; strivec is trained twice (its paper's settings; the default within 3.7 M parameters).

    python benchmarks/on_gpu.py OUT [--scene SCENE] [--wheels FOLDER]

Run from a checkout. OUT gets `summary.json`, `summary.txt`, the log of every step and the run folder's metrics and
pictures. SCENE is lego of NeRF-synthetic for the published figures; by default the embedded demo. Without a network,
FOLDER holds the wheels of the requirements.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 570  # seconds in all


class Run:
    def __init__(self, out: Path) -> None:
        self.out, self.began, self.summary = out, time.monotonic(), {}
        out.mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {"FIELDS_CACHE": str(out / "cache"), "PYTHONUNBUFFERED": "1"}

    def left(self) -> float:
        return BUDGET - (time.monotonic() - self.began)

    def step(self, name: str, command: list[str], at_most: float) -> bool:
        """Runs a command with its output in OUT/name.log; one that fails or takes too long does not end the rest."""
        began = time.monotonic()
        with open(self.out / f"{name}.log", "w") as log:
            try:
                limit = max(1.0, min(at_most, self.left()))
                code = subprocess.run(
                    command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, timeout=limit
                ).returncode
            except subprocess.TimeoutExpired:
                code = "too long"
        tail = (self.out / f"{name}.log").read_text().strip().splitlines()[-1:]
        self.summary[name] = {
            "exit": code,
            "seconds": round(time.monotonic() - began, 1),
            "last": tail[0] if tail else "",
        }
        (self.out / "summary.json").write_text(json.dumps(self.summary, indent=1))
        print(f"{name:<12} {self.summary[name]}", flush=True)
        return code == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--wheels", type=Path)
    options = parser.parse_args()
    run = Run(options.out.resolve())
    pip = f"{sys.executable} -m pip install --no-deps".split()
    fields = f"{sys.executable} -m fields.apps.cli".split()
    scene = [str(options.scene.resolve())] if options.scene else []
    if options.wheels:
        wheels = sorted(str(w.resolve()) for w in options.wheels.glob("*.whl"))
        run.step("wheels", [*pip, "--no-index", *wheels], 60)
    if not run.step("install", [*pip, "--no-build-isolation", "."], 90):
        return
    run.step("doctor", [*fields, "doctor"], 60)
    run.step("measure", [sys.executable, __file__, "--measure", str(run.out), *scene], 300)
    train = [*fields, "train", "strivec", "--device", "cuda", *(["--data", *scene] if scene else [])]
    ours = ["--config", "fast", "--iterations", "30000", "--rays", "4096", "--parameters", "3700k"]
    run.step("strivec", [*train, "--config", "paper", "--out", str(run.out / "strivec-paper")], 150)
    run.step("strivec-3.7M", [*train, *ours, "--out", str(run.out / "strivec-3.7M")], 150)
    run.step("tests", f"{sys.executable} -m pytest tests/core tests/apps --backend cuda -q".split(), 200)
    run.step("bench", [*fields, *f"bench core --device cuda --json {run.out / 'core.json'}".split()], 120)
    print((run.out / "summary.txt").read_text() if (run.out / "summary.txt").exists() else "nothing measured")


def measure(out: Path, scene: str | None) -> None:
    """Cold start, a paper training with time and memory, frames, the breakdown of an iteration, graph capture."""
    import torch
    from fields.benchmarks import composed, gpu

    import fields
    from fields.data import load_scene
    from fields.methods import method, shipped
    from fields.tensorf.training import TensorfTraining

    lines = [f"{torch.cuda.get_device_name()}, torch {torch.__version__}"]

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        (out / "summary.txt").write_text("\n".join(lines) + "\n")

    loaded = load_scene(scene or shipped("assets") / "demo").to("cuda")
    config = method("tensorf-vm").configure("paper")
    began = time.perf_counter()
    training = TensorfTraining(config, loaded, 0)
    training.step(0)
    torch.cuda.synchronize()
    say(f"first iteration, kernels compiled: {time.perf_counter() - began:.2f} s")
    del training
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    run = fields.train("tensorf-vm", loaded, out / "run", config="paper", device="cuda")
    say(
        f"paper schedule, test views included: {time.perf_counter() - began:.1f} s, peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    )
    figures = json.loads((out / "run" / "metrics.json").read_text())
    say(f"training {figures['train_seconds']} s for {figures['iterations']} iterations: {figures['results']}")
    torch.set_default_device("cuda")
    say(f"800x800: {gpu.frames(run):.1f} frames per second")
    # The whole of a late iteration, ours and composed of PyTorch operators, on the trained field.
    late = TensorfTraining(config, loaded, 0, run.requires_grad_(True))
    (out / "breakdown.txt").write_text(gpu.breakdown(late))
    reference = composed.Iteration(run)
    white, n = torch.ones(3), config.rays

    def theirs() -> None:
        origins, directions, target = late.pixels.draw(n, white)
        enter = fields.core.ray_aabb_intersect(origins, directions, run.aabb[None], loaded.near, loaded.far)[0][:, 0]
        reference(origins, directions, target, torch.rand(n), torch.where(enter.isfinite(), enter, loaded.far))

    ours, other = gpu.seconds(lambda: late.step(0)), gpu.seconds(theirs, 5)
    say(
        f"late iteration: {ours * 1e3:.2f} ms, composed of PyTorch operators {other * 1e3:.2f} ms, ratio {other / ours:.1f}"
    )
    say(f"sampling captured in a CUDA graph: {gpu.graphs()}")
    for row in gpu.kernels(20):
        say(f"{row.name:<24} {row.ratio:7.2f} {row.ours_seconds * 1e3:9.3f} ms  {row.note}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
    else:
        main()
