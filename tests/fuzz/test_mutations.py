"""What damages files: again the same of the same seed, deep inside them, and the bounds that readers are held to."""

import io
import json
import struct
import time
import zlib
from random import Random

import numpy as np
import pytest
from fields.benchmarks.fuzz import running
from fields.benchmarks.fuzz.mutations import mutate
from fields.benchmarks.fuzz.targets import TARGETS, Target
from hypothesis import given, settings
from hypothesis import strategies as st

from fields.errors import DataError
from fields.io.reading import parse_json, read_npz, reading

deterministic = settings(max_examples=60, deadline=None, derandomize=True)


@deterministic
@given(st.binary(max_size=300), st.sampled_from([".json", ".npy", ".npz", ".png", ".slim", ".txt", ".safetensors"]), st.integers(0, 2**32))  # fmt: skip
def test_any_bytes_can_be_damaged_and_the_same_seed_does_the_same(data, suffix, seed):
    assert mutate(data, suffix, Random(seed)) == mutate(data, suffix, Random(seed))


def test_checksums_fit_what_is_damaged(tmp_path):
    """Of headers of .slim files a good part gets past the checksum, and is another one."""
    TARGETS["slim"].build(tmp_path)
    data, reached = (tmp_path / "a.slim").read_bytes(), 0
    for seed in range(60):
        damaged = mutate(data, ".slim", Random(seed))
        length = int.from_bytes(damaged[8:12], "little")
        body, check = damaged[12 : 12 + length], damaged[12 + length : 16 + length]
        reached += body != data[12 : 12 + length] and check == struct.pack("<I", zlib.crc32(body))
    assert reached > 15


def greedy(folder):
    np.ones(40 << 20).sum()


def slow(folder):
    time.sleep(60)


def gone(folder):
    import os

    os.abort()


def wrong(folder):
    raise KeyError("x")


@pytest.mark.parametrize(
    ("read", "kind"), [(greedy, "memory"), (slow, "hang"), (gone, "crash"), (wrong, "exception"), (len, "exception")]
)
def test_what_readers_must_not_do_is_noticed(monkeypatch, read, kind):
    """Once the valid sample has been read."""
    sound = lambda folder: (folder / "a").read_bytes() == b"0" * 50 or read(folder)  # noqa: E731
    monkeypatch.setitem(TARGETS, "x", Target(lambda folder: (folder / "a").write_bytes(b"0" * 50), sound))
    found = [one for one in running.run("x", range(2), 0.5 if read is slow else 30) if one is not None]
    assert [one.kind for one in found] == [kind] * 2


@deterministic
@given(st.integers() | st.floats(allow_nan=False) | st.just(10**400))
def test_numbers_of_any_size_are_parsed(number):
    found = parse_json(json.dumps([number]))[0]
    assert found == number or (abs(number) >= 10**17 and found == float(str(number)))
    float(found)


def test_what_json_cannot_be(tmp_path):
    for text in ("[" * 100_000, b"\xff", "{", "", "9" * 5000 + "x"):
        with pytest.raises(ValueError):
            parse_json(text)
    with (
        pytest.raises(DataError, match=r"a.json: not a list \(KeyError: 'x'\).\nCorrect it."),
        reading("a.json", "a list", "Correct it."),
    ):
        raise KeyError("x")
    with pytest.raises(DataError, match=r"^clear$"), reading("a.json", "a list", "Correct it."):
        raise DataError("clear")


@deterministic
@given(st.sampled_from(["f4", "f8", "u1", "i8", "U5"]), st.lists(st.integers(0, 4), max_size=3), st.booleans())
def test_arrays_of_archives_are_those_numpy_reads(kind, shape, fortran):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind)
    stream = io.BytesIO()
    np.savez(stream, a=np.asarray(array, order="F" if fortran else "C"), b=np.zeros(3))
    stream.seek(0)
    found = read_npz(stream, lambda name: name == "a")
    assert found.keys() == {"a"} and found["a"].dtype == array.dtype and np.array_equal(found["a"], array)
