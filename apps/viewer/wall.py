"""Materials in one light on a wall: all of them small, at its left, and one of them large."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fields.geometry.shapes import Mesh
from fields.io.images import to_bytes
from fields.neumadiff.angles import Reflectance
from fields.neumadiff.preview import Light, LitSpheres, Shape
from fields.neumadiff.statistics import SCALES
from fields.relighting.develop import develop

TILE = 128
"""Pixels of a small picture."""
BACKDROP = 0.007
"""Radiance behind everything."""
_GAP, _FRAME = 8, 3
_SHARE = 0.36
"""Of the wall's width that small pictures may take."""
_CHOSEN, _KEPT = (235, 235, 235), (70, 190, 110)

Look = tuple[Light, Shape]


@dataclass(eq=False)
class Material:
    """One of those shown."""

    name: str
    reflectance: Reflectance
    """Of this one alone."""
    scale: str
    kept: bool = False
    tile: tuple[Look, Tensor] | None = None
    """What it shows, and (S, S, 3) radiance, as bright as on MERL's scale."""


class Wall:
    """Where `count` small pictures are on a wall of so many pixels, as large as they can be, and where there is room for the large one."""

    def __init__(self, count: int, width: int, height: int) -> None:
        self.count, self.width, self.height = count if count > 1 else 0, max(width, 16), max(height, 16)
        room = _SHARE * self.width
        columns = range(1, self.count + 1)
        sides = {c: int(min(TILE + _GAP, room / c, self.height / math.ceil(self.count / c))) for c in columns}
        self.columns = max(columns, key=lambda c: sides[c], default=0)
        self.side = sides.get(self.columns, 0)
        self.left = self.columns * self.side
        self.large = int(0.94 * min(self.width - self.left, self.height))

    def corner(self, i: int) -> tuple[int, int]:
        """Row and column of the pixel where the place of small picture `i` begins."""
        return i // self.columns * self.side, i % self.columns * self.side

    def index(self, x: float, y: float) -> int | None:
        """Of the small picture at a share of the width and of the height."""
        column, row = int(x * self.width), int(y * self.height)
        if not 0 <= column < self.left:
            return None
        i = row // self.side * self.columns + column // self.side
        return i if 0 <= i < self.count else None

    def picture(self, materials: list[Material], chosen: Material | None, large: Tensor | None, stops: float) -> np.ndarray:  # fmt: skip
        """(height, width, 3) uint8 sRGB; `large` (S, S, 3) is radiance, like that of small pictures."""
        wall = torch.full((self.height, self.width, 3), BACKDROP)
        places = list(zip(map(self.corner, range(self.count)), materials, strict=False))
        inner = self.side - _GAP
        for (row, column), material in places:
            if material.tile is not None and inner > 0:
                start, end = _GAP // 2, _GAP // 2 + inner
                wall[row + start : row + end, column + start : column + end] = _resized(material.tile[1], inner)
        if large is not None:
            row = (self.height - self.large) // 2
            column = self.left + (self.width - self.left - self.large) // 2
            wall[row : row + self.large, column : column + self.large] = _resized(large, self.large)
        image = to_bytes(develop(wall, stops))
        for (row, column), material in places:
            if material.kept or material is chosen:
                place = image[row : row + self.side, column : column + self.side]
                inside = place[_FRAME:-_FRAME, _FRAME:-_FRAME].copy()
                place[:] = _CHOSEN if material is chosen else _KEPT
                place[_FRAME:-_FRAME, _FRAME:-_FRAME] = inside
                if material.kept:
                    place[-14:, -14:] = _KEPT
        return image


def _resized(picture: Tensor, size: int) -> Tensor:
    """(size, size, 3) of (S, S, 3)."""
    planes = picture.permute(2, 0, 1)[None]
    return interpolate(planes, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0)


def on_mesh(mesh: Mesh, lit: LitSpheres, scale: str, pose: Tensor, stops: float) -> np.ndarray:
    """(V, 3) uint8 sRGB that vertices have from a camera (4, 4), OpenGL.

    Every vertex is seen from right above the middle of a lit sphere: the light turns with the line of sight, by some degrees from one end of a
    mesh to the other.
    """
    positions, normals = (torch.from_numpy(v).to(pose) for v in (mesh.positions, mesh.normals))
    eye = torch.nn.functional.normalize((pose[:3, 3] - positions) @ pose[:3, :3], dim=-1)
    ahead = torch.tensor([0.0, 0.0, 1.0]).to(pose)
    half, normal = eye + ahead, normals @ pose[:3, :3]
    # The rotation that takes the direction to the eye to z, by the shortest way.
    bent = normal - ((normal * half).sum(-1) / (1 + eye[:, 2]).clamp(min=1e-3))[:, None] * half
    bent = bent + 2 * (normal * eye).sum(-1, keepdim=True) * ahead
    return to_bytes(develop(lit(bent[None])[0, 0] / SCALES[scale], stops))
