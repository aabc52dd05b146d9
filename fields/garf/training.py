"""How the model learns: first to see breaks and what fits them, then how right joints look, then the flow."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import roma
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fields.garf import flow
from fields.garf.clouds import Cloud
from fields.garf.config import GarfConfig
from fields.garf.denoiser import Tokens
from fields.garf.encoder import dice, fit_loss
from fields.garf.joints import learn_joints
from fields.garf.model import Garf
from fields.garf.objects import prepare

_AVERAGED = 0.9995
"""Of the flow's weights, from one iteration to the next."""


class GarfTraining:
    """See `fields.training.loop.Steps`.

    Args:
        clouds: files that `fields.garf.objects.prepare` wrote.
    """

    def __init__(self, config: GarfConfig, clouds: list[Path], seed: int) -> None:
        torch.manual_seed(seed)
        self.config, self.clouds, self.seed = config, clouds, seed
        self.model = Garf(config.size, flow=config.flow_iterations > 0)
        self.known: dict[int, Cloud] = {}
        self.seen: dict[int, _Remembered] = {}
        self._begin_encoder()

    @staticmethod
    def gather(config: GarfConfig, folder: Path, watch: Callable[[int, int], None]) -> list[Path]:
        """What it learns from, made where it is missing."""
        return prepare(folder, config.objects, watch)

    def step(self, i: int) -> dict[str, Tensor]:
        torch.manual_seed(self.seed * 1_000_003 + i)  # what is drawn depends on nothing before
        draw = random.Random(self.seed * 1_000_003 + i)
        if i < self.config.encoder_iterations:
            return self._encoder_step(i, draw)
        if i == self.config.encoder_iterations:
            self._begin_flow()
        return self._flow_step(i - self.config.encoder_iterations, draw)

    def finish(self, watch: Callable[[int, int], None] = lambda done, total: None) -> None:
        """What comes after the last iteration: joints, where there is no flow; the mean of the flow's weights, where there is."""
        if self.config.flow_iterations:
            self.model.denoiser.load_state_dict(self.average)  # type: ignore[union-attr]
        else:
            self.model.eval()
            learn_joints(self.model, self.config.joint_objects, watch)

    def _cloud(self, index: int) -> Cloud:
        if index not in self.known:
            self.known[index] = Cloud.load(self.clouds[index])
        return self.known[index]

    # ------------------------------------------------------------------------------------- encoder

    def _begin_encoder(self) -> None:
        self.optimiser = torch.optim.AdamW(self.model.encoder.parameters(), self.config.encoder_rate, weight_decay=1e-4)
        self.model.encoder.train()

    def _encoder_step(self, i: int, draw: random.Random) -> dict[str, Tensor]:
        config, encoder = self.config, self.model.encoder
        _set_rate(self.optimiser, config.encoder_rate, i / config.encoder_iterations)
        cloud = self._cloud(draw.randrange(len(self.clouds)))
        seen, broken_here = encoder(cloud, roma.random_rotmat(cloud.pieces)), (cloud.partner >= 0).float()
        label = dice(seen.break_logit, broken_here)
        if config.size == "cpu":  # small batches: the published loss alone is slow to begin
            label = label + 0.5 * binary_cross_entropy_with_logits(seen.break_logit, broken_here)
        fit = fit_loss(encoder, seen, cloud) if encoder.config.descriptor else torch.zeros(())
        self._descend(label + config.fit * fit, encoder)
        hit = ((seen.break_logit > 0) == (broken_here > 0)).float().mean()
        return {"label": label.detach(), "fit": fit.detach(), "right": hit}

    # ---------------------------------------------------------------------------------------- flow

    def _begin_flow(self) -> None:
        denoiser = self.model.denoiser
        assert denoiser is not None
        self.model.eval()
        if not self.model.verifier.linear.weight.any():
            learn_joints(self.model, self.config.joint_objects)
        denoiser.train()
        self.optimiser = torch.optim.AdamW(denoiser.parameters(), self.config.flow_rate, (0.9, 0.99), weight_decay=1e-4)
        self.average = {name: value.detach().clone() for name, value in denoiser.state_dict().items()}

    def _remember(self, index: int) -> _Remembered:
        """What the encoder, which stays as it is from here on, says of an object."""
        if index not in self.seen:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(index)  # the same whenever it is first looked at, also after resuming
                self.seen[index] = _Remembered.of(self.model, self._cloud(index))
            self.known.pop(index)
        return self.seen[index]

    def _flow_step(self, i: int, draw: random.Random) -> dict[str, Tensor]:
        config, denoiser = self.config, self.model.denoiser
        assert denoiser is not None
        _set_rate(self.optimiser, config.flow_rate, i / config.flow_iterations)
        chosen = [self._remember(draw.randrange(len(self.clouds))) for _ in range(config.batch)]
        batch = presented(chosen, config.tokens, draw)
        sigma = (1000 - torch.randint(0, 1000, (len(chosen),))) / 1000
        t, r, velocity = flow.noised(batch.translation, batch.rotation, batch.anchor, sigma[batch.object_of])
        said = denoiser(*batch.shown, t, r, batch.anchor, sigma, batch.tokens)
        loss = (said - velocity).square().mean()
        self._descend(loss, denoiser)
        keep = min(_AVERAGED, (i + 1) / (i + 10))
        with torch.no_grad():
            for name, value in denoiser.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)
        return {"flow": loss.detach()}

    def _descend(self, loss: Tensor, module: torch.nn.Module) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        self.optimiser.step()

    # --------------------------------------------------------------------------------------- state

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in getattr(self, "average", {}).items()}
        for number, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{k}": v for k, v in moments.items()}
        return tensors, {}

    @classmethod
    def resume(
        cls, config: GarfConfig, clouds: list[Path], seed: int, tensors: dict[str, Tensor], plain: dict
    ) -> GarfTraining:
        training = cls(config, clouds, seed)
        parts: dict[str, Any] = {"model": {}, "average": {}, "optimiser": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        training.model.load_state_dict(parts["model"])
        if parts["average"]:
            training._begin_flow()
            training.average = parts["average"]
        state = training.optimiser.state_dict()
        for name, value in parts["optimiser"].items():
            number, _, moment = name.partition(".")
            state["state"].setdefault(int(number), {})[moment] = value
        training.optimiser.load_state_dict(state)
        return training


def _set_rate(optimiser: torch.optim.Optimizer, most: float, progress: float) -> None:
    """Up over the first twentieth, then down along half a cosine."""
    rise = min(1.0, progress / 0.05)
    fall = 0.5 + 0.5 * float(torch.cos(torch.tensor(torch.pi * max(0.0, (progress - 0.05) / 0.95))))
    for group in optimiser.param_groups:
        group["lr"] = most * max(rise * fall, 1e-3)


# -------------------------------------------------------------------------------------------- flow


@dataclass
class _Remembered:
    """An object as the flow needs it: half precision, for thousands of them are kept."""

    points: Tensor
    normals: Tensor
    fragment: Tensor
    broken: Tensor
    """(N,) how likely a point is break."""
    features: Tensor
    """(N, F) what the denoiser is shown of it."""

    @classmethod
    @torch.no_grad()
    def of(cls, model: Garf, cloud: Cloud) -> _Remembered:
        seen = model.encoder(cloud, roma.random_rotmat(cloud.pieces))
        broken, features = seen.break_logit.sigmoid(), seen.features
        if model.size == "cpu":
            features = torch.cat([features, broken[:, None]], 1)
        return cls(cloud.points, cloud.normals.half(), cloud.fragment, broken, features.half())


@dataclass
class Presented:
    """Objects as they are shown to the denoiser; fragments of all of them are numbered together."""

    shown: tuple[Tensor, Tensor, Tensor, Tensor]
    """Features (B, N, F), points and normals (B, N, 3), sizes (P,)."""
    tokens: Tokens
    translation: Tensor
    """(P, 3) where fragments belong, in a frame whose origin is the middle of the anchor."""
    rotation: Tensor
    """(P, 3, 3)."""
    anchor: Tensor
    """(P,) bool."""
    object_of: Tensor
    """(P,) int64."""


def presented(objects: list[_Remembered], count: int, draw: random.Random | None) -> Presented:
    """Draws `count` points of each object, most of them on breaks, and turns every fragment at random.

    Nothing of where the object stood is left: its frame is turned at random, and its origin is the middle of the anchor, the fragment
    with most points. Training (`draw`) also changes the scale by a quarter, and fixes other large fragments as well, so that at any time
    some can be held (multi-anchor training).
    """
    rows: list[tuple[Tensor, ...]] = []
    base = 0
    for number, one in enumerate(objects):
        pieces = int(one.fragment[-1]) + 1
        index = chosen_points(one.fragment, one.broken, count)
        of, amount = one.fragment[index], torch.bincount(one.fragment, minlength=pieces)
        first = int(amount.argmax())
        scale = draw.uniform(0.75, 1.25) if draw else 1.0
        middle = torch.zeros(pieces, 3).index_add(0, one.fragment, one.points) / amount[:, None]
        turn, frame = roma.random_rotmat(pieces), roma.random_rotmat(1)[0]
        all_points = scale * torch.einsum("nij,nj->ni", turn[one.fragment], one.points - middle[one.fragment])
        normals = torch.einsum("nij,nj->ni", turn[of], one.normals[index].float())
        size = torch.zeros(pieces).scatter_reduce(0, one.fragment, all_points.abs().amax(1), "amax")
        anchor = torch.arange(pieces) == first
        if draw and pieces > 2 and draw.random() < 1 - 1 / pieces:
            large = [i for i in range(pieces) if i != first and amount[i] > 0.05 * len(one.points)]
            if large:
                anchor[draw.sample(large, draw.randint(1, min(len(large), pieces - 2)))] = True
        rows.append((
            one.features[index].float(), all_points[index] / size[of][:, None], normals, size, of + base,
            scale * (middle - middle[first]) @ frame.T, frame @ turn.transpose(1, 2), anchor, torch.full((pieces,), number),
        ))  # fmt: skip
        base += pieces
    features, points, facing, sizes, fragments, *poses, anchors, numbers = map(list, zip(*rows, strict=True))
    shown = torch.stack(features), torch.stack(points), torch.stack(facing), torch.cat(sizes)
    translations, rotations = map(torch.cat, poses)
    return Presented(
        shown, Tokens(torch.stack(fragments)), translations, rotations, torch.cat(anchors), torch.cat(numbers)
    )


def chosen_points(fragment: Tensor, broken: Tensor, count: int, least: int = 8) -> Tensor:
    """(count,) of points (N,), ascending by fragment: `least` of each, the rest where break (N,) is likely."""
    weight = broken.clamp(0, 1) + 0.15
    pieces = int(fragment[-1]) + 1
    index = []
    for i in range(pieces):
        mine = torch.nonzero(fragment == i)[:, 0]
        index.append(mine[torch.multinomial(weight[mine], min(least, count // pieces))])
    rest = torch.multinomial(weight, count - sum(map(len, index)))
    chosen = torch.cat([*index, rest])
    return chosen[fragment[chosen].sort(stable=True)[1]]
