import math

import pytest
import torch

from fields.paths import orbit_around, spiral, surround
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
