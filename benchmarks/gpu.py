"""Kernels against what the GPU can do: bytes per second beside those of a copy, launches, frames, and nerfacc.

Times are medians of CUDA events around each call, with inputs rotated so that none is still in the cache from before
where that is not the point.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from fields.benchmarks import composed, strivec
from fields.benchmarks.core import coherent_positions, shell_occupancy
from fields.benchmarks.timing import Row
from torch import Tensor

from fields.core import (
    accumulate_along_rays,
    march_rays,
    occupancy_clearance,
    ray_aabb_intersect,
    render_weight_from_density,
    vm_sample,
)
from fields.core.grids import _value, _value_bwd


def seconds(function: Callable[[], object], rounds: int = 20) -> float:
    """Median device time of one call."""
    for _ in range(3):
        function()
    times = []
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def copy_bandwidth() -> float:
    """Bytes per second, read plus written, of a copy of a gigabyte."""
    a = torch.randn(1 << 28)
    b = torch.empty_like(a)
    return 2 * a.numel() * a.element_size() / seconds(lambda: b.copy_(a))


def kernels(rounds: int) -> list[Row]:
    """Each kernel of a training iteration: ratio is the fraction of the bandwidth floor it reaches."""
    peak = copy_bandwidth()
    rows = [Row("copy", 1.0, 1 / peak, 1 / peak, f"{peak / 1e12:.2f} TB/s read and written")]

    def row(name: str, function: Callable[[], object], moved: int, note: str) -> None:
        took, floor = seconds(function, max(rounds, 5)), moved / peak
        rows.append(Row(name, floor / took, took, floor, f"{moved / took / 1e12:.2f} TB/s; {note}"))

    n, size, rank = 4_000_000, 2048, 16  # planes of 268 MB each: beyond any cache
    x = torch.rand(n, 3) * 2 - 1
    planes = [torch.randn(size, size, rank) for _ in range(3)]
    lines = [torch.randn(size, rank) for _ in range(3)]
    factors = [f for pair in zip(planes, lines, strict=True) for f in pair]
    per_sample = 4 * (3 * 4 * rank) + 4 * 4  # four corners of three planes; position and value. Lines stay in cache.
    row("vm_density_forward", lambda: _value(x, factors, "vm", True), n * per_sample, f"{n} random samples, {size}²")
    grad = torch.randn(n)
    factors_bytes = sum(f.numel() for f in factors) * 4
    row("vm_density_backward", lambda: _value_bwd(grad, x, factors, "vm", True, False, True),
        n * (per_sample + 2 * 4 * 3 * 4 * rank) + factors_bytes, "reads corners, adds to them; clears the gradient")  # fmt: skip
    coherent = coherent_positions(n // 200, 200)
    small = [torch.randn(*shape, rank) for _ in range(3) for shape in ((300, 300), (300,))]
    row("vm_density_in_cache", lambda: _value(coherent, small, "vm", True), n * 16, "300², along rays: positions and values only")  # fmt: skip

    rays, per_ray = 65_536, 64
    packed = torch.stack([torch.arange(rays) * per_ray, torch.full((rays,), per_ray)], -1)
    starts = torch.linspace(0, 1, per_ray).repeat(rays)
    ends, sigmas, colour = starts + 1 / per_ray, torch.rand(rays * per_ray) * 5, torch.rand(rays * per_ray, 3)
    m = rays * per_ray
    row("weights_forward", lambda: render_weight_from_density(starts, ends, sigmas, packed_info=packed), m * 24, f"{rays} rays of {per_ray}")  # fmt: skip
    weights = render_weight_from_density(starts, ends, sigmas, packed_info=packed)[0]
    index = torch.arange(rays).repeat_interleave(per_ray)
    row("accumulate_forward", lambda: accumulate_along_rays(weights, colour, index, rays), m * 16, "three channels, packing included")  # fmt: skip
    rows.append(launch_overhead())
    rows += strivec.kernels(rounds)
    if find_spec("nerfacc"):
        rows += against_nerfacc()
    return rows


def launch_overhead(calls: int = 2000) -> Row:
    """Host time per operator call, forward without gradients, of a kernel too small to matter."""
    origins, box = torch.rand(1, 3), torch.tensor([[0.0, 0, 0, 1, 1, 1]])
    for _ in range(100):
        ray_aabb_intersect(origins, origins, box)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(calls):
        ray_aabb_intersect(origins, origins, box)
    took = (time.perf_counter() - began) / calls
    torch.cuda.synchronize()
    return Row("operator_call", 25e-6 / took, took, 25e-6, f"{took * 1e6:.1f} µs of host time; the aim is 25")


def against_nerfacc() -> list[Row]:
    """March and composite against nerfacc's, on the same rays and grid."""
    import nerfacc

    n, size = 65_536, 128
    aabb, occupied = torch.tensor([-1.0, -1, -1, 1, 1, 1]), shell_occupancy(size)
    origins = torch.nn.functional.normalize(torch.randn(n, 3), dim=-1) * 3
    directions = torch.nn.functional.normalize(torch.rand(n, 3) - 0.5 - origins, dim=-1)
    near, far, step = torch.zeros(n), torch.full((n,), 10.0), 1 / size
    clearance = occupancy_clearance(occupied)

    def march_ours():
        return march_rays(origins, directions, near, far, clearance, aabb, step)

    def march_theirs():
        return nerfacc.traverse_grids(origins, directions, occupied[None], aabb[None], near, far, step)

    t_starts, t_ends, rays, _ = march_ours()
    sigmas, colour = torch.rand_like(t_starts) * 20, torch.rand(len(rays), 3)

    def composite(module) -> Callable[[], Tensor]:
        def run() -> Tensor:
            weights, *_ = module.render_weight_from_density(t_starts, t_ends, sigmas, ray_indices=rays, n_rays=n)
            return module.accumulate_along_rays(weights, colour, rays, n)

        return run

    import fields.core

    rows = []
    for name, ours, theirs in (
        ("march", march_ours, march_theirs),
        ("composite", composite(fields.core), composite(nerfacc)),
    ):
        mine, other = seconds(ours), seconds(theirs)
        rows.append(Row(f"{name}_against_nerfacc", other / mine, mine, other, f"{n} rays, {len(rays)} samples, nerfacc {nerfacc.__version__}"))  # fmt: skip
    return rows


