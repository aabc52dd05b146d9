import struct

import numpy as np
import pytest

from fields.errors import DataError
from fields.neumadiff.tensor_file import read_tensor_file, write_tensor_file


def arrays():
    rng = np.random.default_rng(0)
    whole = {
        kind: rng.integers(0, 100, (2, 3)).astype(kind) for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")
    }
    return (
        whole | {kind: rng.random((3, 1, 2)).astype(kind) for kind in ("f2", "f4", "f8")} | {"empty": np.zeros((0, 4))}
    )


def test_what_is_written_is_read_again(tmp_path):
    write_tensor_file(tmp_path / "a.bsdf", arrays())
    found = read_tensor_file(tmp_path / "a.bsdf")
    assert list(found) == list(arrays())
    for name, array in arrays().items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


def test_arrays_begin_at_multiples_of_their_elements(tmp_path):
    """By hand, and as readers that map a file into memory need it."""
    write_tensor_file(tmp_path / "a.bsdf", {"a": np.array([7], np.uint8), "bc": np.array([[1.0, 2.0]], np.float32)})
    table = struct.pack("<H1sHBQQ", 1, b"a", 1, 1, 18 + 22 + 31, 1) + struct.pack(
        "<H2sHBQQQ", 2, b"bc", 2, 10, 72, 1, 2
    )
    body = b"\7" + struct.pack("<2f", 1, 2)
    assert (tmp_path / "a.bsdf").read_bytes() == b"tensor_file\0\1\0" + struct.pack("<I", 2) + table + body


def test_every_truncated_file_gets_one_line(tmp_path):
    file = tmp_path / "a.bsdf"
    write_tensor_file(file, {"theta_i": np.arange(3.0), "description": np.zeros(5, np.uint8)})
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(DataError) as error:
            read_tensor_file(file)
        assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("dimensions", "kind", "begin", "shape"),
    [(1, 10, 40, [1 << 62]), (2, 10, 40, [1 << 40, 1 << 40]), (1, 0, 40, [1]), (1, 12, 40, [1]), (1, 10, 1 << 63, [1]),
     (65535, 10, 40, [1]), (65, 1, 0, [1] * 65)],
)  # fmt: skip
def test_hostile_headers_get_one_line(tmp_path, dimensions, kind, begin, shape):
    file = tmp_path / "a.bsdf"
    table = struct.pack(f"<H1sHBQ{len(shape)}Q", 1, b"a", dimensions, kind, begin, *shape)
    file.write_bytes(b"tensor_file\0\1\0" + struct.pack("<I", 1) + table + b"\0" * 64)
    with pytest.raises(DataError, match="truncated or damaged"):
        read_tensor_file(file)


@pytest.mark.parametrize(("data", "message"), [(b"hello", "does not begin"), (b"tensor_file\0\2\0\0\0\0\0", "version 2.0")])  # fmt: skip
def test_other_files_get_one_line(tmp_path, data, message):
    file = tmp_path / "a.bsdf"
    with pytest.raises(DataError, match="cannot be read"):
        read_tensor_file(file)
    file.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_tensor_file(file)
