"""Lens models: between a direction in camera space and a point on the normalised image plane.

Convention: camera space here is OpenCV's, +X right, +Y down, +Z forward; the image plane's (u, v) are pixels
with the principal point subtracted and the focal length divided out.

Every lens is a base map (perspective x/z, or equidistant theta * x/r) followed by zero, one or two
distortions. A distortion is a function (u, v) -> (u', v') with its 2x2 Jacobian written out, which lets
Newton's method invert it to machine precision; fixed-point iteration stalls or diverges near the border of
a strong lens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum

import torch
from torch import Tensor

N_DISTORTION = 13
"""Columns of `Cameras.distortion`. Their meaning depends on the lens, see `Lens`."""

Mapped = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""u', v', du'/du, du'/dv, dv'/du, dv'/dv."""


class Lens(IntEnum):
    """Codes of `Cameras.model`, with the columns of `Cameras.distortion` that each one reads."""

    PINHOLE = 0
    """No distortion."""
    OPENCV = 1
    """k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 as in OpenCV (rational radial, tangential, thin prism), then q4,
    the coefficient of r^8 in the numerator (nerfstudio's k4, the fourth Brown coefficient)."""
    FISHEYE = 2
    """Equidistant, the columns of OPENCV: OpenCV's fisheye has k1 k2 k3 and q4; COLMAP's thin prism adds
    the others."""
    FOV = 3
    """omega of Devernay and Faugeras, radians."""
    EQUIRECTANGULAR = 4
    """A panorama; fx and fy are pixels per half turn (width / 2 and height for a full sphere)."""
    ORTHOGRAPHIC = 5
    """Parallel rays; fx and fy are pixels per scene unit."""
    FISHEYE624 = 6
    """Equidistant: six radial k0..k5, two tangential p0 p1, four thin-prism s0..s3 (Project Aria)."""
    STEREO_PANORAMA = 7
    """Omnidirectional stereo, one eye: a panorama whose rays start on a circle, b scene units to the right of
    the centre as seen along each ray. The one column is b, negative for the left eye."""
    VR180 = 8
    """Half a panorama (fx is pixels per quarter turn) from a point b to the right of the centre."""


PANORAMAS = (Lens.EQUIRECTANGULAR, Lens.STEREO_PANORAMA, Lens.VR180)
DISPLACED = (Lens.ORTHOGRAPHIC, Lens.STEREO_PANORAMA, Lens.VR180)
"""Lenses whose rays do not all start at the camera's centre."""


def brown(u: Tensor, v: Tensor, c: list[Tensor]) -> Mapped:
    """OpenCV's distortion with its Jacobian; c holds the 13 columns of `Lens.OPENCV`, each (M,)."""
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, q4 = c
    uu, vv, uv = u * u, v * v, u * v
    r = uu + vv
    top = 1 + r * (k1 + r * (k2 + r * (k3 + r * q4)))
    d_top = k1 + r * (2 * k2 + r * (3 * k3 + r * 4 * q4))
    bottom = 1 + r * (k4 + r * (k5 + r * k6))
    d_bottom = k4 + r * (2 * k5 + r * 3 * k6)
    g = top / bottom
    dg = 2 * (d_top - g * d_bottom) / bottom  # dg/du = u * dg, dg/dv = v * dg
    cross = 2 * (p1 * u + p2 * v) + uv * dg
    prism_u, prism_v = 2 * (s1 + 2 * s2 * r), 2 * (s3 + 2 * s4 * r)
    return (
        u * g + 2 * p1 * uv + p2 * (r + 2 * uu) + r * (s1 + s2 * r),
        v * g + 2 * p2 * uv + p1 * (r + 2 * vv) + r * (s3 + s4 * r),
        g + uu * dg + 2 * p1 * v + 6 * p2 * u + u * prism_u,
        cross + v * prism_u,
        cross + u * prism_v,
        g + vv * dg + 2 * p2 * u + 6 * p1 * v + v * prism_v,
    )


