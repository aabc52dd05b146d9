import pytest
import roma
import torch

from fields.core import NearestTable, VoxelHash, aligned, contacts, support
from fields.core._ref import alignment as ref
from fields.errors import ShapeError


def rough(n: int, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Points on a bumpy sheet of size 1, and its normals."""
    x, y = torch.rand(2, n, dtype=dtype).unbind(0)
    a, b = 9 * x + 2 * y, 7 * y - 3 * x
    slope_x = 0.05 * (9 * a.cos() - 3 * b.cos())
    slope_y = 0.05 * (2 * a.cos() + 7 * b.cos())
    normals = torch.nn.functional.normalize(torch.stack([-slope_x, -slope_y, torch.ones_like(x)], -1), dim=-1)
    return torch.stack([x, y, 0.05 * (a.sin() + b.sin())], -1), normals


def table(points, normals, facing=-1, cell=0.04, reach=0.1):
    return NearestTable(VoxelHash(points, cell), normals, cell, reach, facing)


def moved(n: int, degrees: float, distance: float, dtype=torch.float64):
    """Poses that turn by up to so much about the middle of the sheet, and shift by up to so much."""
    poses = torch.eye(4, dtype=dtype).repeat(n, 1, 1)
    axis = torch.nn.functional.normalize(torch.randn(n, 3, dtype=dtype), dim=-1)
    poses[:, :3, :3] = roma.rotvec_to_rotmat(axis * torch.deg2rad(degrees * torch.rand(n, 1, dtype=dtype)))
    middle = torch.tensor([0.5, 0.5, 0.0], dtype=dtype)
    shift = distance * torch.nn.functional.normalize(torch.randn(n, 3, dtype=dtype), dim=-1)
    poses[:, :3, 3] = middle - poses[:, :3, :3] @ middle + shift
    return poses


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("patches", [1, 2])
def test_kernels_do_as_their_twins(patches, dtype):
    """Tolerance: sums of a few hundred terms in another order; and where a point is just as near to two others either may be chosen."""
    given = []
    for facing in (-1, 1)[:patches]:
        points, normals = rough(700, dtype)
        sources, other = rough(200, dtype)
        given.append((table(points, normals, facing), sources, facing * other))
    poses = moved(6, 8, 0.03, dtype)
    close = {torch.float32: dict(atol=3e-5, rtol=1e-4), torch.float64: dict(atol=1e-9, rtol=1e-9)}[dtype]
    torch.testing.assert_close(support(poses, given, 0.05), ref.support(poses, given, 0.05), **close)
    torch.testing.assert_close(aligned(poses, given, (0.08, 0.05)), ref.aligned(poses, given, (0.08, 0.05)), **close)
    target, sources, normals = given[0]
    marks, labels, area = torch.rand(200) < 0.5, torch.rand(700) < 0.5, torch.rand(200, dtype=dtype)
    seen = [f(target, labels, sources, normals, marks, area, poses, 0.1) for f in (contacts, ref.contacts)]
    torch.testing.assert_close(*seen, **close)
    assert (seen[0].sum(0) > 0)[:5].all()


def test_table_finds_the_nearest():
    points, normals = rough(3000)
    sources = points[:500] + 0.02 * torch.randn(500, 3, dtype=torch.float64)
    found = ref._nearest(table(points, normals), sources)
    nearest, distance = VoxelHash(points, 0.05).knn(sources, 1)
    assert (found == nearest[:, 0]).double().mean() > 0.95  # a chain of neighbours may end beside it
    assert (sources - points[found]).norm(dim=-1).mean() < 1.03 * distance.mean()


def test_sheets_find_each_other():
    """Sources are the other side of the same sheet, so only the true pose leaves no gap; what is left is the targets' spacing."""
    points, normals = rough(6000)
    sources, facing = rough(800)
    starts = moved(20, 5, 0.02)
    patches = [(table(points, normals), sources, -facing)]
    found = aligned(starts, patches, [0.1] * 4 + [0.05] * 4 + [0.03] * 4)
    turn = torch.rad2deg(roma.rotmat_geodesic_distance(found[:, :3, :3], torch.eye(3, dtype=found.dtype)))
    assert turn.median() < 0.2 and found[:, :3, 3].norm(dim=-1).median() < 0.005
    assert (support(found, patches, 0.02) >= support(starts, patches, 0.02)).all()
    assert torch.equal(found[:, 3], starts[:, 3])
    torch.testing.assert_close(found[:, :3, :3] @ found[:, :3, :3].mT, torch.eye(3, dtype=found.dtype).expand(20, 3, 3))


def test_what_slides_stays():
    """A flat sheet above another comes down on it, and goes nowhere else."""
    grid = torch.cartesian_prod(torch.linspace(0, 1, 40), torch.linspace(0, 1, 40))
    points = torch.cat([grid, torch.zeros(len(grid), 1)], 1)
    up = torch.tensor([0.0, 0, 1]).expand(len(points), 3)
    pose = torch.eye(4)[None].clone()
    pose[0, 2, 3] = 0.03
    found = aligned(pose, [(table(points, up), points[::7].contiguous(), -up[::7])], (0.08, 0.08, 0.08))
    torch.testing.assert_close(found[0], torch.eye(4), atol=1e-4, rtol=0)


def test_contacts_by_hand():
    """Two squares, one over the other: labelled ones touch, closely as they are near, and not where one has no label."""
    grid = torch.cartesian_prod(torch.linspace(0, 1, 30), torch.linspace(0, 1, 30))
    points, up = torch.cat([grid, torch.zeros(900, 1)], 1), torch.tensor([[0.0, 0, 1]]).repeat(900, 1)
    area, yes = torch.full((900,), 1 / 900), torch.ones(900, dtype=torch.bool)
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 2, 3] = torch.tensor([0.0, 0.045, 0.09])  # nothing, under half and nine tenths of the reach
    seen = contacts(table(points, up, reach=0.14), yes, points, -up, yes, area, poses, 0.1)
    want = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0.2025, 0], [1, 0, 0, 0.81, 0]])
    torch.testing.assert_close(seen[:, :5], want, atol=1e-5, rtol=0)
    assert not seen[:, 5:].any()
    covered = contacts(table(points, up, reach=0.14), yes, points, -up, ~yes, area, poses[:1], 0.1)
    level = contacts(table(points, up, reach=0.14), ~yes, points, up, ~yes, area, poses[:1], 0.1)
    torch.testing.assert_close(covered, torch.eye(9)[7:8], atol=1e-5, rtol=0)
    torch.testing.assert_close(level, torch.eye(9)[[5]] + torch.eye(9)[[8]], atol=1e-5, rtol=0)


