import math

import pytest
import torch

from fields.core import VoxelHash, knn, morton_decode, morton_encode, radius_neighbours
from fields.core._ref import neighbours as ref
from fields.errors import ShapeError

CLOUDS = {
    "even": lambda n: torch.rand(n, 3, dtype=torch.float64),
    "clustered": lambda n: torch.rand(n, 1, dtype=torch.float64) ** 8 * torch.randn(n, 3, dtype=torch.float64),
    "duplicates": lambda n: torch.randint(0, 4, (n, 3)).double(),
    "flat": lambda n: torch.rand(n, 3, dtype=torch.float64) * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64),
}


def test_morton_keys():
    cells = torch.randint(0, 2**21, (1000, 3))
    keys = morton_encode(cells)
    assert torch.equal(keys, ref.morton_encode(cells)) and torch.equal(morton_decode(keys), cells)
    assert torch.equal(morton_decode(keys), ref.morton_decode(keys))
    assert morton_encode(torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 5, 1]])).tolist() == [1, 2, 4, 0b10001111]


@pytest.mark.parametrize("cells", [torch.tensor([[-1, 0, 0]]), torch.tensor([[2**21, 0, 0]]), torch.zeros(1, 3)])
def test_cells_out_of_range_are_refused(cells):
    with pytest.raises(ShapeError):
        morton_encode(cells)


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("n", [1, 5, 400])
@pytest.mark.parametrize("k", [1, 8])
def test_nearest_are_those_of_brute_force(cloud, n, k):
    points = CLOUDS[cloud](n)
    # Steps of a quarter keep distances among whole numbers exact: equal ones are equal, in whatever order they are summed.
    queries = torch.cat([points[:20], CLOUDS[cloud](60) * 1.5 - 0.25])
    indices, distances = knn(points, queries, k)
    assert torch.equal(indices, ref.knn(points, queries, k, math.inf))
    for size in (0.03, 0.5, 10.0):
        assert torch.equal(VoxelHash(points, size).knn(queries, k, 0.4)[0], ref.knn(points, queries, k, 0.4))
    real = indices >= 0
    want = (queries[:, None] - points[indices.clamp(min=0)]).norm(dim=-1)
    torch.testing.assert_close(distances[real], want[real])
    assert distances[~real].isinf().all()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_all_within_a_radius(cloud):
    points = CLOUDS[cloud](300)
    queries = torch.cat([points[:20], CLOUDS[cloud](30)])
    indices, packed, distances = radius_neighbours(points, queries, 0.21)
    want, counts = ref.radius(points, queries, 0.21)
    assert torch.equal(packed[:, 1], counts) and (distances <= 0.21).all()
    query = torch.arange(len(queries)).repeat_interleave(counts)
    for found in (indices, want):  # in the same order, but for those that are as near to rounding
        torch.testing.assert_close((queries[query] - points[found]).norm(dim=-1), distances)
    rows = query * len(points)
    assert torch.equal((rows + indices).sort()[0], (rows + want).sort()[0])


def test_agrees_with_scipy_on_many_points():
    spatial = pytest.importorskip("scipy.spatial")
    points, queries = torch.randn(20_000, 3, dtype=torch.float64), torch.randn(2000, 3, dtype=torch.float64)
    want, _ = spatial.cKDTree(points.cpu().numpy()).query(queries.cpu().numpy(), 8)
    torch.testing.assert_close(knn(points, queries, 8)[1].cpu(), torch.from_numpy(want))


def test_odd_queries_have_an_answer():
    points = torch.rand(50, 3)
    far = torch.tensor([[1e6, 0, 0], [float("nan"), 0, 0], [float("inf"), 0, 0]])
    indices, distances = knn(points, far, 2)
    assert indices[0].tolist() == ref.knn(points, far[:1], 2, math.inf)[0].tolist()
    assert (indices[1:] == -1).all() and distances[1:].isinf().all()
    assert knn(points, torch.zeros(0, 3), 2)[0].shape == (0, 2)
    assert (knn(torch.zeros(0, 3), points, 2)[0] == -1).all()


def test_distances_are_differentiable():
    points = torch.rand(30, 3, dtype=torch.float64, requires_grad=True)
    queries = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, q: VoxelHash(p, 0.3).knn(q, 3)[1], (points, queries))


def test_points_must_be_finite():
    with pytest.raises(ShapeError, match="finite"):
        VoxelHash(torch.tensor([[float("nan"), 0, 0]]), 1.0)


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("n", [1, 300])
def test_moments_are_sums_over_all_that_is_near(cloud, n):
    points, normals = CLOUDS[cloud](n), torch.nn.functional.normalize(torch.randn(n, 3, dtype=torch.float64), dim=-1)
    queries = torch.cat([points[:20], CLOUDS[cloud](30) + 0.01])
    facing = torch.nn.functional.normalize(torch.randn(len(queries), 3, dtype=torch.float64), dim=-1)
    radii = (0.101, 0.202, 0.505)
    want = ref.moments(points, normals, queries, facing, radii)
    for size in (0.05, 0.5, 10.0):
        for found, expected in zip(VoxelHash(points, size).moments(normals, queries, facing, radii), want, strict=True):
            torch.testing.assert_close(found, expected)


def test_moments_of_a_slab_by_hand():
    """Two sheets, one above the other, facing apart: from a point of the upper one, only the upper one counts."""
    grid = torch.cartesian_prod(torch.arange(-2.0, 3), torch.arange(-2.0, 3))
    up, down = torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 0, -1])
    points = torch.cat([torch.cat([grid, torch.full((25, 1), z)], 1) for z in (0.0, -0.3)])
    normals = torch.cat([up.expand(25, 3), down.expand(25, 3)])
    sums, behind = VoxelHash(points, 1.0).moments(normals, torch.zeros(1, 3), up[None], (0.5, 1.0))
    assert behind.item() == pytest.approx(0.3)
    assert sums[0, 0].tolist() == [2, 1, *[0] * 11, 1, *[0] * 5, 1]
    assert sums[0, 1].tolist() == [6, 5, *[0] * 3, 2, 0, 0, 2, 0, 0, *[0] * 2, 5, *[0] * 5, 5]


def test_moments_refuse_what_makes_no_sense():
    points = torch.rand(4, 3)
    cells = VoxelHash(points, 1.0)
    for radii in ((), (0.2, 0.1), (0.0,), tuple(range(1, 10))):
        with pytest.raises(ShapeError, match="radii"):
            cells.moments(points, points, points, radii)
    sums, behind = cells.moments(points, torch.full((1, 3), math.nan), points[:1], (0.1,))
    assert not sums.any() and behind.isinf().all()
    assert VoxelHash(torch.empty(0, 3), 1.0).moments(points[:0], points, points, (0.1,))[1].isinf().all()
