"""Isotropic reflectances as the RGL database keeps them, which Mitsuba 3 and pbrt-v4 render and sample with no plug-in.

Dupuy and Jakob, An Adaptive Parameterization for Efficient Material Acquisition and Rendering, SIGGRAPH Asia 2018. For some directions to the eye, a square is
stretched over the half vectors, so that most of it is where most light is reflected: `vndf` is how densely. Even on the square are `rgb` and `spectra`; times `ndf`, of
the half vector, and divided by 4 `sigma`, of the direction to the eye, they are the reflectance times the cosine of the light. `luminance` is for drawing from the square.

Half vectors are at u = (√(2θh/π), φh/2π + ½), the turn φh counted from the direction to the eye.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fields.core import dense_sample
from fields.errors import DataError, ShapeError
from fields.neumadiff.angles import directions, half_difference
from fields.neumadiff.importance import LUMINANCE
from fields.neumadiff.tensor_file import read_tensor_file, write_tensor_file
from fields.neumadiff.warp import Warp

_ELEVATIONS = 24
"""Directions to the eye …"""
_LOWEST = 1.55
"""… up to this angle from the normal, in radians: beyond, the last is used."""
_HALF_VECTORS = (32, 128)
"""Turns and tilts that `vndf` is known at."""
_SQUARE = 48
_PROFILE = 512
"""Tilts that `ndf` is known at."""
_BROAD = 0.5
"""How much of the square is for all tilts alike, and not for where the highlight changes."""
WAVELENGTHS = tuple(range(420, 661, 20))
"""In nm. Beyond, spectra stay as they are."""
PRIMARIES = (
    (0.054, 0.030, 0.005, 0.000, 0.000, 0.000, 0.000, 0.000, 0.135, 0.797, 1.000, 1.000, 1.000),
    (0.000, 0.000, 0.000, 0.259, 0.747, 1.000, 1.000, 1.000, 0.793, 0.201, 0.000, 0.000, 0.000),
    (0.946, 0.970, 0.995, 0.741, 0.253, 0.000, 0.000, 0.000, 0.072, 0.002, 0.000, 0.000, 0.000),
)
"""Spectra of red, green and blue at the wavelengths, straight in between: of all that add up to one and are seen as the three sRGB primaries under D65
(CIE 1931), those that change least (after Mallett and Yuksel, EGSR 2019)."""


@dataclass(eq=False)
class Measured:
    """A material of the database: called with angles, it says how much light it reflects."""

    theta_i: Tensor
    """(E,) of the eye, ascending."""
    warp: Warp
    """Of E densities."""
    rgb: Tensor
    """(E, H, W, 3) on the square."""
    unit: Tensor
    """(K,) what they are to be multiplied by, at tilts of the half vector even in u."""
    area: Tensor
    """(K,) what they are to be divided by, at directions of the eye even in u."""

    def __call__(self, angles: Tensor) -> Tensor:
        """(1, N, 3) reflectance, 1/sr, at angles (N, 3), or (1, N, 3); zero where the light is below the surface."""
        angles = angles.view(-1, 3)
        light, eye = directions(angles.double())
        elevation = torch.acos(eye[:, 2].clamp(-1, 1))
        right = torch.searchsorted(self.theta_i, elevation).clamp(1, len(self.theta_i) - 1)
        low, high = self.theta_i[right - 1], self.theta_i[right]
        which = right - 1 + ((elevation - low) / (high - low)).clamp(0, 1)
        tilt = (angles[:, 0].double() * (2 / torch.pi)).clamp(0, 1).sqrt()
        turn = (0.5 - torch.atan2(eye[:, 1], eye[:, 0]) / (2 * torch.pi)) % 1
        x, y = self.warp.invert(torch.stack([tilt, turn], -1), which).unbind(-1)
        place = torch.stack([which * (2 / (len(self.theta_i) - 1)) - 1, 2 * y - 1, 2 * x - 1], -1)
        unit = _interpolated(self.unit, tilt) / _interpolated(
            self.area, (elevation * (2 / torch.pi)).clamp(0, 1).sqrt()
        )
        value = dense_sample(place.float(), self.rgb) * unit[:, None] / light[:, 2:].clamp(min=1e-9)
        return torch.where(light[:, 2:] > 0, value, 0.0).to(angles)[None]


def read_rgl(path: Path, device: torch.device | str = "cpu") -> Measured:
    """The isotropic material of a `.bsdf` file that has colours.

    Raises:
        DataError: no such file, another kind of file, a damaged one, one of spectra only, or one of an anisotropic material.
    """
    arrays = read_tensor_file(path)
    fix = "Give the _rgb.bsdf file of an isotropic material."
    if "rgb" not in arrays:
        raise DataError(f"{path}: has no colours, but {', '.join(arrays) or 'nothing'}. {fix}")
    dimensions = {"theta_i": 1, "phi_i": 1, "sigma": 2, "ndf": 2, "vndf": 4, "rgb": 5, "jacobian": 1}
    for name, count in dimensions.items():
        array = arrays.get(name, np.zeros(()))
        if array.ndim != count or not array.size or not np.isfinite(array).all():
            raise DataError(f"{path}: its {name} is missing or damaged. Fetch it again.")
    theta_i, phi_i, sigma, ndf, vndf, rgb, jacobian = (arrays[name] for name in dimensions)
    if len(phi_i) > 2:
        raise DataError(f"{path}: an anisotropic material, with {len(phi_i)} turns of the eye. {fix}")
    size = (len(phi_i), len(theta_i))
    whole = vndf.shape[:2] == size and rgb.shape[:3] == (*size, 3)
    if not whole or min(len(theta_i), sigma.shape[1], ndf.shape[1], *vndf.shape[2:], *rgb.shape[3:]) < 2:
        raise DataError(f"{path}: its arrays do not fit each other. Fetch it again.")
    if (np.diff(theta_i) <= 0).any() or (vndf < 0).any() or (vndf[0].sum((1, 2)) <= 0).any() or (sigma <= 0).any():
        raise DataError(f"{path}: directions that do not ascend, or densities that are not positive. Fetch it again.")

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.float64)).to(device)

    unit, area = tensor(ndf.mean(0)), 4 * tensor(sigma.mean(0))
    if not jacobian[0]:
        unit, area = torch.ones_like(unit), torch.ones_like(area)
    colours = tensor(rgb[0]).movedim(1, -1).float().contiguous()
    return Measured(tensor(theta_i), Warp(tensor(vndf[0])), colours, unit, area)


def write_rgl(
    path: Path, reflectance: Callable[[Tensor], Tensor], description: str = "", device: torch.device | str = "cpu"
) -> None:
    """Writes any reflectance of one material as a `.bsdf` file: with spectra for renderers, and colours for whoever reads them.

    Args:
        reflectance: angles (N, 3) → (1, N, 3), 1/sr; evaluated on `device`.

    Raises:
        DataError: reflectances that are not finite.
    """

    def evaluate(angles: Tensor) -> Tensor:
        with torch.no_grad():
            found = reflectance(angles.view(-1, 3).float().to(device))
        if found.ndim != 3 or len(found) != 1:
            raise ShapeError(f"A .bsdf file is of one material, (1, N, 3), not {tuple(found.shape)}.")
        if not found.isfinite().all():
            raise DataError(f"{path}: was not written, for not all reflectances are finite. Look at the material.")
        return found[0].cpu().double().clamp(min=0).view(*angles.shape[:-1], 3)

    u = torch.linspace(0, 1, _PROFILE, dtype=torch.float64)
    lobe = _lobe(evaluate, u)
    placed = _placed(lobe, u)

    theta_i = torch.linspace(0, _LOWEST, _ELEVATIONS, dtype=torch.float64)
    eye = torch.stack([theta_i.sin(), torch.zeros_like(theta_i), theta_i.cos()], -1)[:, None, None]
    turn, tilt = (torch.linspace(0, 1, n, dtype=torch.float64) for n in _HALF_VECTORS)
    grid = torch.stack(torch.meshgrid(turn, tilt, indexing="ij")[::-1], -1)
    # Mirrors that face the eye more are seen more often; but of each tilt as many as of all.
    facing = (eye * _half_vector(grid)).sum(-1).clamp(min=0)
    vndf = _interpolated(placed, grid[..., 0]) * facing / _mean_facing(eye, grid[..., 0])
    vndf = vndf + 1e-6 * vndf.mean((1, 2), keepdim=True)

    where = Warp(vndf).sample(torch.linspace(0, 1, _SQUARE, dtype=torch.float64))
    half = _half_vector(where)
    light = 2 * (eye * half).sum(-1, keepdim=True) * half - eye
    seen = evaluate(half_difference(light, eye.expand_as(light))) * light[..., 2:].clamp(min=0)
    # What is seen of a piece of the square, whose size among directions to the light is 8π² u sin θh (eye · h) / vndf.
    size = (
        where[..., 0]
        * (half[..., :2].norm(dim=-1))
        * _mean_facing(eye, where[..., 0])
        / _interpolated(placed, where[..., 0])
    )
    luminance = seen @ seen.new_tensor(LUMINANCE) * size
    luminance = luminance + 1e-3 * luminance.mean((1, 2), keepdim=True) + 1e-12
    rgb = seen / _interpolated(lobe, where[..., 0])[..., None]
    spectra = rgb @ rgb.new_tensor(PRIMARIES)
    arrays = {
        "theta_i": theta_i, "phi_i": torch.zeros(1), "sigma": torch.full((2, 2), 0.25), "ndf": lobe.expand(2, -1), "vndf": vndf[None],
        "luminance": luminance[None], "rgb": rgb.movedim(-1, 1)[None], "spectra": spectra.movedim(-1, 1)[None],
        "wavelengths": torch.tensor(WAVELENGTHS),
    }  # fmt: skip
    plain = {name: array.numpy().astype(np.float32) for name, array in arrays.items()}
    text = np.frombuffer(description.encode() or b" ", np.uint8)
    write_tensor_file(path, plain | {"description": text, "jacobian": np.ones(1, np.uint8)})


def _lobe(evaluate: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """(K,) what is reflected at tilts of the half vector: what differs less, divided by it, is better interpolated."""
    tilt = u.square() * (torch.pi / 2)
    # Across the highlight, light and eye stay above the surface.
    across = torch.stack([torch.stack([tilt, torch.full_like(u, d), torch.full_like(u, torch.pi / 2)], -1) for d in (0.1, 0.5, 1.0)])  # fmt: skip
    lobe = (evaluate(across) @ u.new_tensor(LUMINANCE)).mean(0)
    return lobe + 1e-6 * lobe.amax() + 1e-6


def _placed(lobe: Tensor, u: Tensor) -> Tensor:
    """(K,) how densely tilts are placed: partly where the lobe changes by the largest part, partly so that all angles have as much."""
    change = torch.gradient(lobe.log())[0].abs()
    return torch.lerp(change / change.mean().clamp(min=1e-9), 2 * u, _BROAD).clamp(min=1e-9)


def _mean_facing(eye: Tensor, u: Tensor) -> Tensor:
    """(E, …) cosines between directions to the eye, (E, …, 3), and half vectors that they see, in the mean over all turns of a tilt u."""
    tilt = u.square() * (torch.pi / 2)
    along, across = eye[..., 2] * tilt.cos(), eye[..., 0] * tilt.sin()
    most = (-along / across.clamp(min=1e-12)).clamp(-1, 1).acos()  # the turn up to which they are seen
    return ((along * most + across * most.sin()) / torch.pi).clamp(min=1e-9)


def _interpolated(profile: Tensor, u: Tensor) -> Tensor:
    place = u * (len(profile) - 1)
    left = place.long().clamp(0, len(profile) - 2)
    return torch.lerp(profile[left], profile[left + 1], place - left)


def _half_vector(u: Tensor) -> Tensor:
    """(…, 3) unit, where the eye leans towards x."""
    tilt, turn = u[..., 0].square() * (torch.pi / 2), (2 * u[..., 1] - 1) * torch.pi
    return torch.stack([tilt.sin() * turn.cos(), tilt.sin() * turn.sin(), tilt.cos()], -1)
