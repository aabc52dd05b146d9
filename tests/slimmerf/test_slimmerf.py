"""SlimmeRF: what a cut is, what training does to the ranks, and what may be changed for nothing."""

from dataclasses import replace

import pytest
import torch
from fields.apps.common import demo_scene

from fields.data import load_scene
from fields.errors import ConfigError
from fields.io.run import load, save_field
from fields.methods import method
from fields.slimmerf.field import SlimmeRF, cut, first_columns
from fields.slimmerf.gauge import appearance_moments, order_appearance, order_density, put_in_order, refitted_basis
from fields.slimmerf.training import SlimmerfTraining, unlocks
from fields.tensorf.field import TensoRF


@pytest.fixture(scope="module")
def scene():
    return load_scene(demo_scene())


def random_field(seed=0, cls=SlimmeRF, **changes):
    torch.manual_seed(seed)
    arguments = {"aabb": [-1.0, -1, -1, 1, 1, 1], "resolution": [9, 10, 11], "near": 1.0, "far": 6.0, "density_rank": 4,
                 "appearance_rank": 12, "hidden": 16, "density_shift": 2.0}  # fmt: skip
    return cls(**arguments | changes)


def small(**changes):
    changes = {"rays": 256, "voxels": (24**3, 32**3), "density_rank": 4, "appearance_rank": 8} | changes
    return replace(method("slimmerf").configure("fast").scaled(40), **changes)


# ------------------------------------------------------------------------------------ cutting


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_showing_ranks_is_cutting_there(ranks):
    field = random_field()
    smaller = cut(field, ranks, 3 * ranks)
    x, d = torch.rand(200, 3) * 2 - 1, torch.nn.functional.normalize(torch.randn(200, 3), dim=-1)
    with field.showing(ranks):
        assert torch.equal(field.density_feature(x), smaller.density_feature(x))
        assert torch.equal(field.colour(x, d), smaller.colour(x, d))
    assert field.shown == field.ranks


@torch.no_grad()
def test_what_is_shown_is_what_is_rendered():
    """Rendering without gradients goes another way through the kernels, and must not see the ranks behind."""
    field = random_field(4)
    origins = torch.tensor([[0.0, 0, -4]]).expand(50, 3)
    directions = torch.nn.functional.normalize(torch.rand(50, 3) - 0.5 + torch.tensor([0.0, 0, 4]), dim=-1)
    want = cut(field, 2, 6).render_rays(origins, directions)
    with field.showing(2):
        got = field.render_rays(origins, directions)
    assert torch.equal(got.rgb, want.rgb) and torch.equal(got.depth, want.depth)
    assert not torch.equal(field.render_rays(origins, directions).rgb, got.rgb)


def test_a_cut_is_the_sum_over_its_components(seed=1):
    """Written out: every mode's first components, with their own columns of the basis."""
    field, count = random_field(seed), 5
    smaller = cut(field, 2, count)
    x = torch.rand(50, 3, dtype=torch.float64) * 2 - 1
    products = field.appearance_grid.double()(x).view(50, 3, 12)[:, :, :count]
    columns = field.decoder.basis.weight.double().view(27, 3, 12)[:, :, :count]
    want = torch.einsum("nmc,fmc->nf", products, columns)
    got = smaller.appearance_grid.double()(x) @ smaller.decoder.basis.weight.double().T
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)  # the same products, summed in another order


def test_first_columns_are_those_of_every_mode():
    assert first_columns(4, 2).tolist() == [0, 1, 4, 5, 8, 9]


def test_parameters_of_a_cut():
    """(planes + lines) · components, features, network: section 2.4 of the accounting."""
    field = cut(random_field(), 2, 6)
    area, length = 9 * 10 + 9 * 11 + 10 * 11, 9 + 10 + 11
    network = sum(p.numel() for p in field.decoder.mlp.parameters())
    assert sum(p.numel() for p in field.parameters()) == (area + length) * (2 + 6) + 27 * 3 * 6 + network


def test_a_cut_is_saved_and_loaded(tmp_path):
    smaller = cut(random_field(), 1, 3)
    save_field(tmp_path, smaller, "slimmerf", {}, {})
    x = torch.rand(100, 3) * 2 - 1
    assert torch.equal(load(tmp_path).density_feature(x), smaller.density_feature(x))


def test_what_cannot_be_cut_says_so():
    with pytest.raises(ConfigError, match="has 4 and 12"):
        cut(random_field(), 5, 12)
    with pytest.raises(ConfigError, match="layout cp"):
        cut(random_field(cls=TensoRF, layout="cp"), 1, 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layout": "cp"}, "cuts planes"),
        ({"appearance_rank": 7}, "multiple of density_rank"),
        ({"cuts": ()}, "above 0"),
        ({"cuts": (0.5, 1.5)}, "above 0"),
        ({"decoder": "tcnn"}, "mlp, sh or rgb"),
        ({"unlock_every": 0}, "must be positive"),
        ({"budget": "some"}, "write bytes, 500KB"),
    ],
)
def test_settings_that_make_no_sense(changes, says):
    with pytest.raises(ConfigError, match=says):
        replace(method("slimmerf").configure("fast"), **changes)


