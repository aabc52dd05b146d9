"""What only GPU kernels do, on the emulated GPU: storage in half precision, sums in fixed point, teams, specialisation.

``pytest tests/core --backend emulated`` runs all other tests of the core on it too, and ``--backend cuda`` on a real one.
"""

import pytest
import torch

from fields.core import decoder, fused_decoder, grids, render_weight_from_alpha, render_weight_from_density
from fields.core._ref import decoder as ref_decoder
from fields.core._ref import grids as ref
from fields.core._ref import weights as ref_weights
from tests.core import emulator
from tests.core.test_grids import factors_of, positions


@pytest.fixture(autouse=True)
def _gpu(_backend, monkeypatch):
    if _backend == "cpu":
        if emulator.COMPILER is None:
            pytest.skip("the emulated GPU needs g++")
        emulator.emulate(monkeypatch)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ranks", [(16, 16, 16), (3, 20, 33)])
def test_narrow_factors_are_read_as_stored_and_summed_in_float(stored, ranks):
    x = positions(300, torch.float32)
    narrow = [f.detach().to(stored).requires_grad_() for f in factors_of("vm", ranks, torch.float32)]
    wide = [f.detach().float().requires_grad_() for f in narrow]
    got, want = grids._sample(x, narrow, "vm", "sum", False), ref.value(x, wide, "vm", True)
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)
    grads = torch.autograd.grad(got.square().sum(), narrow)
    expected = torch.autograd.grad(want.square().sum(), wide)
    for g, e in zip(grads, expected, strict=True):
        # Sums are float32; only the result is rounded, to 11 or 8 bits.
        assert g.dtype is stored
        torch.testing.assert_close(g.float(), e, rtol=2e-3 if stored is torch.float16 else 1e-2, atol=1e-3)


@pytest.mark.parametrize(("layout", "ranks"), [("vm", (16, 4, 8)), ("cp", (7,)), ("dense", (5,))])
def test_deterministic_gradients_do_not_depend_on_the_order_of_samples(layout, ranks):
    x, grad = positions(2000, torch.float32).detach(), torch.randn(2000, sum(ranks))
    factors = factors_of(layout, ranks, torch.float32)
    order = torch.randperm(2000)

    def gradients(x, grad):
        v = grids._sample(x, factors, layout, "concat", False)
        return torch.autograd.grad((v * grad).sum(), factors)

    torch.use_deterministic_algorithms(True)
    try:
        first, second = gradients(x, grad), gradients(x[order], grad[order])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, first, second))
    for got, want in zip(first, gradients(x, grad), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)  # float32 sums of about 100 terms


