"""Materials in one light on a wall: all of them small, at its left, and one of them large, or on a mesh before it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from fields.apps.viewer.session import pose_of
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from fields.geometry.shapes import Mesh
from fields.io.images import to_bytes
from fields.io.shapes import glb_of
from fields.neumadiff.angles import Reflectance
from fields.neumadiff.preview import Light, LitSpheres, Shape
from fields.neumadiff.statistics import SCALES
from fields.relighting.develop import develop

if TYPE_CHECKING:
    import viser
    from fields.apps.viewer.materials import MaterialsViewer

BACKDROP = 0.007
"""Radiance behind everything."""
_REST = 0.2
"""Seconds without a new camera after which it rests."""
_SHARE, _BESIDE_MESH, _HIGHEST = 0.36, 0.22, 0.21
"""What small pictures may take of the wall's width, alone and where a mesh is in its middle; and each of its height."""
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


class Window:
    """What one browser is shown."""

    def __init__(self, viewer: MaterialsViewer, client: viser.ClientHandle) -> None:
        self.viewer, self.client, self.left = viewer, client, False
        self.wall, self.size = Wall(0, 1, 1), (0, 0)
        self.model: viser.GlbHandle | None = None
        self.rests = 0.0
        self.redraw()
        client.camera.on_update(self._look)

    def redraw(self) -> None:
        self.stale = self.turned = True

    async def _look(self, camera: viser.CameraHandle) -> None:
        self.rests, self.turned = time.monotonic() + _REST, True
        self.stale = self.stale or self.size != (camera.image_width, camera.image_height)

    def urgency(self) -> int:
        return 2 if self.stale or (self.turned and time.monotonic() > self.rests) else 0

    def act(self) -> None:
        if self.stale:
            self.stale = False
            self._draw()
        else:
            self.turned = False
            self._paint()
        self.client.flush()

    def _draw(self) -> None:
        viewer, camera, chosen = self.viewer, self.client.camera, self.viewer.chosen
        self.size = camera.image_width, camera.image_height
        self.wall = Wall(len(viewer.materials), *self.size, _SHARE if viewer.mesh is None else _BESIDE_MESH)
        fine_or_small = None if chosen is None or viewer.mesh else viewer.large() or chosen.tile
        large = fine_or_small and fine_or_small[1]
        image = self.wall.picture(viewer.materials, chosen, large, viewer.exposure.value)
        self.client.scene.set_background_image(image, format="jpeg", jpeg_quality=92)

    def _paint(self) -> None:
        """A mesh gets the colours that it has from where the camera is."""
        viewer, mesh, chosen, found = self.viewer, self.viewer.mesh, self.viewer.chosen, self.viewer.large()
        if mesh is None and self.model is not None:
            self.model.remove()
            self.model = None
        elif mesh is not None and chosen is not None and found is not None:
            colours = on_mesh(mesh, found[0], chosen.scale, pose_of(self.client.camera), viewer.exposure.value)
            self.model = self.client.scene.add_glb("/mesh", glb_of(replace(mesh, colours=colours), {}))


class Wall:
    """Where `count` small pictures are on a wall of so many pixels, as large as they can be, and where the large one is.

    Args:
        share: of the width, that small ones may take.
    """

    def __init__(self, count: int, width: int, height: int, share: float = _SHARE) -> None:
        self.count, self.width, self.height = count if count > 1 else 0, max(width, 64), max(height, 64)
        columns = range(1, self.count + 1)
        fits = {c: int(min(share * self.width / c, self.height / math.ceil(self.count / c))) for c in columns}
        self.columns = max(columns, key=lambda c: fits[c], default=0)
        self.side = min(fits.get(self.columns, 0), int(_HIGHEST * self.height))
        self.left = self.columns * self.side
        self.large = int(0.94 * min(self.width - self.left, self.height))

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
        gap, inner = self.side // 25, self.side - 2 * (self.side // 25)
        places = [(material, self._place(i)) for i, material in zip(range(self.count), materials, strict=False)]
        for material, place in places:
            if material.tile is not None:
                wall[place][gap : gap + inner, gap : gap + inner] = _resized(material.tile[1], inner)
        if large is not None:
            row = (self.height - self.large) // 2
            column = self.left + (self.width - self.left - self.large) // 2
            wall[row : row + self.large, column : column + self.large] = _resized(large, self.large)
        image = to_bytes(develop(wall.nan_to_num(), stops))
        for material, place in places:
            if material is chosen:
                frame = np.ones(image[place].shape[:2], bool)
                frame[gap // 2 : -gap // 2, gap // 2 : -gap // 2] = False
                image[place][frame] = _CHOSEN
            if material.kept:
                image[place][-3 * gap :, -3 * gap :] = _KEPT
        return image

    def _place(self, i: int) -> tuple[slice, slice]:
        """Rows and columns of small picture `i`."""
        row, column = i // self.columns * self.side, i % self.columns * self.side
        return slice(row, row + self.side), slice(column, column + self.side)


def _resized(picture: Tensor, size: int) -> Tensor:
    """(size, size, 3) of (S, S, 3)."""
    planes = picture.permute(2, 0, 1)[None]
    return interpolate(planes, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0)


def on_mesh(mesh: Mesh, lit: LitSpheres, scale: str, pose: Tensor, stops: float) -> np.ndarray:
    """(V, 3) uint8 sRGB that vertices have for a camera (4, 4), world from camera, OpenGL.

    Each is looked up on the lit sphere as if the camera looked straight at it, and the light were turned with that: by some degrees from one end
    of a mesh to the other.
    """
    positions, normals = (torch.from_numpy(v).to(pose) for v in (mesh.positions, mesh.normals))
    eye, normals = normalize((pose[:3, 3] - positions) @ pose[:3, :3], dim=-1), normals @ pose[:3, :3]
    ahead = torch.tensor([0.0, 0.0, 1.0]).to(pose)
    # Turned as the direction to the eye is turned onto z, by the shortest way.
    between = (normals * (eye + ahead)).sum(-1) / (1 + eye[:, 2]).clamp(min=1e-3)
    turned = normals - between[:, None] * (eye + ahead) + 2 * (normals * eye).sum(-1, keepdim=True) * ahead
    return to_bytes(develop((lit(turned[None])[0, 0] / SCALES[scale]).nan_to_num(), stops))
