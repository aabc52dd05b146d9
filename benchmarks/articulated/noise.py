"""What real videos have and rendered ones have not: masks that are off, flow that is off, cameras that are off."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from fields.reacto.screws import exponential

_MASKS = 0.3  # of them are too small or too large, by one or two pixels
_FLOW, _OUTLIERS, _FAR = 0.5, 0.05, 10.0  # pixels; of all vectors; pixels that those are off
_TURN, _SHIFT = math.radians(1), 0.01  # about the object; of the distance to it


class Noise:
    """Args:
    kinds: of "mask", "flow" and "pose".
    """

    def __init__(self, kinds: tuple[str, ...], seed: int) -> None:
        self.kinds, self.generator = kinds, torch.Generator().manual_seed(seed)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def image(self, image: Tensor) -> Tensor:
        """(H, W, 4), with another alpha; what it shows too much of is black."""
        if "mask" not in self.kinds or float(torch.rand((), generator=self.generator)) > _MASKS:
            return image
        width, grows = torch.randint(2, (2,), generator=self.generator).tolist()
        alpha, size = image[None, None, ..., 3], 2 * width + 3
        changed = max_pool2d(alpha, size, 1, size // 2) if grows else -max_pool2d(-alpha, size, 1, size // 2)
        return torch.cat([image[..., :3], changed[0, 0, ..., None]], -1)

    def flow(self, moved: Tensor) -> Tensor:
        """(H, W, 2) pixels."""
        if "flow" not in self.kinds:
            return moved
        off = _FLOW * self._normal(*moved.shape)
        far = torch.rand(moved.shape[:2], generator=self.generator) < _OUTLIERS
        return moved + torch.where(far[..., None], _FAR * self._normal(*moved.shape), off)

    def pose(self, world_from_camera: Tensor, middle: Tensor) -> Tensor:
        """(4, 4), as if the object were somewhere else."""
        if "pose" not in self.kinds:
            return world_from_camera
        distance = float((world_from_camera[:3, 3] - middle).norm())
        turn, shift = _TURN * self._normal(3), _SHIFT * distance * self._normal(3)
        about = torch.eye(4)
        about[:3, 3] = middle
        back = about.clone()
        back[:3, 3] = -middle
        motion = about @ exponential(torch.cat([turn, shift])) @ back
        return (motion.to(world_from_camera) @ world_from_camera).to(world_from_camera)
