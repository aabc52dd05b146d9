"""Pictures, exact flow and truth of an articulated object, by sphere tracing its distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from fields.benchmarks.articulated.objects import Articulated, Joint
from torch import Tensor
from torch.nn.functional import normalize

from fields.data.cameras import Cameras
from fields.geometry.rigid import move
from fields.reacto.screws import exponential, prismatic, revolute
from fields.rendering import orbit

_STEPS = 96
_LIGHTS = ((0.4, -0.5, 0.8), (-0.6, 0.3, 0.5))
_AMBIENT = 0.3
_SPAN = 0.65  # of the image, that the object's bounding sphere fills
_CHUNK = 131_072
_FACING = 0.2  # cosine between normal and ray, at which a surface is seen
_NEAR = 0.06  # of the object's radius: as far as a pixel reaches along a surface seen so obliquely


@dataclass(frozen=True)
class Hits:
    """Where rays (N,) meet the object; where they do not, `part` is −1."""

    distance: Tensor
    part: Tensor
    point: Tensor
    """(N, 3) in the frame of the part, joints at zero."""
    normal: Tensor
    """(N, 3) in the frame of the object."""


def joint_state(joint: Joint, progress: float) -> float:
    """Degrees or metres, at a moment of the video in [0, 1]."""
    turn = 2 * math.pi * (joint.cycles * progress + joint.phase)
    return joint.low + (joint.high - joint.low) * (1 - math.cos(turn)) / 2


def motion_of(joint: Joint, state: float) -> Tensor:
    """(4, 4) what the joint does to its part."""
    axis, pivot = (torch.tensor(v, dtype=torch.float64) for v in (joint.axis, joint.pivot))
    if joint.kind == "prismatic":
        return exponential(state * prismatic(axis))
    return exponential(math.radians(state) * revolute(axis, pivot))


def poses_of(thing: Articulated, states: Sequence[float]) -> Tensor:
    """(B, 4, 4) float64: of every part, from its own frame to the object's."""
    poses = [torch.eye(4, dtype=torch.float64)]
    for joint, state in zip(thing.joints, states, strict=True):
        poses.append(poses[joint.parent] @ motion_of(joint, state))
    return torch.stack(poses)


def bounding_radius(thing: Articulated, states: Sequence[Sequence[float]]) -> tuple[Tensor, float]:
    """Middle (3,) and radius of a ball around the object in all these states, found on a grid of points."""
    reach = 1.2
    axes = torch.linspace(-reach, reach, 81)
    grid = torch.stack(torch.meshgrid(axes, axes, axes, indexing="ij"), -1).view(-1, 3)
    moved = []
    for part, _ in enumerate(thing.parts):
        scale = 1.0
        near = grid[thing.parts[part](grid).abs() < 2 * (axes[1] - axes[0])]
        while len(near) < 500:  # small things: look closer
            scale /= 2
            near = (grid * scale)[thing.parts[part](grid * scale).abs() < 2 * scale * (axes[1] - axes[0])]
        for one in states:
            pose = poses_of(thing, one)[part].float()
            moved.append(move(pose, near))
    points = torch.cat(moved)
    middle = (points.amin(0) + points.amax(0)) / 2
    return middle, float((points - middle).norm(dim=-1).max())


def cameras_around(middle: Tensor, radius: float, frames: int, size: int) -> Cameras:
    """A turn of 330 degrees that rises and falls, with a focal length of as many pixels as the image is wide."""
    poses = []
    for k in range(frames):
        elevation = 25 + 12 * math.sin(2 * math.pi * k / frames)
        around = orbit(frames * 12, centre=tuple(middle.tolist()), radius=2 * radius / _SPAN, elevation=elevation,
                       fov=math.degrees(2 * math.atan(0.5)), size=(size, size))  # fmt: skip
        poses.append(around[11 * k])
    return Cameras.cat(poses)