def brown4(u: Tensor, v: Tensor, c: list[Tensor]) -> Mapped:
    """`brown` where only k1 k2 p1 p2 are non-zero: what nearly every capture has, at half the cost."""
    k1, k2, p1, p2 = c[:4]
    uu, vv, uv = u * u, v * v, u * v
    r = uu + vv
    g = 1 + r * (k1 + r * k2)
    dg = 2 * k1 + 4 * k2 * r
    pu, pv = p1 * u, p2 * v
    cross = 2 * (pu + pv) + uv * dg
    p1v, p2u = p1 * v, p2 * u
    return (
        u * (g + 2 * p1v) + p2 * (r + 2 * uu),
        v * (g + 2 * p2u) + p1 * (r + 2 * vv),
        g + uu * dg + 2 * p1v + 6 * p2u,
        cross,
        cross,
        g + vv * dg + 2 * p2u + 6 * p1v,
    )


def radial6(u: Tensor, v: Tensor, c: list[Tensor]) -> Mapped:
    """Six-coefficient radial polynomial, c = k0..k5."""
    r = u * u + v * v
    g, d = torch.zeros_like(r), torch.zeros_like(r)
    for i in range(5, -1, -1):
        g = c[i] + r * g
        d = (i + 1) * c[i] + r * d
    g, dg = 1 + r * g, 2 * d
    return u * g, v * g, g + u * u * dg, u * v * dg, u * v * dg, g + v * v * dg


Distortion = Callable[[Tensor, Tensor, list[Tensor]], Mapped]


def _stages(lens: Lens, c: list[Tensor], short: bool) -> list[tuple[Distortion, list[Tensor]]]:
    """The distortions that follow the base map, in the order light meets them, each with its coefficients."""
    if lens in (Lens.OPENCV, Lens.FISHEYE):
        return [(brown4 if short else brown, c)]
    if lens == Lens.FISHEYE624:
        zero = torch.zeros_like(c[0])
        k, (p0, p1), s = c[:6], c[6:8], c[8:12]
        return [(radial6, k), (brown, [zero, zero, p1, p0, zero, zero, zero, zero, *s, zero])]
    return []


def invert(distortion: Distortion, c: list[Tensor], u1: Tensor, v1: Tensor) -> tuple[Tensor, Tensor]:
    """Solve distortion(u, v) = (u1, v1) by damped Newton iterations, to 1e-10 of a focal length.

    A step that does not reduce the error is halved, so a point outside the lens's image circle (which has
    no solution) ends at the nearest place reached instead of far away."""
    u, v = u1, v1
    new_u, new_v = u, v
    best = torch.full_like(u, math.inf)
    step_u, step_v = torch.zeros_like(u), torch.zeros_like(u)
    for _ in range(50):
        pu, pv, a, b, c_, d = distortion(new_u, new_v, c)
        eu, ev = u1 - pu, v1 - pv
        error = eu.abs() + ev.abs()
        better = error < best
        u, v, best = (
            torch.where(better, new_u, u),
            torch.where(better, new_v, v),
            torch.where(better, error, best),
        )
        if bool((best < 1e-10).all()):
            break
        det = a * d - b * c_
        det = torch.where(det.abs() < 1e-6, torch.full_like(det, 1e-6), det)
        step_u = torch.where(better, (d * eu - b * ev) / det, 0.5 * step_u)
        step_v = torch.where(better, (a * ev - c_ * eu) / det, 0.5 * step_v)
        new_u, new_v = u + step_u, v + step_v
    return u, v


