"""The layers of the codec: each halves the error, and nothing but its own bytes is believed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fields.errors import CheckpointError, ShapeError
from fields.slimmerf.codec import decode, encode

SHAPES = [(128, 128), (97, 131), (20, 21), (7, 9), (1, 1), (1, 40), (128,), (1,)]


def smooth(shape, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=shape), -1).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_layer_halves_the_error(shape):
    values, step, layers = smooth(shape), 0.1, 4
    data = encode(values, step, layers)
    for have in range(1, layers + 1):
        found = decode(data[:have], shape, step, layers)
        fine = step * 2 ** (layers - have)
        assert found.shape == shape and found.dtype == np.float32
        # A coefficient is off by at most a step. The wavelet is close to orthonormal: its mean square carries over, and
        # a value is a sum of a few dozen coefficients.
        error = np.abs(found - values)
        assert error.max() <= (1 if len(shape) == 1 else 4) * fine
        assert np.sqrt(np.mean(error**2)) <= (1 if values.size < 100 else 0.6) * fine


def test_layers_cost_little_more_than_one():
    values = smooth((128, 128))
    assert sum(map(len, encode(values, 0.1, 5))) < 1.04 * len(encode(values, 0.1)[0])


def test_it_is_smaller_than_general_compression():
    import lzma

    values = smooth((128, 128))
    assert len(encode(values, 0.1)[0]) < 0.5 * len(lzma.compress(values.astype(np.float16).tobytes()))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.one_of(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(st.integers(1, 60))),
    step=st.floats(1e-3, 1e3),
    layers=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_any_shape_step_and_number_of_layers(shape, step, layers, seed):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    data = encode(values, step, layers)
    assert data == encode(values, step, layers)
    error = np.abs(decode(data, shape, step, layers) - values).max()
    assert error <= 4 * step + 1e-5 * np.abs(values).max()


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-9])
def test_constants(value):
    values = np.full((64, 48), value, np.float32)
    data = encode(values, 0.01, 3)
    assert np.abs(decode(data, (64, 48), 0.01, 3) - values).max() < 0.04
    if abs(value) < 0.01:
        assert sum(map(len, data)) < 60 and not decode(data, (64, 48), 0.01, 3).any()


@pytest.mark.parametrize("values", [[np.nan, 1.0], [np.inf], [], [[[1.0]]]])
def test_what_cannot_be_coded_says_so(values):
    with pytest.raises(ShapeError, match="finite planes and lines"):
        encode(np.array(values, np.float32), 0.1)


def test_a_step_too_fine_says_so():
    with pytest.raises(ShapeError, match="too fine"):
        encode(np.array([1e9], np.float32), 1e-9)


def test_damaged_bytes_are_an_error_or_numbers_but_nothing_else():
    """Checksums are the container's; here it must only not crash, hang, or ask for memory."""
    random = np.random.default_rng(0)
    data = encode(smooth((40, 40)), 0.1, 3)
    for _ in range(500):
        some = [bytearray(part) for part in data]
        part = some[random.integers(3)]
        kind = random.integers(3)
        if kind == 0:
            part[random.integers(len(part))] = random.integers(256)
        elif kind == 1:
            del part[random.integers(len(part)) :]
        else:
            part[:] = random.bytes(random.integers(0, 300))
        try:
            found = decode([bytes(p) for p in some], (40, 40), 0.1, 3)
        except CheckpointError:
            continue
        assert found.shape == (40, 40) and np.isfinite(found).all()
