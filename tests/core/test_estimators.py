from importlib import import_module

import pytest
import torch

from fields.core import (
    OccGridEstimator,
    distortion,
    exclusive_prod,
    exclusive_sum,
    inclusive_prod,
    inclusive_sum,
    pack_info,
    render_visibility_from_alpha,
    rendering,
)
from fields.errors import ShapeError


def ray_indices():  # made in each test, where tensors are to live
    return torch.tensor([0, 0, 0, 2, 2])


@pytest.mark.parametrize(
    ("scan", "row"),
    [(inclusive_sum, torch.cumsum), (inclusive_prod, torch.cumprod)],
)
def test_scans_agree_with_torch_on_each_ray(scan, row):
    x = torch.randn(5, dtype=torch.float64)
    want = torch.cat([row(x[:3], 0), row(x[3:], 0)])
    torch.testing.assert_close(scan(x, indices=ray_indices()), want)
    torch.testing.assert_close(scan(x, packed_info=pack_info(ray_indices(), 3)), want)
    torch.testing.assert_close(scan(x.view(1, 5))[0], row(x, 0))


def test_exclusive_scans_by_hand():
    x = torch.tensor([2.0, 3.0, 4.0, 5.0, 6.0])
    assert exclusive_sum(x, indices=ray_indices()).tolist() == [0, 2, 5, 0, 5]
    assert exclusive_prod(x, indices=ray_indices()).tolist() == [1, 2, 6, 1, 5]


