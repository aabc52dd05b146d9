"""Surfaces of solids whose every distance is known."""

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from fields.data.cameras import Cameras
from fields.data.ply import read_ply_points
from fields.errors import ConfigError, DataError, FieldsError
from fields.geometry import extract_mesh, extract_points, stopping_density
from fields.geometry.points import stops
from fields.io.shapes import linear, write_glb, write_ply
from fields.radiance import RadianceField

KNOT = 0.04  # of a field's imagined grid
SOFT = KNOT / 4  # over which the density rises, as steep as a grid can make it
BOX = [-1.2, -0.9, -0.7, 1.0, 1.1, 0.9]
DIAGONAL = math.dist(BOX[:3], BOX[3:])
CENTRE, RADIUS = torch.tensor([-0.2, 0.25, 0.1]), 0.5
HALF = torch.tensor([0.55, 0.35, 0.3])


class Solid(RadianceField):
    """σ = softplus(-distance / SOFT) inside and outside of a surface; its colour is the direction it is seen along."""

    def __init__(self, distance):
        super().__init__(aabb=BOX, near=0.05, far=10.0, occupancy_resolution=[30, 31, 29], density_shift=0.0,
                         distance_scale=25.0, step_ratio=0.5, shading_threshold=1e-4)  # fmt: skip
        self.distance = distance

    @property
    def step_size(self):
        return self.step_ratio * KNOT

    def density_feature(self, x):
        return -self.distance(self.denormalise(x)) / SOFT

    def colour(self, x, directions):
        return 0.5 + 0.5 * directions


def ball(points, centre=CENTRE, radius=RADIUS):
    return (points - centre).norm(dim=-1) - radius


def brick(points):
    beyond = (points - CENTRE).abs() - HALF
    return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)


def stop_distance() -> float:
    """Signed distance at which a ray straight towards the surface has lost half its light, summed finely."""
    s = torch.linspace(0.2, -0.2, 400_001, dtype=torch.float64)
    depth = (25 * torch.nn.functional.softplus(-s / SOFT)).cumsum(0) * float(s[0] - s[1])
    return float(s[int((depth > math.log(2)).nonzero()[0])])


def around(n=40, size=48) -> Cameras:
    """Cameras on a sphere, spread by the golden angle."""
    k = torch.arange(n) + 0.5
    z, turn = 1 - 2 * k / n, k * math.pi * (3 - math.sqrt(5))
    eyes = torch.stack([(1 - z * z).sqrt() * turn.cos(), (1 - z * z).sqrt() * turn.sin(), z], -1)
    return Cameras.look_at(CENTRE + 3 * eyes, CENTRE, fov_x=0.6, width=size, height=size)


def directions(n) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def mesh_of(distance, resolution=96, **options):
    field = Solid(distance)
    return extract_mesh(field, stopping_density(field, around()), resolution=resolution, **options)


def solid(mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.positions, mesh.faces, process=False)


def outward(distance, positions) -> np.ndarray:
    """Gradient of a distance (N, 3)."""
    x = torch.from_numpy(positions).requires_grad_()
    return torch.autograd.grad(distance(x).sum(), x)[0].numpy()


# ---------------------------------------------------------------------------------------- where rays stop


def test_rays_stop_where_half_the_light_is_lost():
    towards = directions(200)
    got = stops(Solid(ball), CENTRE - 2 * towards, towards)
    # Samples take the density of their middle: the sum is off by less than a tenth of a step.
    torch.testing.assert_close(got, torch.full((200,), 2 - RADIUS - stop_distance()), atol=0.1 * KNOT / 2, rtol=0)
    assert stops(Solid(ball), CENTRE + 2 * towards, towards).isinf().all()
    assert stops(Solid(ball), torch.empty(0, 3), torch.empty(0, 3)).shape == (0,)


# ---------------------------------------------------------------------------------------- meshes


@pytest.mark.parametrize("distance", [ball, brick])
def test_the_mesh_is_where_rays_stop(distance):
    """Both ways within half a knot, 0.6 % of the diagonal. The level is on the side of the rays that graze the solid, which
    stop further out than those straight towards it: the surface lies 0.43 knots outside of where the latter do."""
    mesh = mesh_of(distance)
    off = distance(torch.from_numpy(mesh.positions)).numpy() - stop_distance()
    assert np.abs(off).max() < KNOT / 2 < 0.01 * DIAGONAL
    near, _ = trimesh.sample.sample_surface(solid(mesh), 50_000, seed=0)
    wanted = (CENTRE + directions(2000)).double()
    for _ in range(20):  # down the distance, to where rays stop
        wanted -= (distance(wanted) - stop_distance())[:, None] * torch.from_numpy(outward(distance, wanted.numpy()))
    # On top of that, the distance between the 50 000 samples.
    assert cKDTree(near).query(wanted.numpy())[0].max() < KNOT / 2 + 0.01


