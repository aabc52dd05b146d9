"""Cameras from and to what other programs use: OpenCV, COLMAP, nerfstudio, PyTorch3D, trimesh.

| whose | axes of a camera | stores | the first pixel's centre |
|---|---|---|---|
| `Cameras` (OpenGL, Blender, nerfstudio) | right, up, backward | world_from_camera | (½, ½) |
| OpenCV | right, down, forward | camera_from_world | (0, 0) |
| COLMAP | right, down, forward | camera_from_world | (½, ½) |
| PyTorch3D | left, up, forward | transposed camera_from_world | (½, ½), from the middle, in half sides |
| trimesh | right, up, backward | world_from_camera | from the middle |

Files keep their own coordinates here; `fields.load_scene` is what normalises them for training.

    >>> cameras = fields.orbit(3, size=(64, 48))
    >>> extrinsics, intrinsics, distortion = to_opencv(cameras)
    >>> again = from_opencv(extrinsics, intrinsics, size=(64, 48), distortion=distortion)
    >>> torch.allclose(again.world_from_camera, cameras.world_from_camera, atol=1e-6)
    True
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.data import read_capture, validate
from fields.data.assemble import make_cameras
from fields.data.cameras import Cameras
from fields.data.colmap import LAYOUTS
from fields.data.frames import OPENGL_FROM_OPENCV
from fields.data.images import read_header
from fields.data.lenses import Lens
from fields.errors import ShapeError
from fields.io.atomic import write_atomically, write_json

_OPENCV_AXES = torch.from_numpy(OPENGL_FROM_OPENCV).diagonal()[:3].float()  # what turns to OpenCV's axes, and back
_PYTORCH3D_AXES = torch.tensor([-1.0, 1.0, -1.0])
_COLMAP = ("PINHOLE", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE", "FOV", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE")  # fmt: skip
_OPENCV = 12  # k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4


# ------------------------------------------------------------------------------------ files


def load_cameras(path: str | Path, format: str = "auto") -> tuple[Cameras, list[str]]:
    """The cameras of a scene of any known format, in the coordinates of its files, and the names of their images.

    Args:
        path: a folder of COLMAP, nerfstudio, Blender …, or a transforms.json. No pixel is read, and no image where the
            files know its size.

    Raises:
        DataError: names the file and what to do, for anything wrong with it.
    """
    capture = read_capture(path, format)
    validate.raise_first(validate.frame_problems(capture))
    frames = capture.frames
    sizes = [f.intrinsics if f.intrinsics.width and f.intrinsics.height else read_header(f.image) for f in frames]
    return make_cameras(frames, sizes), [f.name for f in frames]  # type: ignore[arg-type]


def save_nerfstudio(file: Path, cameras: Cameras, names: Sequence[str]) -> None:
    """Writes a transforms.json of nerfstudio and instant-ngp, with a lens per frame.

    Args:
        names: paths of the images, from the folder of the file.

    Raises:
        ShapeError: a lens that the format has no words for, or not a name for every camera.
    """
    _require_names(cameras, names)
    frames = []
    for i, name in enumerate(names):
        lens, c = Lens(int(cameras.model[i])), cameras.distortion[i].tolist()
        record: dict[str, Any] = {
            "file_path": name,
            "transform_matrix": cameras.world_from_camera[i].tolist(),
            "w": int(cameras.width[i]), "h": int(cameras.height[i]),
            "fl_x": float(cameras.fx[i]), "fl_y": float(cameras.fy[i]),
            "cx": float(cameras.cx[i]), "cy": float(cameras.cy[i]),
        }  # fmt: skip
        if lens in (Lens.PINHOLE, Lens.OPENCV, Lens.FISHEYE):
            if any(c[8:12]) or (any(c[6:8]) and c[12]) or (c[5] and not any(c[6:8])):
                raise ShapeError(f"{name}: nerfstudio has no words for this lens. Undistort the images.")
            record["camera_model"] = "OPENCV_FISHEYE" if lens == Lens.FISHEYE else "OPENCV"
            fourth = c[5] if any(c[6:8]) else c[12]
            record |= dict(zip(("k1", "k2", "p1", "p2", "k3", "k5", "k6"), (*c[:5], *c[6:8]), strict=True))
            record["k4"] = fourth
        elif lens == Lens.EQUIRECTANGULAR:
            record["camera_model"] = "EQUIRECTANGULAR"
        else:
            raise ShapeError(f"{name}: nerfstudio has no words for a {lens.name} lens. Undistort the images.")
        frames.append(record)
    write_json(Path(file), {"frames": frames})


def save_colmap(folder: Path, cameras: Cameras, names: Sequence[str]) -> None:
    """Writes a COLMAP model as text: cameras.txt with a camera per image, images.txt, and an empty points3D.txt.

    Args:
        names: of the images, from COLMAP's image folder.

    Raises:
        ShapeError: a lens that COLMAP does not have, or not a name for every camera.
    """
    from scipy.spatial.transform import Rotation

    _require_names(cameras, names)
    lenses, images = [], []
    camera_from_world = _opencv_from_world(cameras).double()
    quaternions = Rotation.from_matrix(camera_from_world[:, :3, :3].numpy()).as_quat()
    for i, name in enumerate(names):
        lens, c = Lens(int(cameras.model[i])), cameras.distortion[i].tolist()
        used = {k for k, value in enumerate(c) if value}
        fits = (m for m in _COLMAP if LAYOUTS[m].lens == lens and used <= set(LAYOUTS[m].columns))
        model = next(fits, None)
        if model is None:
            raise ShapeError(f"{name}: COLMAP has no camera model for this {lens.name} lens. Undistort the images.")
        numbers = [float(v[i]) for v in (cameras.fx, cameras.fy, cameras.cx, cameras.cy)]
        numbers += [c[k] for k in LAYOUTS[model].columns]
        size = f"{int(cameras.width[i])} {int(cameras.height[i])}"
        lenses.append(f"{i + 1} {model} {size} {' '.join(f'{v:.9g}' for v in numbers)}")
        x, y, z, w = quaternions[i]
        pose = " ".join(f"{float(v):.12g}" for v in (w, x, y, z, *camera_from_world[i, :3, 3]))
        images.append(f"{i + 1} {pose} {i + 1} {name}\n")  # and an empty line: no observations
    for file, lines in (("cameras", lenses), ("images", images), ("points3D", [])):
        text = "".join(f"{line}\n" for line in lines)
        write_atomically(Path(folder) / f"{file}.txt", lambda f, text=text: f.write_text(text))  # type: ignore[misc]


def _require_names(cameras: Cameras, names: Sequence[str]) -> None:
    if len(names) != len(cameras):
        raise ShapeError(f"{len(names)} names for {len(cameras)} cameras: every camera is that of an image.")


# ------------------------------------------------------------------------------------ OpenCV


def from_opencv(
    camera_from_world: Any, intrinsics: Any, *, size: tuple[int, int], distortion: Any = None, fisheye: bool = False
) -> Cameras:
    """Cameras from what OpenCV's calibration gives.

    Args:
        camera_from_world: (N, 4, 4) or (N, 3, 4), [R | t] of cv2: x_camera = R x_world + t.
        intrinsics: (N, 3, 3) or (3, 3), the camera matrix K, which counts from the centre of the first pixel.
        size: width and height, pixels.
        distortion: (N, K) or (K,): k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4]]]; of `cv2.fisheye` k1 k2 k3 k4.
        fisheye: the lens is one of `cv2.fisheye`.

    Raises:
        ShapeError: other shapes; a skew; OpenCV's tilted sensor (14 numbers).
    """
    pose = torch.as_tensor(camera_from_world, dtype=torch.float64)
    pose = pose[None] if pose.ndim == 2 else pose
    matrix = torch.as_tensor(intrinsics, dtype=torch.float64).expand(len(pose), 3, 3)
    if pose.ndim != 3 or pose.shape[1:] not in ((3, 4), (4, 4)):
        raise ShapeError(f"camera_from_world has shape {tuple(pose.shape)}; expected (N, 3, 4) or (N, 4, 4).")
    if matrix[:, 0, 1].any():
        raise ShapeError("The camera matrix has a skew, which no lens here has. Rectify the images.")
    rotation, translation = pose[:, :3, :3], pose[:, :3, 3]
    world = torch.eye(4, dtype=torch.float64).repeat(len(pose), 1, 1)
    world[:, :3, :3] = rotation.mT * _OPENCV_AXES
    world[:, :3, 3] = -(rotation.mT @ translation[:, :, None])[:, :, 0]
    columns = torch.zeros(len(pose), 0)
    if distortion is not None:
        given = torch.atleast_2d(torch.as_tensor(distortion, dtype=torch.float64)).expand(len(pose), -1)
        if given.shape[1] > (4 if fisheye else _OPENCV):
            raise ShapeError(
                f"{given.shape[1]} distortion coefficients; at most {4 if fisheye else _OPENCV} are known."
            )
        columns = torch.zeros(len(pose), 13)
        places = [0, 1, 4, 12] if fisheye else range(_OPENCV)  # `Lens.FISHEYE` has the columns of `Lens.OPENCV`
        for place, coefficient in zip(places, given.unbind(1), strict=False):
            columns[:, place] = coefficient
    lens = Lens.FISHEYE if fisheye else Lens.OPENCV if columns.any() else Lens.PINHOLE
    return Cameras(
        world, matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 0, 2] + 0.5, matrix[:, 1, 2] + 0.5,
        torch.tensor(size[0]), torch.tensor(size[1]), torch.full((len(pose),), int(lens)), columns,
    )  # fmt: skip


def to_opencv(cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """camera_from_world (N, 4, 4), camera matrices (N, 3, 3) and distortion (N, 12) as OpenCV takes them, or (N, 4) for
    `cv2.fisheye`.

    Raises:
        ShapeError: lenses that OpenCV does not have, or pinholes and fisheyes together.
    """
    fisheye = bool((cameras.model == Lens.FISHEYE).any())
    allowed = {Lens.FISHEYE} if fisheye else {Lens.PINHOLE, Lens.OPENCV}
    beyond = [2, 3, *range(5, 12)] if fisheye else [12]
    if not set(cameras.model.tolist()) <= allowed or cameras.distortion[:, beyond].any():
        raise ShapeError(
            "OpenCV has no camera model for these lenses, or not one for all of them. Undistort the images."
        )
    matrix = torch.eye(3, device=cameras.device).repeat(len(cameras), 1, 1)
    matrix[:, 0, 0], matrix[:, 1, 1] = cameras.fx, cameras.fy
    matrix[:, 0, 2], matrix[:, 1, 2] = cameras.cx - 0.5, cameras.cy - 0.5
    columns = [0, 1, 4, 12] if fisheye else list(range(_OPENCV))
    return _opencv_from_world(cameras), matrix, cameras.distortion[:, columns]


def _opencv_from_world(cameras: Cameras) -> Tensor:
    """(N, 4, 4)."""
    rotation = (cameras.world_from_camera[:, :3, :3] * _OPENCV_AXES.to(cameras.device)).mT
    pose = torch.eye(4, device=cameras.device).repeat(len(cameras), 1, 1)
    pose[:, :3, :3] = rotation
    pose[:, :3, 3] = -(rotation @ cameras.centres[:, :, None])[:, :, 0]
    return pose


# ------------------------------------------------------------------------------------ PyTorch3D


def to_pytorch3d(cameras: Cameras) -> dict[str, Tensor]:
    """What `pytorch3d.renderer.PerspectiveCameras(**…)` takes, in normalised device coordinates.

    Raises:
        ShapeError: lenses that are not pinholes.
    """
    _require_pinholes(cameras, "PyTorch3D")
    rotation = cameras.world_from_camera[:, :3, :3] * _PYTORCH3D_AXES.to(cameras.device)
    size = torch.stack([cameras.width, cameras.height], -1).float()
    half = size.amin(-1, keepdim=True) / 2
    focal = torch.stack([cameras.fx, cameras.fy], -1)
    centre = torch.stack([cameras.cx, cameras.cy], -1)
    return {
        "R": rotation,
        "T": -(cameras.centres[:, None] @ rotation)[:, 0],
        "focal_length": focal / half,
        "principal_point": (size / 2 - centre) / half,  # its x grows to the left, its y upwards
        "image_size": size.flip(-1),
    }


def from_pytorch3d(cameras: Any, size: tuple[int, int] | None = None) -> Cameras:
    """Cameras from a `PerspectiveCameras` in normalised device coordinates or, with ``in_ndc=False``, in pixels.

    Args:
        size: width and height, pixels, where the batch has no `image_size`.

    Raises:
        ShapeError: no size.
    """
    rotation, translation = cameras.R.float(), cameras.T.float()
    if size is None and getattr(cameras, "image_size", None) is None:
        raise ShapeError("These cameras have no image_size. Pass size=(width, height).")
    given = torch.tensor([size[::-1]]) if size is not None else cameras.image_size
    extent = torch.as_tensor(given, dtype=torch.float32).to(rotation.device).expand(len(rotation), 2).flip(-1)
    focal, centre = cameras.focal_length.float(), cameras.principal_point.float()
    focal = focal[:, None].expand(-1, 2) if focal.ndim == 1 else focal
    if cameras.in_ndc():
        half = extent.amin(-1, keepdim=True) / 2
        focal, centre = focal * half, extent / 2 - centre * half
    pose = torch.eye(4, device=rotation.device).repeat(len(rotation), 1, 1)
    pose[:, :3, :3] = rotation * _PYTORCH3D_AXES.to(rotation.device)
    pose[:, :3, 3] = -(rotation @ translation[:, :, None])[:, :, 0]
    return Cameras(pose, *focal.unbind(-1), *centre.unbind(-1), *extent.long().unbind(-1))


# ------------------------------------------------------------------------------------ trimesh


def to_trimesh(cameras: Cameras, index: int = 0):
    """A `trimesh.scene.Camera` and its pose (4, 4), for a scene's `camera` and `camera_transform`.

    Raises:
        ShapeError: not a pinhole, or one whose axis does not pass through the middle of the image: trimesh has no others.
    """
    import trimesh

    one = cameras[index].to("cpu")
    _require_pinholes(one, "trimesh")
    w, h = int(one.width), int(one.height)
    if abs(float(one.cx) - w / 2) > 1e-3 or abs(float(one.cy) - h / 2) > 1e-3:
        raise ShapeError("trimesh's cameras look through the middle of the image; this one does not.")
    camera = trimesh.scene.Camera(resolution=(w, h), focal=(float(one.fx), float(one.fy)))
    return camera, one.world_from_camera[0].double().numpy()


def from_trimesh(camera: Any, transform: Any) -> Cameras:
    """One camera from those of a trimesh scene: `scene.camera`, `scene.camera_transform`."""
    (w, h), (fx, fy) = camera.resolution.tolist(), camera.focal.tolist()
    pose = torch.as_tensor(transform, dtype=torch.float64)[None]
    return Cameras(pose, *(torch.tensor(v) for v in (fx, fy, w / 2, h / 2, int(w), int(h))))


def _require_pinholes(cameras: Cameras, whose: str) -> None:
    if (cameras.model != Lens.PINHOLE).any():
        raise ShapeError(f"{whose} has pinholes only. Undistort the images.")