@torch.no_grad()
def trace(thing: Articulated, poses: Tensor, origins: Tensor, directions: Tensor, start: Tensor, reach: float) -> Hits:
    """Sphere tracing from `start` (N,) on, to a distance of `reach` beyond."""
    inverse = torch.linalg.inv(poses).float()
    tolerance = 2e-4 * reach
    distance, part = start.clone(), torch.full((len(origins),), -1, dtype=torch.long)
    alive = torch.arange(len(origins))
    for _ in range(_STEPS):
        p = origins[alive] + distance[alive, None] * directions[alive]
        near, which = _distances(thing, inverse, p).min(0)
        done = near < tolerance
        part[alive[done]] = which[done]
        distance[alive] += torch.where(done, 0.0, near)
        alive = alive[~done & (distance[alive] < start[alive] + reach)]
        if not len(alive):
            break
    point, normal = torch.zeros_like(origins), torch.zeros_like(origins)
    for b in range(len(thing.parts)):
        rows = (part == b).nonzero()[:, 0]
        p = origins[rows] + distance[rows, None] * directions[rows]
        point[rows] = p @ inverse[b, :3, :3].T + inverse[b, :3, 3]
        with torch.enable_grad():
            x = point[rows].requires_grad_()
            (slope,) = torch.autograd.grad(thing.parts[b](x).sum(), x)
        normal[rows] = normalize(slope, dim=-1) @ poses[b, :3, :3].float().T
    return Hits(distance, part, point, normal)


def _distances(thing: Articulated, inverse: Tensor, p: Tensor) -> Tensor:
    """(B, N) to every part, at points (N, 3) in the frame of the object."""
    return torch.stack([s(move(m, p)) for s, m in zip(thing.parts, inverse, strict=True)])