def test_a_budget_decides_the_ranks():
    config = method("slimmerf").configure("fast")
    ranks = [replace(config, budget=b).density_rank for b in ("10KB", "100KB", "250KB", "1MB", "100MB")]
    assert ranks == sorted(ranks) and ranks[0] == 2 and ranks[-1] == 16
    wide = replace(config, budget="1MiB", appearance_rank=16)
    assert wide.appearance_rank == 2 * wide.density_rank
    assert replace(wide, rays=100).density_rank == wide.density_rank  # decided again, and the same


def test_paper_preset_is_the_published_settings():
    c = method("slimmerf").configure("paper")
    assert (c.growth, c.density_rank, c.appearance_rank, c.upsilon, c.eta) == ("paper", 16, 48, 0.4, 0)
    assert (c.iterations, c.rays, c.l1, c.density_shift) == (30_000, 4096, (8e-5, 4e-5), -10.0)


# ------------------------------------------------------------------------------------ training


def test_a_rank_is_unlocked_when_the_loss_changes_fast():
    assert unlocks(1.0, 0.7, 0.4, 10, 0)  # a fall by 43 % of what it is now
    assert unlocks(1.0, 1.7, 0.4, 10, 0)  # a rise
    assert not unlocks(1.0, 0.72, 0.4, 10, 0) and not unlocks(1.0, 1.6, 0.4, 10, 0)
    assert not unlocks(0.0, 1.0, 0.4, 10, 0)  # nothing before the first
    assert not unlocks(1.0, 0.1, 0.4, 100, 100) and unlocks(1.0, 0.1, 0.4, 101, 100)  # strictly more


def test_locked_ranks_stay_as_they_were_drawn(scene):
    training = SlimmerfTraining(small(growth="clock", unlock_from=8, unlock_every=50, upsample_at=()), scene, 0)
    before = [f.detach().clone() for f in training.field.density_grid.factors]
    basis = training.field.decoder.basis.weight.detach().clone()
    for i in range(7):
        training.step(i)
    after = training.field.density_grid.factors
    assert all(torch.equal(a[..., 1:], b[..., 1:]) for a, b in zip(after, before, strict=True))
    assert not any(torch.equal(a[..., 0], b[..., 0]) for a, b in zip(after, before, strict=True))
    assert torch.equal(training.field.decoder.basis.weight[:, 2:8], basis[:, 2:8])
    training.step(7)
    assert training.field.shown == 2
    training.step(8)
    assert not torch.equal(training.field.density_grid.factors[0][..., 1], before[0][..., 1])


