"""What is seen of a ball whose every distance and normal is known."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from fields.outputs import OUTPUTS, Palette, Seen, outputs_of, see
from fields.radiance import Crop, RadianceField

CENTRE, RADIUS, KNOT = torch.tensor([0.2, -0.1, 0.15]), 0.6, 0.04
WHITE, AXIS = torch.ones(3), torch.tensor([0.0, 0.0, -1.0])


class Ball(RadianceField):
    """Dense inside, over a box whose sides differ; its features are the position."""

    def __init__(self):
        super().__init__(aabb=[-1.0, -1.2, -0.9, 1.0, 0.8, 1.4], near=0.05, far=10.0, occupancy_resolution=[20] * 3,
                         density_shift=0.0, distance_scale=25.0, step_ratio=0.25, shading_threshold=1e-4)  # fmt: skip

    @property
    def step_size(self):
        return self.step_ratio * KNOT

    def density_feature(self, x):
        return (RADIUS - (self.denormalise(x) - CENTRE).norm(dim=-1)) * (8 / KNOT)

    def colour(self, x, directions):
        return torch.full_like(x, 0.25)

    def features(self, x):
        return self.denormalise(x)


def rays_down(n=400):
    """Rays along −z over the whole box; where they meet the ball, and whether they do so well inside of its rim."""
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(n, 2, generator=generator) * 1.8 - 0.9 + torch.tensor([0.0, -0.2])
    origins = torch.cat([xy, torch.full((n, 1), 3.0)], 1)
    away = (xy - CENTRE[:2]).norm(dim=-1)
    height = CENTRE[2] + (RADIUS**2 - away**2).clamp(min=0).sqrt()
    return origins, AXIS.expand(n, 3), torch.cat([xy, height[:, None]], 1), away


@pytest.fixture(scope="module")
def seen():
    origins, directions, _, _ = rays_down()
    return {name: see(Ball(), name, origins, directions, AXIS, WHITE) for name in OUTPUTS}


def test_normals_and_distances_are_those_of_the_ball(seen):
    _, _, surface, away = rays_down()
    hit = away < 0.9 * RADIUS
    want = normalize(surface - CENTRE, dim=-1)
    assert (seen["normal"].value[hit] * want[hit]).sum(-1).min() > math.cos(math.radians(3))
    for name in ("distance", "z"):  # the same, along the axis; light is lost within a knot
        torch.testing.assert_close(seen[name].value[hit, 0], 3.0 - surface[hit, 2], atol=KNOT, rtol=0)
    torch.testing.assert_close(seen["features"].value[hit], surface[hit], atol=2 * KNOT, rtol=0)


def test_there_is_nothing_beside_the_ball(seen):
    miss = rays_down()[3] > 1.1 * RADIUS
    assert miss.sum() > 50
    assert (seen["opacity"].value[miss] < 1e-3).all() and (seen["normal"].value[miss].norm(dim=-1) <= 1.001).all()
    torch.testing.assert_close(seen["rgb"].value[miss], torch.ones(int(miss.sum()), 3), atol=1e-3, rtol=0)


def test_samples_are_those_on_the_ray(seen):
    assert outputs_of(Ball()) == OUTPUTS
    box = Ball().aabb[5] - Ball().aabb[2]
    torch.testing.assert_close(
        seen["samples"].value, torch.full((400, 1), float(box / (0.25 * KNOT))), atol=1.5, rtol=0
    )


def test_z_is_the_distance_along_the_axis():
    axis = normalize(torch.tensor([0.3, 0.1, -1.0]), dim=0)
    origins, directions, _, away = rays_down()
    hit = away < 0.9 * RADIUS
    z, distance = (see(Ball(), name, origins, directions, axis, WHITE).value[hit, 0] for name in ("z", "distance"))
    torch.testing.assert_close(z, distance * float(axis @ AXIS))


@pytest.mark.parametrize("seed", range(5))
def test_a_crop_shows_what_is_inside_of_it(seed):
    """Against asking every point of the rays whether it is in the box."""
    torch.manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3)).Q
    pose = torch.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, CENTRE + 0.2 * torch.randn(3)
    crop = Crop(pose, torch.rand(3) + 0.6)
    origins = 3 * normalize(torch.randn(200, 3), dim=-1)
    directions = normalize(0.7 * torch.randn(200, 3) - origins, dim=-1)
    enter, leave = crop.span(origins, directions)
    t = torch.linspace(0, 6, 6001)
    points = origins[:, None] + t[:, None] * directions[:, None] - pose[:3, 3]
    inside = ((points @ rotation).abs() <= crop.size / 2).all(-1)
    hits = inside.any(-1)
    assert 20 <= hits.sum() <= 180
    first = t[inside.int().argmax(-1)]
    torch.testing.assert_close(enter[hits], first[hits], atol=1.1e-3, rtol=0)
    assert (leave[hits] >= enter[hits]).all()
    short = (leave - enter)[~hits]  # a ray may nick a corner between two points
    assert (short < 2e-3).all()


def test_a_cropped_field_is_cut_where_the_box_ends():
    field = Ball()
    pose = torch.eye(4)
    pose[:3, 3] = CENTRE - torch.tensor([0.0, 0.0, 0.5])  # its top goes through the middle of the ball
    origins, directions, _, away = rays_down()
    hit = away < 0.8 * RADIUS
    with torch.no_grad(), field.cropped(Crop(pose, torch.tensor([4.0, 4.0, 1.0]))):
        cut = field.render_rays(origins, directions)
    distance = (cut.depth / cut.opacity)[hit]
    torch.testing.assert_close(distance, torch.full_like(distance, 3.0 - float(CENTRE[2])), atol=KNOT, rtol=0)
    assert (field.crop, field.near, field.far) == (None, 0.05, 10.0)


@pytest.mark.parametrize("away", [0.7, 3.0, 40.0])
def test_whoever_looks_may_stand_anywhere(away):
    """Closer than `near` and further than `far`, which are about the training cameras."""
    field = Ball()
    field.near, field.far = 2.0, 6.0
    direction = normalize(torch.tensor([[0.3, -0.5, 0.8]]), dim=-1)
    with torch.no_grad(), field.cropped(None):
        seen = field.render_rays(CENTRE - away * direction, direction)
    assert seen.opacity > 0.999 and float(seen.depth) == pytest.approx(away - RADIUS, abs=KNOT)


@pytest.mark.parametrize("output", OUTPUTS)
def test_palettes_give_colours(seen, output):
    palette = Palette.fit(output, seen[output])
    colours = palette(seen[output], torch.tensor([0.0, 0.5, 1.0]))
    assert colours.shape == (400, 3) and (colours >= 0).all() and (colours <= 1).all()
    if output not in ("rgb", "samples"):  # nothing is the background, but where it is a value itself
        empty = seen[output].opacity < 1e-6
        if output != "opacity":
            torch.testing.assert_close(colours[empty], torch.tensor([0.0, 0.5, 1.0]).expand(int(empty.sum()), 3))


def test_near_and_far_are_the_ends_of_the_map():
    value = torch.tensor([[1.0], [2.0], [3.0]])
    one = Seen(value, torch.ones(3), value[:, 0])
    colours = Palette("distance", 1.0, 3.0, "gray")(one, WHITE)
    torch.testing.assert_close(colours[:, 0], torch.tensor([1.0, 0.5, 0.0]), atol=4e-3, rtol=0)  # 256 steps


def test_features_of_few_colours_and_of_one_value_are_shown():
    for value in (torch.rand(50, 2), torch.ones(50, 5)):
        one = Seen(value, torch.ones(50), torch.ones(50))
        colours = Palette.fit("features", one)(one, WHITE)
        assert colours.isfinite().all() and colours.shape == (50, 3)
