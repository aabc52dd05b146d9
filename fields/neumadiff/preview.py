"""Previews of materials: shapes of one material, in distant light, seen from far away.

Nothing shades anything and the eye is far away, so that a point's brightness depends on its normal alone. All normals are on a sphere:
it is lit once, and every shape looks up there what its pixels are. The frame is the eye's: x to the right, y up, z towards it.

Where it may have highlights, a reflectance is split in two. What there is of it where the half vector is `_NARROW` from the normal is taken
to be there within as well: that is smooth, and integrated over the pixels of a coarse map of the light, which misses no sun. What is left,
a highlight without its foot or next to nothing, is integrated over half vectors, densest where the narrowest highlights are, and light is
averaged over as much of the sky as each stands for (filtered importance sampling: Křivánek and Colbert, EGSR 2008). Nothing is drawn at
random, and no samples are to be seen. Angles depend on a normal's tilt from the eye, not on its turn about it: materials are evaluated once
for each ring of normals, all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from fields.neumadiff.angles import Reflectance, half_difference
from fields.relighting import equirectangular
from fields.relighting.environment import Environment

Light = Callable[[Tensor], Tensor]
"""Of directions (N, 3), unit, where light may come from, the radiance (N, 3): `studio`, or `light_of` a map; or (N, 3 L) of L lights. Materials are
evaluated once for all of these, and what is of each material is then of all materials in the first light, in the second, and so on."""
Shape = Literal["sphere", "knob"]

_NARROW = 0.2
"""Half vectors closer to the normal than that, radians, are where a reflectance may be narrow."""
_TILTS, _TURNS = 48, 48
"""Half vectors away from the normal, and about it. Tilts are spaced as the cube: nine are within 0.1°, where mirrors reflect."""
_COARSEST = 48  # rows of a map
_FINE = 768
"""Rows at which light is looked at, before it is averaged: what is narrower than their quarter of a degree may be missed."""


# ------------------------------------------------------------------------------------ light

_BOXES = (
    # towards, up, half widths across and along, softness of the edge, radiance
    ((-0.8, 0.75, 0.75), (0.0, 1.0, 0.0), (0.42, 0.42), 0.05, (15.0, 14.6, 14.0)),
    ((1.0, 0.15, 0.25), (0.0, 1.0, 0.0), (0.13, 0.8), 0.05, (7.0, 7.6, 8.6)),
    ((-0.45, -0.25, -1.0), (0.0, 1.0, 0.0), (0.25, 0.7), 0.08, (9.0, 9.2, 10.0)),
    ((0.25, 1.0, -0.35), (0.0, 0.0, 1.0), (0.7, 0.22), 0.05, (6.0, 6.0, 6.0)),
)
_SKY, _FLOOR = (0.55, 0.58, 0.62), (0.16, 0.15, 0.14)


def studio(directions: Tensor) -> Tensor:
    """Radiance (N, 3) from directions (N, 3): soft boxes at the left, at the right, behind and above, in a grey room with a darker floor.

    As bright as suits MERL's materials, of which the whitest reflect a third.
    """
    sky, floor = (torch.tensor(v).to(directions) for v in (_SKY, _FLOOR))
    radiance = torch.lerp(floor, sky, (2 * directions[:, 1:2] + 0.5).clamp(0, 1))
    for towards, up, widths, soft, colour in _BOXES:
        axis = torch.nn.functional.normalize(torch.tensor(towards).to(directions), dim=0)
        across = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor(up).to(directions), axis), dim=0)
        frame = torch.stack([across, torch.linalg.cross(axis, across), axis], 1)
        x, y, ahead = (directions @ frame).unbind(1)
        inside = (ahead > 0).to(directions)
        for at, width in zip((x, y), widths, strict=True):
            inside = inside * ((width - (at / ahead.clamp(min=1e-6)).abs()) / soft + 0.5).clamp(0, 1)
        radiance = torch.lerp(radiance, torch.tensor(colour).to(directions), inside[:, None])
    return radiance


def light_of(environment: Environment) -> Light:
    """A map as light, the eye at its +Z: averaged to pixels that are looked at twice each way, so that a sun of one pixel keeps its power."""
    return environment.resized(_FINE // 2).sample


# ------------------------------------------------------------------------------------ the lit sphere


def _directions(tilt: Tensor, turn: Tensor) -> Tensor:
    """(…, 3) unit: `tilt` away from the axis to the eye, `turn` about it, from x towards y."""
    return torch.stack(torch.broadcast_tensors(tilt.sin() * turn.cos(), tilt.sin() * turn.sin(), tilt.cos()), -1)


def _polar(directions: Tensor) -> tuple[Tensor, Tensor]:
    """The reverse; the turn is in [0, 2π]."""
    x, y, z = directions.unbind(-1)
    return torch.atan2(torch.hypot(x, y), z), torch.atan2(y, x) % (2 * math.pi)


class LitSpheres:
    """Spheres of M materials in one light: what any shape of them looks like.

    Args:
        reflectance: the materials.
        light: where it comes from.
        rows: of the finest map of the light, 48 times a power of two: mirrors show it no sharper.
        device: that of the materials.
    """

    @torch.no_grad()
    def __init__(self, reflectance: Reflectance, light: Light = studio, rows: int = 192, device: str = "cpu") -> None:
        maps = _light_maps(light, rows, device)

        def wide(angles: Tensor) -> Tensor:
            return reflectance(torch.cat([angles[:, :1].clamp(min=_NARROW), angles[:, 1:]], 1))

        def narrow(angles: Tensor) -> Tensor:
            return reflectance(angles) - wide(angles)

        self.levels = [_lit(narrow, of, level) for of, level in zip(maps, _half_vectors(maps), strict=True)]
        self.levels.append(_lit(wide, maps[-1], _pixels(maps[-1])))
        """(L M, 3, R, 2R) each, to be added up: radiance of R normals from the eye's axis to 90° away, and all about it, from x towards y."""

    def __call__(self, normals: Tensor) -> Tensor:
        """(M, H, W, 3) radiance towards the eye of normals (H, W, 3), bilinear; nonsense of those that face away."""
        tilt, turn = (v / math.pi for v in _polar(normals))
        found = []
        for lit in self.levels:
            columns = lit.shape[-1]
            at = torch.stack([(turn * columns + 2) / (columns + 2) - 1, 4 * tilt - 1], -1).to(lit)
            around = torch.cat([lit[..., -1:], lit, lit[..., :1]], -1).flatten(0, 1)[None]
            found.append(grid_sample(around, at[None], padding_mode="border", align_corners=False)[0])
        return sum(found[1:], found[0]).unflatten(0, (-1, 3)).permute(0, 2, 3, 1)


