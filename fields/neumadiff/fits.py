"""Published fits of analytic models to the MERL materials, as reflectances: the tables of https://github.com/bsdfbenchmark/bbm.

Ngan, Durand and Matusik, Experimental Analysis of BRDF Models, EGSR 2005; Low, Kronander, Ynnerman and Unger, BRDF Models for Accurate and Efficient Rendering of
Glossy Surfaces, TOG 2012; Bagher, Soler and Holzschuch, Accurate Fitting of Measured Reflectances Using a Shifted Gamma Micro-facet Distribution, EGSR 2012.

A line of a table is one material, a Lambertian part and a model's:

    nickel = Aggregate(Lambertian(albedo = [0.1, 0.1, 0.1]), NganWard(albedo = [0.2, 0.2, 0.2], roughness = 0.05))
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace as Parameters

import torch
from torch import Tensor

from fields.errors import DataError
from fields.neumadiff.angles import cosines
from fields.neumadiff.network import MERL_UNITS

_LINE = re.compile(r"(\S+) = Aggregate\(Lambertian\(albedo = (\[[^\]]*\])\), (\w+)\((.*)\)\)")
_PARAMETER = re.compile(r"(\w+) = (\[\[.*?\]\]|\[.*?\]|[^,\s]+)(?:, |$)")


@dataclass(eq=False)
class Fits:
    """Materials by one analytic model: called with angles, they say how much light they reflect."""

    names: list[str]
    model: str
    diffuse: Tensor
    """(M, 1, 3) albedo of the Lambertian part."""
    parameters: dict[str, Tensor]
    """(M, 1, 1 or 3) of the model."""

    @property
    def units(self) -> Tensor:
        """(3,) what they are to be multiplied by, to be in 1/sr: those of 2005 are of files whose three channels were taken for equally large."""
        units = self.diffuse.new_tensor(MERL_UNITS)
        return units / units[0] if self.model.startswith("Ngan") else torch.ones_like(units)

    def __len__(self) -> int:
        return len(self.names)

    def __call__(self, angles: Tensor) -> Tensor:
        """(M, N, 3) reflectances, 1/sr, at angles (N, 3), or (M, N, 3) of each material; zero below the horizon."""
        angles = angles if angles.ndim == 3 else angles[None]
        geometry = _Geometry(angles.double())
        glossy = _MODELS[self.model](geometry, Parameters(**self.parameters))
        total = self.units * (self.diffuse / torch.pi + glossy.clamp(min=0))
        return torch.where(geometry.above, total, 0.0).to(angles)


def read_fits(path: Path) -> Fits:
    """All materials of a `.fit` table.

    Raises:
        DataError: no such file, a line that is not of the form above, or a model that is not known.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Give a .fit table.") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, albedo, model, rest = _LINE.fullmatch(line.strip()).groups()  # type: ignore[union-attr]
            rows.append((name, model, {"diffuse": _numbers(albedo)} | {k: _numbers(v) for k, v in _PARAMETER.findall(rest)}))  # fmt: skip
        except (AttributeError, ValueError, TypeError):
            raise DataError(
                f"{path}: line {number} is not a fit: {line.strip()[:80]!r}. Correct or remove it."
            ) from None
    models = sorted({model for _, model, _ in rows})
    if len(models) != 1 or models[0] not in _MODELS:
        raise DataError(f"{path}: fits of {', '.join(models) or 'nothing'}; there can be one of {', '.join(_MODELS)}. Split or convert it.")  # fmt: skip
    try:
        stacked = {key: torch.stack([row[key] for _, _, row in rows]) for key in rows[0][2]}
        fits = Fits([name for name, _, _ in rows], models[0], stacked.pop("diffuse"), stacked)
        fits(torch.tensor([[0.1, 0.2, 0.3]]))
    except (KeyError, AttributeError, RuntimeError) as error:
        raise DataError(f"{path}: its fits have not all the parameters that the model has ({error}). Fetch it again.") from None  # fmt: skip
    return fits


def _numbers(text: str) -> Tensor:
    """(1, 1) of a number, (1, 3) of a colour, (2, 3) of two."""
    values = torch.tensor(json.loads(text), dtype=torch.float64)
    if not values.isfinite().all() or values.shape not in ((), (3,), (2, 3)):
        raise ValueError(text)
    return values.view(-1, 3) if values.ndim else values.view(1, 1)


class _Geometry:
    """What models see of angles (…, 3): cosines, (…, 1) each."""

    def __init__(self, angles: Tensor) -> None:
        self.light, self.eye = (c[..., None] for c in cosines(angles))
        self.above = (self.light > 0) & (self.eye > 0)
        self.half, self.difference = angles[..., :1].cos(), angles[..., 1:2].cos()
        """Of the half vector with the normal, and with the light."""
        self.tangent_squared = angles[..., :1].tan().square()
        """Of the half vector's angle."""
        self.both = (self.light * self.eye).clamp(min=1e-12)

    @property
    def grooves(self) -> Tensor:
        """How much of long V-shaped grooves is in no shadow and not hidden (Torrance and Sparrow 1967)."""
        least = torch.minimum(self.light, self.eye)
        return (2 * self.half * least / self.difference.clamp(min=1e-12)).clamp(max=1)


