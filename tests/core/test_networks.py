import pytest
import torch
from torch.testing import assert_close

from fields.core import parameter_count, small_networks
from fields.core._ref import networks as ref
from fields.core.networks import _networks
from fields.errors import ShapeError

WIDTHS = [(6, 21, 21, 3), (1, 1), (5, 40, 2), (3, 7, 7, 7, 7, 7, 7, 7, 1)]


def given(widths, networks, samples, shared, dtype=torch.float64):
    inputs = torch.randn(*([] if shared else [networks]), samples, widths[0], dtype=dtype)
    return inputs, torch.randn(networks, parameter_count(widths), dtype=dtype)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("slope", [0.01, 0.0])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_does_as_its_twin(widths, slope, shared, dtype):
    """Tolerance: sums of up to forty terms, layer on layer, in another order; weights' gradients are sums over 300 samples."""
    inputs, weights = given(widths, 4, 300, shared, dtype)
    close = {torch.float32: dict(atol=2e-3, rtol=1e-3), torch.float64: dict(atol=1e-9, rtol=1e-9)}[dtype]
    grads = []
    for evaluate in (small_networks, ref.small_networks):
        learned = weights.clone().requires_grad_()
        result = evaluate(inputs, learned, list(widths), slope)
        (result * torch.linspace(-1, 1, result.numel(), dtype=dtype).view_as(result)).sum().backward()
        grads.append((result.detach(), learned.grad))
    for ours, theirs in zip(*grads, strict=True):
        scale = theirs.abs().mean()
        assert_close(ours / scale, theirs / scale, **close)


@pytest.mark.parametrize(("networks", "samples"), [(0, 5), (3, 0), (1, 1), (2, 128), (2, 129)])
def test_any_number(networks, samples):
    inputs, weights = given((6, 21, 21, 3), networks, samples, False)
    weights.requires_grad_()
    result = small_networks(inputs, weights, (6, 21, 21, 3))
    assert_close(result, ref.small_networks(inputs, weights, [6, 21, 21, 3], 0.01))
    result.sum().backward()
    assert weights.grad.isfinite().all() and weights.grad.shape == weights.shape


def test_gradients():
    inputs, weights = given((2, 4, 3), 2, 9, False)
    assert torch.autograd.gradcheck(lambda w: small_networks(inputs, w, (2, 4, 3)), weights.requires_grad_())
    torch.library.opcheck(_networks.overload, (inputs, weights, [2, 4, 3], 0.01))


def test_by_hand():
    """Two units: leaky(2 x + 1) and leaky(−x); then 3 times the first and the second, and 5."""
    weights = torch.tensor([[2.0, -1.0, 1.0, 0.0, 3.0, 1.0, 5.0]])
    result = small_networks(torch.tensor([[1.0], [-2.0]]), weights, (1, 2, 1), 0.1)
    assert_close(result, torch.tensor([[[3 * 3 - 0.1 + 5], [3 * -0.3 + 2 + 5]]]))


def test_same_bits_on_any_number_of_threads():
    inputs, weights = given((6, 21, 21, 3), 9, 300, True, torch.float32)
    results = []
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        learned = weights.clone().requires_grad_()
        small_networks(inputs, learned, (6, 21, 21, 3)).square().sum().backward()
        results.append(learned.grad)
    torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("inputs", "weights", "widths"),
    [((4, 5), (2, 675), (6, 21, 21, 3)), ((4, 6), (2, 674), (6, 21, 21, 3)), ((3, 4, 6), (2, 675), (6, 21, 21, 3)), ((4, 6), (2, 675), (6,))],
)  # fmt: skip
def test_says_what_does_not_fit(inputs, weights, widths):
    with pytest.raises(ShapeError):
        small_networks(torch.zeros(inputs), torch.zeros(weights), widths)