def _light_maps(light: Light, rows: int, device: str) -> list[Tensor]:
    """(H, 2H, 3 L), the first of `rows` rows and each half as high as the one before, about the axis to the eye: θ from it, φ from x to y."""
    theta, phi = equirectangular.centres(_FINE, math.pi)[:, None], equirectangular.centres(2 * _FINE, 2 * math.pi)
    radiance = light(_directions(theta, phi).view(-1, 3).float().to(device)).view(_FINE, 2 * _FINE, -1)
    maps = [equirectangular.resize(radiance, rows)]
    power = radiance.double() * equirectangular.solid_angles(_FINE).to(device)[:, None, None]
    while (rows := rows // 2) >= _COARSEST:
        down, across = _tents(rows, _FINE, False).to(power), _tents(2 * rows, 2 * _FINE, True).to(power)
        shared = torch.einsum("rf,fgc,hg->rhc", down, power, across)
        maps.append((shared / equirectangular.solid_angles(rows).to(device)[:, None, None]).to(radiance))
    return maps


def _tents(count: int, fine: int, closed: bool) -> Tensor:
    """(count, fine) float64: what each of a few pixels in a row, or around, gets of each of many: the two nearest share it, so that its
    place is kept. Of a lamp that moved to the middle of a pixel, two ways of integrating would see different parts."""
    apart = equirectangular.centres(fine, count) - 0.5 - torch.arange(count)[:, None]
    if closed:
        apart = (apart + count / 2) % count - count / 2
    share = (1 - apart.abs()).clamp(min=0)
    return share / share.sum(0)


Samples = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Of the direction to the eye (3,) in the frame of a surface, and of the rotation (3, 3) to the eye's frame: directions to the light (N, 3) in
the surface's, and the solid angle (N,) that each stands for."""


def _half_vectors(maps: list[Tensor]) -> list[Samples]:
    """Light mirrored by those tilted by up to `_NARROW`: for each map the ones that are about as far apart as its pixels. From one map to
    the next they fade, or a sun would be seen as a small one and as a large one at either side of an edge."""
    u = equirectangular.centres(_TILTS, 1.0)
    tilt, thick, turn = _NARROW * u**3, _NARROW * 3 * u**2 / _TILTS, 2 * math.pi / _TURNS
    # What is mirrored turns by twice as much as the half vector does.
    apart = 2 * torch.maximum(tilt.sin() * turn, thick)
    level = (apart * len(maps[0]) / math.pi).log2().clamp(0, len(maps) - 1)
    solid_angle = tilt.sin() * thick * turn
    phi = equirectangular.centres(_TURNS, 2 * math.pi)

    def of_level(i: int) -> Samples:
        part = 1 - (level - i).abs()
        half = _directions(tilt[part > 0, None], phi).view(-1, 3).to(maps[i].device)
        around = (solid_angle * part)[part > 0].repeat_interleave(_TURNS).to(half)

        def samples(eye: Tensor, eyes: Tensor) -> tuple[Tensor, Tensor]:
            towards = half @ eye
            return 2 * towards[:, None] * half - eye, 4 * towards.clamp(min=0) * around

        return samples

    return [of_level(i) for i in range(len(maps))]


def _pixels(light: Tensor) -> Samples:
    """Directions of a map's pixels."""
    rows, columns = light.shape[:2]
    theta, phi = equirectangular.centres(rows, math.pi), torch.arange(columns).double() * (2 * math.pi / columns)
    directions = _directions(theta[:, None], phi).view(-1, 3).to(light.device)
    around = equirectangular.solid_angles(rows).repeat_interleave(columns).to(light.device)
    return lambda eye, eyes: (directions @ eyes, around)


def _lit(reflectance: Reflectance, light: Tensor, samples: Samples) -> Tensor:
    """(L M, 3, R, 2R) of L lights in a map (R, 2R, 3 L)."""
    rows, columns = light.shape[:2]
    padded = equirectangular.padded(light).permute(2, 0, 1)
    # [:, r, c] is a row of the padded map from column c on, all the way round: what normals that turn about the eye's axis have there.
    windows = torch.cat([padded, padded[..., 2:]], -1).unfold(2, columns, 1)
    rings = []
    for tilt in equirectangular.centres(rows, math.pi / 2).to(light.device):
        sine, cosine, zero = tilt.sin(), tilt.cos(), torch.zeros_like(tilt)
        eye = torch.stack([sine, zero, cosine])
        # From the frame of a surface that leans towards x to the eye's, and back: half a turn about an axis between the two.
        eyes = torch.stack([-cosine, zero, sine, zero, zero - 1, zero, sine, zero, cosine]).view(3, 3)
        to_light, solid_angle = samples(eye, eyes)
        weight = to_light[:, 2].clamp(min=0) * solid_angle
        to_light, weight = to_light[weight > 0], weight[weight > 0]
        angles = half_difference(to_light, eye.expand_as(to_light))
        values = reflectance(angles.to(light)) * weight[:, None].to(light)
        theta, phi = _polar(to_light @ eyes)
        place, share = equirectangular.corners(rows, theta, (phi + math.pi / columns) % (2 * math.pi))
        seen, which = place.unique(return_inverse=True)
        kernel = values.new_zeros(3, len(values), len(seen))
        kernel.index_add_(2, which.flatten(), (values.permute(2, 0, 1)[..., None] * share.to(values)).flatten(2))
        lights = windows[:, seen // (columns + 2), seen % (columns + 2)].unflatten(0, (-1, 3)).permute(1, 2, 0, 3)
        rings.append(torch.bmm(kernel, lights.flatten(2)))
    return torch.stack(rings, 2).unflatten(-1, (-1, columns)).permute(3, 1, 0, 2, 4).flatten(0, 1)


# ------------------------------------------------------------------------------------ pictures

HALF_WIDTH = 1.03
"""Of a picture, in radii of the shape."""
_RADII, _SINES = (0.0, 0.5, 0.68, 1.0), (0.0, 0.85, -0.7, 1.0)
_EDGE = 0.9
"""Radius beyond which normals turn so quickly that pixels are looked at in sixteen places instead of four."""


def shape_normals(shape: Shape, size: int) -> Tensor:
    """(size, size, 3) unit normals as the eye sees them in the middle of what pixels see of the shape; zero where they see nothing of it.

    The knob is a dome in a groove in a rim, seen from its front and made of arcs of circles, along which sines of the tilt are linear.
    """
    normals, part = _seen(shape, _places(size), 2 * HALF_WIDTH / size)
    return torch.where(part > 0, normals, 0.0)


def picture(lit: LitSpheres, shape: Shape, size: int, backdrop: float = 0.0) -> Tensor:
    """(M, size, size, 3) radiance of a shape in front of a grey backdrop; pixels are means over their area."""
    places, pixel = _places(size), 2 * HALF_WIDTH / size
    radius = places.norm(dim=-1)
    device = lit.levels[0].device
    images = torch.full((len(lit.levels[0]), size, size, 3), backdrop, device=device)
    for some, finer in ((radius <= _EDGE, 2), ((radius > _EDGE) & (radius < 1 + pixel), 4)):
        within = (_places(finer) * (pixel / (2 * HALF_WIDTH))).flatten(0, 1)
        normals, part = (v.to(device) for v in _seen(shape, places[some][:, None] + within, pixel / finer))
        images[:, some.to(device)] = (lit(normals) * part + backdrop * (1 - part)).mean(2)
    return images


def _places(size: int) -> Tensor:
    """(size, size, 2) of the middles of pixels, right of the middle of the picture and above it, in radii of the shape."""
    at = ((torch.arange(size) + 0.5) / size * 2 - 1) * HALF_WIDTH
    return torch.stack(torch.meshgrid(at, -at, indexing="xy"), -1)


def _seen(shape: Shape, places: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """What pixels of a width at places (…, 2) see of a shape: normals (…, 3) in the middle of it, and the part of them (…, 1) that it is."""
    radius = places.norm(dim=-1, keepdim=True)
    inside = torch.minimum(radius, (radius + 1 - width / 2) / 2).clamp(max=1)
    if shape == "sphere":
        sine = inside
    else:
        radii, sines = torch.tensor(_RADII), torch.tensor(_SINES)
        after = torch.searchsorted(radii, inside, right=True).clamp(1, len(radii) - 1)
        share = (inside - radii[after - 1]) / (radii[after] - radii[after - 1])
        sine = torch.lerp(sines[after - 1], sines[after], share)
    normals = torch.cat([places * (sine / radius.clamp(min=1e-6)), (1 - sine * sine).clamp(min=0).sqrt()], -1)
    return normals, ((1 - radius) / width + 0.5).clamp(0, 1)


def preview(
    reflectance: Reflectance, *, size: int = 256, shape: Shape = "sphere", light: Light = studio, backdrop: float = 0.0,
    device: str = "cpu",
) -> Tensor:  # fmt: skip
    """(M, size, size, 3) linear radiance of M materials, in front of a grey backdrop: see `fields.relighting.develop`."""
    rows = _COARSEST << max(0, math.ceil(math.log2(size / 32)))  # half a pixel wide in the middle of a mirror
    return picture(LitSpheres(reflectance, light, rows, device), shape, size, backdrop)
