"""Cameras of other programs see the same points at the same places."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from fields.conventions import (
    from_opencv,
    from_pytorch3d,
    from_trimesh,
    load_cameras,
    save_colmap,
    save_nerfstudio,
    to_opencv,
    to_pytorch3d,
    to_trimesh,
)
from fields.data import Cameras, Lens, load_scene
from fields.errors import DataError, ShapeError

POINTS = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5


def some(n=4, model=Lens.PINHOLE, distortion=None, centred=False) -> Cameras:
    """Cameras around the points, off the middle and not square, each with its own focal length."""
    eyes = torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(1)), dim=-1) * 3
    poses = Cameras.look_at(eyes, (0.1, 0.0, -0.1), width=80, height=60).world_from_camera
    focal = torch.linspace(70, 90, n)
    cx, cy = (40.0, 30.0) if centred else (37.25, 33.5)
    columns = None if distortion is None else torch.tensor(distortion).expand(n, -1)
    codes = torch.full((n,), int(model))
    return Cameras(poses, focal, focal * 1.1, *map(torch.tensor, (cx, cy, 80, 60)), codes, columns)


def seen(cameras, i):
    return cameras.project(torch.full((len(POINTS),), i), POINTS)


def same(a: Cameras, b: Cameras):
    """Rounding of float32, through a few products."""
    for name in ("world_from_camera", "fx", "fy", "cx", "cy", "width", "height", "model", "distortion"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-5, msg=name)


BROWN = [0.1, -0.05, 0.003, -0.002, 0.01]


@pytest.mark.parametrize(
    "lens", [(Lens.PINHOLE, None), (Lens.OPENCV, BROWN), (Lens.FISHEYE, [0.02, -0.01, 0, 0, 0.003, *[0.0] * 7, 0.001])]
)
def test_opencv_and_back(lens):
    cameras = some(model=lens[0], distortion=lens[1])
    pose, matrix, distortion = to_opencv(cameras)
    fisheye = lens[0] == Lens.FISHEYE
    same(from_opencv(pose, matrix, size=(80, 60), distortion=distortion, fisheye=fisheye), cameras)


def test_opencv_sees_points_half_a_pixel_earlier():
    """What cv2.projectPoints documents, written out: x = R X + t, distorted, times K; the first pixel's centre is (0, 0)."""
    cameras = some(model=Lens.OPENCV, distortion=BROWN)
    pose, matrix, distortion = to_opencv(cameras)
    k1, k2, p1, p2, k3 = distortion[2, :5]
    x, y, z = (POINTS @ pose[2, :3, :3].T + pose[2, :3, 3]).unbind(-1)
    x, y = x / z, y / z
    r = x * x + y * y
    radial = 1 + r * (k1 + r * (k2 + r * k3))
    u = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    v = y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y
    image = torch.stack([u, v, torch.ones_like(u)], -1) @ matrix[2].T
    xy, depth = seen(cameras, 2)
    torch.testing.assert_close(image[:, :2] + 0.5, xy, rtol=0, atol=1e-4)
    torch.testing.assert_close(depth, z)


def test_what_opencv_cannot_say():
    with pytest.raises(ShapeError, match="Undistort"):
        to_opencv(some(model=Lens.FOV, distortion=[0.9]))
    with pytest.raises(ShapeError, match="Undistort"):
        to_opencv(Cameras.cat([some(2), some(2, Lens.FISHEYE, [0.1])]))
    skewed = torch.eye(3)
    skewed[0, 1] = 0.1
    with pytest.raises(ShapeError, match="skew"):
        from_opencv(torch.eye(4), skewed, size=(8, 8))
    with pytest.raises(ShapeError, match="14 distortion"):
        from_opencv(torch.eye(4), torch.eye(3), size=(8, 8), distortion=torch.rand(14))
    with pytest.raises(ShapeError, match="expected"):
        from_opencv(torch.eye(3), torch.eye(3), size=(8, 8))


def stand_in(size=None, **values):
    """What `from_pytorch3d` reads of a PerspectiveCameras, which is a container of just these."""
    values.setdefault("image_size", size)
    ndc = values.pop("in_ndc", True)
    return SimpleNamespace(**values, in_ndc=lambda: ndc)


