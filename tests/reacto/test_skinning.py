"""Quasi-rigid blend skinning, before anything is learned: what its specification asks of every piece."""

import math

import numpy as np
import pytest
import torch

from fields.data.cameras import Cameras
from fields.geometry.rigid import inverse, move
from fields.reacto.dual_quaternions import blended, carried, dual_quaternions
from fields.reacto.geodesic import assigned, interior_distances, sparsity
from fields.reacto.screws import exponential, revolute
from fields.reacto.skinned import SkinnedField
from fields.reacto.video import find_empty
from fields.rendering import orbit, render

FRAMES = 8
INF = math.inf


# ------------------------------------------------------------------------------------ blending


def test_a_dual_quaternion_moves_points_as_its_pose_does():
    poses, points = exponential(torch.randn(100, 6, dtype=torch.float64)), torch.randn(100, 3, dtype=torch.float64)
    torch.testing.assert_close(carried(dual_quaternions(poses), points), move(poses, points))


def test_the_mean_of_equal_motions_is_that_motion_and_of_one_alone_that_one():
    poses = exponential(torch.randn(50, 4, 6, dtype=torch.float64))
    motions, points = dual_quaternions(poses), torch.randn(50, 3, dtype=torch.float64)
    weights = torch.rand(50, 4, dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(
        carried(blended(motions[:, :1].expand(-1, 4, -1), weights), points), move(poses[:, 0], points)
    )
    chosen = torch.randint(4, (50,))
    one_hot = torch.nn.functional.one_hot(chosen, 4).double()
    torch.testing.assert_close(
        carried(blended(motions, one_hot), points), move(poses[torch.arange(50), chosen], points)
    )


def test_a_motion_and_its_negative_are_the_same():
    motions = dual_quaternions(exponential(torch.randn(50, 4, 6, dtype=torch.float64)))
    weights, points = torch.rand(50, 4, dtype=torch.float64).softmax(-1), torch.randn(50, 3, dtype=torch.float64)
    signs = torch.randint(2, (50, 4, 1)) * 2 - 1
    torch.testing.assert_close(
        carried(blended(signs * motions, weights), points), carried(blended(motions, weights), points)
    )


def test_blending_stays_rigid():
    """A mean of matrices would shrink what is between two that turn against each other."""
    motions = dual_quaternions(exponential(torch.randn(30, 3, 6, dtype=torch.float64)))
    mean = blended(motions, torch.rand(30, 3, dtype=torch.float64).softmax(-1))[:, None]
    points = torch.randn(30, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.cdist(*[carried(mean, points)] * 2), torch.cdist(points, points))


# ------------------------------------------------------------------------------------ ways, and who may move what


def test_ways_stay_inside_and_lead_nowhere_where_there_is_none():
    """A horseshoe of two legs of 20 cells, two apart, and a cell on its own."""
    inside = np.zeros((20, 5, 1), dtype=bool)
    inside[:, 0] = inside[:, 4] = inside[19] = True
    inside[10, 2] = True
    (way,) = interior_distances(inside, (1.0, 1.0, 1.0), np.array([[0, 0, 0]]))
    assert way[15, 0, 0] == pytest.approx(15)
    around = 18 + math.sqrt(2) + 2 + math.sqrt(2) + 18  # diagonally over both corners
    assert way[0, 4, 0] == pytest.approx(around)
    assert math.isinf(way[10, 2, 0])
    assert way[5, 1, 0] == pytest.approx(5 + 1)  # outside: from the nearest cell, straight
    with pytest.raises(ValueError, match="nothing is inside"):
        interior_distances(np.zeros((3, 3, 3), dtype=bool), (1.0, 1.0, 1.0), np.array([[0, 0, 0]]))


def test_ways_are_as_long_as_cells_are():
    inside = np.ones((4, 5, 6), dtype=bool)
    spacing = (0.5, 0.25, 0.1)
    (way,) = interior_distances(inside, spacing, np.array([[0, 0, 0]]))
    assert (
        way[3, 0, 0] == pytest.approx(1.5) and way[0, 4, 0] == pytest.approx(1.0) and way[0, 0, 5] == pytest.approx(0.5)
    )
    assert way[2, 2, 2] == pytest.approx(2 * np.linalg.norm(spacing))


def test_algorithm_1():
    near = torch.tensor([[1.0, 2, 9], [1.0, 1.05, 9], [1.0, 1.05, 9], [1.05, 1, 9], [1.0, 1.05, 9], [1.0, 1.05, 9]])
    way = torch.tensor([[5.0, 1, 1], [2.0, 2.1, 1], [3.0, 2, 1], [3.0, 2, 1], [INF, 2, 1], [INF, INF, 1]])
    wanted = torch.tensor([
        [1, 0, 0],  # clearly the nearest, whatever the ways
        [1, 1, 0],  # two meet
        [0, 1, 0],  # near, but around the corner
        [0, 1, 0],  # the same, named the other way
        [0, 1, 0],  # no way to the nearest
        [1, 0, 0],  # no way to either
    ]).bool()  # fmt: skip
    torch.testing.assert_close(assigned(near, way, 0.1, 0.1), wanted)


def test_sparsity_pushes_weight_to_what_is_assigned_only():
    chosen = torch.tensor([[True, False, False], [True, True, False]])
    assert sparsity(torch.tensor([[1.0, 0, 0], [0.4, 0.6, 0]]), chosen) == 0
    logits = torch.zeros(2, 3, requires_grad=True)
    sparsity(logits.softmax(1), chosen).backward()
    assert (logits.grad[chosen] < 0).all() and (logits.grad[~chosen] > 0).all()
    everywhere = torch.rand(4, 3, requires_grad=True)
    loss = sparsity(everywhere, torch.ones(4, 3, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and everywhere.grad.isfinite().all()


# ------------------------------------------------------------------------------------ the field


EGGS = (((0.0, -0.3, -0.15), (0.55, 0.25, 0.13)), ((0.0, 0.42, 0.05), (0.5, 0.13, 0.35)))
"""Middles and half axes, radii: a base, and a lid behind it. Their level set is a polynomial, and their silhouettes are known."""
HINGE = revolute(torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0.2, -0.25]))


def scaled(points: torch.Tensor, egg) -> torch.Tensor:
    """Points (N, 3) where the egg is the unit ball."""
    return (points - points.new_tensor(egg[0])) / points.new_tensor(egg[1])


@torch.no_grad()
def polynomial(part) -> None:
    """Makes the level −c (1 − |one|²) (1 − |other|²): positive in either egg, and exact on the knots of four components of one mode."""
    x, y, z = (
        torch.linspace(float(a), float(b), n) for a, b, n in zip(*part.aabb.view(2, 3), part.resolution, strict=True)
    )
    flat, high = [], []
    for middle, half in EGGS:
        u, v, w = (((k - m) / h).square() for k, m, h in zip((x, y, z), middle, half, strict=True))
        flat.append(1 - u[:, None] - v)
        high.append(-w)
    grid = part.density_grid
    plane, line = (grid.factors[grid.axes.index(axes)] for axes in ((0, 1), (2,)))
    for factor in grid.factors:
        factor.zero_()
    plane[..., :4] = -10 * torch.stack([flat[0] * flat[1], flat[0], flat[1], torch.ones_like(flat[0])], -1)
    line[..., :4] = torch.stack([torch.ones_like(z), high[1], high[0], high[0] * high[1]], -1)


def inside(count: int) -> torch.Tensor:
    """So many points in each egg."""
    return torch.cat([torch.tensor(m) + torch.tensor(h) * (torch.rand(count, 3) - 0.5) for m, h in EGGS])


def true_motions() -> torch.Tensor:
    angles = 0.35 * torch.sin(2 * math.pi * torch.arange(FRAMES) / FRAMES)
    return torch.stack([torch.eye(4).expand(FRAMES, 4, 4), exponential(angles[:, None] * HINGE)], 1)


@pytest.fixture(scope="module")
def hinged() -> SkinnedField:
    """Two eggs; each has a bone. The scene's box is of radius 2, about another middle than the origin."""
    torch.manual_seed(0)
    shape = {
        "aabb": [-0.7, -0.7, -0.5, 0.7, 0.7, 0.6], "resolution": [96, 96, 80], "near": 0.0, "far": INF, "density_shift": 0.0,
        "distance_scale": 1.0, "frequencies": 1, "density_rank": 8, "appearance_rank": 6, "feature_dim": 6, "hidden": 16,
        "step_ratio": 0.5, "shading_threshold": 1e-3,
    }  # fmt: skip
    field = SkinnedField(shape=shape, bones=2, times=[float(t) for t in range(FRAMES)], aabb=[-1, 0, 1, 3, 4, 5])
    part = field.shape
    polynomial(part)
    optimiser = torch.optim.Adam([*part.appearance_grid.parameters(), *part.decoder.parameters()], 0.05)
    for _ in range(100):
        x = torch.rand(8192, 3) * 2 - 1
        painted = part.colour(x, torch.tensor([[0.0, 0, 1]]).expand_as(x)) - (0.5 + 0.4 * torch.sin(9 * x))
        optimiser.zero_grad()
        painted.square().mean().backward()
        optimiser.step()
    find_empty(part)
    for b, (middle, half) in enumerate(EGGS):
        field.bones.frames[b, :3, 3] = torch.tensor(middle)
        field.bones.log_scale.data[b] = (torch.tensor(half) / 2).log()
    field.begun.copy_(true_motions())
    field.sharpness.fill_(0.1)
    return field.requires_grad_(False)


def cameras(size: int) -> Cameras:
    return Cameras.cat(
        [orbit(FRAMES, centre=(1.0, 2.0, 3.0), radius=6.0, fov=35, size=(size, size))[k] for k in range(FRAMES)]
    )


@pytest.mark.parametrize("blend", ["dual-quaternion", "linear", "hard"])
def test_backward_undoes_forward_where_weights_are_of_one(hinged, blend):
    points = inside(200)
    hinged.blend = blend
    try:
        for frame in range(FRAMES):
            which = torch.full((len(points),), frame)
            posed, skin = hinged.forward(hinged.motions(), which, points)
            sure = skin.weights.amax(1) > 1 - 1e-6
            back, _ = hinged.backward(hinged.motions(), which, posed)
            assert sure.float().mean() > 0.5
            torch.testing.assert_close(back[sure], points[sure], atol=1e-5, rtol=0)
    finally:
        hinged.blend = "dual-quaternion"


def test_the_sharper_the_weights_the_closer_places_come_back(hinged):
    points = inside(1000)
    which = torch.full((2000,), 2)
    off = []
    try:
        for sharpness in (3.0, 1.0, 0.3, 0.1):
            hinged.sharpness.fill_(sharpness)
            posed, _ = hinged.forward(hinged.motions(), which, points)
            back, _ = hinged.backward(hinged.motions(), which, posed)
            off.append(float((back - points).norm(dim=-1).mean()))
    finally:
        hinged.sharpness.fill_(0.1)
    assert off == sorted(off, reverse=True) and off[-1] < 0.1 * off[0]


def test_true_shapes_in_true_motion_have_the_true_silhouettes(hinged):
    """In every frame, by what rays pass both eggs: whatever is turned around anywhere shows here."""
    views, motions = cameras(128), true_motions()
    for frame in range(FRAMES):
        with hinged.in_state(motions[frame]):
            opacity = render(hinged, views, frame).opacity
        origins, directions = views.image_rays(frame)
        o, d = (origins.view(-1, 3) - hinged.middle) / hinged.radius, directions.view(-1, 3)
        true = torch.zeros(len(o), dtype=torch.bool)
        for pose, egg in zip(motions[frame], EGGS, strict=True):
            back = inverse(pose)
            start, along = scaled(move(back, o), egg), d @ back[:3, :3].T / torch.tensor(egg[1])
            across = start - (start * along).sum(-1, keepdim=True) / along.square().sum(-1, keepdim=True) * along
            true |= across.norm(dim=-1) < 1
        found = opacity.flatten() > 0.5
        assert float((found & true).sum() / (found | true).sum()) > 0.99, frame


def test_between_frames_motion_goes_on_smoothly(hinged):
    for frame in range(FRAMES):
        torch.testing.assert_close(hinged.states_at(float(frame)), true_motions()[frame], atol=1e-5, rtol=0)
    halfway = exponential(0.35 * math.sin(2 * math.pi * 2.5 / FRAMES) * HINGE)
    torch.testing.assert_close(hinged.states_at(2.5)[1], halfway, atol=5e-3, rtol=0)  # a spline of eight frames


@pytest.mark.timeout(120)
def test_motion_is_found_again_from_masks_and_colours(hinged):
    """The lid is 10 degrees and 5 % of the radius off in all frames; the shape is known."""
    views, motions = cameras(48), true_motions()
    targets = []
    for frame in range(FRAMES):
        with hinged.in_state(motions[frame]):
            targets.append(render(hinged, views, frame))
    wrong = exponential(torch.tensor([math.radians(10), 0, 0, 0.03, 0.03, 0.025]))
    hinged.begun[:, 1] = wrong @ motions[:, 1]
    before = hinged.motions()[:, 1]
    hinged.knots.requires_grad_()
    optimiser = torch.optim.Adam([hinged.knots], 0.02)
    generator = torch.Generator().manual_seed(0)
    rgb, opacity = (torch.stack([getattr(t, name) for t in targets]).flatten(0, 2) for name in ("rgb", "opacity"))
    origins, directions = (torch.cat([views.image_rays(k)[n].view(-1, 3) for k in range(FRAMES)]) for n in range(2))
    try:
        for k in range(200):
            optimiser.param_groups[0]["lr"] = 0.02 * 0.03 ** (k / 200)
            rows = torch.randint(len(rgb), (1024,), generator=generator)
            motion = hinged.motions()
            seen, _ = hinged.render_posed(origins[rows], directions[rows], motion, rows // 48**2)
            loss = (seen.rgb - rgb[rows]).square().mean() + (seen.opacity - opacity[rows]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            hinged.knots.grad[:, 0] = 0  # the base stands still
            optimiser.step()
        found = hinged.motions().detach()[:, 1]
    finally:
        hinged.knots.requires_grad_(False)
        hinged.knots.zero_()
        hinged.begun.copy_(motions)

    def off(pose: torch.Tensor) -> tuple[float, float]:
        """Degrees, and radii at the lid's middle."""
        turn = pose[:, :3, :3] @ motions[:, 1, :3, :3].mT
        angle = ((turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos().mean()
        lid = torch.tensor(EGGS[1][0])
        return math.degrees(float(angle)), float((move(pose, lid) - move(motions[:, 1], lid)).norm(dim=-1).mean())

    assert off(before)[0] > 9 and off(before)[1] > 0.04
    assert off(found)[0] < 1.5 and off(found)[1] < 0.02  # a pixel is 0.04 radii