def test_slices_are_the_papers_masks(scene):
    """Eq. 7-13: the others multiplied by 1e-6 in planes and lines. Their products are 1e-12 of what is there."""
    training = SlimmerfTraining(small(growth="clock", unlock_from=100), scene, 0)
    masked = random_field(**training.field.constructor_arguments())
    masked.load_state_dict(training.field.state_dict())
    with torch.no_grad():
        for grid, count in ((masked.density_grid, 1), (masked.appearance_grid, 2)):
            for factor in grid.factors:
                factor[..., count:] *= 1e-6
    x = torch.rand(1000, 3) * 2 - 1
    d = torch.nn.functional.normalize(torch.randn(1000, 3), dim=-1)
    torch.testing.assert_close(training.field.density_feature(x), masked.density_feature(x), rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(training.field.colour(x, d), masked.colour(x, d), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("growth", ["nested", "clock", "paper"])
def test_all_ranks_are_open_half_way(scene, growth):
    training = SlimmerfTraining(small(growth=growth, upsilon=1e9, unlock_from=1000), scene, 0)
    for i in range(20):
        assert training.field.shown == 1
        training.step(i)
    assert training.field.shown == 4


def test_nested_training_learns_from_the_whole_and_from_a_cut(scene):
    """The gradient is that of both errors, on the same rays."""
    training = SlimmerfTraining(small(cuts=(0.5,), density_shift=-1.0, l1=(0.0, 0.0)), scene, 0)
    field, background = training.field, torch.ones(3)
    field.shown = 4
    origins, directions, target = training.pixels.draw(64, background)
    rays = origins, directions, background, training.jitter(64)
    error = lambda f: (f.render_rays(*rays).rgb.clamp(0, 1) - target).square().mean()  # noqa: E731
    training.choose_shape()
    error(field).backward()
    training.learn_more(rays, target, None)
    got = [p.grad.clone() for p in field.parameters()]
    smaller = cut(field, 2, 4)
    of_whole = torch.autograd.grad(error(field), list(field.parameters()))
    of_cut = torch.autograd.grad(error(smaller), list(smaller.parameters()))
    columns = first_columns(8, 4)
    for name, g, a, b in zip((n for n, _ in field.named_parameters()), got, of_whole, of_cut, strict=True):
        if "grid" in name:
            a[..., : b.shape[-1]] += b
        elif name == "decoder.basis.weight":
            a[:, columns] += b
        else:
            a += b
        torch.testing.assert_close(g, a, rtol=1e-4, atol=1e-9, msg=name)


@pytest.mark.parametrize("growth", ["nested", "clock", "paper"])
def test_resumed_is_bit_for_bit_the_same(scene, growth):
    config = small(growth=growth, unlock_from=3, unlock_every=5, upsilon=0.2)
    whole = SlimmerfTraining(config, scene, 3)
    for i in range(12):
        whole.step(i)
    tensors, plain = whole.state()
    resumed = SlimmerfTraining.resume(config, scene, {k: v.clone() for k, v in tensors.items()}, plain)
    for i in range(12, 30):
        assert whole.step(i) == resumed.step(i)
    assert whole.field.shown == resumed.field.shown
    want, got = whole.field.state_dict(), resumed.field.state_dict()
    assert all(torch.equal(want[k], got[k]) for k in want)


# ------------------------------------------------------------------------------------ what may be changed for nothing


def test_ordering_density_leaves_the_field_and_truncates_best():
    field = random_field(2)
    x = torch.rand(500, 3) * 2 - 1
    before = field.density_feature(x)
    tensor = lambda r: torch.einsum("xyr,zr->xyz", *(f[..., :r] for f in field.density_grid.factors[:2]))  # noqa: E731
    whole = tensor(4)
    order_density(field)
    torch.testing.assert_close(field.density_feature(x), before, rtol=0, atol=1e-6)
    torch.testing.assert_close(tensor(4), whole, rtol=0, atol=1e-7)
    values = torch.linalg.svdvals(whole.view(-1, whole.shape[-1]).double())
    for r in (1, 2, 3):  # Eckart and Young: what is left out is all that is lost
        torch.testing.assert_close((whole - tensor(r)).double().norm(), values[r:].norm(), rtol=1e-4, atol=0)


def test_putting_in_order_leaves_the_field_and_makes_every_cut_nearer(scene):
    """By what the cameras see; the last matrix is the field's."""
    field, cameras = random_field(5, cls=TensoRF, density_shift=-3.0), scene.train.cameras
    with torch.no_grad():  # large enough to see, and not in order of importance
        for factor in [*field.density_grid.factors, *field.appearance_grid.factors]:
            factor *= torch.linspace(1, 8, factor.shape[-1])
    x, d = torch.rand(500, 3) * 2 - 1, torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    density, colour = field.density_feature(x), field.colour(x, d)
    cuts = [cut(field, k, 3 * k) for k in (1, 2, 3, 4)]
    bases = put_in_order(field, cameras)
    torch.testing.assert_close(field.density_feature(x), density, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(field.colour(x, d), colour, rtol=0, atol=1e-4)
    assert torch.equal(bases[-1], field.decoder.basis.weight) and [b.shape[1] for b in bases] == [9, 18, 27, 36]
    rays = cameras.rays(torch.zeros(400, dtype=torch.long), torch.rand(400, 2) * 200)
    truth = field.render_rays(*rays).rgb
    for k, (before, basis) in enumerate(zip(cuts[:-1], bases, strict=False), 1):
        after = cut(field, k, 3 * k)
        after.decoder.basis.weight.data.copy_(basis)
        error, was = ((f.render_rays(*rays).rgb - truth).square().mean() for f in (after, before))
        assert error < was


def test_ordering_appearance_leaves_the_field_and_refitting_helps():
    field = random_field(3)
    with torch.no_grad():  # some components matter more than others, and not the first
        for factor in field.appearance_grid.factors:
            factor *= torch.rand(12) ** 2
    x, weights = torch.rand(4000, 3) * 2 - 1, torch.rand(4000)
    d = torch.nn.functional.normalize(torch.randn(4000, 3), dim=-1)
    features = lambda f: f.decoder.basis(f.appearance_grid(x))  # noqa: E731
    error = lambda f: float(((features(f) - whole).square().sum(1) * weights).sum())  # noqa: E731
    whole, colour = features(field), field.colour(x, d)
    as_it_is = error(cut(field, 4, 6))
    order_appearance(field, appearance_moments(field, x, weights))
    torch.testing.assert_close(field.colour(x, d), colour, rtol=0, atol=1e-5)
    smaller = cut(field, 4, 6)
    ordered = error(smaller)
    moments = appearance_moments(field, x, weights)
    best = refitted_basis(field.decoder.basis.weight, moments, first_columns(12, 6))
    smaller.decoder.basis.weight.data.copy_(best)
    refitted = error(smaller)
    assert refitted < ordered < as_it_is
    for _ in range(20):  # least squares: no other matrix is better
        smaller.decoder.basis.weight.data.copy_(best + 1e-3 * torch.randn_like(best))
        assert error(smaller) > refitted