def test_product_gradients_are_exact_at_zero():
    x = torch.tensor([0.5, 0.0, 0.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: inclusive_prod(v, indices=ray_indices()), x)


def test_packed_inputs_are_flat():
    with pytest.raises(ShapeError):
        inclusive_sum(torch.ones(2, 3), indices=ray_indices())


def test_distortion_is_the_double_sum():
    weights = torch.rand(5, dtype=torch.float64, requires_grad=True)
    t_starts = torch.tensor([0.0, 0.3, 0.9, 0.1, 0.5], dtype=torch.float64)
    t_ends = t_starts + 0.2
    mids = (t_starts + t_ends) / 2
    same = ray_indices()[:, None] == ray_indices()[None]
    pairs = (weights[:, None] * weights[None] * (mids[:, None] - mids[None]).abs() * same).sum(-1)
    want = torch.zeros(3, dtype=torch.float64).index_add(0, ray_indices(), pairs + weights**2 * 0.2 / 3)
    got = distortion(weights, t_starts, t_ends, ray_indices(), 3)
    torch.testing.assert_close(got[:, 0], want)
    assert torch.autograd.gradcheck(lambda w: distortion(w, t_starts, t_ends, ray_indices(), 3), weights)


def test_visibility_thresholds():
    alphas = torch.tensor([0.0, 0.9, 0.99, 0.5])
    assert render_visibility_from_alpha(alphas[None], early_stop_eps=0.05).tolist() == [[True, True, True, False]]
    assert render_visibility_from_alpha(alphas[None], early_stop_eps=0.0, alpha_thre=0.6).tolist() == [
        [False, True, True, False]
    ]


def test_rendering_needs_exactly_one_function():
    with pytest.raises(ValueError, match="exactly one"):
        rendering(torch.zeros(1, 1), torch.ones(1, 1))


class TestOccGrid:
    def grid(self, **options):
        return OccGridEstimator([-1.0, -1, -1, 1, 1, 1], **({"resolution": 16} | options))

    def rays(self, n=64):
        origins = torch.nn.functional.normalize(torch.randn(n, 3), dim=-1) * 3
        return origins, torch.nn.functional.normalize(torch.rand(n, 3) - 0.5 - origins, dim=-1)

    def test_levels_double(self):
        grid = self.grid(levels=3)
        assert grid.aabbs[:, 3].tolist() == [1.0, 2.0, 4.0] and grid.binaries.shape == (3, 16, 16, 16)

    def test_learns_a_ball_and_samples_only_there(self):
        grid = self.grid()
        ball = lambda x: (x.norm(dim=-1) < 0.5).float()  # noqa: E731
        for step in range(0, 320, 16):
            grid.update_every_n_steps(step, ball, occ_thre=0.1)
        centres = (grid.grid_coords + 0.5) / 8 - 1
        radius = centres.norm(dim=-1)
        occupied = grid.binaries.flatten()
        assert occupied[radius < 0.4].all() and not occupied[radius > 0.62].any()
        origins, directions = self.rays()
        rays, t_starts, t_ends = grid.sampling(origins, directions, render_step_size=0.02)
        mids = origins[rays] + directions[rays] * ((t_starts + t_ends) / 2)[:, None]
        assert len(rays) and mids.norm(dim=-1).max() < 0.5 + 3**0.5 / 8 and (rays.diff() >= 0).all()

    def test_updates_only_every_n_and_only_in_training(self):
        grid = self.grid()
        grid.update_every_n_steps(3, lambda x: 1 / 0, n=16)
        with pytest.raises(RuntimeError, match="training"):
            grid.eval().update_every_n_steps(0, lambda x: x[:, 0])

    def test_forgets_by_decay(self):
        grid = self.grid()
        grid.update_every_n_steps(0, lambda x: torch.ones(len(x)))
        grid.update_every_n_steps(16, lambda x: torch.zeros(len(x)), ema_decay=0.5)
        assert (grid.occs == 0.5).all()

    def test_density_function_stops_early_and_alpha_threshold_drops_faint(self):
        grid = self.grid()
        grid.binaries[:] = True
        grid.occs[:] = 1.0
        origins, directions = torch.tensor([[-3.0, 0.01, 0.01]]), torch.tensor([[1.0, 0, 0]])
        everything = grid.sampling(origins, directions, render_step_size=0.1)[0]
        dense = grid.sampling(origins, directions, lambda t0, t1, r: torch.full_like(t0, 50.0), render_step_size=0.1)[0]
        faint = grid.sampling(origins, directions, alpha_fn=lambda t0, t1, r: torch.full_like(t0, 0.1), render_step_size=0.1,
                              alpha_thre=0.2)[0]  # fmt: skip
        # e⁻⁵ per sample: the second still sees e⁻⁵ > 1e-4 of the light, the third does not.
        assert len(everything) == 20 and len(dense) == 2 and len(faint) == 0

    def test_planes_bounds_and_stratification(self):
        grid = self.grid()
        grid.binaries[:] = True
        origins, directions = (
            torch.tensor([[-3.0, 0.01, 0.01]]).expand(50, 3),
            torch.tensor([[1.0, 0, 0]]).expand(50, 3),
        )
        _, t_starts, t_ends = grid.sampling(origins, directions, near_plane=2.5, far_plane=3.0, render_step_size=0.1)
        assert t_starts.min() >= 2.5 - 1e-5 and ((t_starts + t_ends) / 2).max() < 3.0
        bounds = torch.full((50,), 2.1)
        rays, t_starts, _ = grid.sampling(origins, directions, render_step_size=0.1, stratified=True, t_min=bounds)
        first = t_starts[pack_info(rays, 50)[:, 0]]
        assert first.min() >= 2.1 and first.max() <= 2.2001 and first.unique().numel() > 40

    def test_steps_grow_with_the_cone(self):
        grid = self.grid(levels=2)
        grid.binaries[:] = True
        _, t_starts, t_ends = grid.sampling(
            torch.tensor([[-1.9, 0.01, 0.01]]), torch.tensor([[1.0, 0, 0]]), render_step_size=0.01, cone_angle=0.05
        )
        lengths = t_ends - t_starts
        torch.testing.assert_close(lengths, torch.clamp(t_starts * 0.05, min=0.01), rtol=1e-3, atol=1e-5)

    def test_cells_no_camera_sees_are_taken_out(self):
        grid = self.grid()
        camera = torch.eye(4)[None].clone()
        camera[0, 2, 3] = -3.0  # at z = -3, looking along +z, with a narrow view
        K = torch.tensor([[[100.0, 0, 5], [0, 100, 5], [0, 0, 1]]])
        grid.mark_invisible_cells(K, camera, 10, 10)
        unseen = grid.occs.view(16, 16, 16) < 0
        assert not unseen[7:9, 7:9].any() and unseen[0].all() and unseen[-1].all()
        grid.update_every_n_steps(0, lambda x: torch.ones(len(x)))
        assert not grid.binaries[0][unseen].any() and grid.occs.view(16, 16, 16)[~unseen].min() == 1

    def test_dilation_grows_by_one_cell(self):
        grid = self.grid()
        grid.binaries[0, 8, 8, 8] = True
        grid.dilate()
        assert grid.binaries.sum() == 27


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("", "OccGridEstimator PropNetEstimator RayIntervals RaySamples accumulate_along_rays distortion"),
        (
            "",
            "exclusive_prod exclusive_sum importance_sampling inclusive_prod inclusive_sum pack_info ray_aabb_intersect rendering",
        ),
        ("", "searchsorted traverse_grids render_transmittance_from_alpha render_transmittance_from_density"),
        ("", "render_visibility_from_alpha render_visibility_from_density render_weight_from_alpha"),
        ("volrend", "accumulate_along_rays accumulate_along_rays_ rendering render_visibility_from_alpha"),
        ("volrend", "render_visibility_from_density render_weight_from_alpha render_weight_from_density"),
        ("volrend", "render_transmittance_from_alpha render_transmittance_from_density"),
        ("grid", "ray_aabb_intersect traverse_grids"),
        ("scan", "exclusive_prod exclusive_sum inclusive_prod inclusive_sum"),
        ("pack", "pack_info"),
        ("pdf", "importance_sampling searchsorted"),
        ("losses", "distortion"),
        ("data_specs", "RayIntervals RaySamples"),
        ("estimators.occ_grid", "OccGridEstimator"),
        ("estimators.prop_net", "PropNetEstimator get_proposal_requires_grad_fn"),
    ],
)
def test_every_import_of_a_nerfacc_program_has_its_place(module, names):
    found = import_module("fields.core" + (f".{module}" if module else ""))
    assert all(callable(getattr(found, name)) for name in names.split())


