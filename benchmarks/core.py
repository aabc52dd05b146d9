"""``fields bench core``: the kernels and a whole training iteration against their plain-PyTorch compositions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fields.benchmarks import composed
from fields.benchmarks.timing import Row, compare
from torch import Tensor

from fields.core import (
    _backend,
    accumulate_along_rays,
    march_rays,
    occupancy_clearance,
    ray_aabb_intersect,
    render_weight_from_density,
    vm_sample,
)


def coherent_positions(rays: int, per_ray: int) -> Tensor:
    """Positions (rays · per_ray, 3) in [-1, 1] along random rays: what a sampler meets in practice."""
    origins, directions = torch.rand(rays, 3) - 0.5, torch.nn.functional.normalize(torch.randn(rays, 3), dim=-1)
    t = torch.linspace(-0.5, 0.5, per_ray)
    return (origins[:, None] + t[:, None] * directions[:, None]).view(-1, 3).clamp(-1, 1).contiguous()


def vm_density(rounds: int, size: int = 128, rank: int = 16, n: int = 1_000_000) -> list[Row]:
    x = coherent_positions(n // 200, 200)
    planes = [torch.randn(size, size, rank).requires_grad_() for _ in range(3)]
    lines = [torch.randn(size, rank).requires_grad_() for _ in range(3)]
    theirs = composed.channels_first([f for pair in zip(planes, lines, strict=True) for f in pair])
    grad = torch.randn(n)

    def forward(function: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                function()

        return run

    def both(function: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], None]:
        def run() -> None:
            torch.autograd.grad(function(), leaves, grad)

        return run

    ours, reference = lambda: vm_sample(x, planes, lines), lambda: composed.vm_density(x, *theirs)
    note = f"{n} samples, R = {rank}, {size}²"
    return [
        compare("vm_density_forward", forward(ours), forward(reference), rounds, note),
        compare("vm_density_forward_backward", both(ours, planes + lines), both(reference, [*theirs[0], *theirs[1]]), rounds, note),
    ]  # fmt: skip


def shell_occupancy(n: int) -> Tensor:
    """(n, n, n) bool: a spherical shell, about 5 % of the cells."""
    at = (torch.arange(n) + 0.5) * (2 / n) - 1
    radius = (at[:, None, None] ** 2 + at[None, :, None] ** 2 + at[None, None, :] ** 2).sqrt()
    return (radius - 0.65).abs() < 0.04


def march_composite(rounds: int, n: int = 4096, size: int = 128) -> Row:
    """Rays through a shell: finding its samples, weights of given densities, and accumulated colour."""
    aabb, occupied = torch.tensor([-1.0, -1, -1, 1, 1, 1]), shell_occupancy(size)
    origins = torch.nn.functional.normalize(torch.randn(n, 3), dim=-1) * 3
    directions = torch.nn.functional.normalize(torch.rand(n, 3) - 0.5 - origins, dim=-1)
    step = 0.5 * 2 / (size - 1)
    steps = int(2 * 3**0.5 / step) + 1
    t_min, t_max, hits = (t[:, 0] for t in ray_aabb_intersect(origins, directions, aabb[None], 0.0, 1e10))
    t_min = torch.where(hits, t_min, torch.zeros(()))
    t_max = torch.where(hits, t_max, torch.zeros(()))
    clearance = occupancy_clearance(occupied)  # like the volume of the reference, kept while the grid does not change
    volume, zero = occupied.permute(2, 1, 0)[None, None].float().contiguous(), torch.zeros(n)

    def ours() -> Tensor:
        t_starts, t_ends, rays, packed, x = march_rays(
            origins, directions, t_min, t_max, clearance, aabb, step, positions=True
        )
        weights = render_weight_from_density(t_starts, t_ends, torch.full_like(t_starts, 20.0), packed_info=packed)[0]
        return accumulate_along_rays(weights, x, rays, n)

    def reference() -> Tensor:
        t, x, valid = composed.dense_samples(origins, directions, t_min, aabb, step, steps, zero)
        inside = valid.clone()
        inside[valid] = composed.occupied_at(volume, x[valid])
        sigma = torch.zeros(n, steps)
        sigma[inside] = 20.0
        deltas = torch.cat([t[:, 1:] - t[:, :-1], torch.zeros(n, 1)], -1)
        return (composed.composite(sigma, deltas)[..., None] * x).sum(1)

    with torch.no_grad():
        return compare("march_composite", ours, reference, rounds, f"{n} rays, {size}³ cells, {steps} steps")


def begun_training(scene_path: str, warm_up: int = 400):
    """A training at the paper's settings at 128³, some way in: what an iteration usually meets."""
    from fields.data import load_scene
    from fields.methods import method
    from fields.tensorf.training import TensorfTraining

    _backend.keep_freed_memory()  # as training does; the reference gains from it too
    device = torch.get_default_device()
    with torch.device("cpu"):
        scene = load_scene(scene_path)
    scene = scene.to(device)
    config = method("tensorf-vm").configure("paper").scaled(60_000)  # no milestone is reached during the benchmark
    training = TensorfTraining(config, scene, 0)
    training.field.occupied = training.field.occupied.clone()
    for i in range(warm_up):
        training.step(i)
        if i + 1 in (warm_up // 2, warm_up):
            training.field.update_occupancy(config.occupancy_threshold, training.field.resolution)
    return training


def training_iteration(rounds: int, training, warm_up: int = 400) -> Row:
    """One iteration of a `begun_training`."""
    config, scene = training.config, training.scene
    reference = composed.Iteration(training.field)
    white = torch.ones(3)

    def composed_iteration() -> None:
        origins, directions, target = training.pixels.draw(config.rays, white)
        t_min = ray_aabb_intersect(origins, directions, training.field.aabb[None], scene.near, scene.far)[0][:, 0]
        t_min = torch.where(t_min.isfinite(), t_min, torch.full_like(t_min, scene.far))
        reference(origins, directions, target, torch.rand(config.rays), t_min)

    cells = float(training.field.occupied.float().mean())
    note = (
        f"{config.rays} rays, 128³, ranks 16/48, {scene.name} after {warm_up} iterations, {cells:.1%} of cells occupied"
    )
    return compare("training_iteration", lambda: training.step(warm_up), composed_iteration, rounds, note)


def thread_scaling(rounds: int) -> list[Row]:
    """One thread over all threads: "reference" is the same code on one."""
    everything = torch.get_num_threads()
    x = coherent_positions(5000, 200)
    planes = [torch.randn(128, 128, 16).requires_grad_() for _ in range(3)]
    lines = [torch.randn(128, 16).requires_grad_() for _ in range(3)]
    value, grad = vm_sample(x, planes, lines), torch.randn(x.shape[0])

    def forward() -> None:
        with torch.no_grad():
            vm_sample(x, planes, lines)

    def backward() -> None:
        torch.autograd.grad(value, planes + lines, grad, retain_graph=True)

    def on_one(function: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            torch.set_num_threads(1)
            function()
            torch.set_num_threads(everything)

        return run

    note = f"1 against {everything} threads"
    return [
        compare("threads_forward", forward, on_one(forward), rounds, note),
        compare("threads_backward", backward, on_one(backward), rounds, note),
    ]


def plot(rows: list[Row], file: str) -> None:
    """Bars of the ratios, logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.6 * len(rows) + 1.2))
    names, ratios = [r.name.replace("_", " ") for r in rows][::-1], [r.ratio for r in rows][::-1]
    bars = axes.barh(names, ratios, color="#3a7d8c")
    axes.bar_label(bars, [f"{r:.1f}×" for r in ratios], padding=4)
    axes.set(xscale="log", xlabel="times faster than the reference", xlim=(0.8, max(ratios) * 1.6))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)
