"""Host time of one launch and of one operator call, on a kernel too small to matter: what Python costs."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from fields.core import grids, ray_aabb_intersect, vm_sample


def microseconds(function: Callable[[], object], calls: int = 500, rounds: int = 9) -> float:
    """The quickest of several averages: interruptions only ever add."""
    function()
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(calls):
            function()
        best = min(best, (time.perf_counter() - began) / calls)
    return best * 1e6


def main() -> None:
    torch.set_num_threads(1)
    x, rays, box = torch.rand(1, 3), torch.rand(1, 3), torch.tensor([[0.0, 0, 0, 1, 1, 1]])
    planes = [torch.randn(8, 8, 16, requires_grad=True) for _ in range(3)]
    lines = [torch.randn(8, 16, requires_grad=True) for _ in range(3)]
    factors = [f for pair in zip(planes, lines, strict=True) for f in pair]
    value = torch.empty(1)
    with torch.no_grad():
        print(
            f"launch of vm_value          {microseconds(lambda: grids._launch('value', 'vm', x, factors, True, value=value)):6.1f} µs"
        )
        print(f"vm_sample, no gradients     {microseconds(lambda: vm_sample(x, planes, lines)):6.1f} µs")
        print(f"ray_aabb_intersect          {microseconds(lambda: ray_aabb_intersect(rays, rays, box)):6.1f} µs")
    print(f"vm_sample, recorded         {microseconds(lambda: vm_sample(x, planes, lines)):6.1f} µs")


if __name__ == "__main__":
    main()
