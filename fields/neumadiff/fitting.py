"""Fitting networks to materials, many at once: each for itself from one start, or all together in one plane.

For itself is closest, and the shared start is what lets a model learn how weights are distributed: networks that begin alike end where they can be compared, number by number,
and two materials that are alike get weights that are alike (Erkoç et al., HyperDiffusion, ICCV 2023). The rows of the last matrix begin equal too, so
that a material whose colours change places gets weights whose rows do.

But weights that descend apart go astray apart: of two thousand materials they fill hundreds of directions, and what is drawn among them is off by more than
materials differ. Fitted together, all are sums of a few vectors that are learned with them, and as close on the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from fields.neumadiff.angles import Reflectance, cosines
from fields.neumadiff.network import DIALECTS, PARTS, WEIGHTS, Dialect, Networks

STARTS = {"close": (0.0, 0.02), "spread": (-0.05, 0.05)}
"""Weights that all networks begin with are uniform in this; biases are zero. From *close* together they stay simpler, for generation; *spread*
ones fit more closely, for storage."""
_RATE, _LAST_RATE = 5e-3, 1e-4
_SAMPLES = 256
HIDDEN, OUTPUT = 32, 12
"""Vectors that hidden layers, and a channel's part of the last one, are made of when fitted together."""
_SEEN = 400
"""Of materials that are fitted together, in an iteration."""
_SHARED_RATE, _OWN_RATE, _BETAS = 2e-3, 1e-2, (0.9, 0.99)
_LEAST = -0.99
"""Of a reflectance while it is learned: what is held at zero instead would never come back."""
_DEAD = 0.9
"""A network that leaves this share of its material unexplained has died."""


def start(kind: str = "close", seed: int = 0) -> Tensor:
    """(675,) weights to begin with."""
    low, high = STARTS[kind]
    drawn = torch.rand(WEIGHTS, generator=torch.Generator().manual_seed(seed)) * (high - low) + low
    for bias in PARTS[1::2]:
        drawn[slice(*bias)] = 0
    first = drawn[slice(*PARTS[4])][:21]
    drawn[slice(*PARTS[4])] = first.repeat(3)
    return drawn


def spread_angles(count: int, generator: torch.Generator | None = None) -> Tensor:
    """(count, 3) angles of pairs of directions above the surface: θh half of them uniform, half as MERL's bins are, dense in the highlight; θd and φd
    uniform."""
    found = torch.empty(0, 3)
    while len(found) < count:
        u = torch.rand(2 * count, 3, generator=generator)
        highlight = torch.arange(len(u)) % 2 == 0
        theta_h = torch.where(highlight, u[:, 0].square(), u[:, 0]) * (math.pi / 2)
        angles = torch.stack([theta_h, u[:, 1] * (math.pi / 2), u[:, 2] * (2 * math.pi)], -1)
        light, eye = cosines(angles)
        found = torch.cat([found, angles[(light > 0) & (eye > 0)]])
    return found[:count]


def logarithm(reflectance: Tensor, cosine: Tensor) -> Tensor:
    """log(1 + f cos θi): what materials are compared by, as eyes do. Reflectance (…, N, 3), cosine (N,)."""
    return torch.log1p(reflectance * cosine[:, None])


@torch.no_grad()
def errors(networks: Networks, materials: Reflectance, angles: Tensor) -> Tensor:
    """(M,) mean difference of logarithms of reflectances times cosine, at angles (N, 3)."""
    cosine = cosines(angles)[0]
    return (logarithm(networks(angles), cosine) - logarithm(materials(angles), cosine)).abs().mean((-2, -1))


