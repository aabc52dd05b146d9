"""Assemblies drawn from the flow: several at once, for the best to be kept."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from fields.errors import ConfigError
from fields.garf import flow
from fields.garf.assembly import relax
from fields.garf.clouds import Cloud
from fields.garf.config import GarfConfig
from fields.garf.contact import EVIDENCE, Surface, evidence
from fields.garf.fragment import Fragment
from fields.garf.matching import look
from fields.garf.model import Garf
from fields.garf.presentation import Presented, Remembered, presented
from fields.garf.reassembly import Reassembly
from fields.geometry.rigid import inverse, pose_of

_RADII = (0.06, 0.04, 0.025, 0.012, 0.008)
"""Of settling, in sizes of the object: a sample is further off than what was matched."""


@torch.no_grad()
def sampled(
    model: Garf, cloud: Cloud, candidates: int = 8, preassembly: bool = True, steps: int = flow.STEPS,
    tokens: int = GarfConfig.tokens,
) -> Tensor:  # fmt: skip
    """Ways to put an object together.

    It is encoded once; candidates differ in their noise, and in the points that are looked at.

    Args:
        candidates: K.
        preassembly, steps: see `flow.reassembled`.
        tokens: points the denoiser looks at, as many as it has learned with.
    Returns:
        (K, P, 4, 4) from each fragment's frame to that of the anchor, the fragment with most points; in sizes of the object.

    Raises:
        ConfigError: the model has no flow.
    """
    denoiser = model.denoiser
    if denoiser is None:
        raise ConfigError("This model has no flow: train one with `fields train garf --flow-iterations`.")
    batch = presented([Remembered.of(model, cloud)] * candidates, tokens, None)

    def velocity(translation: Tensor, rotation: Tensor, sigma: float) -> Tensor:
        time = torch.full((candidates,), sigma)
        return denoiser(*batch.shown, translation, rotation, batch.anchor, time, batch.tokens)

    path = flow.reassembled(velocity, start(batch), batch.anchor, steps, preassembly)
    return motions(batch, *path[-1]).unflatten(0, (candidates, -1))


def start(batch: Presented) -> tuple[Tensor, Tensor]:
    """Poses at σ = 1: noise, and anchors where they belong."""
    translation, rotation = flow.noise(len(batch.anchor), batch.translation)
    kept = batch.anchor[:, None]
    return torch.where(kept, batch.translation, translation), torch.where(kept[..., None], batch.rotation, rotation)


def motions(batch: Presented, translation: Tensor, rotation: Tensor) -> Tensor:
    """(P, 4, 4) by which fragments move in the frame they were given in, to come to lie at (P, 3), (P, 3, 3) of the flow's."""
    found, given = pose_of(rotation, translation), pose_of(batch.rotation, batch.translation)
    frame = batch.given[batch.object_of]
    return frame @ found @ inverse(given) @ inverse(frame)


@torch.no_grad()
def scores(surfaces: list[Surface], poses: Tensor) -> Tensor:
    """(K,) how well fragments at (K, P, 4, 4) fit: area of break that faces break, less what runs into each other."""
    total = torch.zeros(len(poses), len(EVIDENCE))
    for i, j in combinations(range(len(surfaces)), 2):
        total += evidence(surfaces[i], surfaces[j], inverse(poses[:, i]) @ poses[:, j])
    seen = dict(zip(EVIDENCE, total.unbind(1), strict=True))
    return seen["touching"] - seen["covered"] - seen["doubled"] - seen["inside"]


@torch.no_grad()
def reassemble_by_flow(
    fragments: list[Fragment], model: Garf, *, candidates: int = 8, preassembly: bool = True, settling: bool = False, seed: int = 0
) -> Reassembly:  # fmt: skip
    """What the flow alone makes of fragments: the best of several samples, as the paper has it.

    Args:
        settling: whether fragments then settle on each other's breaks.
    """
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    cloud, _, breaks = look(fragments, model.encoder, rng)
    surfaces = [b.surface for b in breaks]
    anchor = int(torch.bincount(cloud.fragment).argmax())
    found = sampled(model, cloud, candidates, preassembly)
    if settling:
        for k, one in enumerate(found):
            lying = relax(surfaces, dict(enumerate(one)), anchor, _RADII)
            found[k] = torch.stack([lying[i] for i in range(len(fragments))])
    best = found[scores(surfaces, found).argmax()].double().numpy()
    best[:, :3, 3] *= cloud.scale
    count = len(fragments)
    return Reassembly(fragments, anchor, best, [0] * count, [0.0] * count, [], time.perf_counter() - began)