def test_a_program_written_for_nerfacc_trains():
    """Occupancy-grid training of a dense radiance grid on views of a red ball, through the nerfacc names alone."""
    from fields.core import dense_sample

    def truth(origins, directions):
        b = (origins * directions).sum(-1)
        hit = b**2 - (origins**2).sum(-1) + 0.25 > 0
        return torch.where(hit[:, None], torch.tensor([0.9, 0.2, 0.1]), torch.ones(3))

    estimator = OccGridEstimator(roi_aabb=[-1.0, -1, -1, 1, 1, 1], resolution=32, levels=1)
    grid = torch.zeros(32, 32, 32, 4, requires_grad=True)
    optimiser = torch.optim.Adam([grid], lr=0.1)

    def field(x):
        features = dense_sample(x, grid)
        return torch.sigmoid(features[:, :3]), torch.nn.functional.softplus(features[:, 3] - 1) * 5

    losses = []
    for step in range(120):
        origins = torch.nn.functional.normalize(torch.randn(256, 3), dim=-1) * 3
        directions = torch.nn.functional.normalize((torch.rand(256, 3) - 0.5) * 1.6 - origins, dim=-1)

        def at(t_starts, t_ends, ray_indices, o=origins, d=directions):
            return o[ray_indices] + d[ray_indices] * ((t_starts + t_ends) / 2)[:, None]

        estimator.update_every_n_steps(step, lambda x: field(x)[1] * 0.04, occ_thre=1e-2)
        ray_indices, t_starts, t_ends = estimator.sampling(
            origins,
            directions,
            sigma_fn=lambda a, b, r, at=at: field(at(a, b, r))[1],
            render_step_size=0.04,
            stratified=True,
        )
        rgb, _, _, _ = rendering(
            t_starts,
            t_ends,
            ray_indices,
            n_rays=256,
            rgb_sigma_fn=lambda a, b, r, at=at: field(at(a, b, r)),
            render_bkgd=torch.ones(3),
        )
        loss = (rgb - truth(origins, directions)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) / 10 < 0.02 < losses[0], losses[::10]  # 17 dB on edges of a 32³ grid, from below 10
