"""What is known of rays before there is light, and lighting it: no field is asked again.

Everything here is linear in the light, and nothing is negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fields.relighting import brdf
from fields.relighting.basis import LightBasis
from fields.relighting.environment import Environment
from fields.relighting.lights import Light


@dataclass(frozen=True)
class Illumination:
    """All light there is: its sources add up."""

    lights: tuple[Light, ...] = ()
    """Directional and point lights."""
    environments: tuple[Environment, ...] = ()
    """Everything that is spread over the sky."""

    @staticmethod
    def of(*sources: Light | Environment) -> Illumination:
        """From lights of any kind: maps are read, and Gaussian lights become maps."""
        lights, environments = [], []
        for source in sources:
            if isinstance(source, Environment):
                environments.append(source)
            elif source.kind in ("directional", "point"):
                lights.append(source)
            else:
                environments.append(source.environment())
        return Illumination(tuple(lights), tuple(environments))

    def strength(self, basis: LightBasis) -> Tensor:
        """(K, 3) in every lobe of a basis, of what is far away."""
        strength = basis.axes.new_zeros(len(basis.axes), 3)
        for environment in self.environments:
            strength = strength + environment.project(basis.axes, basis.sharpness).to(strength)
        for light in self.lights:
            if light.kind == "directional":
                lobes = basis.lobes(strength.new_tensor(light.direction))
                strength = strength + lobes[:, None] * strength.new_tensor(light.rgb)
        return strength

    def to(self, device: torch.device | str) -> Illumination:
        return replace(self, environments=tuple(e.to(device) for e in self.environments))

    def seen(self, directions: Tensor) -> Tensor:
        """(…, 3): the radiance of the sky in unit directions (…, 3); small lights are not seen."""
        sky = torch.zeros_like(directions)
        for environment in self.environments:
            sky = sky + environment.sample(directions.reshape(-1, 3)).view_as(sky)
        return sky

    def turned(self, degrees: float, centre: Tensor, up: int = 1) -> Illumination:
        """Turned about the vertical axis `up` through `centre` (3,), counter-clockwise as seen from above."""
        angle = math.radians(degrees)
        a, b = (up + 1) % 3, (up + 2) % 3
        rotation = torch.eye(4, dtype=torch.float64)
        rotation[a, a] = rotation[b, b] = math.cos(angle)
        rotation[a, b], rotation[b, a] = -math.sin(angle), math.sin(angle)
        rotation[:3, 3] = centre.cpu().double() - rotation[:3, :3] @ centre.cpu().double()
        environments = tuple(environment.moved(rotation[:3, :3]) for environment in self.environments)
        return Illumination(tuple(light.moved(rotation) for light in self.lights), environments)

    def scaled(self, factor: float) -> Illumination:
        """All of it so many times as bright."""
        lights = tuple(replace(one, rgb=tuple(factor * v for v in one.rgb)) for one in self.lights)
        return Illumination(lights, tuple(e.scaled(factor) for e in self.environments))


class Parts(NamedTuple):
    """Linear radiance (N, 3) that leaves along rays, by what the light did on its way."""

    scattered: Tensor
    """Beneath the surface, and between surfaces."""
    reflected: Tensor
    """In a lobe around the mirrored direction."""
    direct: Tensor
    """Diffusely, at the surface."""

    @property
    def total(self) -> Tensor:
        return self.scattered + self.reflected + self.direct


@dataclass
class Transfer:
    """Rays (N, …), or the pixels of an image, ready to be lit."""

    opacity: Tensor
    """(N,) in [0, 1]; all radiance is multiplied by it."""
    depth: Tensor
    """(N,) expected distance along the ray, weighted by opacity; scene units."""
    point: Tensor
    """(N, 3) where the ray meets the surface, world."""
    view: Tensor
    """(N, 3) unit, from there towards the eye."""
    slope: Tensor
    """(N, 3) unit: down the slope of the density."""
    normal: Tensor
    """(N, 3) unit: what corrects that."""
    scatter: Tensor
    """(N, R, 3): response to every soft light of the basis, ≥ 0; their sum is that to a uniform light of radiance 1."""
    at_normal: Tensor
    """(N, 3) reflectance of the rough surface, light and eye straight above it."""
    at_grazing: Tensor
    """(N, 3) and at grazing angles."""
    width: Tensor
    """(N,) α of its lobe."""
    diffuse: Tensor
    """(N, 3) albedo of what is reflected diffusely at the surface."""
    gains: Tensor
    """(N, ORDERS, 3) of what leaves the interior, by how it has been scattered: see `fields.relighting.interior`."""
    room: Tensor
    """(N, 3) what of a uniform light of radiance 1 is left for that."""
    mirrored: Tensor
    """(N,) in [0, 1] how much comes through to the surface from the mirrored direction."""
    sky: Tensor | None = None
    """(N, SKY) and from directions all over the sphere, where anything is reflected diffusely."""
    places: Tensor | None = None
    """(N, PLACES, 3) where what leaves the interior was scattered last, world."""
    ends: Tensor | None = None
    """(N,) how much of the ray ends there."""
    apart: Tensor | None = None
    """(N,) how far the samples of a ray lie apart, in knots: the distortion of Mip-NeRF 360, known while training."""

    def __len__(self) -> int:
        return len(self.opacity)

    def map(self, change: Callable[[Tensor], Tensor]) -> Transfer:
        """The same with every tensor changed."""
        changed: Any = {f.name: None if (v := getattr(self, f.name)) is None else change(v) for f in fields(self)}
        return Transfer(**changed)

    @staticmethod
    def cat(parts: Sequence[Transfer]) -> Transfer:
        """One after the other."""
        lists = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Transfer)}
        whole: Any = {name: None if values[0] is None else torch.cat(values) for name, values in lists.items()}
        return Transfer(**whole)

    # ------------------------------------------------------------------------------------ towards small lights

    def lobe(self, towards: Tensor) -> Tensor:
        """(N, J, 3): what the rough surface sends to the eye per irradiance from unit directions (N, J, 3), or (1, J, 3)."""
        lobe, rise = brdf.ggx(self.normal[:, None], self.view[:, None], towards, self.width[:, None])
        return lobe[..., None] * torch.lerp(self.at_normal[:, None], self.at_grazing[:, None], rise[..., None])

    def cosine(self, towards: Tensor) -> Tensor:
        """(N, J): what a white diffuse surface would."""
        return (self.normal[:, None] * towards).sum(-1).clamp(min=0) / torch.pi

    def arriving(self, light: Light) -> tuple[Tensor, Tensor]:
        """(N, 3) unit directions to a small light, and (N, 3) its irradiance on a plane that faces it."""
        rgb = self.point.new_tensor(light.rgb).expand_as(self.point)
        if light.kind == "directional":
            return self.point.new_tensor(light.direction).expand_as(self.point), rgb
        away = self.point.new_tensor(light.position) - self.point
        square = away.square().sum(-1, keepdim=True).clamp(min=1e-12)
        return away / square.sqrt(), rgb / square

    # ------------------------------------------------------------------------------------ through the interior

    def held(self, uniform: Tensor) -> Tensor:
        """(N, ORDERS, 3): gains of what leaves the interior, which give no more than there is `room` for.

        Args:
            uniform: (N, ORDERS) what leaves under a uniform light of radiance 1.
        """
        everywhere = (self.gains * uniform[..., None]).sum(1)
        return self.gains * (self.room / everywhere.clamp(min=1e-6)).clamp(max=1)[:, None]

    def through(self, leaving: Tensor, uniform: Tensor) -> Tensor:
        """(N, J, 3): what leaves (N, J, ORDERS, 1 or 3) by the gains that are `held`."""
        return (self.held(uniform)[:, None] * leaving).sum(2)
