"""The inside of things: what lies behind the surface from wherever the cameras stood."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from fields.data.blocks import Block
from fields.data.cameras import Cameras
from fields.geometry.points import stopping_depth
from fields.radiance import RadianceField

_CAMERAS = 64  # that are asked: many more of a video see nothing else
_PIXELS = 160 * 160  # of each
_COARSE = 4  # fine cells along a coarse one
_CHUNK = 1 << 19  # points at once


@torch.no_grad()
def cavities(field: RadianceField, cameras: Cameras, inside: np.ndarray) -> np.ndarray:
    """Where a grid of points over the box is empty but no camera sees it, closed off from the faces of the box.

    Nothing there was ever compared with a picture, so it is neither hollow nor full but whatever the training left.

    Args:
        inside: (X, Y, Z) bool, what is not empty.
    """
    from scipy.ndimage import binary_dilation, label, zoom

    views = _Views(field, cameras)
    size = [math.ceil((n - 1) / _COARSE) + 1 for n in inside.shape]
    coarse = views.unseen(_points(field, size, np.ones(size, bool))).reshape(size)
    # A coarse point speaks for what is within a cell of it.
    near = zoom(
        binary_dilation(coarse, iterations=1), [n / k for n, k in zip(inside.shape, size, strict=True)], order=0
    )
    found = near & ~inside
    for i, layer in enumerate(found):
        layer[layer] = views.unseen(_points(field, inside.shape, layer[None], i))
    parts = Block(inside.shape, torch.int32, "grid")
    count = label(found, output=parts.data.numpy())
    faces = [parts.data.numpy().take(i, axis) for axis in range(3) for i in (0, -1)]
    closed = np.ones(count + 1, bool)
    closed[np.unique(np.concatenate([f.ravel() for f in faces]))] = False
    for i, layer in enumerate(found):
        layer &= closed[parts.layer(i).numpy()]
    return found


def _points(field: RadianceField, size, mask: np.ndarray, first: int = 0) -> Tensor:
    """(N, 3) in the scene's frame: those of a grid of so many points over the box where the mask holds, of layers from `first` on."""
    x = (np.stack(np.nonzero(mask), -1) + [first, 0, 0]) * (2 / (np.array(size) - 1)) - 1
    return field.denormalise(torch.from_numpy(x).float().to(field.aabb.device))


class _Views:
    """How far some of the cameras see."""

    def __init__(self, field: RadianceField, cameras: Cameras) -> None:
        chosen = np.unique(np.linspace(0, len(cameras) - 1, min(len(cameras), _CAMERAS)).round().astype(int))
        cameras = cameras[chosen.tolist()].to(field.aabb.device)
        self.slack = 2 * field.step_size / field.step_ratio  # two knots: surfaces are about that thick
        self.cameras, self.depths = [], []
        for i in range(len(cameras)):
            factor = max(1.0, math.sqrt(int(cameras.width[i] * cameras.height[i]) / _PIXELS))
            one = cameras[i].downscaled(factor)
            # The farthest of the neighbours: at an edge, a pixel's ray does not speak for all of the pixel.
            depth = max_pool2d(stopping_depth(field, one)[None, None], 3, stride=1, padding=1)[0, 0]
            self.cameras.append(one)
            self.depths.append(depth)

    def unseen(self, points: Tensor) -> np.ndarray:
        """(N,) bool: whether no camera sees points (N, 3) in front of what it sees."""
        seen = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        for start in range(0, len(points), _CHUNK):
            left = torch.arange(start, min(start + _CHUNK, len(points)), device=points.device)
            for camera, depth in zip(self.cameras, self.depths, strict=True):
                xy, z = camera.project(torch.zeros_like(left), points[left])
                h, w = depth.shape
                x, y = (xy.nan_to_num(-1.0).floor().clamp(-1, max(w, h)).long()).unbind(-1)
                there = (x >= 0) & (x < w) & (y >= 0) & (y < h) & (z > 0)
                reach = depth[y.clamp(0, h - 1), x.clamp(0, w - 1)]
                now = there & (z < reach + self.slack)
                seen[left[now]] = True
                left = left[~now]
        return (~seen).cpu().numpy()
