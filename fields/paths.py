"""Camera paths: around an object, in front of a scene, through given cameras, or from a nerfstudio file."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fields.data.bounds import focus
from fields.data.cameras import Cameras
from fields.errors import DataError
from fields.io.reading import parse_json, said
from fields.rendering import orbit

_LARGEST, _LONGEST = 1 << 14, 1 << 17  # pixels of a side, images of a path: what a file may ask for


def surround(cameras: Cameras) -> bool:
    """Whether these cameras stand on all sides of what they look at: as seen from there, no two neighbours are more
    than 120 degrees of a turn apart. What lies on the far side of those that do not, nobody has seen."""
    centre, _, converges = focus(cameras)
    up = up_of(cameras)
    offset = cameras.centres - centre.float()
    right = normalize(torch.linalg.cross(up, torch.eye(3)[int(up.abs().argmin())]), dim=0)
    angles = torch.atan2(offset @ torch.linalg.cross(up, right), offset @ right).sort().values
    gaps = torch.diff(angles, append=angles[:1] + 2 * math.pi)
    return converges and bool(gaps.max() < 2 * math.pi / 3)


def up_of(cameras: Cameras) -> Tensor:
    """(3,) unit: the mean up of these cameras, or the axis it is close to."""
    up = normalize(cameras.world_from_camera[:, :3, 1].mean(0), dim=0)
    tilt = up.abs().max()
    return torch.where(up.abs() == tilt, up.sign(), torch.zeros(3)) if tilt > 0.95 else up


def orbit_around(cameras: Cameras, aabb: Tensor, frames: int, size: tuple[int, int] | None = None) -> Cameras:
    """A turn around the middle of `aabb` (6,), as far and as high as these cameras typically are, up as they are."""
    centre, up = (aabb[:3] + aabb[3:]).cpu() / 2, up_of(cameras)
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


def interpolate(cameras: Cameras, frames: int, size: tuple[int, int] | None = None, *, closed: bool = False) -> Cameras:
    """A smooth flight through these cameras in their order: Catmull-Rom positions, slerped rotations, pinholes.

    Args:
        closed: go on from the last to the first, which is not repeated.
    """
    if len(cameras) < 2:
        raise DataError("A path needs at least two cameras to go between.")
    if closed:
        cameras = cameras[[*range(len(cameras)), 0]]
    last = len(cameras) - 1
    u = torch.linspace(0, last, frames + closed)[:frames]
    i = u.long().clamp(max=last - 1)
    t = (u - i)[:, None]
    at = lambda k: cameras.centres[k % last if closed else k.clamp(0, last)]  # noqa: E731
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
    """Cameras and frames per second of a path saved by nerfstudio's viewer or ours, in the scene's world frame.

    Raises:
        DataError: not such a file, or cameras other than perspective ones.
    """
    try:
        return parse_nerfstudio_path(file.read_bytes(), str(file))
    except FileNotFoundError:
        raise DataError(
            f"{file}: no such file. --path is auto, orbit, spiral, interpolate, test, train or a camera path file."
        ) from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}). Give a camera path file.") from None


def parse_nerfstudio_path(text: bytes, name: str, frames: str = "camera_path") -> tuple[Cameras, float]:
    """As `read_nerfstudio_path`, of the bytes of a file called `name`.

    Args:
        frames: "camera_path", every frame, or "keyframes", what a person has set.
    """
    try:
        path = parse_json(text)
        if (kind := path.get("camera_type", "perspective")) != "perspective":
            raise DataError(f"{name}: its cameras are {kind}; only perspective ones can be rendered.")
        matrix = {"camera_path": "camera_to_world", "keyframes": "matrix"}[frames]
        w, h = int(path["render_width"]), int(path["render_height"])
        pose = torch.tensor([f[matrix] for f in path[frames]], dtype=torch.float64).view(-1, 4, 4)
        fov = torch.tensor([f["fov"] for f in path[frames]], dtype=torch.float64)  # vertical, degrees
        seconds = float(path.get("seconds", len(path["camera_path"]) / float(path.get("fps", 24))))
        if not (0 < w <= _LARGEST and 0 < h <= _LARGEST and len(pose) <= _LONGEST):
            raise ValueError(f"{len(pose)} images of {w} × {h} pixels")
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(
            f"{name}: not a camera path of nerfstudio ({said(error)}). Export one from its viewer."
        ) from None
    if not len(pose) or not pose.isfinite().all() or not ((fov > 0) & (fov < 180)).all():
        raise DataError(f"{name}: the camera path is empty or has poses that are not finite. Export it again.")
    focal = h / 2 / torch.tan(torch.deg2rad(fov) / 2)
    half = torch.full((len(pose),), 0.5)
    cameras = Cameras(pose, focal, focal, half * w, half * h, torch.full((len(pose),), w), torch.full((len(pose),), h))
    return cameras, len(pose) / max(seconds, 1e-6)


def nerfstudio_path(keys: Cameras, frames: Cameras, fps: float, *, closed: bool = False) -> dict:
    """Plain data of the file that `read_nerfstudio_path` and nerfstudio's own viewer and renderer read."""

    def entries(cameras: Cameras, matrix: str) -> list[dict]:
        rows = zip(cameras.world_from_camera.flatten(1).tolist(), cameras.fov_y.rad2deg().tolist(), strict=True)
        return [{matrix: pose, "fov": degrees, "aspect": aspect} for pose, degrees in rows]

    w, h = int(frames.width[0]), int(frames.height[0])
    aspect = w / h
    return {
        "camera_type": "perspective",
        "render_width": w,
        "render_height": h,
        "fps": fps,
        "seconds": len(frames) / fps,
        "is_cycle": closed,
        "smoothness_value": 0.0,
        "default_fov": float(keys.fov_y[0].rad2deg()),
        "default_transition_sec": len(frames) / fps / max(len(keys) - (not closed), 1),
        "keyframes": entries(keys, "matrix"),
        "camera_path": entries(frames, "camera_to_world"),
    }


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
    except (ArithmeticError, LookupError, TypeError, RuntimeError, ValueError) as error:
        raise DataError(
            f"config.json: its cameras are damaged ({error}). Restore the run folder from a copy."
        ) from None
