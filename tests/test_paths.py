import json
import math

import pytest
import torch
from torch.nn.functional import normalize

from fields.errors import DataError
from fields.paths import (
    interpolate,
    nerfstudio_path,
    orbit_around,
    parse_nerfstudio_path,
    read_nerfstudio_path,
    spiral,
    surround,
)
from fields.rendering import orbit

BOX = torch.tensor([-1.0, -1, -1, 1, 1, 1])


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.3, -0.5, 0.8)])
@pytest.mark.parametrize(("part", "all_around"), [(1.0, True), (0.75, True), (0.5, False), (0.25, False)])
def test_cameras_surround_if_no_third_of_the_turn_is_unseen(part, all_around, up):
    cameras = orbit(60, radius=3.0, elevation=20.0, up=up)
    assert surround(cameras[torch.arange(round(60 * part))]) is all_around


def test_parallel_cameras_surround_nothing():
    cameras = orbit(8, radius=3.0)
    same = cameras[torch.zeros(8, dtype=torch.long)]
    assert not surround(same)


def test_an_orbit_goes_around_as_far_and_as_high_as_the_cameras():
    cameras = orbit(12, centre=(0.2, 0.1, 0.0), radius=3.0, elevation=25.0)
    box = BOX + torch.tensor([0.2, 0.1, 0.0] * 2)
    path = orbit_around(cameras, box, 30)
    offset = path.centres - torch.tensor([0.2, 0.1, 0.0])
    torch.testing.assert_close(offset.norm(dim=-1), torch.full((30,), 3.0))
    torch.testing.assert_close(offset[:, 2], torch.full((30,), 3 * math.sin(math.radians(25))))
    assert surround(path)


def test_a_spiral_stays_among_the_cameras_and_looks_where_they_look():
    cameras = orbit(60, centre=(0.5, 0.0, 0.2), radius=3.0)[torch.arange(10)]
    path = spiral(cameras, BOX, 40)  # the middle of the box is somewhere else
    reach = (cameras.centres - cameras.centres.mean(0)).norm(dim=-1).max()
    assert ((path.centres - cameras.centres.mean(0)).norm(dim=-1) < 1.2 * reach).all()
    to_target = torch.nn.functional.normalize(torch.tensor([0.5, 0.0, 0.2]) - path.centres, dim=-1)
    torch.testing.assert_close(path.forward, to_target, atol=1e-3, rtol=0)


def test_a_closed_flight_comes_back_and_has_no_corner():
    keys = orbit(6, radius=3.0)
    path = interpolate(keys, 120, closed=True)
    torch.testing.assert_close(path.centres[::20], keys.centres, atol=1e-5, rtol=0)
    steps = torch.diff(torch.cat([path.centres, path.centres[:1]]), dim=0)
    turns = (normalize(steps, dim=-1) * normalize(steps.roll(-1, 0), dim=-1)).sum(-1)
    assert turns.min() > math.cos(math.radians(360 / 120 * 2.5))  # an even turn has 3° a step


def test_a_path_survives_nerfstudios_format(tmp_path):
    keys = orbit(5, radius=2.0, size=(320, 180), fov=50)
    frames = interpolate(keys, 48)
    data = nerfstudio_path(keys, frames, 12.0, closed=True)
    file = tmp_path / "path.json"
    file.write_text(json.dumps(data))
    cameras, fps = read_nerfstudio_path(file)
    assert fps == pytest.approx(12) and data["is_cycle"]
    again, _ = parse_nerfstudio_path(file.read_bytes(), "path.json", "keyframes")
    for have, want in ((cameras, frames), (again, keys)):
        torch.testing.assert_close(have.world_from_camera, want.world_from_camera, atol=1e-6, rtol=0)
        torch.testing.assert_close(have.fy, want.fy, atol=1e-2, rtol=1e-5)
        assert have.width.tolist() == want.width.tolist() and have.height.tolist() == want.height.tolist()


@pytest.mark.parametrize(
    "change",
    [{"camera_path": 3}, {"camera_path": []}, {"render_width": 0}, {"render_width": 1e9}, {"fps": "x", "seconds": None},
     {"camera_path": [{"camera_to_world": [float("nan")] * 16, "fov": 50}]}, {"camera_type": "fisheye"},
     {"camera_path": [{"camera_to_world": [1.0] * 16, "fov": 180}]}],
)  # fmt: skip
def test_paths_that_are_none_are_refused_by_name(change):
    keys = orbit(3)
    data = nerfstudio_path(keys, keys, 12.0) | change
    with pytest.raises(DataError, match="given"):
        parse_nerfstudio_path(json.dumps(data).encode(), "given.json")