def fit(
    materials: Reflectance,
    count: int,
    *,
    dialect: Dialect = DIALECTS["reciprocal"],
    begin: str = "close",
    iterations: int = 6000,
    seed: int = 0,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Networks:
    """Networks that reflect as `count` materials do.

    All see the same angles at the same time, so that what they become depends on the material alone. One that has died, for the way down was too
    steep, is fitted again with a smaller rate.

    Args:
        begin: see `STARTS`.
        watch: told how much is done, and of how much.
    """
    weights = _descended(materials, count, dialect, begin, iterations, seed, _RATE, watch)
    angles = spread_angles(4096, torch.Generator().manual_seed(seed))
    black = logarithm(materials(angles), cosines(angles)[0]).mean((-2, -1))
    dead = errors(Networks(weights, dialect), materials, angles) > _DEAD * black
    if dead.any():
        weights[dead] = _descended(lambda a: materials(a)[dead], int(dead.sum()), dialect, begin, iterations, seed, _RATE / 5, watch)  # fmt: skip
    return Networks(weights, dialect)


class Many(Protocol):
    """A reflectance of many materials, of which some can be had by themselves."""

    def __call__(self, angles: Tensor) -> Tensor: ...

    def __getitem__(self, which: Any) -> Many: ...


def fit_together(
    materials: Many, count: int, *, iterations: int = 7000, seed: int = 0, watch: Callable[[int, int], None] = lambda done, total: None
) -> Networks:  # fmt: skip
    """Networks that reflect as `count` materials do, and whose weights lie in one plane of `HIDDEN` + 3 · `OUTPUT` directions.

    Hidden layers are a sum of some vectors, and what each channel does with the last of them a sum of others, the same for every channel: a material whose
    colours change places is in the plane too.

    Args:
        iterations: in each, some of the materials are seen.
    """
    generator = torch.Generator().manual_seed(seed)
    first, last = start("spread", seed), slice(*PARTS[4])
    shared = [
        first[: last.start].clone(), first[last][:21].clone(), torch.zeros(1),
        torch.randn(HIDDEN, last.start, generator=generator) * 0.15 / math.sqrt(HIDDEN),
        torch.randn(OUTPUT, 22, generator=generator) * 0.3 / math.sqrt(OUTPUT),
    ]  # fmt: skip
    parts = [slice(k, min(k + _SEEN, count)) for k in range(0, count, _SEEN)]
    own = [
        [0.1 * torch.randn(p.stop - p.start, HIDDEN, generator=generator), 0.1 * torch.randn(p.stop - p.start, 3, OUTPUT, generator=generator)]
        for p in parts
    ]  # fmt: skip
    for tensor in (*shared, *(one for pair in own for one in pair)):
        tensor.requires_grad_()
    # What is shared is pulled at by other materials each time; each part remembers its own way.
    together, apart = torch.optim.Adam(shared, betas=_BETAS), [torch.optim.Adam(pair, betas=_BETAS) for pair in own]

    def weights(pair: list[Tensor]) -> Tensor:
        hidden = shared[0] + pair[0] @ shared[3]
        output = torch.cat([shared[1], shared[2]]) + pair[1] @ shared[4]
        return torch.cat([hidden, output[..., :21].flatten(1), output[..., 21]], 1)

    for i in range(iterations):
        part = i % len(parts)
        fall = max(0.01, 0.5 + 0.5 * math.cos(math.pi * i / iterations))
        for optimiser, rate in ((together, _SHARED_RATE), (apart[part], _OWN_RATE)):
            for group in optimiser.param_groups:
                group["lr"] = rate * fall
        angles = spread_angles(_SAMPLES, generator)
        loss = _off(Networks(weights(own[part])), materials[parts[part]], angles).mean()
        together.zero_grad()
        apart[part].zero_grad()
        loss.backward()
        together.step()
        apart[part].step()
        if i % 50 == 49 or i + 1 == iterations:
            watch(i + 1, iterations)
    with torch.no_grad():
        return Networks(torch.cat([weights(pair) for pair in own]))


def _off(networks: Networks, materials: Reflectance, angles: Tensor) -> Tensor:
    """(M,) by how much networks are off at angles (N, 3), for learning: below zero too, where they are none."""
    cosine, units = cosines(angles)[0], torch.tensor(networks.dialect.units)
    with torch.no_grad():
        wanted = logarithm(materials(angles), cosine)
    reflected = networks.logarithm(angles).clamp(max=20).expm1().clamp(min=_LEAST) * units
    return (logarithm(reflected, cosine) - wanted).abs().mean((1, 2))


def _descended(
    materials: Reflectance, count: int, dialect: Dialect, begin: str, iterations: int, seed: int, rate: float, watch: Callable[[int, int], None]
) -> Tensor:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    weights = start(begin, seed).repeat(count, 1).requires_grad_()
    networks = Networks(weights, dialect)
    optimiser = torch.optim.Adam([weights], rate, eps=1e-15)
    for i in range(iterations):
        for group in optimiser.param_groups:
            group["lr"] = _LAST_RATE + (rate - _LAST_RATE) * (0.5 + 0.5 * math.cos(math.pi * i / iterations))
        loss = _off(networks, materials, spread_angles(_SAMPLES, generator)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if i % 50 == 49 or i + 1 == iterations:
            watch(i + 1, iterations)
    return weights.detach()
