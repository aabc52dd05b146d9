"""Radiance's pictures: what is read is what the file says, in every order and coding of lines."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fields.io.hdr import read_linear, size_of
from tests.io.pictures import assert_fails, meaning, quick, random_rgbe, rgbe_file


@pytest.mark.parametrize(
    ("runs", "width"), [("none", 5), ("none", 20), ("old", 5), ("old", 700), ("new", 8), ("new", 300)]
)
def test_rgbe(tmp_path, runs, width):
    rgbe = random_rgbe(6, width)
    rgbe[2] = rgbe[2, 0]  # a run as long as the picture is wide: 700 needs a chain of two
    rgbe[3, :, 3] = 0
    path = rgbe_file(tmp_path / "a.hdr", rgbe, runs=runs)
    # What RGBE says is a number of 8 bits times a power of two: float32 has all of it.
    np.testing.assert_array_equal(read_linear(path).numpy(), meaning(rgbe).astype(np.float32))
    assert size_of(path) == (width, 6)


@quick
@given(st.integers(1, 5), st.integers(8, 40), st.data())
def test_any_rgbe_comes_back(tmp_path, n, m, data):
    rgbe = data.draw(arrays.arrays(np.uint8, (n, m, 4), elements=st.integers(0, 255)))
    path = rgbe_file(tmp_path / "a.hdr", rgbe, runs="new")
    np.testing.assert_array_equal(read_linear(path).numpy(), meaning(rgbe).astype(np.float32))


ORDERS = {
    b"-Y %d +X %d": lambda a: a,
    b"+Y %d +X %d": lambda a: a[::-1],
    b"-Y %d -X %d": lambda a: a[:, ::-1],
    b"+Y %d -X %d": lambda a: a[::-1, ::-1],
    b"+X %d -Y %d": lambda a: a.swapaxes(0, 1),
    b"-X %d -Y %d": lambda a: a[::-1].swapaxes(0, 1),
    b"+X %d +Y %d": lambda a: a[:, ::-1].swapaxes(0, 1),
    b"-X %d +Y %d": lambda a: a[::-1, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("order", ORDERS)
def test_convention_scanline_orders(tmp_path, order):
    """−Y: the first scanline is the top one. X first: scanlines are columns."""
    rgbe = random_rgbe(3, 9)
    path = rgbe_file(tmp_path / "a.pic", rgbe, order)
    np.testing.assert_array_equal(read_linear(path).numpy(), ORDERS[order](meaning(rgbe)).astype(np.float32))
    assert size_of(path) == ((9, 3) if b"Y %d " in order else (3, 9))


def test_exposure_is_undone(tmp_path):
    rgbe = random_rgbe(2, 9)
    path = rgbe_file(tmp_path / "a.hdr", rgbe, header=b"EXPOSURE=2\nEXPOSURE= 4.0\nCOLORCORR= 1 2 4\n")
    np.testing.assert_array_equal(read_linear(path).numpy(), (meaning(rgbe) / [8, 16, 32]).astype(np.float32))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: b"P6" + d[2:], "begin"),
        (lambda d: d.replace(b"rgbe\n", b"xyze\n"), "not RGBE"),
        (lambda d: d.replace(b"-Y 6 +X 9", b"-Y 6 +Y 9"), "no line such as"),
        (lambda d: d.replace(b"-Y 6 +X 9", b"-Y 99999 +X 99999"), "99999 × 99999 pixels; at most"),
        (lambda d: d.replace(b"-Y 6 +X 9", b"-Y 0 +X 9"), "9 × 0 pixels"),
        (lambda d: d.replace(b"-Y 6 +X 9", b"-Y 16000 +X 16000"), "truncated"),
        (lambda d: d.replace(b"# made by a test", b"EXPOSURE=0"), "EXPOSURE is '0'"),
        (lambda d: d.replace(b"# made by a test", b"EXPOSURE=much"), "could not convert"),
        (lambda d: d.replace(b"# made by a test", b"EXPOSURE=1e-300"), "infinite"),
        (lambda d: d[: d.index(b"-Y")] + b"#" * 100_000, "header is truncated"),
    ],
)
def test_hostile_rgbe(tmp_path, change, match):
    path = rgbe_file(tmp_path / "a.hdr", random_rgbe(6, 9), runs="new")
    path.write_bytes(change(path.read_bytes()))
    assert_fails(path, match)


def test_old_runs_cannot_blow_up(tmp_path):
    """16 bytes that stand for more pixels than there are."""
    path = rgbe_file(tmp_path / "a.hdr", random_rgbe(1, 4))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"+X 4\n") + 5] + bytes([9, 9, 9, 130]) + bytes([1, 1, 1, 255]) * 3)
    assert_fails(path, "truncated or damaged")
