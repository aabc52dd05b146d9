"""How far materials are from each other, and how well a set of drawn ones stands for a set of real ones.

Materials are compared by their reflectances at fixed angles, or by pictures of them. Sets are compared by distances alone, as point clouds are
(Achlioptas et al., ICML 2018; Yang et al., ICCV 2019). What is not finite is at an infinite distance from everything.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from fields.neumadiff.angles import cosines
from fields.neumadiff.network import MERL_UNITS

# ------------------------------------------------------------------------------------ reflectances

_COUNT = 4096
_ON_THE_SURFACE = 1_111_432 / 1_458_000  # of MERL's bins: the others hold nothing, and count in its means
_BINS = torch.tensor([90, 90, 180])


@functools.cache
def measuring_angles() -> Tensor:
    """(4096, 3) at which reflectances are compared: the first half are bins of MERL's tables, every one as likely as the next, which is dense
    where highlights are; the others are even in all three angles. Always the same, and all of directions above the surface."""
    even = torch.quasirandom.SobolEngine(3).draw(4 * _COUNT, dtype=torch.float64)
    bins = (even * _BINS).floor() / _BINS  # their lower edges, which is where MERL's own reader has them
    quarter = math.pi / 2
    in_bins = torch.stack([bins[:, 0] ** 2 * quarter, bins[:, 1] * quarter, bins[:, 2] * math.pi], 1)
    angles = [in_bins, even * torch.tensor([quarter, quarter, 2 * math.pi])]
    above = [a[torch.stack(cosines(a)).amin(0) > 0][: _COUNT // 2] for a in angles]
    return torch.cat(above).float()


def _cosine(values: Tensor) -> Tensor:
    return cosines(measuring_angles().to(values))[0][:, None]


def _raw(values: Tensor) -> Tensor:
    """Of the bins alone, as MERL's files store it."""
    return values[:, : _COUNT // 2] / torch.tensor(MERL_UNITS).to(values)


def _mean(terms: Tensor, share: float = 1.0) -> Tensor:
    """(A, F), so that sums of differences are means of them."""
    return terms.flatten(1) * (share / terms[0].numel())


REFLECTANCE: dict[str, Callable[[Tensor], Tensor]] = {
    "log1p-cos": lambda v: _mean(torch.log1p(v * _cosine(v))),
    "log-cos (paper)": lambda v: _mean(torch.log(1.1 + _raw(v) * _cosine(v)[: _COUNT // 2]), _ON_THE_SURFACE),
    "log (paper)": lambda v: _mean(torch.log(1.1 + _raw(v)), _ON_THE_SURFACE),
    "L1 (paper)": lambda v: _mean(_raw(v), _ON_THE_SURFACE),
}
"""What of reflectances (A, 4096, 3) at `measuring_angles` is compared, (A, F). The first is the one to go by: in physical units, where a mirror
does not outweigh everything. Those of the paper are means over the bins of a table, in MERL's raw units."""


def reflectance_distances(some: Tensor, others: Tensor, measure: str = "log1p-cos") -> Tensor:
    """(A, B) mean absolute differences of what is compared, see `REFLECTANCE`, of reflectances (A, 4096, 3) and (B, 4096, 3)."""
    return torch.cdist(REFLECTANCE[measure](some), REFLECTANCE[measure](others), p=1).nan_to_num(math.inf, math.inf)


# ------------------------------------------------------------------------------------ pictures

_ROUNDING = 1 / (12 * 255**2)  # mean squared error of 8 bits


def nrmse(some: Tensor, references: Tensor) -> Tensor:
    """Of pictures (A, H, W, 3) and (B, H, W, 3) the (A, B) norms of differences, over the norm of the reference."""
    return _apart(some, references) / references.flatten(1).norm(dim=1)


def negative_psnr(some: Tensor, others: Tensor) -> Tensor:
    """(A, B) dB. Pictures in [0, 1] are of 8 bits: those that differ by less than rounding does, do not differ."""
    return 10 * (_apart(some, others).square() / some[0].numel()).clamp(min=_ROUNDING).log10()


def dissimilarity(some: Tensor, others: Tensor) -> Tensor:
    """(A, B) of 1 − SSIM, in even windows of three pixels as the paper has them, over channels."""
    one, other = (v.permute(0, 3, 1, 2) for v in (some, others))
    mean = avg_pool2d(other, 3, 1)
    spread = avg_pool2d(other * other, 3, 1) - mean * mean
    rows = []
    for picture in one:
        own = avg_pool2d(picture, 3, 1)
        own_spread = avg_pool2d(picture * picture, 3, 1) - own * own
        common = avg_pool2d(picture * other, 3, 1) - own * mean
        # Of nine pixels, variances are 9/8 of the mean square.
        similar = (2 * own * mean + 1e-4) * (9 / 4 * common + 9e-4)
        similar /= (own * own + mean * mean + 1e-4) * (9 / 8 * (own_spread + spread) + 9e-4)
        rows.append(1 - similar.flatten(1).mean(1))
    return torch.stack(rows).nan_to_num(math.inf, math.inf)


def ciede2000(some: Tensor, others: Tensor) -> Tensor:
    """(A, B) mean differences of colour between sRGB pictures, at one pixel of sixteen, those that are black in all left out."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    one, other = (v[:, 2::4, 2::4].flatten(1, 2) for v in (some, others))
    lit = (torch.cat([one, other]) != 0).any(-1).any(0)
    one, other = (rgb2lab(v[:, lit].double().cpu().numpy()) for v in (one, other))
    rows = [torch.from_numpy(deltaE_ciede2000(lab[None], other)).mean(1) for lab in one]
    return torch.stack(rows).to(some).nan_to_num(math.inf, math.inf)


def _apart(some: Tensor, others: Tensor) -> Tensor:
    return torch.cdist(some.flatten(1), others.flatten(1)).nan_to_num(math.inf, math.inf)


PICTURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "NRMSE": nrmse, "−PSNR": negative_psnr, "1 − SSIM": dissimilarity, "ΔE 2000": ciede2000,
}  # fmt: skip
"""Distances (A, B) between pictures in [0, 1]: sRGB, of one shape in one light."""


# ------------------------------------------------------------------------------------ sets


@dataclass(frozen=True)
class Comparison:
    """How samples stand for references."""

    mmd: float
    """Mean distance from each reference to the nearest sample; lower is better. Alone it does not see samples that are like no reference."""
    coverage: float
    """Share of the references that are the nearest one of some sample; higher is better. Alone it does not see how near."""
    accuracy: float
    """1-NNA: how often an item's nearest neighbour among all others is of its own set. ½ is ideal: nobody can tell them apart. Of the
    same items twice it is 0."""
    accuracy_references: float
    accuracy_samples: float
    failed: float
    """Share of samples that are not finite. They cover nothing and are always told apart."""


def compare(references: Tensor, cross: Tensor, samples: Tensor) -> Comparison:
    """Of distances (R, R), (R, S) and (S, S)."""
    failed = cross.isinf().all(0)
    covered = cross[:, ~failed].argmin(0).unique()
    of_references, of_samples = _recognised(references, cross), _recognised(samples, cross.T)
    return Comparison(
        mmd=float(cross.amin(1).mean()),
        coverage=len(covered) / len(cross),
        accuracy=float(torch.cat([of_references, of_samples]).mean()),
        accuracy_references=float(of_references.mean()),
        accuracy_samples=float(of_samples.mean()),
        failed=float(failed.float().mean()),
    )


def _recognised(own: Tensor, cross: Tensor) -> Tensor:
    """(N,) 1 where the nearest neighbour is of the own set, 0 where of the other, ½ where both are as near."""
    mine, theirs = _without_itself(own, torch.arange(len(own))).amin(1), cross.amin(1)
    recognised = torch.where(mine == theirs, 0.5, (mine < theirs).double())
    return torch.where(cross.isinf().all(1), 1.0, recognised)


def _without_itself(distances: Tensor, which: Tensor) -> Tensor:
    distances = distances.clone()
    distances[torch.arange(len(which)), which] = math.inf
    return distances


def spacing(distances: Tensor, which: Tensor) -> float:
    """The median distance to the nearest other training row, of distances (K, T) from rows `which` (K,) to all: what is typical."""
    return float(_without_itself(distances, which).amin(1).median())


@dataclass(frozen=True)
class Novelty:
    """How far samples are from what was learned from."""

    nearest: Tensor
    """(S,) distance of each to the nearest training row."""
    row: Tensor
    """(S,) which that is."""
    ratio: Tensor
    """(S,) that distance over the training rows' `spacing`: well below 1 is a copy."""


def novelty(to_training: Tensor, typical: float) -> Novelty:
    """Of distances (S, T) from samples to training rows, and the training rows' `spacing`."""
    nearest, row = to_training.min(1)
    return Novelty(nearest, row, nearest / typical)