def test_nothing_near_changes_nothing():
    points, normals = rough(50)
    none = points[:0]
    far = torch.eye(4, dtype=torch.float64)[None].clone()
    far[0, 0, 3] = 100.0
    for patch in (
        (table(points, normals), points, normals),
        (table(none, none), points, normals),
        (table(points, normals), none, none),
    ):
        assert torch.equal(aligned(far, [patch], (0.1,)), far)
        assert not support(far, [patch], 0.1).any()
    marks = torch.ones(50, dtype=torch.bool)
    assert not contacts(table(none, none), marks[:0], points, normals, marks, points[:, 0], far, 0.1).any()


def test_what_makes_no_sense_is_refused():
    points, normals = rough(20)
    patch, pose = (table(points, normals), points, normals), torch.eye(4, dtype=torch.float64)
    with pytest.raises(ShapeError, match="poses"):
        aligned(pose, [patch], (0.1,))
    with pytest.raises(ShapeError, match="one or two"):
        support(pose[None], [patch] * 3, 0.1)
    with pytest.raises(ShapeError, match="normals"):
        support(pose[None], [(patch[0], points, normals[:3])], 0.1)
    with pytest.raises(ShapeError, match="area"):
        contacts(patch[0], points[:, 0] > 0, points, normals, points[:, 0] > 0, points[:3, 0], pose[None], 0.1)