def test_pytorch3d_sees_the_same():
    """Its documented projection, written out: rows times R plus T; +X left, +Y up; divided by half the shorter side."""
    cameras = some()
    theirs = to_pytorch3d(cameras)
    p = POINTS @ theirs["R"][1] + theirs["T"][1]
    ndc = theirs["focal_length"][1] * p[:, :2] / p[:, 2:] + theirs["principal_point"][1]
    xy, depth = seen(cameras, 1)
    height, width = theirs["image_size"][1].tolist()
    half = min(width, height) / 2
    torch.testing.assert_close(width / 2 - ndc[:, 0] * half, xy[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(height / 2 - ndc[:, 1] * half, xy[:, 1], rtol=0, atol=1e-4)
    torch.testing.assert_close(p[:, 2], depth)


def test_pytorch3d_and_back():
    cameras = some()
    theirs = to_pytorch3d(cameras)
    same(from_pytorch3d(stand_in(**theirs)), cameras)
    no_size = stand_in(**{k: v for k, v in theirs.items() if k != "image_size"})
    same(from_pytorch3d(no_size, size=(80, 60)), cameras)
    pixels = {"focal_length": torch.stack([cameras.fx, cameras.fy], -1),
              "principal_point": torch.stack([cameras.cx, cameras.cy], -1), "in_ndc": False}  # fmt: skip
    same(from_pytorch3d(stand_in(**(theirs | pixels))), cameras)
    with pytest.raises(ShapeError, match="image_size"):
        from_pytorch3d(no_size)
    with pytest.raises(ShapeError, match="pinholes"):
        to_pytorch3d(some(model=Lens.OPENCV, distortion=BROWN))


def test_trimesh_looks_the_same_way():
    cameras = some(centred=True)
    scene = trimesh.Scene()
    scene.camera, scene.camera_transform = to_trimesh(cameras, 3)
    origins, directions, pixels = (torch.tensor(np.array(a)) for a in scene.camera_rays())
    xy, _ = cameras.project(torch.full((len(pixels),), 3), (origins + directions).float())
    # Its rows are counted from the bottom.
    want = torch.stack([pixels[:, 0], 59 - pixels[:, 1]], -1) + 0.5
    torch.testing.assert_close(xy, want.float(), rtol=0, atol=1e-3)
    same(from_trimesh(scene.camera, scene.camera_transform), cameras[3])
    with pytest.raises(ShapeError, match="middle"):
        to_trimesh(some(), 0)


LENSES = [
    (Lens.PINHOLE, None),
    (Lens.OPENCV, BROWN[:4]),
    (Lens.OPENCV, [0.1, -0.05, 0.003, -0.002, 0.01, 0.02, -0.01, 0.005]),
    (Lens.FISHEYE, [0.02, -0.01, 0, 0, 0.003, *[0.0] * 7, 0.001]),
]


@pytest.mark.parametrize("lens", LENSES)
def test_files_of_colmap_and_nerfstudio_come_back(lens, tmp_path):
    cameras = some(model=lens[0], distortion=lens[1])
    names = [f"images/{i:03d}.png" for i in range(len(cameras))]
    (tmp_path / "images").mkdir()
    for name in names:
        trimesh.util.write_encoded(open(tmp_path / name, "wb"), b"never read")  # noqa: SIM115
    save_nerfstudio(tmp_path / "transforms.json", cameras, names)
    got, found = load_cameras(tmp_path)
    same(got, cameras)
    assert found == names
    save_colmap(tmp_path / "colmap" / "sparse" / "0", cameras, [n.removeprefix("images/") for n in names])
    (tmp_path / "colmap" / "images").symlink_to(tmp_path / "images")
    got, found = load_cameras(tmp_path / "colmap")
    same(got, cameras)
    assert [f"images/{n}" for n in found] == names


def test_lenses_without_words(tmp_path):
    with pytest.raises(ShapeError, match="nerfstudio has no words"):
        save_nerfstudio(tmp_path / "a.json", some(1, Lens.FOV, [0.9]), ["a.png"])
    with pytest.raises(ShapeError, match="nerfstudio has no words"):
        save_nerfstudio(tmp_path / "a.json", some(1, Lens.OPENCV, [0.1] * 12), ["a.png"])
    with pytest.raises(ShapeError, match="COLMAP has no camera model"):
        save_colmap(tmp_path, some(1, Lens.EQUIRECTANGULAR), ["a.png"])
    with pytest.raises(ShapeError, match="2 names for 1"):
        save_colmap(tmp_path, some(1), ["a.png", "b.png"])
    assert not list(tmp_path.iterdir())


def test_cameras_of_a_scene_are_in_its_files_coordinates(data_dir):
    """fox is normalised for training; its cameras in its files are not, and a similarity is all that is between."""
    cameras, names = load_cameras(data_dir / "scenes" / "fox")
    scene = load_scene(data_dir / "scenes" / "fox", downscale=8, test_every=0)
    order = [names.index(n) for n in scene.train.names]
    pose = scene.world_from_input @ cameras[order].world_from_camera.double()
    torch.testing.assert_close(pose[:, :3, 3].float(), scene.train.cameras.centres, rtol=1e-4, atol=1e-4)
    file = json.loads((data_dir / "scenes" / "fox" / "transforms.json").read_text())
    assert cameras.world_from_camera[0].flatten().tolist() == pytest.approx(
        list(np.ravel(next(f for f in file["frames"] if f["file_path"].endswith(names[0].split("/")[-1]))["transform_matrix"])),
        abs=1e-5,
    )  # fmt: skip


def test_missing_scenes(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        load_cameras(tmp_path / "nothing")
