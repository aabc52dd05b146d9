"""Drawing directions about as often as a reflectance sends light there.

A part of the directions is drawn as the cosine: as much as the reflectance is diffuse. The rest is drawn in the half vector: its angle from the normal from a table of what the
reflectance has beyond that, its turn about the normal evenly among those that reflect above the horizon, which are φ ≤ acos(−cot θo cot 2θh), off the plane of the eye. So no draw is lost,
and the density is known in closed form and integrates to one. With the tables of several directions of the eye, what lies between is drawn from one or the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fields.neumadiff.angles import Reflectance, half_difference
from fields.neumadiff.energy import gauss_legendre, stretched, unstretched

ROWS = 9
"""Directions of the eye that have tables: even in the cosine, from the normal to the horizon."""
BINS = 64
"""Of θh, from the normal to the last that reflects above the horizon, `stretched`. A power of two."""
LUMINANCE = (0.2126, 0.7152, 0.0722)
_LEAST = 0.1
"""Part drawn as the cosine at least: nothing weighs more than ten times as much as it then would."""
_DIFFUSE = 0.3
"""Which of the values in one direction of the eye is taken for the diffuse part: three in ten, by their cosines, are below."""
_POINTS, _TURNS = 2, 24  # within a bin of θh, and about the normal


@dataclass
class Sampler:
    """Draws directions to the light of one reflectance."""

    diffuse: Tensor
    """(ROWS,) part drawn as the cosine."""
    cumulative: Tensor
    """(ROWS, BINS + 1) probability that θh is below each edge of the bins, of the rest."""

    @staticmethod
    @torch.no_grad()
    def of(reflectance: Reflectance, device: torch.device | str = "cpu") -> Sampler:
        """Looks at a reflectance, of one material, in thirty thousand pairs of directions."""
        angles, measure = _pairs()
        weights = torch.tensor(LUMINANCE, dtype=torch.float64)
        values = (reflectance(angles.view(-1, 3).float().to(device))[0].double().cpu() @ weights).view_as(measure)
        diffuse = _quantile(values.flatten(1), measure.flatten(1), _DIFFUSE)
        # Integrals of f cos: of the diffuse part over the hemisphere, and of the rest over each bin.
        base = torch.pi * diffuse
        rest = ((values - diffuse[:, None, None]).clamp(min=0) * measure).sum(2)
        part = torch.where(rest.sum(1) > 0, base / (base + rest.sum(1)), 1.0).clamp(min=_LEAST)
        chance = rest / rest.sum(1, keepdim=True).clamp(min=1e-300)
        cumulative = torch.nn.functional.pad(chance.cumsum(1), (1, 0))
        cumulative[:, -1] = 1
        return Sampler(part.float().to(device), cumulative.float().to(device))

    def sample(self, wo: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Directions to the light wi, and their density.

        Args:
            wo: (N, 3) unit, to the eye, above the surface, whose normal is z.
            u: (N, 3) in [0, 1).

        Returns:
            (N, 3) unit, and (N,) 1/sr; where rounding leads below the surface, the density is 0.
        """
        row, part, diffuse = self._rows(wo[:, 2])
        # What is left of the first number says which of two rows the half vector is drawn from.
        left = (u[:, 0] - diffuse) / (1 - diffuse)
        upper = part * (1 - self.diffuse[row + 1]) / (1 - diffuse)
        reflected = self._reflected(wo, u[:, 1:], row + (left < upper))
        wi = torch.where((left < 0)[:, None], _cosine(u[:, 1:]), reflected)
        return wi, self.pdf(wi, wo)

    def pdf(self, wi: Tensor, wo: Tensor) -> Tensor:
        """(N,) density, 1/sr, with which `sample` draws wi (N, 3) where the eye is at wo (N, 3); 0 below the surface."""
        row, part, diffuse = self._rows(wo[:, 2])
        half = torch.nn.functional.normalize(wi + wo, dim=-1)
        towards = (half * wo).sum(-1)
        theta = torch.atan2(torch.hypot(half[:, 0], half[:, 1]), half[:, 2])
        last = _last(wo[:, 2])
        bin = (unstretched(theta / last) * BINS).long().clamp(0, BINS - 1)
        below, above = self._chances(row, bin), self._chances(row + 1, bin)
        start, end = (_versine(last * edge(b)) for b in (bin, bin + 1))
        ring = (end - start) * 2 * _widest(theta, wo[:, 2])
        lobe = torch.lerp(below, above, part) / (4 * towards * ring).clamp(min=1e-20)
        seen = (wi[:, 2] > 0) & (wo[:, 2] > 0)
        return torch.where(seen, diffuse * wi[:, 2] / torch.pi + lobe, 0.0)

    def _rows(self, cosine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the eye: the row before, how far on to the next, and the part that is drawn as the cosine."""
        at = (1 - cosine.clamp(0, 1)) * (ROWS - 1)
        row = at.long().clamp(max=ROWS - 2)
        return row, at - row, torch.lerp(self.diffuse[row], self.diffuse[row + 1], at - row)

    def _chances(self, row: Tensor, bin: Tensor) -> Tensor:
        """That θh is in a bin, and was not drawn as the cosine."""
        return (1 - self.diffuse[row]) * (self.cumulative[row, bin + 1] - self.cumulative[row, bin])

    def _reflected(self, wo: Tensor, u: Tensor, row: Tensor) -> Tensor:
        """(N, 3): the eye mirrored in half vectors drawn from rows of the table."""
        bin = torch.zeros_like(row)
        for step in (BINS >> k for k in range(1, BINS.bit_length())):
            bin = torch.where(self.cumulative[row, bin + step] <= u[:, 0], bin + step, bin)
        low, high = self.cumulative[row, bin], self.cumulative[row, bin + 1]
        last = _last(wo[:, 2])
        start, end = (_versine(last * edge(b)) for b in (bin, bin + 1))
        versine = torch.lerp(start, end, ((u[:, 0] - low) / (high - low)).clamp(0, 1))
        sine, cosine = (versine * (2 - versine)).sqrt(), 1 - versine
        turn = (2 * u[:, 1] - 1) * _widest(torch.atan2(sine, cosine), wo[:, 2])
        along = torch.hypot(wo[:, 0], wo[:, 1])
        x, y = torch.where(along > 0, wo[:, 0] / along, 1.0), torch.where(along > 0, wo[:, 1] / along, 0.0)
        ahead, aside = sine * turn.cos(), sine * turn.sin()
        half = torch.stack([ahead * x - aside * y, ahead * y + aside * x, cosine], -1)
        return 2 * (half * wo).sum(-1, keepdim=True) * half - wo


def edge(bin: Tensor) -> Tensor:
    """Where bins of θh begin, as a part of the `_last`."""
    return stretched(bin / BINS)


def _last(cosine: Tensor) -> Tensor:
    """The largest θh that reflects the eye above the horizon."""
    return torch.pi / 4 + cosine.clamp(-1, 1).acos() / 2


def _widest(theta: Tensor, cosine: Tensor) -> Tensor:
    """The largest turn of the half vector off the plane of the eye that reflects it above the horizon: of θh and the cosine of the eye."""
    sine = (1 - cosine * cosine).clamp(min=0).sqrt()
    across = (sine * (2 * theta).sin()).clamp(min=1e-12)
    return (-cosine * (2 * theta).cos() / across).clamp(-1, 1).acos()


def _versine(theta: Tensor) -> Tensor:
    """1 − cos θ, exact to the last digits where θ is small; on a sphere, what areas of rings are even in."""
    return 2 * (theta / 2).sin().square()


def _cosine(u: Tensor) -> Tensor:
    """(N, 3) directions of density cos/π."""
    radius, turn = u[:, 0].sqrt(), 2 * torch.pi * u[:, 1]
    return torch.stack([radius * turn.cos(), radius * turn.sin(), (1 - u[:, 0]).sqrt()], -1)


def _pairs() -> tuple[Tensor, Tensor]:
    """Angles (ROWS, BINS, P, 3), where the eye is that of the row and θh in the bin, and the cosine times the solid angle of the light they stand for."""
    cosine = torch.linspace(1, 0, ROWS, dtype=torch.float64)[:, None, None, None]
    bins = torch.arange(BINS, dtype=torch.float64)[:, None, None]
    (points, thick), (turns, wide) = (gauss_legendre(n) for n in (_POINTS, _TURNS))
    start, end = (_versine(_last(cosine) * edge(b)) for b in (bins, bins + 1))
    height = 1 - torch.lerp(start, end, points[:, None])
    theta = height.acos()
    widest = _widest(theta, cosine)
    turn = widest * (2 * turns - 1)
    half = torch.stack(torch.broadcast_tensors(theta.sin() * turn.cos(), theta.sin() * turn.sin(), height), -1)
    eye = torch.stack([(1 - cosine * cosine).sqrt(), torch.zeros_like(cosine), cosine], -1)
    towards = (half * eye).sum(-1)
    light = 2 * towards[..., None] * half - eye
    measure = 4 * towards * light[..., 2].clamp(min=0) * (end - start) * thick[:, None] * 2 * widest * wide
    return half_difference(light, eye.expand_as(light)).float().flatten(2, 3), measure.flatten(2)


def _quantile(values: Tensor, weights: Tensor, part: float) -> Tensor:
    """(R,) of values (R, N): below it are such a part of the weights."""
    values, order = values.sort(1)
    reached = weights.gather(1, order).cumsum(1)
    at = (reached < part * reached[:, -1:]).sum(1, keepdim=True)
    return values.gather(1, at)[:, 0]