@pytest.mark.parametrize("distance", [ball, brick])
def test_meshes_are_closed_and_turned_outward(distance):
    mesh = mesh_of(distance)
    shape = solid(mesh)
    volume = 4 / 3 * math.pi * RADIUS**3 if distance is ball else float(8 * HALF.prod())
    assert shape.is_watertight and shape.is_winding_consistent and shape.volume == pytest.approx(volume, rel=0.1)
    facing = (mesh.normals * outward(distance, mesh.positions)).sum(-1)
    assert facing.min() > 0 and facing.mean() > 0.97  # no one normal is right at a brick's edges
    assert (shape.vertex_normals * mesh.normals).sum(-1).min() > 0.9


def test_colours_are_those_seen_from_outside():
    mesh = mesh_of(ball)
    assert np.abs(mesh.colours / 255 - (0.5 - 0.5 * mesh.normals)).max() < 1 / 255


def test_loose_parts_are_dropped():
    other = torch.tensor([0.75, 0.8, 0.6])

    def two(points):
        return torch.minimum(ball(points), ball(points, other, 0.1))

    assert solid(mesh_of(two, keep=0.0)).body_count == 2
    kept = mesh_of(two, keep=0.1)
    assert solid(kept).body_count == 1 and np.abs(ball(torch.from_numpy(kept.positions)).numpy()).max() < KNOT


def test_what_no_camera_sees_is_filled():
    """A hollow ball with a sheet inside becomes one solid ball; an open bowl stays as hollow as it is seen to be."""

    def hollow(points):
        sheet = torch.maximum((points - CENTRE)[..., 2].abs() - 0.05, ball(points, radius=0.35))
        return torch.minimum(ball(points).abs() - 0.05, sheet)

    def bowl(points):
        return torch.maximum(ball(points).abs() - 0.05, (points - CENTRE)[..., 2])

    whole = 4 / 3 * math.pi * (RADIUS + 0.05) ** 3
    volumes = {}
    for shape in (hollow, bowl):
        field = Solid(shape)
        level = stopping_density(field, around())
        before, after = (solid(extract_mesh(field, level, c, resolution=96)) for c in (None, around()))
        assert after.is_watertight
        volumes[shape] = before.volume / whole, after.volume / whole
    assert volumes[hollow][0] < 0.75 and volumes[hollow][1] == pytest.approx(1, abs=0.1)
    assert volumes[bowl][1] == pytest.approx(volumes[bowl][0], rel=0.02)


def test_what_the_box_cuts_is_closed_at_its_faces():
    mesh = mesh_of(lambda p: ball(p, torch.tensor([-1.2, 0.0, 0.0]), 0.5))
    assert solid(mesh).is_watertight and mesh.positions[:, 0].min() == pytest.approx(-1.2, abs=1e-6)


def test_empty_cells_have_nothing():
    field = Solid(ball)
    field.occupied[:, :, 15:] = False
    mesh = extract_mesh(field, stopping_density(field, around()), resolution=64)
    cut, cell = -0.7 + 1.6 * 15 / 29, 2.2 / 64
    assert solid(mesh).is_watertight and mesh.positions[:, 2].max() < cut + cell


def test_a_finer_grid_moves_nothing():
    """The level is a density, not an opacity of a cell."""
    coarse, fine = (
        np.mean(ball(torch.from_numpy(mesh_of(ball, resolution).positions)).numpy()) for resolution in (64, 128)
    )
    assert abs(coarse - fine) < KNOT / 10


# ---------------------------------------------------------------------------------------- points


@pytest.mark.parametrize("distance", [ball, brick])
def test_points_are_on_the_surface_as_cameras_see_it(distance):
    cloud = extract_points(Solid(distance), around(), 3000)
    assert 1500 < len(cloud.positions) <= 3000
    off = distance(torch.from_numpy(cloud.positions)).numpy() - stop_distance()
    # Rays that graze a face lose half their light up to two knots in front of it.
    assert np.abs(off).max() < 2 * KNOT and np.median(np.abs(off)) < KNOT / 4
    facing = (cloud.normals * outward(distance, cloud.positions)).sum(-1)
    assert facing.min() > 0.5 and facing.mean() > 0.97  # at a brick's corners the three sides' mean


def test_points_have_the_rendered_colours():
    field, one = Solid(ball), around(1, 24)
    cloud = extract_points(field, one, 1000)
    towards = cloud.positions - one.centres.numpy()
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
    assert np.abs(cloud.colours / 255 - (0.5 + 0.5 * towards)).max() < 2 / 255  # opaque to 1e-4, rounded to 1/255