def unproject(lens: Lens, u: Tensor, v: Tensor, coefficients: Tensor, short: bool = False) -> Tensor:
    """Image plane to camera space. u, v (M,); coefficients (M, 13) -> directions (M, 3), OpenCV axes, any
    length.

    The rays of `DISPLACED` lenses start at `displacement`. `short`: see `brown4`."""
    if lens == Lens.PINHOLE:
        return torch.stack([u, v, torch.ones_like(u)], -1)
    if lens == Lens.ORTHOGRAPHIC:
        return torch.stack([torch.zeros_like(u), torch.zeros_like(u), torch.ones_like(u)], -1)
    if lens in PANORAMAS:
        longitude, latitude = math.pi * (0.5 * u if lens == Lens.VR180 else u), math.pi * v  # both as u, v do
        flat = latitude.cos()
        return torch.stack([longitude.sin() * flat, latitude.sin(), longitude.cos() * flat], -1)
    if lens == Lens.FOV:
        omega = coefficients[:, 0]
        r1 = torch.hypot(u, v).clamp_min(1e-12)
        r = torch.tan((r1 * omega).clamp(max=1.5)) / (2 * torch.tan(omega / 2))
        scale = torch.where(omega.abs() < 1e-6, torch.ones_like(r), r / r1)
        return torch.stack([u * scale, v * scale, torch.ones_like(u)], -1)
    # Single precision would leave a thousandth of a pixel; the iterations are few, so double costs nothing.
    dtype = u.dtype
    u, v = u.double(), v.double()
    columns = list(coefficients.double().unbind(-1))
    for distortion, c in reversed(_stages(lens, columns, short)):
        u, v = invert(distortion, c, u, v)
    if lens == Lens.OPENCV:
        return torch.stack([u, v, torch.ones_like(u)], -1).to(dtype)
    theta = torch.hypot(u, v)
    sinc = torch.sinc(theta / math.pi)
    return torch.stack([u * sinc, v * sinc, theta.cos()], -1).to(dtype)


def displacement(lens: Lens, u: Tensor, v: Tensor, coefficients: Tensor) -> Tensor:
    """(M, 3) where the rays of a `DISPLACED` lens start, from the camera's centre, OpenCV axes, scene
    units."""
    zero, b = torch.zeros_like(u), coefficients[:, 0]
    if lens == Lens.ORTHOGRAPHIC:
        return torch.stack([u, v, zero], -1)
    if lens == Lens.STEREO_PANORAMA:
        return torch.stack([b * (math.pi * u).cos(), zero, -b * (math.pi * u).sin()], -1)
    return torch.stack([b, zero, zero], -1)


def project(lens: Lens, p: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Camera space to image plane. p (M, 3), OpenCV axes; coefficients (M, 13) -> u, v (M,), NaN where the
    lens cannot see p."""
    x, y, z = p.unbind(-1)
    if lens == Lens.ORTHOGRAPHIC:
        return x, y
    if lens in PANORAMAS:
        b = coefficients[:, 0] if lens != Lens.EQUIRECTANGULAR else torch.zeros_like(x)
        if lens == Lens.VR180:
            x = x - b
            return 2 * torch.atan2(x, z) / math.pi, torch.atan2(y, torch.hypot(x, z)) / math.pi
        # The ray to p touches the circle of radius b; within the circle there is none (NaN from asin and
        # sqrt).
        r = torch.hypot(x, z)
        longitude = torch.atan2(x, z) - torch.asin(b / r.clamp_min(1e-12))
        longitude = torch.remainder(longitude + math.pi, 2 * math.pi) - math.pi
        return longitude / math.pi, torch.atan2(y, (r * r - b * b).sqrt()) / math.pi
    if lens in (Lens.FISHEYE, Lens.FISHEYE624):
        r = torch.hypot(x, y)
        theta_over_r = torch.where(r > 1e-9, torch.atan2(r, z) / r.clamp_min(1e-9), 1 / z.abs().clamp_min(1e-9))
        u, v = x * theta_over_r, y * theta_over_r
        visible = torch.ones_like(z, dtype=torch.bool)
    else:
        visible = z > 0
        z = torch.where(visible, z, torch.ones_like(z))
        u, v = x / z, y / z
    if lens == Lens.FOV:
        omega = coefficients[:, 0]
        r = torch.hypot(u, v).clamp_min(1e-12)
        r1 = torch.atan(2 * r * torch.tan(omega / 2)) / omega
        scale = torch.where(omega.abs() < 1e-6, torch.ones_like(r), r1 / r)
        u, v = u * scale, v * scale
    for distortion, c in _stages(lens, list(coefficients.unbind(-1)), short=False):
        u, v, a, b, c_, d = distortion(u, v, c)
        visible = visible & (a * d - b * c_ > 0)  # past its fold the polynomial maps the outside back into the picture
    nan = torch.full_like(u, math.nan)
    return torch.where(visible, u, nan), torch.where(visible, v, nan)
