import pytest
import torch

from fields.core.grids import vm_sample
from fields.methods import method
from fields.rendering import orbit, render
from fields.tensorf.field import TensoRF
from fields.tensors import FactorisedGrid, resolution_for
from fields.tensors.colour import spherical_harmonics

BOX = [-1.5, -1.5, -1.5, 1.5, 1.5, 1.5]


def grid_parameters(layout, resolution, density, appearance):
    grids = [
        FactorisedGrid(layout, [resolution] * 3, [r] * (3 if layout == "vm" else 1)) for r in (density, appearance)
    ]
    return sum(p.numel() for g in grids for p in g.parameters())


def test_sizes_are_the_papers():
    assert grid_parameters("vm", 300, 16, 48) == 17_337_600  # "VM-192", 17.34 M
    assert grid_parameters("cp", 500, 96, 288) == 576_000  # "CP-384", 0.58 M


def test_paper_presets_are_the_published_settings():
    vm, cp = method("tensorf-vm").configure("paper"), method("tensorf-cp").configure("paper")
    assert (vm.density_rank, vm.appearance_rank, cp.density_rank, cp.appearance_rank) == (16, 48, 96, 288)
    for config in (vm, cp):
        assert (config.density_shift, config.distance_scale, config.step_ratio) == (-10.0, 25.0, 0.5)
        assert (config.rate_factors, config.rate_network, config.iterations, config.rays) == (0.02, 1e-3, 30_000, 4096)
        assert config.upsample_at == (2000, 3000, 4000, 5500, 7000) and config.occupancy_at == (2000, 4000)
    assert vm.l1 == (8e-5, 4e-5) and cp.l1 == (1e-5, 1e-5)


@pytest.mark.parametrize(
    ("name", "edges"),
    [("tensorf-vm", (128, 151.8, 180, 213.4, 253, 300)), ("tensorf-cp", (128, 168, 221, 290, 381, 500))],
)
def test_upsampling_edges_are_the_papers(name, edges):
    from fields.tensorf.training import TensorfTraining

    training = TensorfTraining.__new__(TensorfTraining)
    training.config = method(name).configure("paper")
    got = [training.config.voxels[0] ** (1 / 3), *(v ** (1 / 3) for v in training.resolutions())]
    assert got == pytest.approx(edges, abs=0.5)


def test_resolution_follows_the_box():
    assert resolution_for(torch.tensor([[-1.5] * 3, [1.5] * 3]), 128**3) == (128, 128, 128)
    x, y, z = resolution_for(torch.tensor([[0.0, 0, 0], [2.0, 1, 1]]), 2 * 50**3)
    assert (x, y, z) == (100, 50, 50)


def test_resampling_keeps_the_function_and_cropping_cuts_it():
    grid = FactorisedGrid("vm", [5, 6, 7], [3, 3, 3])
    x = torch.rand(200, 3) * 2 - 1
    before = grid(x, "sum")
    grid.resample([9, 11, 13])  # old knots are knots again, and the rest lies on the lines between them
    torch.testing.assert_close(grid(x, "sum"), before, rtol=1e-4, atol=1e-5)
    grid.crop([0, 0, 0], [4, 5, 6])  # the lower half
    torch.testing.assert_close(grid(x, "sum"), vm_at_half(grid, x), rtol=1e-4, atol=1e-5)
    assert grid.resolution == (5, 6, 7)


def vm_at_half(grid, x):
    return vm_sample(x, list(grid.factors)[0::2], list(grid.factors)[1::2])


def ball(**options):
    """A field that is dense inside radius 0.5 and red, made by fitting nothing: the occupancy does the cutting."""
    field = TensoRF(aabb=BOX, resolution=[48] * 3, near=0.1, far=10.0, density_rank=1, appearance_rank=4, **options)
    with torch.no_grad():
        for k, factor in enumerate(field.density_grid.factors):
            factor.fill_(20.0 if k % 2 == 0 else 1.0)
    at = (torch.arange(48) + 0.5) / 16 - 1.5
    field.occupied = at[:, None, None] ** 2 + at[None, :, None] ** 2 + at[None, None, :] ** 2 < 0.25
    return field


def test_convention_depth_is_distance_and_the_ball_is_where_it_should_be():
    image = render(ball(), orbit(4, radius=3.0, elevation=0.0, size=(33, 33), fov=40.0))
    assert image.opacity[16, 16] > 0.99 and image.opacity[0, 0] == 0
    assert image.depth[16, 16] == pytest.approx(2.5, abs=0.08)  # within a cell of the front of the ball
    torch.testing.assert_close(image.rgb[0, 0], torch.ones(3))
    # Seen from distance 3, a ball of radius 0.5 covers asin(0.5 / 3) of half the 40 degrees: its width in pixels.
    width = int((image.opacity[16] > 0.5).sum())
    assert abs(width - 33 * 0.1690 / 0.36397) <= 2


def test_shrinking_changes_nothing_that_is_seen():
    field = ball()
    cameras = orbit(3, radius=3.0, size=(24, 24))
    before = render(field, cameras, 1)
    field.shrink()
    assert field.aabb.abs().max() < 0.6
    after = render(field, cameras, 1)
    # Cells of the new grid are shifted by up to half a cell, so pixels of the outline (5 % of these) may change sides.
    assert (after.opacity - before.opacity).abs().mean() < 0.05
    field = TensoRF(**field.constructor_arguments())
    assert field.resolution[0] < 48


@pytest.mark.parametrize("decoder", ["mlp", "sh", "rgb"])
def test_every_decoder_trains(decoder):
    field = ball(decoder=decoder)
    origins = torch.tensor([[0.0, 0, 3]]).expand(64, 3)
    directions = torch.nn.functional.normalize(torch.randn(64, 3) * 0.05 - torch.tensor([0.0, 0, 1]), dim=-1)
    image = field.render_rays(origins, directions)
    assert image.rgb.isfinite().all() and image.rgb.min() >= 0
    image.rgb.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in field.parameters())


def test_spherical_harmonics_are_orthonormal():
    d = torch.nn.functional.normalize(torch.randn(200_000, 3, dtype=torch.float64), dim=-1)
    basis = spherical_harmonics(d)
    gram = basis.T @ basis * (4 * torch.pi / len(d))
    torch.testing.assert_close(
        gram, torch.eye(9, dtype=torch.float64), atol=0.03, rtol=0
    )  # Monte Carlo, 5 standard errors