def frames(field, size: int = 800) -> float:
    """Frames per second of an image size² of a trained field, from a camera on an orbit, after a warm-up."""
    from fields.rendering import orbit, render

    with torch.device("cpu"):
        cameras = orbit(8, size=(size, size)).to(field.aabb.device)
    for i in range(3):
        render(field, cameras, i)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for i in range(8):
        render(field, cameras, i)
    torch.cuda.synchronize()
    return 8 / (time.perf_counter() - began)


def at_the_end(method, config, scene, run: Path):
    """The training that a run folder's last checkpoint holds, to time iterations of."""
    from fields.io.atomic import read_tensors

    tensors, header = read_tensors(run / "checkpoints" / "last.safetensors")
    return method.load_training().resume(config, scene, tensors, header["training"])


def composed_iteration(training) -> float:
    """Median seconds of a TensoRF iteration on a trained field, composed of PyTorch operators."""
    scene, field, n, white = training.scene, training.field, training.config.rays, torch.ones(3)
    reference = composed.Iteration(field)

    def iteration() -> None:
        origins, directions, target = training.pixels.draw(n, white)
        enter = ray_aabb_intersect(origins, directions, field.aabb[None], scene.near, scene.far)[0][:, 0]
        reference(origins, directions, target, torch.rand(n), torch.where(enter.isfinite(), enter, scene.far))

    return seconds(iteration, 5)


def breakdown(training, iterations: int = 50) -> str:
    """A table of the kernels in which a training iteration spends its device time."""
    from torch.profiler import ProfilerActivity, profile

    for i in range(10):
        training.step(i)
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as watched:
        for i in range(iterations):
            training.step(i)
        torch.cuda.synchronize()
    return watched.key_averages().table(sort_by="cuda_time_total", row_limit=25)


def graphs() -> bool:
    """Whether sampling, forward and backward, can be captured in a CUDA graph and replayed on new inputs."""
    x, grad = torch.rand(1000, 3), torch.rand(1000)
    factors = [torch.randn(*shape, 16, requires_grad=True) for _ in range(3) for shape in ((32, 32), (32,))]

    def both() -> tuple[Tensor, tuple[Tensor, ...]]:
        v = vm_sample(x, factors[0::2], factors[1::2])
        return v, torch.autograd.grad(v, factors, grad)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        both()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value, grads = both()
    x.uniform_(-1, 1)
    graph.replay()
    torch.cuda.synchronize()
    expected, expected_grads = both()
    pairs = zip((value, *grads), (expected, *expected_grads), strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)
