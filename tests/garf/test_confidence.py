import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields.garf.confidence import AS_THOUGHT, Calibration, of_places, regression


def test_what_turned_out_is_learned():
    """Tolerance: 20 000 draws say a slope to within a few hundredths."""
    torch.manual_seed(0)
    thought = torch.rand(20_000).clamp(1e-3, 1 - 1e-3)
    truth = Calibration(0.5, 1.5)
    right = torch.rand(len(thought)) < torch.tensor([truth(p) for p in thought.tolist()])
    assert Calibration.of([*zip(thought.tolist(), right.tolist(), strict=True)]) == pytest.approx(truth, abs=0.1)


def test_where_everything_was_right_it_is_sure_and_finite():
    told = Calibration.of([(0.2, True), (0.9, True), (0.5, True)])
    assert np.isfinite(told).all() and 0.9 < told(0.5) < 1


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1))
def test_as_thought_changes_nothing(likely):
    assert AS_THOUGHT(likely) == pytest.approx(likely, abs=2e-6)


def test_regression_by_hand():
    """One weight: three of four are right, so the odds are three to one."""
    weight = regression(torch.ones(4, 1).double(), torch.tensor([True, True, True, False]), torch.tensor([1e-9]))
    assert float(weight) == pytest.approx(np.log(3), abs=1e-6)


def test_chains_to_the_anchor_by_hand():
    """1 and 2 hang on the anchor 0 and on each other; 3 and 4 are a group of their own, and 3 its first. Tolerance: 4096 draws, three standard
    deviations."""
    joints = {(0, 1): 0.5, (0, 2): 0.8, (1, 2): 0.5, (3, 4): 0.25}
    first, second = 0.5 + 0.5 * 0.8 * 0.5, 0.8 + 0.2 * 0.5 * 0.5
    confidence = of_places(joints, [0, 0, 0, 1, 1], 0)
    assert confidence == pytest.approx([1, first, second, 1, 0.25], abs=0.025)
    told = Calibration(1.0, -1.0)
    assert of_places(joints, [0, 0, 0, 1, 1], 0, told) == pytest.approx([1, *map(told, confidence[1:3]), 1, told(0.25)])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_another_joint_never_makes_anything_less_likely(seed):
    rng = np.random.default_rng(seed)
    joints = {(i, j): float(rng.random()) for i in range(6) for j in range(i + 1, 6) if rng.random() < 0.5}
    group = [0] * 6
    fewer = dict(list(joints.items())[:-1])
    assert all(a <= b + 0.03 for a, b in zip(of_places(fewer, group, 0), of_places(joints, group, 0), strict=True))
