"""How the model learns: first to see breaks and what fits them, then how right joints look, then the flow."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import roma
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fields.errors import ConfigError
from fields.garf import flow
from fields.garf.clouds import Cloud
from fields.garf.config import GarfConfig
from fields.garf.encoder import dice, fit_loss
from fields.garf.joints import learn_joints
from fields.garf.model import Garf
from fields.garf.objects import prepare, prepare_from
from fields.garf.presentation import Remembered, presented
from fields.garf.reassembly import load_model
from fields.training import processes
from fields.training.state import load_optimiser, packed, unpacked

_AVERAGED = 0.9995
"""Of the flow's weights, from one iteration to the next."""


class GarfTraining:
    """See `fields.training.loop.Steps`.

    Args:
        clouds: files that `fields.garf.objects.prepare` wrote, or `prepare_from`.
    """

    shares: ClassVar[bool] = True

    def __init__(self, config: GarfConfig, clouds: list[Path], seed: int) -> None:
        torch.manual_seed(seed)
        self.config, self.clouds, self.seed = config, clouds, seed
        self.model = Garf(config.size, flow=config.flow_iterations > 0)
        if other := _kept(config):
            self.model.encoder.load_state_dict(other.encoder.state_dict())
            self.model.verifier.load_state_dict(other.verifier.state_dict())
        self.known: dict[int, Cloud] = {}
        self.seen: dict[int, Remembered] = {}
        self._begin_encoder()

    @staticmethod
    def gather(config: GarfConfig, folder: Path, watch: Callable[[int, int], None]) -> list[Path]:
        """What it learns from, made where it is missing."""
        _kept(config)  # complains now, not when objects have been broken for minutes
        for size, iterations in (
            (config.encoder_batch, config.encoder_iterations),
            (config.batch, config.flow_iterations),
        ):
            if iterations:
                processes.require_alike(size)
        if config.data:
            return prepare_from(Path(config.data), folder, config.objects, watch)
        return prepare(folder, config.objects, watch)

    def step(self, i: int) -> dict[str, Tensor]:
        seed = self.seed * 1_000_003 + i
        torch.manual_seed(seed)  # what is drawn depends on nothing before
        draw = random.Random(seed)
        if i < self.config.encoder_iterations:
            return self._encoder_step(i, draw, seed)
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

    def _encoder_step(self, i: int, draw: random.Random, seed: int) -> dict[str, Tensor]:
        config = self.config
        _set_rate(self.optimiser, config.encoder_rate, i / config.encoder_iterations)
        chosen = [draw.randrange(len(self.clouds)) for _ in range(config.encoder_batch)]
        own = processes.share(torch.arange(len(chosen))).tolist()
        norms = [b for b in self.model.encoder.buffers() if b.is_floating_point()]  # what batch norms have seen
        before, after = [b.clone() for b in norms], [torch.zeros_like(b) for b in norms]
        found = torch.zeros(3)
        self.optimiser.zero_grad()
        for k in own:
            torch.manual_seed(seed + (k << 40))  # for each of its own: another process may draw for those before it
            label, fit, hit = self._encoder_loss(self._cloud(chosen[k]))
            ((label + config.fit * fit) / len(own)).backward()
            found += torch.stack([label, fit, hit]).detach() / len(own)
            for norm, was, total in zip(norms, before, after, strict=True):
                total += norm / len(own)
                norm.copy_(was)
        for norm, total in zip(norms, processes.mean(*after), strict=True):
            norm.copy_(total)
        self._descend(self.model.encoder)
        label, fit, hit = processes.mean(*found)
        return {"label": label, "fit": fit, "right": hit}

    def _encoder_loss(self, cloud: Cloud) -> tuple[Tensor, Tensor, Tensor]:
        """Of what is break, of what fits; and how much of the former is right."""
        config, encoder = self.config, self.model.encoder
        seen, broken_here = encoder(cloud, roma.random_rotmat(cloud.pieces)), (cloud.partner >= 0).float()
        label = dice(seen.break_logit, broken_here)
        if config.size == "cpu":  # small batches: the published loss alone is slow to begin
            label = label + 0.5 * binary_cross_entropy_with_logits(seen.break_logit, broken_here)
        fit = fit_loss(encoder, seen, cloud) if encoder.config.descriptor else torch.zeros(())
        return label, fit, ((seen.break_logit > 0) == (broken_here > 0)).float().mean()

    # ---------------------------------------------------------------------------------------- flow

    def _begin_flow(self) -> None:
        denoiser = self.model.denoiser
        assert denoiser is not None
        self.model.eval()
        if not self.model.verifier.linear.weight.any():
            if processes.writer():
                learn_joints(self.model, self.config.joint_objects)
            processes.take_over(self.model.verifier)
        denoiser.train()
        self.optimiser = torch.optim.AdamW(denoiser.parameters(), self.config.flow_rate, (0.9, 0.99), weight_decay=1e-4)
        self.average = {name: value.detach().clone() for name, value in denoiser.state_dict().items()}

    def _remember(self, index: int) -> Remembered:
        """What the encoder, which stays as it is from here on, says of an object."""
        if index not in self.seen:
            self.seen[index] = Remembered.of(self.model, self._cloud(index))
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
        own = processes.share(torch.arange(len(chosen)))
        batch, here = batch.select(own)
        said = denoiser(*batch.shown, t[here], r[here], batch.anchor, sigma[own], batch.tokens)
        (weight,) = processes.weights(here.sum())  # of fragments, of which objects have not equally many
        loss = weight * (said - velocity[here]).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self._descend(denoiser)
        keep = min(_AVERAGED, (i + 1) / (i + 10))
        with torch.no_grad():
            for name, value in denoiser.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)
        (loss,) = processes.mean(loss.detach())
        return {"flow": loss}

    def _descend(self, module: torch.nn.Module) -> None:
        processes.mean_of_gradients(self.optimiser)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        self.optimiser.step()

    # --------------------------------------------------------------------------------------- state

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return packed(self.model, getattr(self, "average", {}), self.optimiser), {}

    @classmethod
    def resume(
        cls, config: GarfConfig, clouds: list[Path], seed: int, tensors: dict[str, Tensor], plain: dict
    ) -> GarfTraining:
        training = cls(config, clouds, seed)
        model, average, optimiser = unpacked(tensors)
        training.model.load_state_dict(model)
        if average:
            training._begin_flow()
            training.average = average
        load_optimiser(training.optimiser, optimiser)
        return training


def _kept(config: GarfConfig) -> Garf | None:
    """The model whose encoder and verifier are kept, where one is."""
    if not config.start_from:
        return None
    other: Garf = load_model(config.start_from)
    if other.size != config.size:
        raise ConfigError(f"{config.start_from}: its size is {other.size}, not {config.size}.")
    return other


def _set_rate(optimiser: torch.optim.Optimizer, most: float, progress: float) -> None:
    """Up over the first twentieth, then down along half a cosine."""
    rise = min(1.0, progress / 0.05)
    fall = 0.5 + 0.5 * float(torch.cos(torch.tensor(torch.pi * max(0.0, (progress - 0.05) / 0.95))))
    for group in optimiser.param_groups:
        group["lr"] = most * max(rise * fall, 1e-3)