def test_points_are_the_same_every_time():
    a, b = (extract_points(Solid(ball), around(6, 24), 200) for _ in range(2))
    assert all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("positions", "normals", "colours"))
    assert len(extract_points(Solid(ball), around(6, 24), 1).positions) == 1


# ---------------------------------------------------------------------------------------- frames and files


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_similarity_moves_everything(mirrored):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation) * (-1 if mirrored else 1)
    similarity = np.eye(4)
    similarity[:3, :3], similarity[:3, 3] = 2.5 * rotation, [3, -1, 7]
    mesh = mesh_of(ball, 48)
    moved = mesh.transformed(similarity)
    centre = 2.5 * rotation @ CENTRE.numpy() + [3, -1, 7]
    assert solid(moved).volume == pytest.approx(2.5**3 * solid(mesh).volume)  # positive: still turned outward
    out = moved.positions - centre
    assert ((out / np.linalg.norm(out, axis=-1, keepdims=True)) * moved.normals).sum(-1).min() > 0.9
    back = moved.transformed(np.linalg.inv(similarity))
    np.testing.assert_allclose(back.positions, mesh.positions, atol=1e-12)
    np.testing.assert_array_equal(back.faces, mesh.faces)


def test_glb_and_ply_read_back_as_written(tmp_path):
    mesh, facts = mesh_of(ball, 48), {"frame": "input", "units": "units of the input"}
    write_ply(tmp_path / "a.ply", mesh, facts)
    write_glb(tmp_path / "a.glb", mesh, facts)
    ply = trimesh.load(tmp_path / "a.ply", process=False)
    (glb,) = trimesh.load(tmp_path / "a.glb", process=False).geometry.values()
    for got in (ply, glb):
        np.testing.assert_array_equal(got.vertices, mesh.positions.astype(np.float32))
        np.testing.assert_array_equal(got.faces, mesh.faces)
        np.testing.assert_allclose(got.vertex_normals, mesh.normals, atol=1e-6)
    np.testing.assert_array_equal(ply.visual.vertex_colors[:, :3], mesh.colours)
    light = glb.visual.vertex_attributes["color"] / 65535
    np.testing.assert_allclose(light[:, :3], linear(mesh.colours / 255), atol=1 / 65535)
    assert (
        glb.metadata.items() >= facts.items()
        and b"comment units: units of the input\n" in (tmp_path / "a.ply").read_bytes()
    )


def test_points_read_back_as_written(tmp_path):
    cloud = extract_points(Solid(ball), around(6, 24), 200)
    write_ply(tmp_path / "p.ply", cloud, {})
    got = trimesh.load(tmp_path / "p.ply")
    np.testing.assert_array_equal(got.vertices, cloud.positions.astype(np.float32))
    np.testing.assert_array_equal(got.colors[:, :3], cloud.colours)
    np.testing.assert_array_equal(read_ply_points(tmp_path / "p.ply"), got.vertices)


def test_convention_gltf_colours_are_linear():
    np.testing.assert_allclose(linear(np.array([0.0, 0.04045, 0.5, 1.0])), [0, 0.0031308, 0.2140411, 1], atol=1e-7)


# ---------------------------------------------------------------------------------------- what cannot be


def test_nothing_has_no_surface():
    fog = Solid(lambda points: torch.full(points.shape[:1], 0.1))
    for attempt in (
        lambda: stopping_density(fog, around(2, 8)),
        lambda: extract_points(fog, around(2, 8), 100),
        lambda: extract_mesh(fog, 10.0, resolution=16),
    ):
        with pytest.raises(DataError, match=r"no surface.*fields render"):
            attempt()


def test_cameras_that_look_away_see_no_surface():
    away = Cameras.look_at([[3.0, 3.0, 3.0]], [6.0, 6.0, 6.0], width=8, height=8)
    with pytest.raises(DataError, match="no surface"):
        stopping_density(Solid(ball), away)


@pytest.mark.parametrize("options", [{"resolution": 1}, {"resolution": 5000}, {"keep": -1}, {"keep": math.nan}])
def test_options_out_of_range(options):
    with pytest.raises(ConfigError, match="resolution"):
        extract_mesh(Solid(ball), 10.0, **options)


@pytest.mark.parametrize("level", [0.0, -1.0, math.nan])
def test_levels_out_of_range(level):
    with pytest.raises(ConfigError, match="level"):
        extract_mesh(Solid(ball), level)
    with pytest.raises(FieldsError, match="at least one"):
        extract_points(Solid(ball), around(2, 8), 0)
