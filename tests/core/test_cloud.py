"""Tri-vector clouds: against the twin that tries every box, against dense tensors, and by hand."""

import itertools

import pytest
import torch
from torch.library import opcheck

from fields.core import cloud, dense_sample
from fields.core._ref import cloud as ref
from fields.core.box_adam import BoxAdam
from fields.core.boxes import BoxIndex
from fields.core.cloud import tri_vector_sample
from fields.errors import ShapeError
from tests.core.op_tester import OpTester


def lattice_boxes(spacing, half, fill=0.6, seed=0):
    """About `fill` of the cells of a lattice over [-1, 1]³, so that some boxes lack neighbours."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    n = round(2 / spacing)
    cells = torch.cartesian_prod(*[torch.arange(n)] * 3)
    return BoxIndex.on_lattice(cells[torch.rand(len(cells), generator=generator) < fill], (-1, -1, -1), spacing, half)


def free_boxes(n, half, seed=0):
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    return BoxIndex.free(torch.rand(n, 3, generator=generator) * 2 - 1, half)


BOXES = {
    "lattice": lambda: [lattice_boxes(0.5, 0.375), lattice_boxes(0.4, 0.4, seed=1)],
    "free": lambda: [free_boxes(20, 0.5), free_boxes(40, 0.35, seed=1)],
    "wide": lambda: [lattice_boxes(0.5, 0.7), lattice_boxes(0.4, 0.3, seed=1)],
}


def away_from_kinks(x, boxes, knots):
    """Moves positions off knots, faces and ramps of the windows: derivatives jump there."""
    for _ in range(20):
        close = torch.zeros(len(x), dtype=torch.bool)
        for b, k in zip(boxes, knots, strict=True):
            offset = x[:, None] - b.centres.to(x)
            u = (offset + b.half) * ((k - 1) / (2 * b.half))
            ramp = offset.abs() - (b.spacing - b.half)
            near = ((u - u.round()).abs() < 1e-3) | (ramp.abs() < 1e-3) | (offset.abs() < 1e-3)
            close |= near.flatten(1).any(1)
        if not close.any():
            break
        x = torch.where(close[:, None], torch.rand_like(x) * 2.2 - 1.1, x)
    return x


CASES = tuple(
    {"kind": kind, "ranks": ranks, "reduce": reduce, "options": options}
    for (kind, options), (ranks, reduce) in itertools.product(
        [
            ("lattice", {"weights": "window"}),
            ("lattice", {"weights": "inverse", "nearest": 4, "clamp_weights": True, "average": True}),
            ("wide", {"weights": "inverse", "nearest": 8}),
            ("free", {"weights": "window", "nearest": 4, "average": True}),
            ("free", {"weights": "inverse", "nearest": 2}),
        ],
        [((16, 24), "sum"), ((3, 8), "concat")],
    )
)


class TestValue(OpTester):
    cases = CASES

    def op(self, x, vectors, kind, ranks, reduce, options):
        return tri_vector_sample(x, vectors, BOXES[kind](), reduce, **options)

    def twin(self, x, vectors, kind, ranks, reduce, options):
        boxes = BOXES[kind]()
        index, frame = [t for b in boxes for t in b.tensors], [v for b in boxes for v in b.frame]
        options = cloud._checked(x, vectors, boxes, reduce, *(options.get(k, d) for k, d in (
            ("weights", "window"), ("nearest", 8), ("average", False), ("clamp_weights", False))))  # fmt: skip
        return ref.value(x, vectors, index, frame, **options)

    def inputs(self, dtype, n, kind, ranks, reduce, options):
        boxes, knots = BOXES[kind](), (5, 4)
        x = away_from_kinks(torch.rand(n, 3, dtype=dtype) * 2.2 - 1.1, boxes, knots)
        vectors = [
            torch.randn(len(b.centres), 3, k, r, dtype=dtype, requires_grad=True)
            for b, k, r in zip(boxes, knots, ranks, strict=True)
        ]
        return x.requires_grad_(), vectors

    def test_gradcheck(self):
        # Sums differ from these only in where results are written; differences of every number of every box take a while.
        self.cases = [c | {"ranks": (1, 2)} for c in CASES if c["reduce"] == "concat" and c["kind"] != "wide"]
        super().test_gradcheck()


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_jacobian_is_the_gradient_of_the_value(case):
    test = TestValue()
    x, vectors = test.inputs(torch.float64, 50, **case)
    v, jacobian = tri_vector_sample(x, vectors, BOXES[case["kind"]](), case["reduce"], True, **case["options"])
    torch.testing.assert_close(v, test.op(x, vectors, **case))
    columns = v[:, None] if case["reduce"] == "sum" else v
    twin = test.twin(x, vectors, **case).reshape(columns.shape)
    rows = [torch.autograd.grad(twin[:, c].sum(), x, retain_graph=True)[0] for c in range(columns.shape[1])]
    torch.testing.assert_close(jacobian.reshape(len(x), -1, 3), torch.stack(rows, 1), rtol=1e-9, atol=1e-9)


def test_one_box_is_its_dense_tensor():
    """Expanded to (L+1)³ values and sampled trilinearly, one box says the same."""
    box = BoxIndex.on_lattice(torch.zeros(1, 3, dtype=torch.int64), (-1, -1, -1), 2.0, 1.5)
    vectors = torch.randn(1, 3, 9, 8)
    volume = torch.einsum("xr,yr,zr->xyz", *vectors[0])[..., None]
    x = torch.rand(500, 3) * 2 - 1
    got = tri_vector_sample(x * 1.5, [vectors], [box], weights="inverse")
    # 1e-5: eight products of three standard normals each, in float32.
    torch.testing.assert_close(got, dense_sample(x, volume)[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("half", [0.375, 0.5])
def test_windows_of_a_whole_lattice_sum_to_one_and_leave_no_seam(half):
    """A constant in every box is that constant everywhere; a step between boxes is crossed continuously."""
    boxes = lattice_boxes(0.5, half, fill=1.0)
    constant = torch.ones(len(boxes.centres), 3, 2, 1, dtype=torch.float64)
    x = torch.rand(1000, 3, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(tri_vector_sample(x, [constant], [boxes]), torch.ones(1000, dtype=torch.float64))
    levels = constant * torch.rand(len(constant), 1, 1, 1, dtype=torch.float64)
    line = torch.linspace(-0.9, 0.9, 20_001, dtype=torch.float64)
    across = tri_vector_sample(torch.stack([line, 0.1 * line, -0.2 * line], 1), [levels], [boxes])
    steepest = 3 / (2 * half - 0.5)  # each window falls from 1 to 0 over what two boxes share
    assert (across[1:] - across[:-1]).abs().max() < steepest * (line[1] - line[0])
    inverse = tri_vector_sample(torch.stack([line, 0.1 * line, -0.2 * line], 1), [levels], [boxes], weights="inverse",
                                nearest=4)  # fmt: skip
    assert (inverse[1:] - inverse[:-1]).abs().max() > 10 * steepest * (line[1] - line[0])  # the paper's weights do jump


@pytest.mark.parametrize("nearest", [1, 4, 8])
def test_the_nearest_boxes_are_found_by_lattice_and_hash_alike(nearest):
    boxes = lattice_boxes(0.5, 0.6, fill=0.8)
    hashed = BoxIndex.free(boxes.centres, boxes.half)
    vectors = torch.randn(len(boxes.centres), 3, 4, 8)
    x = torch.rand(2000, 3) * 2.4 - 1.2
    options = {"weights": "inverse", "nearest": nearest}
    # 1e-5: the same terms, added up in another order.
    torch.testing.assert_close(tri_vector_sample(x, [vectors], [boxes], **options),
                               tri_vector_sample(x, [vectors], [hashed], **options), rtol=1e-5, atol=1e-5)  # fmt: skip


def test_worked_by_hand():
    """Two boxes of edge 1.5 one apart, holding 1 and 3; at 0.375 the windows are 0.75 and 0.25, at 0 the first has all."""
    boxes = BoxIndex.on_lattice(torch.tensor([[0, 0, 0], [1, 0, 0]]), (-0.5, -0.5, -0.5), 1.0, 0.75)
    vectors = torch.ones(2, 3, 2, 1)
    vectors[1, 0] = 3.0
    x = torch.tensor([[0.0, 0, 0], [0.375, 0, 0], [2.0, 0, 0], [torch.nan, 0, 0]])
    got, slope = tri_vector_sample(x, [vectors], [boxes], jacobian=True)
    torch.testing.assert_close(got, torch.tensor([1.0, 1.5, 0.0, torch.nan]), equal_nan=True)
    torch.testing.assert_close(slope[1], torch.tensor([4.0, 0, 0]))  # from 1 to 3 in half a unit


def test_opcheck():
    x, vectors = TestValue().inputs(torch.float32, 4, **CASES[0])
    boxes = BOXES["lattice"]()
    index, frame = [t for b in boxes for t in b.tensors], [v for b in boxes for v in b.frame]
    opcheck(cloud._value.overload, (x, vectors, index, frame, [1, 0, 1, 8, 0], True))
    opcheck(cloud._jacobian.overload, (x.detach(), [v.detach() for v in vectors], index, frame, [0, 0, 1, 8, 0]))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda x, v, b: tri_vector_sample(x[:, :2], v, b), "x must have shape"),
        (lambda x, v, b: tri_vector_sample(x, [v[0][1:], v[1]], b), "vectors 0 must have shape"),
        (lambda x, v, b: tri_vector_sample(x, [t[:, :, :1] for t in v], b), "two knots"),
        (lambda x, v, b: tri_vector_sample(x, v, b, nearest=9), "nearest is 9"),
        (lambda x, v, b: tri_vector_sample(x, v, b, nearest=4), "sum to 1 over eight"),
        (lambda x, v, b: tri_vector_sample(x, v * 3, b * 3), "one to four scales"),
        (lambda x, v, b: BoxIndex.on_lattice(torch.tensor([[0, 0, 0], [0, 0, 0]]), (0, 0, 0), 1, 0.7), "more than one"),
        (lambda x, v, b: BoxIndex.on_lattice(torch.tensor([[0, 0, 0]]), (0, 0, 0), 1, 1.6), "at most 1.5"),
        (lambda x, v, b: BoxIndex.free(torch.rand(3, 3), 0.0), "must be positive"),
    ],
)
def test_exception(broken, words):
    boxes = BOXES["lattice"]()
    with pytest.raises(ShapeError, match=words):
        broken(torch.zeros(4, 3), [torch.zeros(len(b.centres), 3, 4, 2) for b in boxes], boxes)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_the_optimiser_is_adam_on_busy_boxes_and_leaves_idle_ones_alone(backend, monkeypatch):
    monkeypatch.setenv("FIELDS_BACKEND", backend)
    start = torch.randn(5, 3, 4, 8)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    mine, adam = BoxAdam([ours], lr=0.02), torch.optim.Adam([theirs], lr=0.02, betas=(0.9, 0.99), eps=1e-8)
    for _ in range(5):
        ours.grad = torch.randn_like(start)
        ours.grad[2:] = 0
        theirs.grad = ours.grad.clone()
        mine.step()
        adam.step()
    torch.testing.assert_close(ours[:2], theirs[:2], rtol=1e-5, atol=1e-6)
    assert torch.equal(ours[2:], start[2:])


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_an_idle_box_shrinks_under_l1_as_if_it_had_been_visited(backend, monkeypatch):
    """Against Adam on the penalty alone, once its moments are steady: they start from zero, so from the first step."""
    monkeypatch.setenv("FIELDS_BACKEND", backend)
    start, l1, eps = torch.randn(3, 3, 4, 8), 1e-4, 1e-8
    start[2] *= 0.05
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    mine = BoxAdam([ours], lr=0.01, l1=l1, eps=eps)
    adam = torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99), eps=eps)
    for _ in range(12):
        ours.grad = torch.zeros_like(start)
        ours.grad[0, 0, 0, 0] = 1.0  # only the first box is busy
        mine.step()
        theirs.grad = l1 * theirs.detach().sign() * 3 / start.numel()
        adam.step()
    assert torch.equal(ours[1:], start[1:])
    mine.settle()
    small = start[1:].abs() < 0.12 + 1e-3  # where Adam steps to and fro across zero, ours stays on it
    torch.testing.assert_close(ours[1:][~small], theirs[1:][~small], rtol=1e-4, atol=1e-5)
    # 1e-8 in the denominator of a step of 0.01 · 1e-6 / (1e-6 + 1e-8) leaves a hundredth of the way.
    assert ours[1:][small].abs().max() < 1e-3 + 0.0012 + 1e-4 and small.any() and not small.all()
    after = ours.detach().clone()
    mine.settle()
    assert torch.equal(ours, after)
