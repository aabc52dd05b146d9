"""Builds, checks and times everything on a machine with an NVIDIA GPU, in one call of at most ten minutes.

    python benchmarks/on_gpu.py OUT [--scene SCENE] [--wheels FOLDER] [--iterations N] [--steps NAME …]

Run from a checkout. OUT gets `summary.json`, the log of every step, the breakdown of an iteration, and the run folders
with metrics and pictures. SCENE is lego of NeRF-synthetic for the published figures; by default the embedded demo.
Without a network, FOLDER holds the wheels of the requirements; one of fields itself among them saves the build. Fewer
iterations stretch every schedule over them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 570  # seconds in all
TRAININGS = {  # method, preset, changed settings
    "tensorf-vm": ("tensorf-vm", "paper", {}),
    "strivec-small": ("strivec", "fast", {"rays": 4096, "parameters": "3700k"}),
    "strivec": ("strivec", "paper", {}),
    "slimmerf": ("slimmerf", "paper", {"growth": "nested"}),
}
STEPS = ("doctor", *TRAININGS, "kernels", "tests", "viewer", "bench")


class Run:
    def __init__(self, out: Path) -> None:
        self.out, self.began, self.summary = out, time.monotonic(), {}
        out.mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {"FIELDS_CACHE": str(out / "cache"), "PYTHONUNBUFFERED": "1"}

    def step(self, name: str, command: list[str], at_most: float) -> bool:
        """Runs a command with its output in OUT/name.log; one that fails or takes too long does not end the rest."""
        began = time.monotonic()
        limit = max(1.0, min(at_most, BUDGET - (began - self.began)))
        with open(self.out / f"{name}.log", "w") as log:
            try:
                code: int | str = subprocess.run(
                    command, cwd=self.out, env=self.environment, stdout=log, stderr=log, timeout=limit
                ).returncode
            except subprocess.TimeoutExpired:
                code = "too long"
        text = (self.out / f"{name}.log").read_text().strip()
        self.summary[name] = {"exit": code, "seconds": round(time.monotonic() - began, 1), "says": text[-3000:]}
        (self.out / "summary.json").write_text(json.dumps(self.summary, indent=1))
        print(f"== {name}: exit {code} after {self.summary[name]['seconds']} s\n{text[-1500:]}", flush=True)
        return code == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--iterations", type=int, default=30_000)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    options = parser.parse_args()
    run = Run(options.out.resolve())
    pip = f"{sys.executable} -m pip install --no-deps".split()
    wheels = sorted(options.wheels.resolve().glob("*.whl")) if options.wheels else []
    if wheels:
        run.step("wheels", [*pip, "--no-index", *map(str, wheels)], 60)
    if not any(w.name.startswith("fields-") for w in wheels):
        run.step("install", [*pip, "--no-build-isolation", str(ROOT)], 120)
    scene = str(options.scene.resolve()) if options.scene else ""
    fields = f"{sys.executable} -m fields.apps.cli".split()
    parallel = ["-n", "12"] if find_spec("xdist") else []
    tests = [str(ROOT / "tests" / name) for name in ("core", "tensorf", "strivec", "slimmerf", "training")]
    commands = {
        "doctor": ([*fields, "doctor"], 60),
        **{
            name: (
                [sys.executable, __file__, "--train", name, str(run.out / name), str(options.iterations), scene],
                200,
            )
            for name in TRAININGS
        },
        "kernels": ([sys.executable, __file__, "--kernels"], 100),
        "tests": ([sys.executable, "-m", "pytest", *tests, "--backend", "cuda", "-q", "--rootdir", str(ROOT),
                   "--deselect", "tests/core/test_nvrtc.py", *parallel], 200),
        "viewer": ([sys.executable, "-m", "fields.benchmarks.viewer", str(run.out / "strivec-small")], 40),
        "bench": ([*fields, "bench", "core", "--device", "cuda", "--json", str(run.out / "core.json")], 120),
    }  # fmt: skip
    for name in options.steps:
        run.step(name, *commands[name])


def train(name: str, out: Path, iterations: int, data: str) -> None:
    """Cold start, a training with time and memory, frames, and a late iteration on the trained field."""
    import torch
    from fields.benchmarks import gpu

    import fields
    from fields.data import load_scene
    from fields.methods import method, shipped
    from fields.training.evaluation import evaluate

    which, preset, changes = TRAININGS[name]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    scene = load_scene(data or shipped("assets") / "demo").to("cuda")
    config = method(which).configure(preset)
    for key, value in changes.items():
        config = type(config)(**(vars(config) | {key: value}))
    torch.set_float32_matmul_precision("high")
    began = time.perf_counter()
    if which == "tensorf-vm":
        method(which).load_training()(config, scene, 0).step(0)
        torch.cuda.synchronize()
        print(f"first iteration, kernels compiled: {time.perf_counter() - began:.2f} s", flush=True)
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    field = fields.train(which, scene, out, config=preset, device="cuda", iterations=iterations, **changes)
    print(
        f"all, test views included: {time.perf_counter() - began:.1f} s, peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    )
    figures = json.loads((out / "metrics.json").read_text())
    print(f"training {figures['train_seconds']} s for {figures['iterations']} iterations, "
          f"{figures['parameters']} parameters: {figures['results']}", flush=True)  # fmt: skip
    if which == "slimmerf":
        for ranks in (field.ranks // 4, field.ranks // 2):  # type: ignore[operator]
            with field.showing(ranks):  # type: ignore[operator]
                print(f"cut to {ranks} ranks: {evaluate(field, scene, scene.test).results}", flush=True)
    torch.set_default_device("cuda")
    print(f"800x800: {gpu.frames(field):.1f} frames per second", flush=True)
    late = gpu.at_the_end(method(which), config.scaled(iterations), scene, out)
    (out / "breakdown.txt").write_text(gpu.breakdown(late))
    print(f"late iteration: {gpu.seconds(lambda: late.step(0), 50) * 1e3:.3f} ms", flush=True)
    if which == "tensorf-vm":
        print(f"the same composed of PyTorch operators: {gpu.composed_iteration(late) * 1e3:.3f} ms")


def kernels() -> None:
    import torch
    from fields.benchmarks import gpu

    torch.set_default_device("cuda")
    print(f"sampling captured in a CUDA graph: {gpu.graphs()}")
    for row in gpu.kernels(20):
        print(
            f"{row.name:<28} {row.ratio:7.2f} {row.ours_seconds * 1e3:9.3f} ms {row.reference_seconds * 1e3:9.3f} ms  {row.note}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    elif sys.argv[1:2] == ["--kernels"]:
        kernels()
    else:
        main()
