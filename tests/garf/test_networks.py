import math

import pytest
import roma
import torch

from fields.garf.denoiser import Denoiser, DenoiserConfig, Tokens, fourier
from fields.garf.encoder import FractureEncoder
from fields.garf.flow import noise, noised, reassembled, stepped
from fields.garf.model import SIZES
from fields.garf.serialization import ORDERS, hilbert, patches
from fields.garf.transformer import CellConvolution, Plan, PointTransformer, TransformerConfig, _around

TINY = TransformerConfig(
    encoder=(8, 16), encoder_depths=(1, 1), encoder_heads=(2, 2), decoder=(8,), decoder_depths=(1,), decoder_heads=(2,),
    patch=16, cell=0.1, stem=0, depthwise=True, batch_norm=False, drop_path=0.0,
)  # fmt: skip


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_hilberts_curve_goes_one_cell_at_a_time(depth):
    line = torch.arange(2**depth)
    cells = torch.cartesian_prod(line, line, line)
    keys = hilbert(cells, depth)
    assert sorted(keys.tolist()) == list(range(8**depth))
    steps = cells[keys.argsort()].diff(dim=0).abs().sum(1)
    assert (steps == 1).all()


def test_patches_are_whole_equal_and_of_one_fragment():
    torch.manual_seed(0)
    fragment = torch.arange(4).repeat_interleave(torch.tensor([5, 40, 1, 33]))
    cells = torch.randint(0, 32, (len(fragment), 3))
    for order in ORDERS:
        index = patches(fragment, order(cells, 5), 16)
        inside = index >= 0
        assert sorted(index[inside].tolist()) == list(range(len(fragment)))
        assert inside.any(1).all() and index.shape[1] <= 16
        for row in index:
            assert fragment[row[row >= 0]].unique().numel() == 1
        per_fragment = [[int((row >= 0).sum()) for row in index if fragment[row[0]] == f] for f in range(4)]
        assert [len(p) for p in per_fragment] == [1, 3, 1, 3] and all(max(p) - min(p) <= 1 for p in per_fragment)


def test_cell_convolution_is_a_dense_one_where_all_cells_are_there():
    torch.manual_seed(0)
    n = 6
    line = torch.arange(n)
    cells = torch.cartesian_prod(line, line, line)[torch.randperm(n**3)]
    key = (cells[:, 0] * 20 + cells[:, 1]) * 20 + cells[:, 2] + 1000
    distinct, cell_of = torch.unique(key, return_inverse=True)
    layer = CellConvolution(3, 5, 3)
    x = torch.randn(n**3, 3)
    dense = torch.zeros(1, 3, n, n, n)
    dense[0, :, cells[:, 0], cells[:, 1], cells[:, 2]] = x.T
    weight = layer.weight.view(3, 3, 3, 3, 5).permute(4, 3, 0, 1, 2)
    want = torch.nn.functional.conv3d(dense, weight, layer.bias, padding=1)[
        0, :, cells[:, 0], cells[:, 1], cells[:, 2]
    ].T
    torch.testing.assert_close(layer(x, cell_of, _around(distinct, 3, 20)), want, atol=1e-5, rtol=1e-5)


def test_nothing_passes_between_fragments():
    torch.manual_seed(0)
    net = PointTransformer(TINY).eval()
    fragment = torch.arange(3).repeat_interleave(50)
    points = torch.rand(150, 3) * 2 - 1
    inputs = torch.randn(150, 6)
    alone = net(inputs[50:100], Plan(points[50:100], torch.zeros(50, dtype=torch.long), TINY))
    torch.testing.assert_close(net(inputs, Plan(points, fragment, TINY))[50:100], alone, atol=1e-5, rtol=1e-4)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_sizes():
    encoder, denoiser = SIZES["paper"]
    # 12.7 and 43.5 million are published; the exact counts follow from the layers, one by one.
    assert parameters(FractureEncoder(encoder)) == 12_725_153
    assert parameters(Denoiser(denoiser)) == 43_506_694


