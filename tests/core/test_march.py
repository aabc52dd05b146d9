import math

import pytest
import torch
from torch.library import opcheck

from fields.core import march, march_rays, occupancy_clearance, ray_aabb_intersect, traverse_grids
from fields.core._ref import march as ref
from fields.core._ref import rays as ref_rays
from fields.errors import ShapeError


def unit_box():  # made in each test, where tensors are to live
    return torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])


def random_rays(n, dtype=torch.float32):
    origins = torch.randn(n, 3, dtype=dtype) * 2
    directions = torch.nn.functional.normalize(torch.randn(n, 3, dtype=dtype) - origins, dim=-1)
    directions[: n // 4, 1] = 0  # parallel to a pair of planes
    return origins, directions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 500])
def test_boxes_agree_with_twin(n, dtype):
    origins, directions = random_rays(n, dtype)
    boxes = torch.cat([torch.rand(4, 3, dtype=dtype) - 1, torch.rand(4, 3, dtype=dtype)], -1)
    got = ray_aabb_intersect(origins, directions, boxes, 0.1, 3.0)
    want = ref_rays.ray_aabb_intersect(origins, directions, boxes, 0.1, 3.0, math.inf)
    torch.testing.assert_close(got, want)


def test_box_by_hand():
    origins = torch.tensor([[-3.0, 0, 0], [0, 0, 0], [-3, 2, 0], [3, 0, 0]])
    directions = torch.tensor([[1.0, 0, 0]]).expand(4, 3)
    t_mins, t_maxs, hits = ray_aabb_intersect(origins, directions, unit_box()[None])
    assert hits[:, 0].tolist() == [True, True, False, True]
    assert t_mins[:, 0].tolist() == [2.0, -1.0, math.inf, -4.0] and t_maxs[:, 0].tolist() == [4.0, 1.0, math.inf, -2.0]
    near = ray_aabb_intersect(origins, directions, unit_box()[None], near_plane=0.0, miss_value=-1.0)
    assert near[0][:, 0].tolist() == [2.0, 0.0, -1.0, -1.0] and near[2][:, 0].tolist() == [True, True, False, False]


@pytest.mark.parametrize("cone_angle", [0.0, 0.02])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("filled", [0.0, 0.02, 0.3, 1.0])
def test_samples_agree_with_twin(filled, levels, cone_angle):
    # In float64, so that the midpoints of twin and kernel fall into the same cells.
    origins, directions = random_rays(200, torch.float64)
    occupied = torch.rand(levels, 13, 9, 21) < filled
    t_min, t_max = torch.rand(200, dtype=torch.float64), torch.rand(200, dtype=torch.float64) * 8
    box = torch.tensor([-1.0, -0.7, -1.2, 0.8, 1.0, 1.0], dtype=torch.float64)
    arguments = origins, directions, t_min, t_max, occupied, box, 0.013, cone_angle
    got = march_rays(*arguments, positions=True)
    clearance = ref.occupancy_clearance(occupied)
    want = ref.march_rays(*arguments[:4], clearance, *arguments[5:], march.UNLIMITED)[:5]
    assert torch.equal(occupancy_clearance(occupied), clearance)
    assert torch.equal(got[2], want[2]) and torch.equal(got[3], want[3])
    torch.testing.assert_close(got, want)


def test_lattice_by_hand():
    """A ray along x through cells of width 0.5, the second and fourth filled, with intervals of 0.2 from x = −1.05."""
    occupied = torch.tensor([False, True, False, True])[:, None, None].expand(4, 4, 4)
    t_starts, t_ends, rays, packed = march_rays(
        torch.tensor([[-1.05, 0.1, 0.1]]),
        torch.tensor([[1.0, 0, 0]]),
        torch.zeros(1),
        torch.full((1,), 9.0),
        occupied,
        unit_box(),
        0.2,
    )
    torch.testing.assert_close(t_starts, torch.tensor([0.6, 0.8, 1.6, 1.8]))  # midpoints −0.35, −0.15, 0.65, 0.85
    torch.testing.assert_close(t_ends - t_starts, torch.full((4,), 0.2))
    assert packed.tolist() == [[0, 4]] and rays.tolist() == [0] * 4


def test_full_grid_fills_the_path():
    origins, directions = random_rays(300)
    t_mins, t_maxs, hits = ray_aabb_intersect(origins, directions, unit_box()[None], near_plane=0.0)
    lo, hi = torch.where(hits, t_mins, 0.0)[:, 0], torch.where(hits, t_maxs, 0.0)[:, 0]
    _, _, _, packed = march_rays(origins, directions, lo, hi, torch.ones(8, 8, 8, dtype=torch.bool), unit_box(), 0.01)
    assert (packed[:, 1] - (hi - lo) / 0.01).abs().max() <= 1


def test_nothing_goes_astray():
    """Rays that are not a number, unbounded, zero or miss the box have no samples or finitely many, and end."""
    origins = torch.tensor([[float("nan"), 0, 0], [0, 0, 0], [0, 0, 0], [5, 5, 5]])
    directions = torch.tensor([[1.0, 0, 0], [float("nan"), 0, 0], [0, 0, 1], [1, 0, 0]])
    far = torch.full((4,), float("inf"))
    packed = march_rays(
        origins, directions, torch.zeros(4), far, torch.ones(4, 4, 4, dtype=torch.bool), unit_box(), 0.1
    )[3]
    assert packed[:, 1].tolist() == [0, 0, 10, 0]


