"""Structure from motion leaves origin, rotation and scale open. This fixes them: up is +Z, what the cameras
look at is the origin, and they stand about four units away, as in the NeRF-synthetic scenes that the
methods' settings are made for."""

from __future__ import annotations

import numpy as np
import torch

from fields.data.bounds import BLENDER_DISTANCE, focus
from fields.data.cameras import Cameras
from fields.data.frames import Capture


def normalise(capture: Capture) -> None:
    """Move poses, points and box of `capture` in place, and put the similarity before `world_from_input`."""
    poses = np.stack([f.pose for f in capture.frames if f.pose is not None])
    s = similarity(poses, capture.points)
    scale = np.cbrt(np.linalg.det(s[:3, :3]))
    for frame in capture.frames:
        assert frame.pose is not None
        moved = s @ frame.pose
        moved[:3, :3] /= scale
        frame.pose = moved
        if frame.depth_range is not None:
            frame.depth_range = (frame.depth_range[0] * scale, frame.depth_range[1] * scale)
    if capture.points is not None:
        capture.points = capture.points @ s[:3, :3].T + s[:3, 3]
    capture.world_from_input = s @ capture.world_from_input
    capture.notes.append(f"coordinates normalised: up is +Z, scaled by {scale:.4g}; exports undo it")


def similarity(poses: np.ndarray, points: np.ndarray | None) -> np.ndarray:
    """(4, 4) similarity for poses (N, 4, 4); deterministic."""
    up = poses[:, :3, 1].mean(0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 0.1 else np.array([0.0, 0.0, 1.0])
    # Also level the ring that the cameras stand on, if they do stand on one and it agrees with their up.
    ring = poses[:, :3, 3] - poses[:, :3, 3].mean(0)
    _, spread, axes = np.linalg.svd(ring, full_matrices=True)
    flat = len(spread) == 3 and spread[2] < 0.15 * spread[1]
    if flat and abs(axes[2] @ up) > 0.9:
        up = axes[2] * np.sign(axes[2] @ up)
    rotation = _rotation_between(up, np.array([0.0, 0.0, 1.0]))
    n = len(poses)
    one = torch.ones(n)
    centre, distance, converges = focus(Cameras(torch.from_numpy(poses), one, one, one, one, one, one))
    middle = centre.numpy()
    if not converges and points is not None and len(points):
        middle = np.median(points, axis=0)
        distance = float(np.median(np.linalg.norm(poses[:, :3, 3] - middle, axis=-1)))
    elif not converges:
        middle = poses[:, :3, 3].mean(0)
        distance = max(float(np.linalg.norm(ring, axis=-1).max()), 1e-6)
    s = np.eye(4)
    s[:3, :3] = rotation * (BLENDER_DISTANCE / max(distance, 1e-9))
    s[:3, 3] = -s[:3, :3] @ middle
    return s


def _rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes the unit vector a to b."""
    v, c = np.cross(a, b), float(a @ b)
    if c < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])  # b is +Z here: turn half way about X
    x = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + x + x @ x / (1 + c)