def _shown(counts=((5, 9, 2), (8, 8)), features=6):
    torch.manual_seed(0)
    fragment = torch.stack([torch.repeat_interleave(torch.arange(len(c)), torch.tensor(c)) for c in counts])
    fragment[1] += len(counts[0])
    pieces = sum(map(len, counts))
    points = torch.rand(*fragment.shape, 3) * 2 - 1
    normals = torch.nn.functional.normalize(torch.randn(*fragment.shape, 3), dim=-1)
    return torch.randn(*fragment.shape, features), points, normals, torch.rand(pieces) + 0.1, Tokens(fragment), pieces


def test_denoiser_does_not_care_for_the_order_of_points_or_other_objects():
    features, points, normals, size, tokens, pieces = _shown()
    net = Denoiser(DenoiserConfig(6, 32, 2, 4, 4, 0.0)).eval()
    pose = torch.randn(pieces, 3), roma.random_rotmat(pieces)
    anchor, time = torch.tensor([True, False, False, True, False]), torch.tensor([0.7, 0.3])
    out = net(features, points, normals, size, *pose, anchor, time, tokens)
    order = torch.cat([torch.randperm(5), 5 + torch.randperm(9), 14 + torch.randperm(2)])
    shuffled = [x.clone() for x in (features, points, normals)]
    for x in shuffled:
        x[0] = x[0, order]
    torch.testing.assert_close(net(*shuffled, size, *pose, anchor, time, tokens), out, atol=1e-5, rtol=1e-4)
    shuffled[0][1] = 0
    torch.testing.assert_close(net(*shuffled, size, *pose, anchor, time, tokens)[:3], out[:3], atol=1e-5, rtol=1e-4)


def test_fourier_by_hand():
    assert fourier(torch.tensor([[0.5]]), 2).flatten().tolist() == pytest.approx(
        [0.5, math.sin(0.5), math.sin(1.0), math.cos(0.5), math.cos(1.0)]
    )


def test_convention_the_path_turns_about_axes_of_the_world():
    torch.manual_seed(0)
    t0, r0 = torch.randn(6, 3, dtype=torch.float64), roma.random_rotmat(6, dtype=torch.float64)
    anchor = torch.tensor([True] + 5 * [False])
    end = torch.ones(6, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    t, r, v = noised(t0, r0, anchor, end, generator)
    assert torch.equal(t[0], t0[0]) and torch.allclose(r[0], r0[0]) and not v[0].any()
    # From noise all the way back by the true velocity: the world's axes, so on the left.
    back_t, back_r = stepped(t, r, v, -1.0)
    torch.testing.assert_close(back_t, t0)
    torch.testing.assert_close(back_r, r0, atol=1e-9, rtol=1e-9)
    half = noised(t0, r0, anchor, 0.5 * end, torch.Generator().manual_seed(3))
    torch.testing.assert_close(half[1], roma.rotvec_to_rotmat(0.5 * v[:, 3:]) @ r0)


def test_the_true_velocity_leads_home_and_anchors_stay():
    torch.manual_seed(0)
    t0, r0 = torch.randn(4, 3, dtype=torch.float64), roma.random_rotmat(4, dtype=torch.float64)
    kept = torch.tensor([True, False, False, False])
    start = noise(4, t0)
    start = torch.where(kept[:, None], t0, start[0]), torch.where(kept[:, None, None], r0, start[1])

    def towards_home(t, r, sigma):
        spin = roma.rotmat_to_rotvec(r @ r0.transpose(1, 2))
        return torch.cat([t - t0, spin], 1) / max(sigma, 1e-9)

    for preassembly in (True, False):
        path = reassembled(towards_home, start, kept, preassembly=preassembly)
        torch.testing.assert_close(path[-1][0], t0, atol=1e-9, rtol=0)
        torch.testing.assert_close(path[-1][1], r0, atol=1e-9, rtol=0)
        assert all(torch.equal(t[0], t0[0]) for t, _ in path)


def test_noise_has_no_preferred_rotation():
    _, r = noise(20_000, torch.zeros(1), torch.Generator().manual_seed(0))
    # Haar: entries have mean 0 and variance 1/3; 20,000 draws put their means within 5 × 0.0041.
    assert r.mean(0).abs().max() < 0.02 and (r.square().mean(0) - 1 / 3).abs().max() < 0.02
