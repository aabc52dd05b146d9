"""Camera paths: around an object, in front of a scene, through given cameras, or from a nerfstudio file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fields.data.bounds import focus
from fields.data.cameras import Cameras
from fields.errors import DataError
from fields.rendering import orbit


def surround(cameras: Cameras) -> bool:
    """Whether these cameras stand on all sides of what they look at: as seen from there, no two neighbours are more
    than 120 degrees of a turn apart. What lies on the far side of those that do not, nobody has seen."""
    centre, _, converges = focus(cameras)
    up = _up(cameras)
    offset = cameras.centres - centre.float()
    right = normalize(torch.linalg.cross(up, torch.eye(3)[int(up.abs().argmin())]), dim=0)
    angles = torch.atan2(offset @ torch.linalg.cross(up, right), offset @ right).sort().values
    gaps = torch.diff(angles, append=angles[:1] + 2 * math.pi)
    return converges and bool(gaps.max() < 2 * math.pi / 3)


def _up(cameras: Cameras) -> Tensor:
    """(3,) unit: the mean up of these cameras, or the axis it is close to."""
    up = normalize(cameras.world_from_camera[:, :3, 1].mean(0), dim=0)
    tilt = up.abs().max()
    return torch.where(up.abs() == tilt, up.sign(), torch.zeros(3)) if tilt > 0.95 else up


def orbit_around(cameras: Cameras, aabb: Tensor, frames: int, size: tuple[int, int] | None = None) -> Cameras:
    """A turn around the middle of `aabb` (6,), as far and as high as these cameras typically are, up as they are."""
    centre, up = (aabb[:3] + aabb[3:]).cpu() / 2, _up(cameras)
    offset = cameras.centres - centre
    radius = float(offset.norm(dim=-1).median())
    elevation = math.degrees(math.asin(float((normalize(offset, dim=-1) @ up).median().clamp(-0.99, 0.99))))
    middle = len(cameras) // 2
    fov = math.degrees(2 * math.atan(float(cameras.width[middle]) / (2 * float(cameras.fx[middle]))))
    w, h = size or (int(cameras.width[middle]), int(cameras.height[middle]))
    x, y, z = centre.tolist()
    ux, uy, uz = up.tolist()
    return orbit(frames, centre=(x, y, z), radius=radius, elevation=elevation, up=(ux, uy, uz), fov=fov, size=(w, h))


def spiral(cameras: Cameras, aabb: Tensor, frames: int, turns: int = 2, size: tuple[int, int] | None = None) -> Cameras:
    """Turns in front of the scene, within the spread of these cameras, looking where they look, or at the middle of
    `aabb` where they do not agree."""
    meeting, _, converges = focus(cameras)
    target = meeting.float() if converges else (aabb[:3] + aabb[3:]).cpu() / 2
    pose = cameras.world_from_camera
    middle = int((cameras.centres - cameras.centres.mean(0)).norm(dim=-1).argmin())
    right, up = pose[middle, :3, 0], pose[middle, :3, 1]
    spread = (cameras.centres - cameras.centres.mean(0)).abs().quantile(0.8, dim=0).norm() / 2
    angle = torch.linspace(0, 2 * math.pi * turns, frames + 1)[:-1, None]
    eyes = cameras.centres[middle] + spread * (angle.cos() * right + 0.6 * angle.sin() * up)
    w, h = size or (int(cameras.width[middle]), int(cameras.height[middle]))
    focal = float(cameras.fx[middle]) * w / float(cameras.width[middle])
    return Cameras.look_at(eyes, target, up, focal=focal, width=w, height=h)


def interpolate(cameras: Cameras, frames: int, size: tuple[int, int] | None = None) -> Cameras:
    """A smooth flight through these cameras in their order: Catmull-Rom positions, slerped rotations, pinholes."""
    if len(cameras) < 2:
        raise DataError("A path needs at least two cameras to go between.")
    u = torch.linspace(0, len(cameras) - 1, frames)
    i = u.long().clamp(max=len(cameras) - 2)
    t = (u - i)[:, None]
    at = lambda k: cameras.centres[k.clamp(0, len(cameras) - 1)]  # noqa: E731
    a, b, c, d = at(i - 1), at(i), at(i + 1), at(i + 2)
    pose = torch.eye(4).repeat(frames, 1, 1)
    pose[:, :3, 3] = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    rotation = cameras.world_from_camera[:, :3, :3]
    pose[:, :3, :3] = rotation[i] @ _fraction(rotation[i].mT @ rotation[i + 1], t[:, 0])
    w, h = size or (int(cameras.width[0]), int(cameras.height[0]))
    focal = torch.lerp(cameras.fx[i] / cameras.width[i], cameras.fx[i + 1] / cameras.width[i + 1], t[:, 0]) * w
    half = torch.full((frames,), 0.5)
    return Cameras(pose, focal, focal, half * w, half * h, torch.full((frames,), w), torch.full((frames,), h))


def _fraction(rotation: Tensor, t: Tensor) -> Tensor:
    """The rotations (N, 3, 3) turned only the fraction t (N,) of their angle about their own axis (Rodrigues)."""
    cosine = ((rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
    angle = torch.acos(cosine)
    axis = torch.stack([rotation[:, a, b] - rotation[:, b, a] for a, b in ((2, 1), (0, 2), (1, 0))], -1)
    axis = normalize(axis, dim=-1)
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
    part = (angle * t)[:, None, None]
    return torch.eye(3) + part.sin() * cross + (1 - part.cos()) * cross @ cross


def read_nerfstudio_path(file: Path) -> tuple[Cameras, float]:
    """Cameras and frames per second of a path saved by nerfstudio's viewer, in the scene's world frame.

    Raises:
        DataError: not such a file, or cameras other than perspective ones.
    """
    try:
        path = json.loads(file.read_text())
        if (kind := path.get("camera_type", "perspective")) != "perspective":
            raise DataError(f"{file}: its cameras are {kind}; only perspective ones can be rendered.")
        frames = path["camera_path"]
        w, h = int(path["render_width"]), int(path["render_height"])
        pose = torch.tensor([f["camera_to_world"] for f in frames], dtype=torch.float64).view(-1, 4, 4)
        fov = torch.tensor([f["fov"] for f in frames], dtype=torch.float64)  # vertical, degrees
        seconds = float(path.get("seconds", len(frames) / float(path.get("fps", 24))))
    except FileNotFoundError:
        raise DataError(
            f"{file}: no such file. --path is auto, orbit, spiral, interpolate, test, train or a camera path file."
        ) from None
    except (
        json.JSONDecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise DataError(f"{file}: not a camera path of nerfstudio ({error}). Export one from its viewer.") from None
    if not len(pose) or not pose.isfinite().all() or not fov.isfinite().all():
        raise DataError(f"{file}: the camera path is empty or has poses that are not finite. Export it again.")
    focal = h / 2 / torch.tan(torch.deg2rad(fov) / 2)
    half = torch.full((len(pose),), 0.5)
    cameras = Cameras(pose, focal, focal, half * w, half * h, torch.full((len(pose),), w), torch.full((len(pose),), h))
    return cameras, len(pose) / max(seconds, 1e-6)


def to_json(cameras: Cameras) -> dict:
    """Pinhole part of cameras as plain data: enough to lay paths by."""
    poses = cameras.world_from_camera[:, :3].flatten(1).tolist()
    return {
        "world_from_camera": [[float(f"{v:.9g}") for v in pose] for pose in poses],  # all that a float32 has
        **{name: getattr(cameras, name).tolist() for name in ("fx", "fy", "cx", "cy", "width", "height")},
    }


def from_json(data: dict) -> Cameras:
    """Inverse of `to_json`; raises DataError for anything else."""
    try:
        pose = torch.tensor(data["world_from_camera"]).view(-1, 3, 4)
        last = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(len(pose), 1, 4)
        rest = [torch.tensor(data[name]) for name in ("fx", "fy", "cx", "cy", "width", "height")]
        return Cameras(torch.cat([pose, last], 1), *rest)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise DataError(
            f"config.json: its cameras are damaged ({error}). Restore the run folder from a copy."
        ) from None
