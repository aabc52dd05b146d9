"""The lights of a capture, all at once: what many photographs of the same pixels were lit by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fields.relighting.basis import LightBasis
from fields.relighting.interior import ORDERS, Interior, Reach
from fields.relighting.lights import Light
from fields.relighting.transfer import Illumination, Transfer

_AT_ONCE = 2**16  # rays


class Stage:
    """L lights as tensors.

    Args:
        lights: of any kind.
        basis: what they are measured in.
        middle: (3,) of the object, on the device to keep them on.
    """

    def __init__(self, lights: Sequence[Light], basis: LightBasis, middle: Tensor) -> None:
        self.basis, self.lights, self.middle = basis, lights, middle
        device = middle.device
        strengths = []
        for light in lights:
            if light.kind == "point":
                strengths.append(torch.zeros(len(basis.axes), 3, device=device))
            else:
                strengths.append(Illumination.of(light).to(device).strength(basis))
        self.strength = torch.stack(strengths)
        """(L, K, 3) in every lobe; zero of point lights, which are another light at every point."""
        self.is_point = torch.tensor([light.kind == "point" for light in lights], device=device)
        self.is_small = torch.tensor([light.kind in ("point", "directional") for light in lights], device=device)
        self.place = torch.tensor([_place(light) for light in lights], device=device)
        """(L, 3): where a point light is, or the direction of another."""
        self.rgb = torch.tensor([light.rgb for light in lights], device=device)
        self.any_point = bool(self.is_point.any())
        irradiance = self.arriving(middle[None], torch.arange(len(lights), device=device)[None])[1][0]
        self.tint = torch.where(self.is_small[:, None], irradiance, 1.0)
        """(L, 3): irradiances of small lights in the middle; of others, 1."""

    def arriving(self, point: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Unit directions (N, J, 3) from points (N, 3) to small lights (N, J), and their irradiances (N, J, 3): of others, zero."""
        towards, rgb = self.place[which], self.rgb[which] * self.is_small[which][..., None]
        if not self.any_point:
            return towards, rgb
        is_point = self.is_point[which][..., None]
        away = towards - point[:, None]
        square = away.square().sum(-1, keepdim=True).clamp(min=1e-12)
        return torch.where(is_point, away / square.sqrt(), towards), torch.where(is_point, rgb / square, rgb)

    def strength_at(self, point: Tensor) -> Tensor:
        """(L, K): of every light, grey, in every lobe, at one point (1, 3)."""
        towards, irradiance = self.arriving(point, torch.arange(len(self.place), device=point.device)[None])
        near = self.basis.lobes(towards[0]) * irradiance[0].mean(-1, keepdim=True)
        return torch.where(self.is_point[:, None], near, self.strength.mean(-1))

    def scattered(self, rays: Transfer, which: Tensor) -> Tensor:
        """(N, J, 3): equation (4) for rays (N) under each of the lights (N, J)."""
        matrix = self.basis.matrix()
        used, slot = which.unique(return_inverse=True)
        under_all = torch.einsum("nrc,lrc->nlc", rays.scatter, matrix @ self.strength[used])
        scattered = under_all.gather(1, slot[..., None].expand(-1, -1, 3))
        if self.any_point:
            towards, irradiance = self.arriving(rays.point, which)
            response = torch.einsum("nrc,njr->njc", rays.scatter, self.basis.lobes(towards) @ matrix.T)
            scattered = torch.where(self.is_point[which][..., None], response * irradiance, scattered)
        return scattered

    def surface(self, rays: Transfer, which: Tensor, visible: Tensor) -> Tensor:
        """(N, J, 3): what the surface reflects of each of the lights (N, J), of which (N, J) comes through."""
        towards, irradiance = self.arriving(rays.point, which)
        reflected = rays.lobe(towards) + rays.cosine(towards)[..., None] * rays.diffuse[:, None]
        return reflected * irradiance * visible[..., None]

    # ------------------------------------------------------------------------------------ through the interior

    @torch.no_grad()
    def leaving(self, rays: Transfer, which: Tensor, inside: Interior) -> tuple[Tensor, Tensor]:
        """What leaves the interior along rays (N) that know their `places`.

        Returns:
            (N, J, ORDERS, C) under each of the lights (N, J), −1: none. To be multiplied by their `tint`: so small lights are white, and
            C is 1; but it is 3 where there are maps. And (N, ORDERS) under a uniform light of radiance 1.
        """
        assert rays.places is not None and rays.ends is not None
        channels = 1 if bool(self.is_small.all()) else 3
        fluence = {}
        for i in which[which >= 0].unique().tolist():
            entering = inside.entering(Illumination.of(_white(self.lights[i], self.middle)).to(self.middle.device))
            fluence[i] = inside.fluence(entering[:, :channels]).flatten(1)
        leaving = rays.point.new_zeros(*which.shape, ORDERS, channels)
        uniform = rays.point.new_zeros(len(rays), ORDERS)
        for rows in torch.arange(len(rays), device=which.device).split(_AT_ONCE):
            reach, of_rows = inside.reach(rays.places[rows], rays.ends[rows]), which[rows]
            uniform[rows] = reach.of(inside.uniform)
            for i, values in fluence.items():
                ray, slot = (of_rows == i).nonzero(as_tuple=True)
                seen = Reach(reach.knots[ray], reach.shares[ray]).of(values)
                leaving[rows[ray], slot] = seen.view(-1, ORDERS, channels)
        return leaving, uniform


def _white(light: Light, middle: Tensor) -> Light:
    """The same light, of irradiance 1 at a point (3,)."""
    if light.kind == "directional":
        return replace(light, rgb=(1.0, 1.0, 1.0))
    if light.kind == "point":
        square = float((middle - middle.new_tensor(light.position)).square().sum().clamp(min=1e-12))
        return replace(light, rgb=(square,) * 3)
    return light


def _place(light: Light) -> Sequence[float]:
    return light.position or light.direction or (0.0, 1.0, 0.0)
