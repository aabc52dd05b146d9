"""Each format, written by `scenes.py` in its own conventions, must come back as the same cameras."""

import json
import math

import numpy as np
import pytest
import torch

from fields.data import Lens, detect_format, load_scene, read_capture
from fields.data.ply import read_ply_points
from tests.data import scenes


def same_up_to_similarity(scene, cameras, names):
    """Applying the inverse of world_from_input brings the poses back to what was written."""
    back = torch.linalg.inv(scene.world_from_input)
    scale = torch.linalg.det(back[:3, :3]).pow(1 / 3)
    for split in (scene.train, scene.test):
        for i, name in enumerate(split.names):
            pose = back @ split.cameras.world_from_camera[i].double()
            pose[:3, :3] /= scale
            want = cameras.world_from_camera[names.index(name)].double()
            assert torch.allclose(pose, want, atol=1e-5)
            assert torch.allclose(split.cameras.fx[i], cameras.fx[0]) and torch.allclose(
                split.cameras.cx[i], cameras.cx[0]
            )


def test_blender(tmp_path):
    c = scenes.write_blender(tmp_path)
    assert detect_format(tmp_path) == "blender"
    s = load_scene(tmp_path)
    assert (len(s.train), len(s.test)) == (9, 3)
    assert s.alpha and not s.real and s.background == "white" and s.train.images.channels == 4
    assert torch.allclose(s.train.cameras.world_from_camera, c.world_from_camera[[i for i in range(12) if i % 4]])
    assert torch.allclose(s.train.cameras.fx, c.fx[0], atol=1e-3)
    assert s.aabb.tolist() == [[-1.5] * 3, [1.5] * 3] and (s.near, s.far) == (2.0, 6.0)
    assert torch.equal(s.world_from_input, torch.eye(4, dtype=torch.float64))
    assert (s.test.images.image(0).numpy() == scenes.picture(c, 0)).all() and s.test.names[0] == "test/r_0"


def test_options(tmp_path):
    scenes.write_transforms(tmp_path)
    s = load_scene(tmp_path, downscale=2, max_images=3)
    assert (len(s.train), len(s.test)) == (3, 2) and s.train.images.image(0).shape == (15, 20, 3)
    assert int(s.train.cameras.width[0]) == 20 and float(s.train.cameras.fx[0]) == 24
    assert len(load_scene(tmp_path, test_every=0).train) == 9
    only = load_scene(tmp_path, splits=("test",))
    assert len(only.train) == 0 and len(only.test) == 2 and len(only.train.cameras) == 0
    both = load_scene(tmp_path)
    assert torch.equal(only.test.cameras.world_from_camera, both.test.cameras.world_from_camera)
    assert [*both.test.names] == ["images/000.png", "images/008.png"]


def test_instant_ngp_box_and_distortion(tmp_path):
    c = scenes.write_transforms(tmp_path, meta={"aabb_scale": 4, "k1": 0.1, "k2": -0.02, "p1": 1e-3, "p2": 2e-3})
    s = load_scene(tmp_path)
    assert s.real and not s.alpha and s.background == "random" and s.format == "transforms"
    assert torch.allclose(s.aabb, torch.tensor([[-2 / 0.33] * 3, [2 / 0.33] * 3]))
    assert s.train.cameras.model.tolist() == [Lens.OPENCV] * 7
    assert torch.allclose(s.train.cameras.distortion[0, :5], torch.tensor([0.1, -0.02, 1e-3, 2e-3, 0]))
    assert torch.allclose(s.train.cameras.world_from_camera[0], c.world_from_camera[1])


