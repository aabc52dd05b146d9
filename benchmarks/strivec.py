"""Strivec's figures: `python -m fields.benchmarks.strivec {kernels,parameters,ablation,rotation} --out FOLDER`.

kernels      the fused density of three scales against the same composed of PyTorch gathers, and whole iterations
             against tensorf-vm on as many samples
parameters   PSNR over parameters of strivec, tensorf-vm and tensorf-cp: same scenes, iterations, rays and seed
ablation     strivec with one improvement taken away or added at a time
rotation     what turning the world by 30° about an oblique axis costs strivec and tensorf-vm
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from fields.benchmarks.timing import Row, compare
from torch import Tensor

from fields.core import _backend
from fields.core.boxes import BoxIndex
from fields.core.cloud import tri_vector_sample
from fields.data import load_scene
from fields.data.scene import Scene
from fields.io.atomic import write_json
from fields.methods import method, shipped
from fields.training.evaluation import evaluate

SCENES = {"lego_200": ("scenes/lego_200", 1), "mold_cape": ("scenes/mold_cape", 2), "demo": (None, 1)}
BUDGETS = (250_000, 500_000, 1_000_000, 2_000_000)


def scenes(names: list[str]) -> list[Scene]:
    """The demo, and scenes of $FIELDS_DATA, all of about 200 × 200 pixels."""
    found = []
    for name in names:
        path, downscale = SCENES[name]
        where = shipped("assets") / "demo" if path is None else Path(os.environ["FIELDS_DATA"]) / path
        found.append(load_scene(where, downscale=downscale))
    return found


def without_test(scene: Scene) -> Scene:
    """Every eighth training view takes the place of the test views: settings are chosen on these."""
    held = list(range(4, len(scene.train), 8))
    rest = [i for i in range(len(scene.train)) if i not in held]
    return replace(scene, train=scene.train.select(rest), test=scene.train.select(held))


def trained(name: str, config, scene: Scene, seed: int, iterations: int):
    """A field after so many iterations of the schedule, its PSNR and SSIM on the test views, and the seconds it took."""
    _backend.keep_freed_memory()
    began = time.perf_counter()
    training = method(name).load_training()(config.scaled(iterations), scene, seed)
    for i in range(iterations):
        training.step(i)
    seconds = time.perf_counter() - began
    results = evaluate(training.field, scene, scene.test).results
    parameters = sum(p.numel() for p in training.field.parameters())
    row = {"method": name, "scene": scene.name, "parameters": parameters, "seconds": round(seconds, 1), **results}
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    return training.field, row


# ---------------------------------------------------------------------------------------- kernels


def gathered_density(x: Tensor, vectors: list[Tensor], boxes: list[BoxIndex], nearest: int) -> Tensor:
    """The density feature as a chain of whole-tensor operators: candidates, top-K, pairs, six gathers, weighted sum."""
    total = torch.zeros(len(x))
    corners = torch.cartesian_prod(*[torch.arange(2)] * 3)
    for v, b in zip(vectors, boxes, strict=True):
        size = torch.tensor(b.lattice.shape)
        base = ((x - torch.tensor(b.low)) / b.spacing - 0.5).floor().long()
        cells = base[:, None] + corners
        valid = ((cells >= 0) & (cells < size)).all(-1)
        cells = torch.minimum(cells.clamp(min=0), size - 1)
        ids = b.lattice[cells[..., 0], cells[..., 1], cells[..., 2]].long()
        offset = x[:, None] - b.centres.float()[ids]
        valid &= (ids >= 0) & (offset.abs() <= b.half).all(-1)
        distance = torch.where(valid, offset.norm(dim=-1), torch.inf)
        distance, chosen = distance.topk(nearest, 1, largest=False)
        sample, place = distance.isfinite().nonzero(as_tuple=True)
        chosen = chosen[sample, place]
        box, weight = ids[sample, chosen], 1 / (distance[sample, place] + 1e-6)
        knots = v.shape[2]
        q = ((offset[sample, chosen] + b.half) * ((knots - 1) / (2 * b.half))).clamp(0, knots - 1)
        left = q.long().clamp(max=knots - 2)
        right = (q - left)[..., None]
        lines = [(1 - right[:, a]) * v[box, a, left[:, a]] + right[:, a] * v[box, a, left[:, a] + 1] for a in range(3)]
        value = (lines[0] * lines[1] * lines[2]).sum(-1)
        sums = torch.zeros(len(x)).index_add(0, sample, weight * value)
        total = total + sums / torch.zeros(len(x)).index_add(0, sample, weight).clamp(min=1)
    return total


def paper_cloud(boxes_on_sphere: float = 0.75) -> tuple[list[Tensor], list[BoxIndex]]:
    """Three scales with the paper's sizes, ranks and final knots, on a sphere in the paper's box."""
    points = torch.nn.functional.normalize(torch.randn(200_000, 3), dim=-1) * boxes_on_sphere
    vectors, boxes = [], []
    for spacing, knots, rank in ((0.4, 122, 32), (0.2, 62, 24), (0.1, 32, 16)):
        cells = torch.unique(((points + 1.5) / spacing).floor().long(), dim=0)
        boxes.append(BoxIndex.on_lattice(cells, (-1.5, -1.5, -1.5), spacing, 0.75 * spacing))
        vectors.append((0.2 * torch.randn(len(cells), 3, knots, rank)).requires_grad_())
    return vectors, boxes


def kernels(rounds: int, n: int = 100_000) -> list[Row]:
    _backend.keep_freed_memory()  # as every training does
    vectors, boxes = paper_cloud()
    # Along rays through the shell, as in training.
    start = torch.nn.functional.normalize(torch.randn(n // 50, 3), dim=-1) * 0.75
    t = torch.linspace(-0.05, 0.05, 50)
    x = (start[:, None] + t[:, None] * torch.nn.functional.normalize(torch.randn(n // 50, 1, 3), dim=-1)).view(-1, 3)
    grad = torch.randn(n)
    ours = lambda: tri_vector_sample(x, vectors, boxes, weights="inverse", nearest=4, clamp_weights=True)  # noqa: E731
    reference = lambda: gathered_density(x, vectors, boxes, 4)  # noqa: E731
    with torch.no_grad():  # the same numbers, but where a sample lies on the face of a box, to rounding
        assert ((ours() - reference()).abs() < 1e-4).float().mean() > 0.999

    def forward(function):
        with torch.no_grad():
            function()

    def both(function):
        torch.autograd.grad(function(), vectors, grad)

    count = sum(v.numel() for v in vectors)
    note = f"{n} samples, boxes {'/'.join(str(len(v)) for v in vectors)}, {count / 1e6:.1f} M numbers, K = 4"
    window = lambda: tri_vector_sample(x, vectors, boxes)  # noqa: E731
    return [
        compare("density_forward", lambda: forward(ours), lambda: forward(reference), rounds, note),
        compare("density_forward_backward", lambda: both(ours), lambda: both(reference), rounds, note),
        compare("density_windows_forward", lambda: forward(window), lambda: forward(reference), rounds, "windows, all boxes"),
        compare("density_windows_forward_backward", lambda: both(window), lambda: both(reference), rounds, "windows, all boxes"),
    ]  # fmt: skip


def iterations_beside_vm(scene: Scene, rounds: int, warm_up: int = 300) -> Row:
    """Whole iterations on trained fields, in time per sample: "reference" is tensorf-vm, so 0.5 is twice its time."""
    trainings = []
    for name in ("strivec", "tensorf-vm"):
        training = method(name).load_training()(method(name).configure("fast").scaled(warm_up), scene, 0)
        for i in range(warm_up):
            training.step(i)
        trainings.append(training)
    samples = [sum(float(t.step(warm_up)["samples"]) for _ in range(5)) / 5 for t in trainings]

    def run(training):
        for _ in range(10):
            training.step(warm_up)

    row = compare("iteration_per_sample", *(lambda t=t: run(t) for t in trainings), rounds)
    ours, theirs = (s / 10 / n for s, n in zip((row.ours_seconds, row.reference_seconds), samples, strict=True))
    note = f"per iteration {row.ours_seconds / 10:.3f} s and {row.reference_seconds / 10:.3f} s, samples {samples[0]:.0f} and {samples[1]:.0f}"
    return Row(row.name, theirs / ours, ours, theirs, note)


# ---------------------------------------------------------------------------------------- PSNR over parameters


def tensorf_within(name: str, budget: int, scene: Scene):
    """The fast preset of a TensoRF cut or grown to a number of parameters, in the way that suits it.

    VM: the preset's ranks, from a million on the paper's, and what the budget leaves for the edge of the grid. Of those
    tried on lego's training views at 0.25 M (ranks 2, 4, 8) and 1 M (2, 8, 16) these were the best. CP: the paper's edge
    of 500 and its proportion of ranks, one to two.
    """
    config = method(name).configure("fast", real=scene.real)
    vm = config.layout == "vm"
    if vm:
        density = config.density_rank if budget < 1_000_000 else 16
        appearance = 3 * density
        rest = budget - _network(3 * appearance, config.hidden)
        edge = int((math.sqrt(1 + 4 * rest / (3 * (density + appearance))) - 1) / 2)
    else:
        edge = 500
        density = (budget - _network(0, config.hidden)) // (9 * edge + 54)
        appearance = 2 * density
    voxels = (min(config.voxels[0], edge**3), edge**3)
    return replace(config, density_rank=density, appearance_rank=appearance, voxels=voxels)


def _network(channels: int, hidden: int) -> int:
    """Trainable numbers of a decoder."""
    return 27 * channels + 150 * hidden + hidden * hidden + 3 * hidden + 2 * hidden + 3


def parameters(names: list[str], iterations: int, budgets: tuple[int, ...], seed: int) -> Iterator[dict]:
    for scene in scenes(names):
        full = method("tensorf-vm").configure("fast", real=scene.real)
        yield trained("tensorf-vm", full, scene, seed, iterations)[1] | {"budget": "full"}
        for budget in budgets:
            ours = replace(method("strivec").configure("fast", real=scene.real), parameters=str(budget))
            configs = {"strivec": ours} | {n: tensorf_within(n, budget, scene) for n in ("tensorf-vm", "tensorf-cp")}
            for name, config in configs.items():
                yield trained(name, config, scene, seed, iterations)[1] | {"budget": budget}


def plot_parameters(rows: list[dict], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(r["scene"] for r in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.6), squeeze=False)
    colours = {"strivec": "#c8553d", "tensorf-vm": "#3a7d8c", "tensorf-cp": "#8a8a8a"}
    for axis, scene in zip(axes[0], names, strict=True):
        for name, colour in colours.items():
            of = sorted((r["parameters"] / 1e6, r["psnr"]) for r in rows
                        if r["scene"] == scene and r["method"] == name and r["budget"] != "full")  # fmt: skip
            axis.plot([p for p, _ in of], [db for _, db in of], "o-", color=colour, label=name)
        for r in rows:
            if r["scene"] == scene and r["budget"] == "full":
                axis.plot(
                    r["parameters"] / 1e6,
                    r["psnr"],
                    "*",
                    markersize=11,
                    color=colours["tensorf-vm"],
                    label="tensorf-vm, full",
                )
        axis.set(xscale="log", title=scene, xlabel="million parameters")
        axis.set_xticks(ticks := [b / 1e6 for b in BUDGETS], [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("PSNR on test views, dB")
    axes[0][-1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)


# ---------------------------------------------------------------------------------------- ablation, rotation

ABLATIONS: dict[str, dict] = {
    "default": {},
    "inverse-distance weights, K = 4": {"weights": "inverse", "nearest": 4},
    "one scale": {"spacing": (0.1,), "density_rank": (12,), "appearance_rank": (20,)},
    "scales averaged": {"average_density": True, "average_appearance": True},
    "no re-placement": {"replace_at": ()},
    "starts as noise": {"imitate": False},
    "learning rate restarts": {"restart_rate": True},
    "boxes from a hundredth of the light": {"geometry_weight": 0.01},
}


def ablation(names: list[str], iterations: int, seed: int) -> Iterator[dict]:
    for scene in map(without_test, scenes(names)):
        for label, changes in ABLATIONS.items():
            config = replace(method("strivec").configure("fast", real=scene.real), **changes)
            print(label, end=": ", flush=True)
            yield trained("strivec", config, scene, seed, iterations)[1] | {"change": label}


def turned(scene: Scene, degrees: float, axis: tuple[float, float, float] = (1.0, 2.0, 0.5)) -> Scene:
    """The same pictures of a world turned about an axis through the middle of the box."""
    k = torch.nn.functional.normalize(torch.tensor(axis), dim=0)
    cross = torch.tensor([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
    angle = math.radians(degrees)
    rotation = torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    centre = scene.aabb.mean(0)
    move = torch.eye(4)
    move[:3, :3], move[:3, 3] = rotation, centre - rotation @ centre
    # The box grows to hold the turned one, for both methods alike.
    corners = torch.cartesian_prod(*scene.aabb.T) - centre
    turned_corners = corners @ rotation.T + centre
    aabb = torch.stack([turned_corners.amin(0), turned_corners.amax(0)])
    splits = {
        name: replace(split, cameras=dataclasses.replace(split.cameras, world_from_camera=move @ split.cameras.world_from_camera))
        for name, split in (("train", scene.train), ("test", scene.test))
    }  # fmt: skip
    return replace(scene, aabb=aabb, name=f"{scene.name}, turned {degrees:g}°", **splits)


def rotation(names: list[str], iterations: int, seed: int) -> Iterator[dict]:
    for scene in scenes(names):
        for name in ("strivec", "tensorf-vm"):
            for one in (scene, turned(scene, 30.0)):
                yield trained(name, method(name).configure("fast"), one, seed, iterations)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("kernels", "parameters", "ablation", "rotation"))
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), choices=list(SCENES))
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--budgets", nargs="+", type=int, default=BUDGETS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(0)
    machine = {"backend": _backend.backend_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part == "kernels":
        timed = [*kernels(options.rounds), iterations_beside_vm(scenes(["demo"])[0], options.rounds)]
        for row in timed:
            print(
                f"{row.name:34} {row.ratio:6.1f}×  {row.ours_seconds:.3g} s  {row.reference_seconds:.3g} s  {row.note}"
            )
        write_json(options.out / "strivec_kernels.json", {"machine": machine, "rows": [row.as_json() for row in timed]})
        return
    common = options.scenes, options.iterations
    rows = []
    for row in {  # written after every training: they take a while
        "parameters": lambda: parameters(*common, tuple(options.budgets), options.seed),
        "ablation": lambda: ablation(*common, options.seed),
        "rotation": lambda: rotation(*common, options.seed),
    }[options.part]():
        rows.append(row)
        write_json(options.out / f"strivec_{options.part}.json", {"machine": machine, "rows": rows})
        if options.part == "parameters":
            plot_parameters(rows, options.out / "strivec_parameters.png")


if __name__ == "__main__":
    main()
