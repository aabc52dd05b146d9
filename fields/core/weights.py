"""Weights of packed or batched samples along rays, and sums by them: the ops of volume rendering."""

from __future__ import annotations

import torch
from torch import Tensor

from fields.core import _backend
from fields.core._check import check_floating
from fields.core._op import op
from fields.core._ref import weights as _ref
from fields.core.pack import pack_info
from fields.errors import ShapeError


def _packing(like: Tensor, packed_info: Tensor | None, ray_indices: Tensor | None, n_rays: int | None) -> Tensor:
    """(rays, 2) begin and count of the samples of each ray, whichever way the caller described them."""
    if packed_info is not None:
        return packed_info.long().contiguous()
    if ray_indices is not None:
        if n_rays is None:
            n_rays = int(ray_indices[-1]) + 1 if ray_indices.numel() else 0
        return pack_info(ray_indices, n_rays)
    if like.dim() < 2:
        raise ShapeError(
            "Packed samples need packed_info, or ray_indices and n_rays; samples without are (…, n_samples)."
        )
    rays, per_ray = like.numel() // max(like.shape[-1], 1), like.shape[-1]
    begins = torch.arange(rays, device=like.device) * per_ray
    return torch.stack([begins, torch.full_like(begins, per_ray)], -1)


def render_weight_from_density(
    t_starts: Tensor,
    t_ends: Tensor,
    sigmas: Tensor,
    packed_info: Tensor | None = None,
    ray_indices: Tensor | None = None,
    n_rays: int | None = None,
    prefix_trans: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, transmittance and opacities of densities: α = 1 − exp(−σ·δ), T = exp(−Σ of σ·δ before), w = T·α.

    Args:
        t_starts, t_ends, sigmas: (n,) packed, or (…, n_samples).
        packed_info: (n_rays, 2) begin and count per ray; or
        ray_indices: (n,) ascending, with n_rays.
        prefix_trans: like sigmas, transmittance to multiply by (of what lies before).

    Returns:
        weights, transmittance, alphas, each like sigmas.
    Gradients: to t_starts, t_ends, sigmas (and prefix_trans), once.
    Raises:
        ShapeError: shapes that differ, or packed samples without their packing.
    """
    check_floating(sigmas=sigmas, t_starts=t_starts, t_ends=t_ends)
    if not t_starts.shape == t_ends.shape == sigmas.shape:
        raise ShapeError(
            f"t_starts {tuple(t_starts.shape)}, t_ends {tuple(t_ends.shape)} and sigmas {tuple(sigmas.shape)} must agree."
        )
    packed = _packing(sigmas, packed_info, ray_indices, n_rays)
    flat = [t.reshape(-1).contiguous() for t in (t_starts, t_ends, sigmas)]
    implementation = _ref.weights_from_density if _backend.use_reference(sigmas) else _from_density
    return _finish(implementation(*flat, packed), sigmas.shape, prefix_trans)  # type: ignore[call-arg]


def rises(values: Tensor, ray_indices: Tensor) -> Tensor:
    """By how much each sample lies above the one before it on its ray, if it does; the first of a ray, above 0.

    Of σ = softplus(s·d), d being the distance below a surface, the rises are the optical depths of NeuS (Wang, Liu, Liu, Theobalt,
    Komura, Wang: NeuS, 2021, eq. 10 and 13): what light is left is the logistic function of −s·d, at the deepest place so far. So a
    ray has lost half of it on the surface itself, from whatever angle it comes and however far apart its samples are; and rays
    that just touch it are half transparent.

    Args:
        values: (n,) packed samples.
        ray_indices: (n,) ascending.

    Gradients: to values.
    Raises:
        ShapeError: not one index per value.
    """
    _check_rays(values, ray_indices)
    return _ref.rises(values, ray_indices)


@torch.no_grad()
def crossings(levels: Tensor, ray_indices: Tensor) -> Tensor:
    """Where on the way from the sample before to each, from 0 to 1, light is lost in the mean, as by the `rises` of softplus(levels).

    In between the level is taken to rise evenly; a half where no light is lost, or nothing comes before.

    Args:
        levels: (n,) packed samples.
        ray_indices: (n,) ascending.

    Gradients: none.
    Raises:
        ShapeError: not one index per level.
    """
    _check_rays(levels, ray_indices)
    return _ref.crossings(levels, ray_indices)


def _check_rays(values: Tensor, ray_indices: Tensor) -> None:
    if values.dim() != 1 or values.shape != ray_indices.shape:
        raise ShapeError(f"Samples {tuple(values.shape)} and ray_indices {tuple(ray_indices.shape)} must be (n,).")


def render_weight_from_alpha(
    alphas: Tensor,
    packed_info: Tensor | None = None,
    ray_indices: Tensor | None = None,
    n_rays: int | None = None,
    prefix_trans: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weights and transmittance of opacities: T = Π of (1 − α) before, w = T·α.

    Args, returns: as `render_weight_from_density`, for opacities; without the opacities among the results.
    Gradients: to alphas (and prefix_trans), once; exact where an opacity is 1.
    """
    check_floating(alphas=alphas)
    packed = _packing(alphas, packed_info, ray_indices, n_rays)
    implementation = _ref.weights_from_alpha if _backend.use_reference(alphas) else _from_alpha
    weights, trans = implementation(alphas.reshape(-1).contiguous(), packed)
    weights, trans, _ = _finish((weights, trans, trans), alphas.shape, prefix_trans)
    return weights, trans


def _finish(results, shape: torch.Size, prefix_trans: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    weights, trans, alphas = (r.view(shape) for r in results)
    if prefix_trans is not None:
        weights, trans = weights * prefix_trans, trans * prefix_trans
    return weights, trans, alphas


def accumulate_along_rays(
    weights: Tensor, values: Tensor | None = None, ray_indices: Tensor | None = None, n_rays: int | None = None
) -> Tensor:
    """Sums weights · values over the samples of each ray.

    Args:
        weights: (n,) packed, or (n_rays, n_samples).
        values: (n, D), or (n_rays, n_samples, D); None stands for ones.
        ray_indices: (n,) ascending, with n_rays, for packed samples.

    Returns:
        (n_rays, D), or (n_rays, 1) without values. Rays without samples are zero.
    Gradients: to weights and values, once.
    Raises:
        ShapeError: values that do not match weights, or packed samples without their packing.
    """
    if values is not None and values.shape[:-1] != weights.shape:
        raise ShapeError(f"values must be {tuple(weights.shape)} + (D,), but are {tuple(values.shape)}.")
    packed = _packing(weights, None, ray_indices, n_rays)
    width = 1 if values is None else values.shape[-1]
    flat = None if values is None else values.reshape(-1, width).contiguous()
    implementation = _ref.accumulate if _backend.use_reference(weights) else _accumulate
    return implementation(weights.reshape(-1).contiguous(), flat, packed)


def accumulate_along_rays_(
    weights: Tensor, values: Tensor | None = None, ray_indices: Tensor | None = None, outputs: Tensor | None = None
) -> None:
    """`accumulate_along_rays`, added to `outputs` (n_rays, D) in place.

    Raises:
        ShapeError: as there, and without outputs of that shape.
    """
    if outputs is None or outputs.dim() != 2 or outputs.shape[1] != (1 if values is None else values.shape[-1]):
        raise ShapeError("outputs must be (n_rays, D), D that of values or 1.")
    outputs.add_(
        accumulate_along_rays(weights, values, ray_indices, outputs.shape[0] if ray_indices is not None else None)
    )


# ---------------------------------------------------------------------------------------- ops and their derivatives

_TEAM = 32  # GPU threads per ray
_WEIGHTS = ("sigmas", "t_starts", "t_ends", "given", "packed", "weights", "trans", "alphas", "grad_weights", "grad_trans",
            "grad_alphas", "grad_sigmas", "grad_lengths")  # fmt: skip


def _launch_weights(kernel: str, like: Tensor, **given) -> None:
    packed = given["packed"]
    _backend.launch(f"weights_{kernel}", packed.shape[0], like, 128, team=_TEAM, **(dict.fromkeys(_WEIGHTS) | given))


@op("weights_from_density")
def _from_density(t_starts: Tensor, t_ends: Tensor, sigmas: Tensor, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weights, trans, alphas = (torch.zeros_like(sigmas) for _ in range(3))
    _launch_weights("forward", sigmas, sigmas=sigmas, t_starts=t_starts, t_ends=t_ends, packed=packed, weights=weights,
                    trans=trans, alphas=alphas)  # fmt: skip
    return weights, trans, alphas


@op("weights_from_density_bwd")
def _from_density_bwd(
    grad_weights: Tensor | None,
    grad_trans: Tensor | None,
    grad_alphas: Tensor | None,
    t_starts: Tensor,
    t_ends: Tensor,
    sigmas: Tensor,
    packed: Tensor,
    weights: Tensor,
    trans: Tensor,
    alphas: Tensor,
) -> tuple[Tensor, Tensor]:
    grad_sigmas, grad_lengths = torch.zeros_like(sigmas), torch.zeros_like(sigmas)
    grads = {"grad_weights": grad_weights, "grad_trans": grad_trans, "grad_alphas": grad_alphas}
    grads = {name: None if g is None else g.contiguous() for name, g in grads.items()}
    _launch_weights("backward", sigmas, sigmas=sigmas, t_starts=t_starts, t_ends=t_ends, packed=packed, weights=weights,
                    trans=trans, alphas=alphas, grad_sigmas=grad_sigmas, grad_lengths=grad_lengths, **grads)  # fmt: skip
    return grad_sigmas, grad_lengths


@op("weights_from_alpha")
def _from_alpha(alphas: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
    weights, trans, copy = (torch.zeros_like(alphas) for _ in range(3))
    _launch_weights("forward", alphas, given=alphas, packed=packed, weights=weights, trans=trans, alphas=copy)
    return weights, trans


@op("weights_from_alpha_bwd")
def _from_alpha_bwd(
    grad_weights: Tensor | None, grad_trans: Tensor | None, alphas: Tensor, packed: Tensor, trans: Tensor
) -> Tensor:
    grad = torch.zeros_like(alphas)
    grads = {"grad_weights": grad_weights, "grad_trans": grad_trans}
    grads = {name: None if g is None else g.contiguous() for name, g in grads.items()}
    _launch_weights(
        "backward", alphas, given=alphas, alphas=alphas, packed=packed, trans=trans, grad_sigmas=grad, **grads
    )
    return grad


@op("accumulate")
def _accumulate(weights: Tensor, values: Tensor | None, packed: Tensor) -> Tensor:
    width = 1 if values is None else values.shape[1]
    out = weights.new_empty(packed.shape[0], width)
    _backend.launch("accumulate_forward", packed.shape[0], weights, 256, team=_TEAM, weights=weights, values=values, packed=packed,
                    out=out, grad=None, grad_weights=None, grad_values=None, width=width)  # fmt: skip
    return out


@op("accumulate_bwd")
def _accumulate_bwd(grad: Tensor, weights: Tensor, values: Tensor | None, packed: Tensor) -> tuple[Tensor, Tensor]:
    grad_weights = torch.zeros_like(weights)
    grad_values = None if values is None else torch.zeros_like(values)
    width = 1 if values is None else values.shape[1]
    _backend.launch("accumulate_backward", packed.shape[0], weights, 256, team=_TEAM, weights=weights, values=values, packed=packed,
                    out=None, grad=grad.contiguous(), grad_weights=grad_weights, grad_values=grad_values, width=width)  # fmt: skip
    return grad_weights, weights.new_empty(0) if grad_values is None else grad_values


_from_density.register_fake(lambda t_starts, t_ends, sigmas, packed: tuple(torch.empty_like(sigmas) for _ in range(3)))
_from_density_bwd.register_fake(lambda *inputs: (torch.empty_like(inputs[5]), torch.empty_like(inputs[5])))
_from_alpha.register_fake(lambda alphas, packed: (torch.empty_like(alphas), torch.empty_like(alphas)))
_from_alpha_bwd.register_fake(lambda *inputs: torch.empty_like(inputs[2]))


@_accumulate.register_fake
def _(weights, values, packed):
    return weights.new_empty(packed.shape[0], 1 if values is None else values.shape[1])


@_accumulate_bwd.register_fake
def _(grad, weights, values, packed):
    return torch.empty_like(weights), weights.new_empty(0) if values is None else torch.empty_like(values)


def _density_setup(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.moves = inputs[0].requires_grad
    ctx.save_for_backward(*inputs, *output)


def _density_backward(ctx, *grads):
    if all(g is None for g in grads):
        return None, None, None, None
    grad_sigmas, grad_lengths = _from_density_bwd(*grads, *ctx.saved_tensors)
    return -grad_lengths if ctx.moves else None, grad_lengths, grad_sigmas, None


def _alpha_setup(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _alpha_backward(ctx, *grads):
    return None if all(g is None for g in grads) else _from_alpha_bwd(*grads, *ctx.saved_tensors), None


def _accumulate_setup(ctx, inputs, output):
    weights, values, packed = inputs
    ctx.has_values = values is not None
    ctx.save_for_backward(weights, *([values] if ctx.has_values else []), packed)


def _accumulate_backward(ctx, grad):
    weights, *values, packed = ctx.saved_tensors
    grad_weights, grad_values = _accumulate_bwd(grad, weights, values[0] if values else None, packed)
    return grad_weights, grad_values if ctx.has_values else None, None


_from_density.register_autograd(_density_backward, setup_context=_density_setup)
_from_alpha.register_autograd(_alpha_backward, setup_context=_alpha_setup)
_accumulate.register_autograd(_accumulate_backward, setup_context=_accumulate_setup)