def test_nerfstudio_frames_with_their_own_lenses_masks_and_split(tmp_path):
    scenes.write_transforms(tmp_path)
    file = tmp_path / "transforms.json"
    meta = json.loads(file.read_text())
    names = [f["file_path"] for f in meta["frames"]]
    for key in ("fl_x", "w", "h"):
        meta.pop(key)
    for i, f in enumerate(meta["frames"]):
        f.update(fl_x=40.0 + i, fl_y=41.0, cx=19.0, cy=14.0, w=40, h=30)
    meta["frames"][1].update(camera_model="OPENCV_FISHEYE", k1=0.01, k2=0.02, k3=0.03, k4=0.04)
    meta["frames"][2].update(camera_model="OPENCV", k1=0.01, k4=0.04)
    meta["frames"][3].update(w=80, h=60)  # calibrated at twice the size
    scenes.save(np.zeros((30, 40), np.uint8), tmp_path / "masks" / "0.png")
    meta["frames"][4]["mask_path"] = "masks/0.png"
    meta.update(train_filenames=names[1:6], val_filenames=names[6:7], test_filenames=names[7:8])
    meta["applied_transform"] = [[0, 1, 0, 0.5], [-1, 0, 0, 0], [0, 0, 1, 0]]
    meta["applied_scale"] = 2.0
    file.write_text(json.dumps(meta))
    capture = read_capture(tmp_path)
    assert [f.split for f in capture.frames] == ["skip", *["train"] * 5, "skip", "test", "skip"]
    applied = np.array([[0, 2, 0, 1], [-2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    assert np.allclose(capture.world_from_input, applied)
    s = load_scene(tmp_path)
    c = s.train.cameras
    assert c.model.tolist() == [Lens.FISHEYE, Lens.OPENCV, *[Lens.PINHOLE] * 3]
    assert c.fx.tolist() == [41.0, 42.0, 21.5, 44.0, 45.0]
    assert torch.allclose(c.distortion[0, [0, 1, 4, 12]], torch.tensor([0.01, 0.02, 0.03, 0.04]))
    assert torch.allclose(c.distortion[1, [0, 12]], torch.tensor([0.01, 0.04]))
    assert not s.train.images.mask(3).any() and s.train.images.mask(0).all()


NERFSTUDIO = (
    "EQUIRECTANGULAR OPENCV_FISHEYE FISHEYE624 ORTHOPHOTO SIMPLE_PINHOLE PINHOLE SIMPLE_RADIAL RADIAL OPENCV "
    "OMNIDIRECTIONALSTEREO_L OMNIDIRECTIONALSTEREO_R VR180_L VR180_R"
)


@pytest.mark.parametrize("model", NERFSTUDIO.split())
def test_nerfstudio_models(tmp_path, model):
    extra = {"distortion_params": [0.01] * 12} if model == "FISHEYE624" else {}
    scenes.write_transforms(tmp_path, meta={"camera_model": model, **extra})
    c = load_scene(tmp_path).train.cameras
    o, d = c.rays(torch.arange(7), torch.full((7, 2), 13.0))
    back, _ = c.project(torch.arange(7), o + 2 * d)
    assert torch.allclose(back, torch.full((7, 2), 13.0), atol=1e-3)
    if model == "EQUIRECTANGULAR":
        assert c.fx[0] == 20 and c.fy[0] == 30


def test_points_from_ply(tmp_path):
    scenes.write_transforms(tmp_path, meta={"ply_file_path": "p.ply"})
    p = np.random.default_rng(0).normal(size=(100, 3)).astype("<f4")
    properties = "".join(f"property float {a}\n" for a in "xyz")
    header = "ply\nformat {} 1.0\nelement vertex 100\n" + properties + "end_header\n"
    (tmp_path / "p.ply").write_bytes(header.format("binary_little_endian").encode() + p.tobytes())
    assert np.allclose(read_ply_points(tmp_path / "p.ply"), p)
    s = load_scene(tmp_path)
    assert s.points is not None and s.points.shape == (100, 3) and "sparse points" in s.notes[-1]
    text = header.format("ascii") + "\n".join(" ".join(map(str, r)) for r in p.tolist()) + "\n"
    (tmp_path / "p.ply").write_text(text)
    assert np.allclose(read_ply_points(tmp_path / "p.ply"), p)


@pytest.mark.parametrize("binary", [True, False])
def test_colmap(tmp_path, binary):
    c = scenes.write_colmap(tmp_path, binary=binary)
    scenes.write_colmap(tmp_path, n=3, binary=binary, model="sparse/1", images=False)
    assert detect_format(tmp_path) == "colmap"
    s = load_scene(tmp_path)
    assert (len(s.train), len(s.test)) == (7, 2)
    same_up_to_similarity(s, c, [f"a/{i:03}.png" for i in range(9)])
    assert s.points is not None and s.points.shape == (200, 3)
    assert abs(float(s.points.norm(dim=-1).mean()) - scenes.RADIUS) < 0.05
    assert any("most images of 2" in n for n in s.notes)
    assert (s.points > s.aabb[0]).all() and (s.points < s.aabb[1]).all()
    assert s.near < 4.03 - scenes.RADIUS and s.far > 4.03 + scenes.RADIUS


def test_colmap_uses_masks_and_reduced_copies(tmp_path):
    c = scenes.write_colmap(tmp_path)
    for i in range(9):
        scenes.save(scenes.picture(c, i)[::2, ::2, :3] * 0 + 7, tmp_path / "images_2" / "a" / f"{i:03}.png")
    scenes.save(np.zeros((30, 40), np.uint8), tmp_path / "masks" / "a" / "001.png.png")
    s = load_scene(tmp_path, downscale=2)
    assert (s.train.images.image(0) == 7).all() and float(s.train.cameras.fx[0]) == 24
    assert not s.train.images.mask(0).any() and s.train.images.mask(1).all()


def test_llff(tmp_path):
    c = scenes.write_llff(tmp_path, folder="images_4", factor=4)
    assert detect_format(tmp_path) == "llff"
    s = load_scene(tmp_path)
    same_up_to_similarity(s, c, [f"{i:03}.png" for i in range(9)])
    assert s.real and abs(s.near - 2.7) < 0.1
    for i in range(9):
        scenes.save(scenes.picture(c, i)[:, :, 3], tmp_path / "masks_4" / f"{i:03}.png")
    s = load_scene(tmp_path)
    assert s.alpha and not s.real and "visual hull" in s.notes[-1]
    assert (s.aabb[0] < -0.7).all() and (s.aabb[1] > 0.7).all() and (s.aabb.abs() < 1.6).all()  # seven views


def test_colmap_is_preferred_to_llff(tmp_path):
    scenes.write_llff(tmp_path)
    scenes.write_colmap(tmp_path, images=False)
    assert detect_format(tmp_path) == "colmap"
    assert load_scene(tmp_path, format="llff").format == "llff"


@pytest.mark.parametrize("matrix", [True, False])
def test_nsvf(tmp_path, matrix):
    c = scenes.write_nsvf(tmp_path, matrix=matrix)
    assert detect_format(tmp_path) == "nsvf"
    s = load_scene(tmp_path)
    assert (len(s.train), len(s.test)) == (6, 3)
    assert torch.allclose(s.test.cameras.world_from_camera, c.world_from_camera[::3], atol=1e-6)
    assert s.aabb.tolist() == [[-1, -1, -1], [1, 1, 1.5]] and not s.real and s.background == "white"


def test_dtu(tmp_path):
    """The projection matrix, applied as it is, lands where `project` does (half a pixel aside, by
    convention)."""
    c = scenes.ring(4, width=80, height=60, focal=100.0)
    k = np.array([[100.0, 0, 39.5], [0, 100, 29.5], [0, 0, 1]])
    scale = np.diag([50.0, 50, 50, 1])
    scale[:3, 3] = [5, -3, 600]
    arrays = {}
    for i in range(4):
        p = np.eye(4)
        w2c = np.linalg.inv(c.world_from_camera[i].double().numpy() @ np.diag([1.0, -1, -1, 1]))
        p[:3] = -2.5 * k @ w2c[:3]  # any multiple is the same projection
        arrays[f"world_mat_{i}"], arrays[f"scale_mat_{i}"] = p @ np.linalg.inv(scale), scale
        scenes.save(scenes.picture(c, i)[::2, ::2, :3], tmp_path / "image" / f"{i:06}.png")
    np.savez(tmp_path / "cameras_sphere.npz", **arrays)
    s = load_scene(tmp_path, test_every=0)
    assert s.format == "dtu" and any("1/2" in n for n in s.notes)
    assert torch.allclose(s.train.cameras.world_from_camera, c.world_from_camera, atol=1e-5)
    assert torch.allclose(s.train.cameras.fx, torch.tensor(50.0), atol=1e-3)
    assert torch.allclose(s.train.cameras.cx, torch.tensor(20.0), atol=1e-3)
    assert torch.allclose(torch.linalg.inv(s.world_from_input), torch.from_numpy(scale))


def test_convention_aabb_scale_is_instant_ngps_unit_cube(tmp_path):
    """aabb_scale 1 is instant-ngp's unit cube: p * 0.33 + 0.5 in [0, 1]^3."""
    scenes.write_transforms(tmp_path, meta={"aabb_scale": 1})
    box = load_scene(tmp_path).aabb
    assert torch.allclose(box * 0.33 + 0.5, torch.tensor([[0.0] * 3, [1.0] * 3]), atol=1e-6)


def test_camera_angle_needs_no_size(tmp_path):
    scenes.write_transforms(tmp_path, meta={"camera_angle_x": 2 * math.atan(0.5)})
    file = tmp_path / "transforms.json"
    meta = json.loads(file.read_text())
    for key in ("fl_x", "w", "h"):
        meta.pop(key)
    file.write_text(json.dumps(meta))
    assert torch.allclose(load_scene(tmp_path).train.cameras.fx, torch.tensor(40.0))
