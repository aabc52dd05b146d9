import pytest
import torch
from torch.library import opcheck

from fields.core import grids
from fields.core._ref import grids as ref
from fields.errors import ShapeError
from tests.core.op_tester import OpTester

RESOLUTION = (5, 4, 6)


def factors_of(layout, ranks, dtype, resolution=RESOLUTION):
    modes = ref.LAYOUTS[layout]
    return [
        torch.randn(*[resolution[a] for a in axes], rank, dtype=dtype, requires_grad=True)
        for mode, rank in zip(modes, ranks, strict=True)
        for axes in mode
    ]


def positions(n, dtype, spread=0.95):
    """Random positions at least 1e-3 cells away from the faces of cells, where the interpolant has a kink."""
    x = (torch.rand(n, 3, dtype=dtype) * 2 - 1) * spread
    u = (x + 1) / 2 * (torch.tensor(RESOLUTION) - 1)
    near = (u - u.round()).abs() < 1e-3
    return torch.where(near, x + 5e-3, x).requires_grad_()


CASES = tuple(
    {"layout": layout, "ranks": ranks, "reduce": reduce}
    for layout, ranks in [("vm", (16, 16, 16)), ("vm", (3, 20, 33)), ("cp", (19,)), ("dense", (5,))]
    for reduce in (("sum", "concat") if layout != "dense" else ("concat",))
)


class TestValue(OpTester):
    cases = CASES
    twice_differentiable = True

    def op(self, x, factors, layout, ranks, reduce):
        return grids._sample(x, factors, layout, reduce, False)

    def twin(self, x, factors, layout, ranks, reduce):
        return ref.value(x, factors, layout, reduce == "sum")

    def inputs(self, dtype, n, layout, ranks, reduce):
        return positions(n, dtype), factors_of(layout, ranks, dtype)

    def test_gradcheck(self):
        self.cases = [c for c in CASES if c["ranks"] != (16, 16, 16)]  # the others run the same code, and are smaller
        super().test_gradcheck()


class TestJacobian(OpTester):
    cases = CASES

    def op(self, x, factors, layout, ranks, reduce):
        return grids._sample(x, factors, layout, reduce, True)

    def twin(self, x, factors, layout, ranks, reduce):
        return ref.jacobian(x, factors, layout, reduce == "sum")

    def inputs(self, dtype, n, layout, ranks, reduce):
        return positions(n, dtype), factors_of(layout, ranks, dtype)

    def test_gradcheck(self):
        self.cases = [c for c in CASES if c["ranks"] != (16, 16, 16)]
        super().test_gradcheck()


@pytest.mark.parametrize("case", CASES[2:5], ids=str)
def test_opcheck(case):
    x, factors = positions(4, torch.float32), factors_of(case["layout"], case["ranks"], torch.float32)
    opcheck(grids._value.overload, (x, factors, case["layout"], case["reduce"] == "sum"))
    opcheck(grids._jacobian.overload, (x, factors, case["layout"], case["reduce"] == "sum"))


def test_worked_by_hand():
    """A 2×2×2 VM grid whose mode xy·z is (1 + x')(z'), with primes on [0, 1]: at (0, ·, 0.5) it is 1.5 · 0.75."""
    plane = torch.tensor([[1.0, 1.0], [2.0, 2.0]])[..., None]
    line = torch.tensor([0.0, 1.0])[:, None]
    zero_plane, zero_line = torch.zeros(2, 2, 1), torch.zeros(2, 1)
    v, jacobian = grids.vm_sample(
        torch.tensor([[0.0, 0.3, 0.5]]), [plane, zero_plane, zero_plane], [line, zero_line, zero_line], jacobian=True
    )
    torch.testing.assert_close(v, torch.tensor([1.5 * 0.75]))
    torch.testing.assert_close(jacobian, torch.tensor([[0.5 * 0.75, 0.0, 1.5 * 0.5]]))


def test_dense_agrees_with_torch_grid_sample():
    volume = torch.randn(*RESOLUTION, 7)
    x = torch.rand(100, 3) * 2.4 - 1.2
    # grid_sample wants (N, C, depth, height, width) and coordinates (width, height, depth): the axes reversed.
    want = torch.nn.functional.grid_sample(
        volume.permute(3, 0, 1, 2)[None], x.flip(-1).view(1, -1, 1, 1, 3), align_corners=True, padding_mode="border"
    )
    torch.testing.assert_close(grids.dense_sample(x, volume), want.view(7, -1).T, rtol=1e-4, atol=1e-5)


def test_knots_are_reproduced_and_the_border_is_held():
    volume = torch.randn(3, 3, 3, 2)
    corners = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [0, 0, 0], [5, 5, 5]])
    want = torch.stack([volume[0, 0, 0], volume[2, 2, 2], volume[1, 1, 1], volume[2, 2, 2]])
    v, jacobian = grids.dense_sample(corners, volume, jacobian=True)
    torch.testing.assert_close(v, want)
    assert (jacobian[3] == 0).all()


def test_nan_position_gives_nan_and_infinite_is_held_at_the_border():
    volume = torch.randn(3, 3, 3, 2)
    v = grids.dense_sample(torch.tensor([[float("nan"), 0, 0], [float("inf"), 0, 0]]), volume)
    assert v[0].isnan().all()
    torch.testing.assert_close(v[1], volume[2, 1, 1])


def test_non_contiguous_inputs():
    volume = torch.randn(2, 6, 4, 5).permute(2, 3, 1, 0)
    x = (torch.rand(3, 10) * 2 - 1).T
    torch.testing.assert_close(grids.dense_sample(x, volume), ref.value(x, [volume], "dense", False))


@pytest.mark.parametrize(
    "broken",
    [
        lambda x, v: (x[:, :2], v),
        lambda x, v: (x, v[0]),
        lambda x, v: (x, v[:1]),
        lambda x, v: (x.double(), v),
        lambda x, v: (x, v.long()),
    ],
)
def test_wrong_shapes_are_named(broken):
    with pytest.raises(ShapeError):
        grids.dense_sample(*broken(torch.zeros(4, 3), torch.zeros(3, 3, 3, 2)))