def _schlick(normal: Tensor, cosine: Tensor) -> Tensor:
    """Fresnel's reflectance, of that at normal incidence (Schlick 1994)."""
    return normal + (1 - normal) * (1 - cosine) ** 5


def _cook(index: Tensor, cosine: Tensor) -> Tensor:
    """Fresnel's reflectance, of a refractive index (Cook and Torrance 1982)."""
    g = (index.square() + cosine.square() - 1).clamp(min=0).sqrt()
    ratio = (cosine * (g + cosine) - 1) / (cosine * (g - cosine) + 1)
    return 0.5 * ((g - cosine) / (g + cosine)).square() * (1 + ratio.square())


def _beckmann(g: _Geometry, roughness: Tensor) -> Tensor:
    """Not normalized: π times a density."""
    return (-g.tangent_squared / roughness.square()).exp() / (roughness.square() * g.half**4)


def _ashikhmin_shirley(g: _Geometry, p: Parameters, fresnel: Tensor) -> Tensor:
    lobe = (p.sharpness + 1) / (8 * torch.pi) * g.half**p.sharpness
    return p.albedo * lobe * fresnel / (g.difference * torch.maximum(g.light, g.eye))


def _low_ashikhmin_shirley(g: _Geometry, p: Parameters) -> Tensor:
    return _ashikhmin_shirley(g, p, _cook(p.fresnelReflectance, g.difference))


def _ngan_ashikhmin_shirley(g: _Geometry, p: Parameters) -> Tensor:
    return _ashikhmin_shirley(g, p, _schlick(p.fresnelReflectance, g.difference))


def _low_cook_torrance(g: _Geometry, p: Parameters) -> Tensor:
    return p.albedo * _beckmann(g, p.roughness) * g.grooves * _cook(p.eta, g.difference) / (torch.pi * g.both)


def _ngan_cook_torrance(g: _Geometry, p: Parameters) -> Tensor:
    fresnel = _schlick(p.eta, g.difference)
    return p.albedo * _beckmann(g, p.roughness) * g.grooves * fresnel / (torch.pi**2 * g.both)


def _low_microfacet(g: _Geometry, p: Parameters) -> Tensor:
    lobe = (1 + p.B * (1 - g.half)) ** -p.C
    return p.A * lobe * g.grooves * _cook(p.eta, g.difference) / (torch.pi * g.both)


def _low_smooth(g: _Geometry, p: Parameters) -> Tensor:
    """On the disc under the hemisphere (eqs. 10 and 14): how far light is from the eye's mirror image, and from the eye."""
    from_mirrored = 4 * g.difference.square() * (1 - g.half.square())
    from_eye = 4 * (1 - g.difference.square()) - (g.light - g.eye).square()
    return p.A * (1 + p.B * from_mirrored) ** -p.C * _cook(p.eta, (1 - from_eye / 4).clamp(min=0).sqrt())


def _blinn_phong(g: _Geometry, p: Parameters) -> Tensor:
    return p.albedo * (p.sharpness + 2) / (2 * torch.pi) * g.half**p.sharpness


def _lafortune(g: _Geometry, p: Parameters) -> Tensor:
    across = 2 * g.difference.square() - 1 - g.light * g.eye
    most = torch.maximum(p.Cxy.abs(), p.Cz.abs())
    along = ((p.Cxy * across + p.Cz * g.light * g.eye) / most).clamp(min=0)
    return p.albedo * (p.sharpness + 2) / (2 * torch.pi) * along**p.sharpness


def _ward(g: _Geometry, p: Parameters) -> Tensor:
    lobe = (-g.tangent_squared / p.roughness.square()).exp() / (4 * torch.pi * p.roughness.square())
    return p.albedo * lobe / g.both.sqrt()


def _ward_duer(g: _Geometry, p: Parameters) -> Tensor:
    return _ward(g, p) / g.both.sqrt()


def _shifted_gamma(g: _Geometry, p: Parameters) -> Tensor:
    normal, slope = p.eta[:, :1], p.eta[:, 1:]
    argument = p.alpha + g.tangent_squared / p.alpha
    facets = p.K * (-argument).exp() * argument**-p.p / (torch.pi * g.half**4)
    seen = torch.ones(())
    for cosine in (g.light, g.eye):
        beyond = (cosine.clamp(-1, 1).acos() - p.theta0).clamp(min=0)
        seen = seen * (1 + p.Lambda * (1 - (p.c * beyond**p.k).clamp(max=80).exp())).clamp(0, 1)
    fresnel = _schlick(normal, g.difference) - slope * g.difference
    return p.albedo * facets * seen * fresnel / (torch.pi * g.both)


_MODELS: dict[str, Callable[[_Geometry, Parameters], Tensor]] = {
    "Bagher": _shifted_gamma,
    "LowAshikhminShirley": _low_ashikhmin_shirley,
    "LowCookTorrance": _low_cook_torrance,
    "LowMicrofacetFit": _low_microfacet,
    "LowSmooth": _low_smooth,
    "NganAshikhminShirley": _ngan_ashikhmin_shirley,
    "NganBlinnPhong": _blinn_phong,
    "NganCookTorrance": _ngan_cook_torrance,
    "NganLafortune": _lafortune,
    "NganWard": _ward,
    "NganWardDuer": _ward_duer,
}