def test_deterministic_second_derivatives():
    x, factors = positions(40, torch.float64), factors_of("vm", (4, 4, 4), torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        got = [_penalty_gradients(x, factors, grids._sample(x, factors, "vm", "sum", False))]
    finally:
        torch.use_deterministic_algorithms(False)
    want = _penalty_gradients(x, factors, ref.value(x, factors, "vm", True))
    for g, w in zip(got[0], want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-6, atol=1e-6)  # 38 bits below a bound that is far above most terms


def _penalty_gradients(x, factors, v):
    (slope,) = torch.autograd.grad(v.sum(), x, create_graph=True)
    return torch.autograd.grad(slope.square().sum(), factors)


def test_a_gradient_that_is_not_a_number_stays_visible():
    x, factors = positions(10, torch.float32), factors_of("cp", (4,), torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        v = grids._sample(x, factors, "cp", "sum", False)
        grads = torch.autograd.grad((v * float("nan")).sum(), factors)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(g.isnan().any() for g in grads)


@pytest.mark.parametrize("reduce", ["sum", "concat"])
def test_kernels_that_know_their_channels(monkeypatch, reduce):
    monkeypatch.setenv("FIELDS_EMULATE_EXACTLY", "1")
    emulator._entry.cache_clear()
    x, factors = positions(100, torch.float32), factors_of("vm", (16, 4, 12), torch.float32)
    got = grids._sample(x, factors, "vm", reduce, False)
    want = ref.value(x, factors, "vm", reduce == "sum")
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)
    leaves = [x, *factors]
    for g, w in zip(torch.autograd.grad(got.sum(), leaves), torch.autograd.grad(want.sum(), leaves), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-4)
    emulator._entry.cache_clear()


def test_factors_that_begin_anywhere():
    """Views of one buffer, as an optimiser's flat storage has them, begin at addresses no wide load can take."""
    x, factors = positions(50, torch.float32).detach(), factors_of("vm", (4, 4, 4), torch.float32)
    flat = torch.cat([torch.zeros(1), *[f.detach().flatten() for f in factors]])
    views = [v.view(f.shape) for v, f in zip(flat[1:].split([f.numel() for f in factors]), factors, strict=True)]
    torch.testing.assert_close(
        grids._sample(x, views, "vm", "sum", False), ref.value(x, factors, "vm", True), rtol=2e-5, atol=2e-5
    )


@pytest.mark.parametrize("counts", [[0], [1], [32], [33], [100, 0, 31, 64, 7]])
def test_teams_scan_along_rays_of_any_length(counts):
    counts = torch.tensor(counts)
    packed = torch.stack([counts.cumsum(0) - counts, counts], -1)
    n = int(counts.sum())
    starts = torch.rand(n, dtype=torch.float64)
    sigmas = (3 * torch.rand(n, dtype=torch.float64)).requires_grad_()
    alphas = torch.rand(n, dtype=torch.float64).requires_grad_()
    mine = render_weight_from_density(starts, starts + 0.1, sigmas, packed_info=packed)
    twin = ref_weights.weights_from_density(starts, starts + 0.1, sigmas, packed)
    _agree(mine, twin, sigmas)
    mine, twin = render_weight_from_alpha(alphas, packed_info=packed), ref_weights.weights_from_alpha(alphas, packed)
    _agree(mine, twin[:2], alphas)


def _agree(mine, twin, leaf):
    for a, b in zip(mine, twin, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    cotangents = [torch.randn_like(a) for a in mine]
    totals = [sum((o * c).sum() for o, c in zip(outputs, cotangents, strict=True)) for outputs in (mine, twin)]
    grads = [torch.autograd.grad(total + 0 * leaf.sum(), leaf) for total in totals]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-11)


def _network(dtype, basis=True):
    sizes = (20 if basis else 12, 12, (12 + 3) * 5, 16, 3)
    rand = lambda *shape: (torch.randn(*shape, dtype=dtype) * 0.3).requires_grad_()  # noqa: E731
    weights, biases = [rand(16, sizes[2]), rand(3, 16)], [rand(16), rand(3)]
    directions = torch.nn.functional.normalize(torch.randn(70, 3, dtype=dtype), dim=-1).requires_grad_()
    return [rand(70, sizes[0]), directions, rand(12, 20) if basis else None, weights, biases]


@pytest.mark.parametrize("basis", [True, False])
def test_decoder_in_layers(basis):
    inputs = _network(torch.float64, basis)
    leaves = [t for i in inputs if i is not None for t in (i if isinstance(i, list) else [i])]
    got, want = fused_decoder(*inputs), ref_decoder.decode(*inputs, 2, 2)
    torch.testing.assert_close(got, want)
    cotangent = torch.randn_like(want)
    for g, w in zip(*(torch.autograd.grad(v, leaves, cotangent) for v in (got, want)), strict=True):
        torch.testing.assert_close(g, w)


def test_decoder_without_gradients_is_half_precision_and_within_a_quarter_of_a_colour_step():
    inputs = _network(torch.float32)
    with torch.no_grad():
        got = fused_decoder(*inputs)
    assert got.dtype is torch.float32
    assert (got - ref_decoder.decode(*inputs, 2, 2)).abs().max() < 0.25 / 255


def test_encode_gradcheck():
    features, directions = (torch.randn(5, w, dtype=torch.float64, requires_grad=True) for w in (4, 3))
    assert torch.autograd.gradcheck(lambda f, d: decoder._encode(f, d, 2, 3, False), (features, directions))
