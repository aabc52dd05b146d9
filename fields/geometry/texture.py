"""The colours of a field as a picture on a mesh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fields.errors import ConfigError
from fields.geometry.shapes import Mesh, TexturedMesh, unit
from fields.geometry.surface import colours_from_outside
from fields.radiance import RadianceField

_MARGIN = 2  # texels around each chart that have its colours: what a filter reads beyond an edge
_SIDES = (16, 16_384)
_AT_ONCE = 1 << 22  # texels of bounding boxes


def bake(field: RadianceField, mesh: Mesh, side: int = 2048) -> TexturedMesh:
    """Unwraps a mesh of a field, in the field's frame, and paints it with the field's colours as seen from outside.

    Args:
        side: of the square texture, pixels. To unwrap 20 000 triangles takes seconds, ten times as many some minutes.

    Raises:
        ConfigError: a side out of range, or `xatlas` is not installed.
    """
    if not _SIDES[0] <= side <= _SIDES[1]:
        raise ConfigError(f"A texture of {side} pixels: its side can be {_SIDES[0]} to {_SIDES[1]}.")
    try:
        import xatlas
    except ImportError:
        raise ConfigError("A texture needs xatlas: pip install 'fields[mesh]'.") from None
    atlas, packing = xatlas.Atlas(), xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = side, 2 * _MARGIN, True
    atlas.add_mesh(mesh.positions.astype(np.float32), mesh.faces.astype(np.uint32), mesh.normals)
    atlas.generate(pack_options=packing)
    origin, faces, uv = atlas.get_mesh(0)
    unwrapped = replace(
        mesh,
        **{name: getattr(mesh, name)[origin] for name in ("positions", "normals", "colours")},
        faces=faces.astype(np.int32),
    )
    texture = np.zeros((side, side, 3), np.uint8)
    painted = np.zeros((side, side), bool)
    for row, column, face, weights in _texels(uv * side, unwrapped.faces):  # coordinates are parts of the whole
        corners = unwrapped.faces[face]
        at, normal = ((weights[:, :, None] * v[corners]).sum(1) for v in (unwrapped.positions, unwrapped.normals))
        texture[row, column] = colours_from_outside(field, at, unit(normal))
        painted[row, column] = True
    return TexturedMesh(**vars(unwrapped), uv=uv.astype(np.float32), texture=_spread(texture, painted))


def _texels(corners: np.ndarray, faces: np.ndarray):
    """Which texels the triangles cover, by parts: rows, columns, faces (K,) and barycentric weights (K, 3).

    Args:
        corners: (V, 2) of the vertices, pixels.
    """
    triangles = corners[faces].astype(np.float64)
    low = np.floor(triangles.min(1)).astype(int)
    size = np.ceil(triangles.max(1)).astype(int) - low
    edges = triangles[:, 1:] - triangles[:, :1]
    area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    order = np.argsort(size.prod(1))
    order = order[area[order] != 0]
    at = 0
    while at < len(order):
        # Boxes of like sizes, all in the largest of them.
        count = 1
        while at + count < len(order):
            w, h = size[order[at : at + 2 * count]].max(0)
            if w * h * 2 * count > _AT_ONCE:
                break
            count *= 2
        some = order[at : at + count]
        at += count
        w, h = size[some].max(0)
        y, x = np.divmod(np.arange(w * h), w)
        texel = low[some][:, None] + np.stack([x, y], -1)
        d = texel + 0.5 - triangles[some][:, None, 0]
        e, f, total = edges[some][:, None, 0], edges[some][:, None, 1], area[some][:, None]
        b = (d[..., 0] * f[..., 1] - d[..., 1] * f[..., 0]) / total
        c = (e[..., 0] * d[..., 1] - e[..., 1] * d[..., 0]) / total
        weights = np.stack([1 - b - c, b, c], -1)
        face, which = np.nonzero((weights >= -1e-9).all(-1))
        column, row = texel[face, which].T
        yield row, column, some[face], weights[face, which]


def _spread(texture: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """The texture with every unpainted texel as its nearest painted one."""
    from scipy.ndimage import distance_transform_edt

    if painted.all() or not painted.any():
        return texture
    y, x = distance_transform_edt(~painted, return_distances=False, return_indices=True)
    return texture[y, x]
