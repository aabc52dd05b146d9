"""Rigid motions as poses (…, 4, 4): what they do to points and rays, and back."""

from __future__ import annotations

import torch
from torch import Tensor


def pose_of(rotation: Tensor, translation: Tensor) -> Tensor:
    """Poses (…, 4, 4) of rotations (…, 3, 3) and translations (…, 3)."""
    last = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*rotation.shape[:-2], 1, 4)
    return torch.cat([torch.cat([rotation, translation[..., None]], -1), last], -2)


def move(pose: Tensor, points: Tensor) -> Tensor:
    """Points (…, 3) moved by poses (…, 4, 4)."""
    if pose.ndim == 2:  # one for all: a product of matrices
        return points @ pose[:3, :3].mT + pose[:3, 3]
    return (pose[..., :3, :3] @ points[..., None])[..., 0] + pose[..., :3, 3]


def move_by_each(poses: Tensor, points: Tensor) -> Tensor:
    """Points (N, 3) moved by each of the poses (H, 4, 4): (H, N, 3)."""
    return points @ poses[:, :3, :3].mT + poses[:, None, :3, 3]


def inverse(pose: Tensor) -> Tensor:
    """Of rigid poses (…, 4, 4)."""
    rotation = pose[..., :3, :3].mT
    top = torch.cat([rotation, -rotation @ pose[..., :3, 3:]], -1)
    return torch.cat([top, pose[..., 3:, :]], -2)


def within(pose: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Rays (…, 3), (…, 3) in the frame of what has these poses (…, 4, 4)."""
    back = inverse(pose)
    return move(back, origins), (back[..., :3, :3] @ directions[..., None])[..., 0]
