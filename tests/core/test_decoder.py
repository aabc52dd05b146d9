import pytest
import torch
from torch.library import opcheck

from fields.core import _backend
from fields.core._ref import decoder as ref
from fields.core.decoder import _decode, _encode, fused_decoder
from fields.errors import ShapeError
from tests.core.op_tester import OpTester


def inputs(dtype, n, width, basis, hidden, feature_frequencies, view_frequencies):
    new = lambda *shape: torch.randn(*shape, dtype=dtype, requires_grad=True)  # noqa: E731
    features, directions = new(n, width), torch.nn.functional.normalize(torch.randn(n, 3, dtype=dtype), dim=-1)
    d = basis or width
    widths = [d + 3 + 2 * (d * feature_frequencies + 3 * view_frequencies), *hidden, 3]
    weights = [
        (torch.randn(o, i, dtype=dtype) / i**0.5).requires_grad_() for i, o in zip(widths, widths[1:], strict=False)
    ]
    basis_matrix = (torch.randn(basis, width, dtype=dtype) / width**0.5).requires_grad_() if basis else None
    return features, directions.requires_grad_(), basis_matrix, weights, [new(o) for o in widths[1:]]


class TestDecoder(OpTester):
    cases = (
        {"width": 9, "basis": 5, "hidden": (17, 16), "feature_frequencies": 2, "view_frequencies": 2},
        {"width": 4, "basis": 0, "hidden": (), "feature_frequencies": 0, "view_frequencies": 1},
        {"width": 3, "basis": 7, "hidden": (33,), "feature_frequencies": 3, "view_frequencies": 0},
        {"width": 144, "basis": 27, "hidden": (128, 128), "feature_frequencies": 2, "view_frequencies": 2},
    )

    def op(self, *inputs, feature_frequencies, view_frequencies, **_):
        return fused_decoder(*inputs, feature_frequencies, view_frequencies)

    def twin(self, *inputs, feature_frequencies, view_frequencies, **_):
        return ref.decode(*inputs, feature_frequencies, view_frequencies)

    def inputs(self, dtype, n, **case):
        return inputs(dtype, n, **case)

    def test_gradcheck(self):
        self.cases = self.cases[:3]  # the paper's widths run the same code, and have 40 000 parameters
        super().test_gradcheck()


def test_opcheck():
    case = TestDecoder.cases[0]
    features, directions, *layers = inputs(torch.float32, 4, **case)
    if _backend.on_gpu(features):  # whose decoder is this and torch's products
        opcheck(_encode.overload, (features, directions, 2, 2, False))
    else:
        opcheck(_decode.overload, (features, directions, *layers, 2, 2, True))


def test_large_angles_keep_their_accuracy():
    x = torch.linspace(-3e4, 3e4, 999)[:, None]
    weight = torch.zeros(1, 1 + 3 + 2)
    weight[0, 4] = 1.0
    got = fused_decoder(x, torch.zeros(999, 3), None, [weight], [torch.zeros(1)], 1, 0)
    # A GPU's decoder without gradients rounds the sine to half precision.
    tolerance = 1e-3 if _backend.on_gpu(x) else 2e-6
    torch.testing.assert_close(torch.logit(got.double()), x.double().sin(), rtol=0, atol=tolerance)


def test_nan_reaches_the_colour():
    features, directions, basis, weights, biases = inputs(torch.float32, 3, **TestDecoder.cases[0])
    features = features.detach().clone()
    features[1] = float("nan")
    rgb = fused_decoder(features, directions, basis, weights, biases)
    assert rgb[1].isnan().all() and not rgb[[0, 2]].isnan().any()


def test_layers_that_do_not_fit_are_named():
    features, directions, basis, weights, biases = inputs(torch.float32, 3, **TestDecoder.cases[0])
    with pytest.raises(ShapeError, match="weight 1"):
        fused_decoder(features, directions, basis, [weights[0], weights[1][:, :-1], weights[2]], biases)


def test_no_features_are_no_input():
    features, directions, basis, weights, biases = inputs(torch.float32, 3, **TestDecoder.cases[0])
    with pytest.raises(ShapeError, match="0 wide"):
        fused_decoder(features[:, :0], directions, basis[:, :0], weights, biases)
