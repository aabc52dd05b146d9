"""Each layout, written in its own conventions, comes back as the same ball: what was photographed follows from cameras
and lights."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fields.data import Lens
from fields.errors import DataError
from fields.relighting.layouts import detect, read
from fields.relighting.scene import load_scene
from tests.io.pictures import png_file
from tests.relighting.captures import (
    EYES,
    HEIGHT,
    INTENSITY,
    LIGHTS,
    QUANTISED,
    ball,
    directions,
    edit,
    point,
    sphere,
    write_bigs,
    write_diligent,
    write_json,
    write_lit,
    write_nrhints,
    write_sss_gs,
    write_uw_ps,
)

# ------------------------------------------------------------------------------------ reading them


def assert_photographs_follow(photographs, tolerance):
    """Every photograph shows the white ball as its camera sees it in its light."""
    for v in range(len(photographs)):
        for j in range(len(photographs.names[v])):
            image, coverage = photographs.image(v, j)
            rgb, hit = ball(photographs.cameras, v, photographs.lights[int(photographs.slots[v, j])])
            assert torch.equal(coverage > 0.5, hit), "another outline"
            assert image.isfinite().all() and (image - rgb).abs().max() < tolerance


@pytest.mark.parametrize("kind", [".exr", ".npy", "srgb", ".png"])
def test_lit_transforms(tmp_path, cameras, kind):
    write_lit(tmp_path, cameras, kind, {"color_space": "linear"} if kind == ".png" else None)
    assert detect(tmp_path) == "lit-transforms"
    scene = load_scene(tmp_path)
    assert scene.photographs.names == [
        [f"images/{i}_{j}.{kind[-3:].replace('rgb', 'png')}" for j in (0, 1)] for i in (0, 1)
    ]
    assert scene.photographs.slots.tolist() == [[0, 1], [0, 1]] and scene.photographs.lights == [
        point(p) for p in LIGHTS[:2]
    ]
    assert scene.held_out.groups == [["olat"], ["cameras"]] and scene.held_out.lights == [
        point(LIGHTS[2]),
        point(LIGHTS[0]),
    ]
    for photographs in (scene.photographs, scene.held_out):
        assert_photographs_follow(photographs, QUANTISED[kind])


def test_one_file_whose_frames_name_their_sets(tmp_path, cameras):
    write_lit(tmp_path, cameras)
    parts = [json.loads((tmp_path / f"transforms_{s}.json").read_text()) for s in ("train", "test")]
    parts[0]["frames"][0]["set"] = "train"
    parts[1]["frames"][0]["set"] = "lights"
    for file in tmp_path.glob("*.json"):
        file.unlink()
    file = tmp_path / "transforms.json"
    write_json(file, {**parts[0], "frames": parts[0]["frames"] + parts[1]["frames"]})
    for path in (tmp_path, file):
        scene = load_scene(path)
        assert [len(n) for n in scene.photographs.names] == [2, 2] and scene.held_out.groups == [
            ["lights"],
            ["cameras"],
        ]
    edit(file, lambda d: [f.pop("set", None) for f in d["frames"]])
    scene = load_scene(tmp_path)
    assert len(scene.held_out) == 0 and "nothing is held out" in scene.notes[0]


def test_masks_and_sixteen_bits(tmp_path, cameras):
    """16-bit PNG is linear; a mask_path says where the object is."""
    write_lit(tmp_path, cameras)

    def change(data):
        for record in data["frames"]:
            i, j = record["file_path"][7], record["file_path"][9]
            rgb, hit = ball(cameras, int(i), point(LIGHTS[int(j)]))
            png_file(tmp_path / f"{i}{j}.png", (rgb.numpy() * 65_535).round(), [1] * HEIGHT)
            Image.fromarray((hit.numpy() * 255).astype(np.uint8)).save(tmp_path / f"mask{i}.png")
            record |= {"file_path": f"{i}{j}", "mask_path": f"mask{i}.png"}

    for split in ("train", "test"):
        edit(tmp_path / f"transforms_{split}.json", change)
    assert_photographs_follow(load_scene(tmp_path).photographs, 5e-4)


@pytest.mark.parametrize("intrinsics", [False, True])
@pytest.mark.parametrize("kind", [".png", ".exr"])
def test_nrhints(tmp_path, cameras, kind, intrinsics):
    write_nrhints(tmp_path, cameras, kind, intrinsics)
    assert detect(tmp_path) == "nrhints"
    scene = load_scene(tmp_path)
    assert [len(n) for n in scene.photographs.names] == [1, 1, 1] and scene.held_out.groups == [["olat"]]
    assert len(scene.photographs.lights) == 2
    for photographs in (scene.photographs, scene.held_out):
        assert_photographs_follow(photographs, QUANTISED[kind])


def test_nrhints_without_intensities_or_endings(tmp_path, cameras):
    write_nrhints(tmp_path, cameras, ".exr")
    edit(
        tmp_path / "transforms_train.json",
        lambda d: [f.pop(k) for f in d["frames"] for k in ("pl_intensity", "file_ext")],
    )
    lit = read(tmp_path)
    assert lit.photographs[0].light.rgb == (1, 1, 1) and lit.photographs[0].frame.image.name == "r_0.exr"


def test_sss_gs(tmp_path, cameras):
    write_sss_gs(tmp_path, cameras)
    assert detect(tmp_path) == "sss-gs"
    scene = load_scene(tmp_path)
    assert scene.photographs.names[1] == [f"resized/c1.0_{j}" for j in range(3)]
    assert scene.photographs.slots.tolist() == [[0, 1, 2]] * 2 and scene.held_out.groups == [["olat"] * 3]
    for photographs in (scene.photographs, scene.held_out):
        assert_photographs_follow(photographs, QUANTISED["srgb"])
    (tmp_path / "exclude_list.txt").write_text("c0.0_1.png\nc2.0_0\n")
    edit(tmp_path / "transforms_train.json", lambda d: [f.pop("light_intensities") for f in d["frames"]])
    scene = load_scene(tmp_path)
    assert scene.photographs.names[0] == ["resized/c0.0_0", "resized/c0.0_2"] and scene.photographs.lights[0].rgb == (
        1,
        1,
        1,
    )
    assert "2 photographs that exclude_list.txt names" in scene.notes[0]


def test_bigs(tmp_path, cameras):
    write_bigs(tmp_path, cameras)
    assert detect(tmp_path) == "bigs"
    scene = load_scene(tmp_path)
    assert scene.photographs.names == [
        ["olat_2/images/0.exr", "olat_10/images/0.exr"],
        ["olat_2/images/1.exr", "olat_10/images/1.exr"],
    ]
    assert scene.held_out.groups == [["olat"]] * 2 and scene.held_out.lights == [point(LIGHTS[2])]
    for photographs in (scene.photographs, scene.held_out):
        assert_photographs_follow(photographs, QUANTISED[".exr"])


def test_bigs_holds_cameras_out_where_lights_are_few(tmp_path, cameras):
    write_bigs(tmp_path, cameras, (1, 2, 3))
    (tmp_path / "olat_2" / "transforms_train.json").rename(tmp_path / "olat_2" / "transforms_test.json")
    with pytest.raises(DataError, match=r"olat_2/transforms_train.json: this file does not exist"):
        load_scene(tmp_path)
    for number in (1, 2):
        data = json.loads((tmp_path / "olat_1" / "transforms_train.json").read_text())
        write_json(tmp_path / f"olat_{number}" / "transforms_train.json", data)
        write_json(tmp_path / f"olat_{number}" / "transforms_test.json", data | {"frames": data["frames"][:1]})
    scene = load_scene(tmp_path)
    assert [len(n) for n in scene.photographs.names] == [3, 3] and scene.held_out.groups == [["olat"] * 2]


@pytest.mark.parametrize("folder", [".", "images"])
def test_diligent(tmp_path, folder):
    write_diligent(tmp_path / "ball", folder=folder)
    assert detect(tmp_path / "ball") == "diligent"
    scene = load_scene(tmp_path / "ball")
    assert scene.held_out.names == [["005.png", "011.png"]] and len(scene.photographs.lights) == 10
    normals, hit = sphere(32, 24, 12)
    for photographs in (scene.photographs, scene.held_out):
        for j, light in enumerate(photographs.lights):
            image, coverage = photographs.image(0, j)
            expected = 0.7 / math.pi * np.array(light.rgb) * (normals @ np.array(light.direction)).clip(0)[..., None]
            assert (coverage.numpy() == hit).all() and np.abs(image.numpy() - expected * hit[..., None]).max() < 1e-3
    # 24 of 32 pixels across, 2 units wide: radius 3/4, and 2 pixels around it
    np.testing.assert_allclose(scene.aabb, [[-0.875] * 3, [0.875] * 3])
    assert 0 < scene.near < scene.far


def test_uw_ps(tmp_path):
    write_uw_ps(tmp_path)
    assert detect(tmp_path / "pot") == "uw-ps"
    scene = load_scene(tmp_path / "pot")
    assert scene.held_out.names == [["pot.4.png", "pot.10.png"]]
    assert scene.photographs.names[0] == [f"pot.{i}.png" for i in range(12) if i not in (4, 10)]
    found = np.array([light.direction for light in scene.photographs.lights])
    cosines = (found * np.delete(directions(12), (4, 10), 0)).sum(1)
    assert np.degrees(np.arccos(cosines.clip(-1, 1))).max() < 1
    normals, hit = sphere(100, 90, 20)
    for j, light in enumerate(scene.photographs.lights):
        image, _ = scene.photographs.image(0, j)
        expected = 0.7 * (normals @ np.array(light.direction)).clip(0) * hit  # a white wall has radiance 1
        assert light.rgb == (math.pi,) * 3 and np.abs(image.numpy() - expected[..., None]).max() < 0.02


# ------------------------------------------------------------------------------------ conventions


def test_convention_light_unit(tmp_path, cameras):
    """A white wall that faces a light of intensity 1 has radiance 1: it gets an irradiance of π."""
    write_lit(tmp_path, cameras, top={"light_unit": "intensity"}, intensity=[v / math.pi for v in INTENSITY])
    scene = load_scene(tmp_path)
    assert scene.photographs.lights[0].rgb == pytest.approx(INTENSITY)
    assert_photographs_follow(scene.photographs, QUANTISED[".exr"])


def test_convention_nrhints(tmp_path, cameras):
    """camera_intrinsics is cx, cy, fx, fy; a light 1 to the right of, 2 above and 3 behind a camera that looks along
    −z."""
    write_nrhints(tmp_path, cameras)

    def change(data):
        data["camera_intrinsics"] = [19.0, 14.0, 50.0, 51.0]
        data["frames"][0] |= {
            "transform_matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]],
            "pl_pos": [1, 2, 7],
        }
        data["frames"][1]["camera_intrinsics"] = [21.0, 16.0, 60.0, 61.0]

    edit(tmp_path / "transforms_train.json", change)
    scene = load_scene(tmp_path)
    c = scene.photographs.cameras
    assert [x[0].item() for x in (c.cx, c.cy, c.fx, c.fy)] == [19, 14, 50, 51]
    assert [x[1].item() for x in (c.cx, c.cy, c.fx, c.fy)] == [21, 16, 60, 61]
    seen = torch.linalg.inv(c.world_from_camera[0]) @ torch.tensor([*scene.photographs.lights[0].position, 1.0])
    assert seen.tolist() == [1, 2, 3, 1]


def test_convention_sss_gs(tmp_path, cameras):
    """Positions are what the layout's own program ends with after its two changes of sign, beside camera centres it
    leaves alone."""
    write_sss_gs(tmp_path, cameras)
    record = json.loads((tmp_path / "transforms_train.json").read_text())["frames"][0]
    read_by_it = np.array(record["light_positions"][0]) * [1, -1, -1]  # scene/dataset_readers.py
    used_by_it = read_by_it * [1, -1, -1]  # scene/dataset.py
    photograph = read(tmp_path).photographs[0]
    assert photograph.light.position == tuple(used_by_it) == (2, 1, 2)
    np.testing.assert_allclose(photograph.frame.pose[:3, 3], EYES[0], atol=1e-6)


def test_convention_bigs(tmp_path, cameras):
    """A light that the file puts at (3, 1, 2) is at (−3, 1, −2) where the cameras are; one number is an intensity too."""
    write_bigs(tmp_path, cameras)
    edit(
        tmp_path / "olat_2" / "transforms_train.json",
        lambda d: d["frames"][0].update(light={"position": [3, 1, 2], "intensity": 5}),
    )
    assert read(tmp_path).photographs[0].light == point([-3, 1, -2], [5, 5, 5])


def test_convention_photometric_stereo(tmp_path):
    """x right, y up, z to the camera; the picture is 2 wide; irradiance is π times the row."""
    write_diligent(tmp_path / "ball")
    scene = load_scene(tmp_path / "ball")
    c, light = scene.photographs.cameras, scene.photographs.lights[0]
    assert c.model.tolist() == [Lens.ORTHOGRAPHIC]
    o, d = c.rays(torch.zeros(2, dtype=torch.long), torch.tensor([[0.0, 0.0], [32.0, 24.0]]))
    assert (
        d.tolist() == [[0, 0, -1]] * 2
        and o[:, :2].tolist() == [[-1, 0.75], [1, -0.75]]
        and (o[:, 2] > scene.aabb[1, 2]).all()
    )
    row = np.loadtxt(tmp_path / "ball" / "light_intensities.txt")[0]
    assert light.kind == "directional" and light.rgb == pytest.approx(math.pi * row)
    assert light.direction == pytest.approx(directions(12)[0], abs=1e-4)


def test_convention_white_is_clipped(tmp_path):
    """A pixel that is full in any channel says nothing: integers end there."""
    write_diligent(tmp_path / "ball")
    values = np.full((24, 32, 3), 30_000)
    values[12, 16], values[12, 17] = (65_535, 100, 100), 65_534
    png_file(tmp_path / "ball" / "images" / "001.png", values, [0] * 24)
    image, _ = load_scene(tmp_path / "ball").photographs.image(0, 0)
    assert image[12, 16].isnan().all() and image.isnan().sum() == 3 and image[12, 17, 0] > 0.999