def test_opcheck():
    origins, directions = random_rays(10)
    grid = torch.rand(1, 4, 4, 4) < 0.5
    clearance = occupancy_clearance(grid)
    arguments = (
        origins,
        directions,
        torch.zeros(10),
        torch.full((10,), 5.0),
        clearance,
        unit_box(),
        0.1,
        0.0,
        100,
        None,
    )
    opcheck(
        march._clearance.overload, (grid,), test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )
    opcheck(
        march._march.overload, arguments, test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def test_wrong_inputs_are_named():
    ray = torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1), torch.ones(1)
    with pytest.raises(ShapeError, match="occupied"):
        march_rays(*ray, torch.ones(4, 4, 4), unit_box(), 0.1)
    with pytest.raises(ShapeError, match="step_size"):
        march_rays(*ray, torch.ones(4, 4, 4, dtype=torch.bool), unit_box(), 0.0)


def test_traverse_grids_by_hand():
    """The ray of `test_lattice_by_hand`: two filled stretches, each an interval chain with shared edges."""
    occupied = torch.tensor([False, True, False, True])[:, None, None].expand(1, 4, 4, 4)
    origin, direction = torch.tensor([[-1.05, 0.1, 0.1]]), torch.tensor([[1.0, 0, 0]])
    intervals, samples, stops = traverse_grids(origin, direction, occupied, unit_box()[None], step_size=0.2)
    starts = intervals.vals[intervals.is_left]
    torch.testing.assert_close(samples.vals, starts + 0.1)
    torch.testing.assert_close(intervals.vals[intervals.is_right], starts + 0.2)
    chains = int((~intervals.is_right).sum())
    assert chains == 2 and len(intervals.vals) == len(samples.vals) + chains
    assert samples.packed_info.tolist() == [[0, len(samples.vals)]] and stops[0] > 2


@pytest.mark.parametrize("cone_angle", [0.0, 0.01])
@pytest.mark.parametrize("reference", ["kernel", "twin"])
def test_limited_traversal_goes_on_where_it_stopped(cone_angle, reference, monkeypatch):
    if reference == "twin":
        monkeypatch.setenv("FIELDS_BACKEND", "reference")
    origins, directions = random_rays(50, torch.float64)
    occupied = torch.rand(2, 6, 6, 6) < 0.3
    boxes = torch.stack([unit_box(), 2 * unit_box()]).double()
    options = {"step_size": 0.05, "cone_angle": cone_angle}
    whole = traverse_grids(origins, directions, occupied, boxes, **options)[1]
    near, parts = torch.zeros(50, dtype=torch.float64), []
    while True:
        _, samples, stops = traverse_grids(
            origins, directions, occupied, boxes, near, traverse_steps_limit=7, **options
        )
        assert samples.packed_info[:, 1].max() <= 7
        parts.append(samples)
        if not len(samples.vals):
            break
        near = torch.where(samples.packed_info[:, 1] == 7, stops, torch.inf)
    rays = torch.cat([p.ray_indices for p in parts])
    order = rays.argsort(stable=True)
    assert torch.equal(rays[order], whole.ray_indices)
    torch.testing.assert_close(torch.cat([p.vals for p in parts])[order], whole.vals)


def test_masked_rays_and_foreign_boxes():
    origins, directions = random_rays(10)
    occupied = torch.ones(1, 4, 4, 4, dtype=torch.bool)
    mask = torch.arange(10) % 2 == 0
    samples = traverse_grids(origins, directions, occupied, unit_box()[None], step_size=0.1, rays_mask=mask)[1]
    assert len(samples.vals) and mask[samples.ray_indices].all()
    with pytest.raises(ShapeError, match="twice"):
        traverse_grids(origins, directions, occupied.expand(2, 4, 4, 4), torch.stack([unit_box(), 3 * unit_box()]))


@pytest.mark.parametrize("room", [1, 500, 100_000])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_in_given_room_the_first_samples_and_then_nothing(room, backend, monkeypatch):
    monkeypatch.setenv("FIELDS_BACKEND", backend)
    origins, directions = random_rays(200, torch.float32)
    arguments = (
        origins,
        directions,
        torch.zeros(200),
        torch.full((200,), 8.0),
        torch.rand(9, 13, 21) < 0.4,
        unit_box(),
        0.03,
    )
    want = march_rays(*arguments, positions=True)
    got = march_rays(*arguments, positions=True, room=room)
    made = min(room, len(want[0]))
    assert 500 < len(want[0]) < 100_000 and int(got[3][:, 1].sum()) == made
    for g, w in zip((*got[:3], got[4]), (*want[:3], want[4]), strict=True):
        assert len(g) == room
        # To rounding: the compiler's vector code and what it leaves over for the end of a run round differently.
        torch.testing.assert_close(g[:made], w[:made], rtol=1e-6, atol=1e-6)
    assert (got[2][made:] == 200).all() and not got[4][made:].any()
