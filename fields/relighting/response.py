"""Rays that are asked for their radiance under one light after the other: what does not depend on the light is worked out once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from fields.relighting import brdf
from fields.relighting.basis import fibonacci_sphere
from fields.relighting.environment import Environment
from fields.relighting.interior import ORDERS, SKY
from fields.relighting.lights import Light
from fields.relighting.pyramid import Rungs
from fields.relighting.transfer import Illumination, Parts, Transfer

if TYPE_CHECKING:
    from fields.relighting.field import TransferField

_FAINT = 1e-3  # of what falls on a surface, per steradian: a third of a percent of what a white one sends


class Mirror(NamedTuple):
    """A rough surface, as a spherical Gaussian around the mirrored direction."""

    directions: Tensor
    """(N, 3) unit."""
    sharpness: Tensor
    """(N,)."""
    reflectance: Tensor
    """(N, 3), zero where something is in the way."""


class Response:
    """Radiance along rays (N) as a linear function of light, without negative parts.

    Args:
        rays: before there is light.
        field: whose rays they are; it says what light is measured in, and what small lights are hidden.
    """

    def __init__(self, rays: Transfer, field: TransferField) -> None:
        self.rays, self.field = rays, field
        self.soft_lights = field.basis.matrix().detach()
        self.inside = None if rays.places is None else field.inside()
        if self.inside is not None:
            assert rays.places is not None and rays.ends is not None
            self.reach = self.inside.reach(rays.places, rays.ends)
            self.gains = rays.held(self.reach.of(self.inside.uniform))
            """(N, ORDERS, 3)."""

    def lit(self, illumination: Illumination) -> Parts:
        """Radiance along the rays under any light."""
        scattered = self.scattered(illumination)
        if self.inside is not None:
            leaving = self.reach.of(self.inside.lit(illumination)).mul_(self.gains.flatten(1))
            scattered += leaving @ torch.eye(3).to(leaving).repeat(ORDERS, 1)
        reflected, direct = torch.zeros_like(scattered), torch.zeros_like(scattered)
        for light in illumination.lights:
            self.shine(light, reflected, direct)
        for environment in illumination.environments:
            reflected += self.mirrored(environment)
            if self.rays.sky is not None:
                direct += self.rays.diffuse * (self.white @ environment.spots(SKY).to(self.white))
        opacity = self.rays.opacity[:, None]
        return Parts(opacity * scattered, opacity * reflected, opacity * direct)

    def scattered(self, illumination: Illumination) -> Tensor:
        """(N, 3), equation (4): lights that are far away add up to one strength of every soft light, for all rays."""
        rays, basis = self.rays, self.field.basis
        strength = self.soft_lights @ illumination.strength(basis)
        scattered = rays.scatter.flatten(1) @ torch.diag_embed(strength).flatten(0, 1).to(rays.scatter)
        for light in illumination.lights:
            if light.kind == "point":
                towards, irradiance = rays.arriving(light)
                response = basis.lobes(towards) @ self.soft_lights.T
                scattered += (rays.scatter * response[..., None]).sum(1) * irradiance
        return scattered

    def shine(self, light: Light, reflected: Tensor, direct: Tensor) -> None:
        """Adds what the surface sends of a small light, where that is not hidden."""
        rays = self.rays
        towards, irradiance = rays.arriving(light)
        lobe, cosine = rays.lobe(towards[:, None])[:, 0], rays.cosine(towards[:, None])
        diffuse = rays.diffuse * cosine
        matters = ((lobe > _FAINT) | (diffuse > 0)).any(-1).nonzero()[:, 0]
        visible = self.field.visibility(rays.point[matters], rays.normal[matters], towards[matters])
        arriving = irradiance[matters] * visible[:, None]
        reflected[matters] += lobe[matters] * arriving
        direct[matters] += diffuse[matters] * arriving

    # ------------------------------------------------------------------------------------ maps

    @functools.cached_property
    def mirror(self) -> Mirror:
        """What maps are seen in."""
        rays = self.rays
        n_v = (rays.normal * rays.view).sum(-1)
        whole, rise = brdf.albedo(n_v, rays.width)
        reflectance = rays.at_normal * (whole - rise)[:, None] + rays.at_grazing * rise[:, None]
        seen = reflectance * (rays.mirrored * (n_v > 0))[:, None]
        return Mirror(brdf.reflect(rays.view, rays.normal), brdf.lobe_sharpness(n_v, rays.width), seen)

    @functools.cached_property
    def _rungs(self) -> Rungs:
        return Rungs.of(self.mirror.sharpness)

    def mirrored(self, environment: Environment) -> Tensor:
        """(N, 3): a map, seen in the rough surface."""
        return self.mirror.reflectance * environment.blurred().lookup(self.mirror.directions, self._rungs)

    @functools.cached_property
    def white(self) -> Tensor:
        """(N, SKY): what a white diffuse surface makes of light from directions all over the sphere, as far as it comes through."""
        assert self.rays.sky is not None
        return self.rays.sky * self.rays.cosine(fibonacci_sphere(SKY).to(self.rays.point)[None])
