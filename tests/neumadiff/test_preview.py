"""Previews: against sums over the sphere that are as dense as it takes, of matte, glossy and mirror-like materials, under lamps and a sun."""

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d

from fields.io.images import contact_sheet
from fields.neumadiff.angles import half_difference
from fields.neumadiff.preview import HALF_WIDTH, LitSpheres, light_of, picture, preview, shape_normals, studio
from fields.relighting.environment import Environment

WIDTHS = torch.tensor([0.003, 0.05, 0.2])[:, None, None]


@pytest.fixture(autouse=True)
def _one_thread():
    """Work here is small: where cores are shared, threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def white(angles):
    """A matte white one."""
    return torch.full((1, len(angles), 3), 1 / math.pi)


def glossy(angles):
    """Highlights of three widths, the narrowest as of chrome, with an edge that is neither of one colour nor symmetric, on something matte."""
    lobe = (1 + (angles[:, :1].double().tan() / WIDTHS) ** 2) ** -2 / (math.pi * WIDTHS**2)
    colour = torch.tensor([1.0, 0.6, 0.3]) * (1 + 0.5 * angles[:, 1:2].sin() ** 4 + 0.2 * angles[:, 2:].sin())
    return (lobe * colour / 4 + 0.03).float()


def dense(reflectance, normal, light, tilts=400, turns=480):
    """(M, 3) by half vectors, four hundred times as many as a preview has, and light as it is."""
    eye = torch.tensor([0, 0, 1.0], dtype=torch.float64)
    x = torch.nn.functional.normalize(eye - normal * normal[2], dim=0)
    frame = torch.stack([x, torch.linalg.cross(normal, x), normal], 1)
    u = (torch.arange(tilts, dtype=torch.float64)[:, None] + 0.5) / tilts
    tilt, turn = math.pi / 2 * u**3, (torch.arange(turns, dtype=torch.float64) + 0.5) * (2 * math.pi / turns)
    half = torch.stack(torch.broadcast_tensors(tilt.sin() * turn.cos(), tilt.sin() * turn.sin(), tilt.cos()), -1)
    around = tilt.sin() * (math.pi / 2 * 3 * u**2 / tilts) * (2 * math.pi / turns)
    half, around, eye = half.view(-1, 3), around.expand(-1, turns).flatten(), eye @ frame
    towards = (half @ eye)[:, None]
    to_light = 2 * towards * half - eye
    weight = 4 * towards[:, 0].clamp(min=0) * to_light[:, 2].clamp(min=0) * around
    values = reflectance(half_difference(to_light, eye.expand_as(to_light)).float())
    return torch.einsum("mnc,nc,n->mc", values.double(), light((to_light @ frame.T).float()).double(), weight)


def some_normals(count, seed=0):
    normals = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    normals[:, 2] = normals[:, 2].abs() + 0.1  # the last rows of a ball's edge are seen by no pixel
    return torch.nn.functional.normalize(normals, dim=-1)


def smooth_light(directions):
    """Without edges, so that nothing is lost where a map is averaged."""
    return 1 + 0.9 * torch.stack([directions[:, 0], directions[:, 1] * directions[:, 2], -directions[:, 2]], 1)


def test_a_white_ball_in_white_light_vanishes():
    image = preview(white, size=64, light=torch.ones_like, backdrop=1.0)
    # A pixel of 4°, 48 rows of which are all that 64 pixels have, is measured at its centre: 0.5 % at the edge of the ball.
    assert (image - 1).abs().max() < 8e-3 and (image - 1).abs().mean() < 3e-4


@pytest.mark.parametrize("light, tolerance", [(smooth_light, 0.01), (studio, 0.03)])
def test_it_is_what_a_dense_sum_is(light, tolerance):
    normals = some_normals(16)
    found = LitSpheres(glossy, light, rows=192)(normals[None])[:, 0].double()
    wanted = torch.stack([dense(glossy, normal, light) for normal in normals], 1)
    # A map of 0.9° blurs the edges of soft boxes in mirrors, where pixels are between the two sides: medians are of all others.
    error = ((found - wanted).abs().sum(-1) / wanted.sum(-1)).median(1).values
    assert (error < tolerance / 3).all(), error
    # In all, neither more light nor less.
    assert torch.allclose(found.sum((1, 2)), wanted.sum((1, 2)), rtol=tolerance)


def test_a_sun_leaves_no_pattern():
    """Of a matte ball it is the cosine; sums that miss the sun, or meet it twice, would show rings."""
    sun = Environment(torch.zeros(1000, 2000, 3))  # one pixel of it, and no size that divides another
    sun.radiance[300, 1210] = math.pi / float(sun.solid_angles()[300])
    normals = shape_normals("sphere", 96)
    cosine = (normals @ sun.directions()[300, 1210]).clamp(min=0)
    inside = normals[..., 2] > 0.1
    image = LitSpheres(white, light_of(sun), rows=96)(normals)[0, ..., 0]
    # The sun is shared by four pixels of 0.065 rad: where it sets, a quarter of that is how far the cosine's edge is blurred.
    assert (image - cosine)[inside].abs().max() < 0.065 / 4
    assert (image - cosine)[inside].abs().mean() < 0.003  # 0.36 % is gained where maps are resized and looked up


def test_pixels_of_the_edge_are_covered_in_part():
    """White on black, by how much of each pixel is within a circle: the edge is taken to be upright in its sixteenths, 4 % of one at most."""
    lit = LitSpheres(white, torch.ones_like, rows=48)
    fine = ((torch.arange(24 * 64) + 0.5) / (24 * 64) * 2 - 1) * HALF_WIDTH
    covered = (torch.hypot(fine[:, None], fine) <= 1).float()
    wanted = avg_pool2d(covered[None], 64)[0]
    for shape in ("sphere", "knob"):
        # 0.8 % is what a white ball in white light misses.
        assert (picture(lit, shape, 24)[0, ..., 0] - wanted).abs().max() < 0.02
    assert torch.allclose(picture(lit, "sphere", 24, 1.0), torch.ones(1), atol=8e-3)


def test_pixels_are_means_over_their_area():
    """Small pictures are large ones that were averaged: of the broadest highlight 0.18 % are missed, and were 1 % when nothing was looked at
    more closely along the edge."""
    lit = LitSpheres(glossy, studio, rows=96)
    small, large = picture(lit, "sphere", 32, 0.5)[2], picture(lit, "sphere", 512, 0.5)[2]
    means = avg_pool2d(large.permute(2, 0, 1), 16).permute(1, 2, 0)
    assert (small - means).square().mean().sqrt() < 0.004 * means.square().mean().sqrt()


def test_a_mirror_shows_the_light_where_it_is():
    axis = torch.nn.functional.normalize(torch.tensor([0.5, 0.6, 0.4]), dim=0)

    def lamp(directions):
        return ((directions @ axis) > 0.99).float()[:, None].expand(-1, 3)

    normals = shape_normals("sphere", 128)
    image = LitSpheres(glossy, lamp, rows=96)(normals)[0, ..., 0]
    mirrored = 2 * normals[..., 2:] * normals - torch.tensor([0, 0, 1.0])
    lit = image > 0.5 * image.max()
    middle = torch.nn.functional.normalize(mirrored[lit].mean(0), dim=0)
    assert middle @ axis > math.cos(math.radians(1.0))  # half a pixel of the map's


def test_normals_face_the_eye_and_fit_the_surface():
    for shape in ("sphere", "knob"):
        normals = shape_normals(shape, 129)
        inside = (normals != 0).any(-1)
        assert torch.allclose(normals[inside].norm(dim=-1), torch.ones(()), atol=1e-6)
        assert (normals[..., 2] >= 0).all()
        assert torch.allclose(normals.flip(1) * torch.tensor([-1.0, 1, 1]), normals, atol=1e-3)  # √ of 1e-7 at the edge
    middle = shape_normals("knob", 129)[64, :, 0]  # along x: out of the dome, into the groove, over the rim
    assert middle[85] > 0 > middle[105] and middle[122] > 0
    up = shape_normals("sphere", 8)
    assert up[1, 4, 1] > 0  # the first row is the top


def test_materials_do_not_disturb_each_other():
    """Each is what it would be alone; one that is not finite is alone in it."""
    alone = preview(white, size=32)
    together = preview(lambda angles: torch.cat([white(angles), white(angles) * math.nan, 2 * white(angles)]), size=32)
    assert torch.allclose(together[0], alone[0], atol=1e-6) and torch.allclose(together[2], 2 * alone[0], atol=1e-6)
    assert together[1].isnan().any()


def test_contact_sheet():
    tiles = torch.stack([torch.full((32, 48, 3), v) for v in (0.2, 0.6, 1.0)])
    sheet = contact_sheet(tiles, ["a", "much too long for its tile", ""], columns=2, gap=4)
    assert sheet.shape == (2 * (32 + 20 + 4) + 4, 2 * 52 + 4, 3)
    assert torch.allclose(sheet[4:36, 4:52], tiles[0], atol=1 / 255) and torch.allclose(
        sheet[60:92, 4:52], tiles[2], atol=1 / 255
    )
    assert contact_sheet(tiles, [""] * 3, columns=2, gap=4).shape == (2 * (32 + 4) + 4, 2 * 52 + 4, 3)
    written = (sheet - sheet[0, 0]).abs().sum(-1) > 0.1
    assert written[36:56, 4:52].any() and written[36:56, 56:104].any()
    assert not written[92:].any() and not written[36:60, 52:56].any()  # no caption, and none that reaches over its edge
