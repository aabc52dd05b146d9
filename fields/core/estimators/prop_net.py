"""Sampling where a cascade of small proposal networks expects to see something (Mip-NeRF 360, Barron et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fields.core.data_specs import RayIntervals
from fields.core.pdf import importance_sampling, searchsorted
from fields.core.volrend import render_transmittance_from_density
from fields.errors import ShapeError


class PropNetEstimator(nn.Module):
    """Resamples rays by the transmittance of proposal networks, and trains those to bound the final one.

    Args:
        optimizer: of the proposal networks' parameters; needed to train them by `update_every_n_steps`.
        scheduler: of their learning rate, stepped with every update.
    """

    _place: Tensor

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    ) -> None:
        super().__init__()
        self.optimizer, self.scheduler = optimizer, scheduler
        self.prop_cache: list[tuple[RayIntervals, Tensor | None]] = []
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        return self._place.device

    @torch.no_grad()
    def sampling(
        self,
        prop_sigma_fns: Sequence[Callable[[Tensor, Tensor], Tensor]],
        prop_samples: Sequence[int],
        num_samples: int,
        n_rays: int,
        near_plane: float,
        far_plane: float,
        sampling_type: Literal["uniform", "lindisp"] = "lindisp",
        stratified: bool = False,
        requires_grad: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Samples of every ray, ever denser where the proposals see something.

        Args:
            prop_sigma_fns: densities (n_rays, s) of t_starts and t_ends (n_rays, s), from coarse to fine.
            prop_samples: samples each of them is asked for.
            num_samples: samples in the end.
            sampling_type: strata even in distance, or in its inverse (near_plane > 0).
            requires_grad: remember the proposals, for `compute_loss`.

        Returns:
            t_starts, t_ends, each (n_rays, num_samples).
        Gradients: none to the distances; with `requires_grad`, the loss has them to the proposal networks.
        Raises:
            ShapeError: numbers of functions and samples that differ, densities of a wrong shape, or planes that
                `sampling_type` cannot use.
        """
        if len(prop_sigma_fns) != len(prop_samples):
            raise ShapeError(f"{len(prop_sigma_fns)} proposal functions, but {len(prop_samples)} numbers of samples.")
        if not near_plane < far_plane or (sampling_type == "lindisp" and near_plane <= 0):
            raise ShapeError(f"{sampling_type} sampling cannot use the planes {near_plane} and {far_plane}.")
        cdfs = torch.tensor([0.0, 1.0], device=self.device).expand(n_rays, 2).contiguous()
        intervals = RayIntervals(cdfs)
        for density, samples in zip(prop_sigma_fns, prop_samples, strict=True):
            intervals, _ = importance_sampling(intervals, cdfs, samples, stratified)
            t_starts, t_ends = _distances(intervals.vals, near_plane, far_plane, sampling_type)
            with torch.set_grad_enabled(requires_grad):
                sigmas = density(t_starts, t_ends)
                if sigmas.shape != t_starts.shape:
                    raise ShapeError(f"Densities must be {tuple(t_starts.shape)}, not {tuple(sigmas.shape)}.")
                cdfs = _distribution(render_transmittance_from_density(t_starts, t_ends, sigmas)[0])
            if requires_grad:
                self.prop_cache.append((intervals, cdfs))
        intervals, _ = importance_sampling(intervals, cdfs, num_samples, stratified)
        if requires_grad:
            self.prop_cache.append((intervals, None))
        return _distances(intervals.vals, near_plane, far_plane, sampling_type)

    @torch.enable_grad()
    def compute_loss(self, trans: Tensor, loss_scaler: float = 1.0) -> Tensor:
        """How far the remembered proposals fail to bound the final weights (Mip-NeRF 360, equation 13).

        Args:
            trans: (n_rays, num_samples) transmittance of the final samples; it gets no gradient.
            loss_scaler: factor.

        Returns:
            A scalar; zero where nothing is remembered.
        Gradients: to the proposal networks. The memory is emptied.
        """
        loss = torch.zeros((), device=self.device)
        if not self.prop_cache:
            return loss
        intervals, _ = self.prop_cache.pop()
        weights = _distribution(trans.detach()).diff(dim=-1)
        while self.prop_cache:
            proposal, cdfs = self.prop_cache.pop()
            assert cdfs is not None
            left, right = searchsorted(proposal, intervals)
            bound = cdfs.gather(-1, right[..., 1:]) - cdfs.gather(-1, left[..., :-1])
            loss = loss + ((weights - bound).clamp(min=0) ** 2 / (weights + 1e-7)).mean()
        return loss * loss_scaler

    def update_every_n_steps(self, trans: Tensor, requires_grad: bool = False, loss_scaler: float = 1.0) -> float:
        """Trains the proposal networks by one step where `requires_grad`; the scheduler steps in any case.

        Returns:
            The loss, 0 without a step.
        Raises:
            RuntimeError: a step is asked for, but there is no optimizer.
        """
        loss = 0.0
        if requires_grad:
            if self.optimizer is None:
                raise RuntimeError("PropNetEstimator was made without an optimizer, so it cannot train proposals.")
            value = self.compute_loss(trans, loss_scaler)
            self.optimizer.zero_grad()
            value.backward()
            self.optimizer.step()
            loss = float(value.detach())
        if self.scheduler is not None:
            self.scheduler.step()
        return loss


def get_proposal_requires_grad_fn(target: float = 5.0, num_steps: int = 1000) -> Callable[[int], bool]:
    """Whether a training step should train the proposals: always at first, once in `target` + 1 steps from `num_steps` on."""
    waited = 0

    def requires_grad(step: int) -> bool:
        nonlocal waited
        due = waited > min(step / num_steps, 1.0) * target
        waited = 1 if due else waited + 1
        return due

    return requires_grad


def _distribution(trans: Tensor) -> Tensor:
    """Cumulative distribution at the edges of intervals, from the transmittance at their beginnings."""
    return 1 - torch.cat([trans, torch.zeros_like(trans[..., :1])], -1)


def _distances(s: Tensor, near: float, far: float, sampling_type: str) -> tuple[Tensor, Tensor]:
    """Beginnings and ends of intervals with edges s in [0, 1]."""
    if sampling_type == "uniform":
        t = near + s * (far - near)
    elif sampling_type == "lindisp":
        t = 1 / (s / far + (1 - s) / near)
    else:
        raise ShapeError(f"sampling_type is {sampling_type!r}; it can be 'uniform' or 'lindisp'.")
    return t[..., :-1], t[..., 1:]