class Paint:
    """Colours of parts: octaves of noise and stripes, or plain.

    Args:
        size: of the object, metres.
        kind: "noise"; "plain" has one colour per part, "blank" one altogether.
    """

    def __init__(self, parts: int, size: float, kind: str, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.kind, self.scale = kind, 6 / size
        self.lattice = torch.rand(parts, 3, 16, 16, 16, generator=generator)
        hues = torch.rand(parts, 1, generator=generator) + torch.tensor([0.0, 1 / 3, 2 / 3])
        self.base = 0.5 + 0.22 * torch.cos(2 * math.pi * hues) if kind != "blank" else torch.full((parts, 3), 0.6)

    def __call__(self, part: int, p: Tensor) -> Tensor:
        colour = self.base[part].expand(len(p), 3)
        if self.kind != "noise":
            return colour
        for octave, weight in enumerate((0.5, 0.35, 0.25)):
            colour = colour + weight * (self._noise(part, p * self.scale * 2**octave + 5 * octave) - 0.5)
        stripes = torch.sin(p @ p.new_tensor([0.7, 0.5, 0.6]) * self.scale * 9)
        return (colour + 0.08 * stripes[:, None]).clamp(0.02, 0.98)

    def _noise(self, part: int, p: Tensor) -> Tensor:
        lattice, n = self.lattice[part], self.lattice.shape[-1]
        low = p.floor()
        f, i = p - low, low.long() % n
        f, total = f * f * (3 - 2 * f), torch.zeros(len(p), 3)
        for corner in range(8):
            bits = [corner >> a & 1 for a in range(3)]
            weight = torch.stack([f[:, a] if bit else 1 - f[:, a] for a, bit in enumerate(bits)]).prod(0)
            x, y, z = ((i[:, a] + bit) % n for a, bit in enumerate(bits))
            total += weight[:, None] * lattice[:, x, y, z].T
        return total


def picture(
    thing: Articulated, poses: Tensor, cameras: Cameras, i: int, paint: Paint, middle: Tensor, radius: float
) -> Tensor:
    """(H, W, 4) in [0, 1], straight alpha; 2 × 2 rays per pixel."""
    size = int(cameras.width[i])
    at = (torch.arange(2 * size) + 0.5) / 2
    xy = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(-1, 2)
    parts = []
    for some in xy.split(_CHUNK):
        hits, _ = _first_hits(thing, poses, cameras, i, some, middle, radius)
        colour = torch.zeros(len(some), 3)
        for b in range(len(thing.parts)):
            rows = hits.part == b
            light = sum((hits.normal[rows] @ normalize(torch.tensor(d), dim=0)).clamp(min=0) for d in _LIGHTS)
            colour[rows] = paint(b, hits.point[rows]) * (_AMBIENT + 0.5 * light)[:, None]
        parts.append(torch.cat([colour.clamp(0, 1), (hits.part >= 0)[:, None].float()], -1))
    fine = torch.cat(parts).view(size, 2, size, 2, 4)
    alpha = fine[..., 3].mean((1, 3))
    return torch.cat([fine[..., :3].sum((1, 3)) / (4 * alpha).clamp(min=0.25)[..., None], alpha[..., None]], -1)


def _first_hits(thing, poses, cameras, i, xy, middle, radius) -> tuple[Hits, tuple[Tensor, Tensor]]:
    """Only rays that pass the bounding ball are traced."""
    origins, directions = cameras.rays(torch.full((len(xy),), i), xy)
    along = ((middle - origins) * directions).sum(-1)
    off = (origins + along[:, None] * directions - middle).norm(dim=-1)
    rows = (off < radius).nonzero()[:, 0]
    found = trace(thing, poses, origins[rows], directions[rows], (along[rows] - radius).clamp(min=0), 2 * radius)
    whole = Hits(torch.zeros(len(xy)), torch.full((len(xy),), -1), torch.zeros(len(xy), 3), torch.zeros(len(xy), 3))
    for name in ("distance", "part", "point", "normal"):
        getattr(whole, name)[rows] = getattr(found, name)
    return whole, (origins, directions)


def centre_hits(thing: Articulated, poses: Tensor, cameras: Cameras, i: int, middle: Tensor, radius: float) -> Hits:
    """Of the rays through pixel centres (H · W,)."""
    at = torch.arange(int(cameras.width[i])) + 0.5
    xy = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(-1, 2)
    return _first_hits(thing, poses, cameras, i, xy, middle, radius)[0]


def visible(
    surface: tuple[Tensor, Tensor, Tensor], hits: Hits, poses: Tensor, cameras: Cameras, i: int, radius: float
) -> Tensor:
    """(P,) bool: which points of the surface image i shows, by what the rays through pixel centres meet."""
    points, normals, part = surface
    pose = poses.float()[part.long()]
    p, n = move(pose, points), (pose[:, :3, :3] @ normals[..., None])[..., 0]
    away = cameras.centres[i] - p
    far = away.norm(dim=-1)
    size = int(cameras.width[i])
    xy, _ = cameras.project(torch.full((len(p),), i), p)
    column, row = xy.floor().long().clamp(0, size - 1).unbind(-1)
    pixel = row * size + column
    facing = (away * n).sum(-1) > _FACING * far
    return facing & (hits.part[pixel] == part) & ((hits.distance[pixel] - far).abs() < _NEAR * radius)


def flow(
    thing: Articulated, hits: Hits, later: Tensor, cameras: Cameras, i: int, j: int, radius: float
) -> tuple[Tensor, Tensor]:
    """(H, W, 2) pixels from image i to j, where the parts have the poses `later`; and (H, W) whether it can be seen there."""
    size = int(cameras.width[i])
    moved, there = torch.zeros(size * size, 2), torch.zeros(size * size, dtype=torch.bool)
    rows = (hits.part >= 0).nonzero()[:, 0]
    pose = later.float()[hits.part[rows]]
    p = move(pose, hits.point[rows])
    xy, _ = cameras.project(torch.full((len(rows),), j), p)
    at = torch.stack([rows % size, rows // size], -1) + 0.5
    towards = cameras.centres[j] - p
    start = torch.full((len(rows),), 6e-3 * radius)
    hidden = trace(thing, later, p, normalize(towards, dim=-1), start, 2 * radius).part >= 0
    moved[rows] = xy - at
    there[rows] = ~hidden & ((xy > 0) & (xy < size)).all(-1)
    return moved.view(size, size, 2), there.view(size, size)
