"""Rigid motions as unit dual quaternions, of which a weighted mean is a rigid motion again.

Kavan, Collins, Žára, O'Sullivan: Geometric Skinning with Approximate Dual Quaternion Blending, 2008. Eight numbers (…, 8): the real and the dual
quaternion, each x, y, z, w.
"""

from __future__ import annotations

import torch
from roma import quat_action, quat_conjugation, quat_product, rotmat_to_unitquat
from torch import Tensor


def dual_quaternions(poses: Tensor) -> Tensor:
    """(…, 8) of rigid poses (…, 4, 4)."""
    turn = rotmat_to_unitquat(poses[..., :3, :3])
    shift = torch.cat([poses[..., :3, 3], torch.zeros_like(poses[..., :1, 3])], -1)
    return torch.cat([turn, quat_product(shift, turn) / 2], -1)


def blended(motions: Tensor, weights: Tensor) -> Tensor:
    """(M, 8) the mean of motions (M, B, 8) by weights (M, B): a motion and its negative are the same one, and that which has the most weight says
    which of both is meant. Gradients: to both."""
    strongest = motions.gather(1, weights.argmax(1)[:, None, None].expand(-1, 1, 8))
    same = (motions[..., :4] * strongest[..., :4]).sum(-1) >= 0
    mean = (torch.where(same, weights, -weights)[..., None] * motions).sum(1)
    return mean / mean[:, :4].norm(dim=-1, keepdim=True)


def carried(motions: Tensor, points: Tensor) -> Tensor:
    """Points (…, 3) moved by unit motions (…, 8)."""
    turn, dual = motions[..., :4], motions[..., 4:]
    return quat_action(turn, points) + 2 * quat_product(dual, quat_conjugation(turn))[..., :3]
