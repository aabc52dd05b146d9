"""PNG of sixteen bits, all of which count."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fields.io.hdr import has_eight_bits, read_linear
from tests.io.pictures import assert_fails, png_file, write_png


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_keeps_sixteen_bits(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 65_536, (10, 7, channels))
    values[5:] = values[5:, :1] + np.arange(7)[:, None]  # where filters have something to predict
    values %= 65_536
    path = png_file(tmp_path / "a.png", values, [0, 1, 2, 3, 4] * 2)
    if channels in (1, 3):
        with Image.open(path) as image:  # an independent decoder agrees about the halves that it keeps
            wide = np.asarray(image).reshape(10, 7, -1).astype(int)
        np.testing.assert_array_equal(wide >> (8 if channels == 1 else 0), values >> 8)
    grey = channels < 3
    expected = np.concatenate([values[..., :1].repeat(3, 2), values[..., 1:]], 2) if grey else values
    assert read_linear(path).shape == (10, 7, expected.shape[2])
    # One division in float32.
    np.testing.assert_array_equal(read_linear(path).numpy(), expected.astype(np.float32) / np.float32(65_535))
    assert not has_eight_bits(path)


def test_png_of_eight_bits_is_left_encoded(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_linear(tmp_path / "a.png")
    assert image.shape == (8, 32, 3) and has_eight_bits(tmp_path / "a.png")
    assert (image[..., 1].flatten() * 255).round().tolist() == list(range(256))
    Image.fromarray(np.zeros((2, 3, 4), np.uint8)).save(tmp_path / "b.png")
    assert read_linear(tmp_path / "b.png").shape == (2, 3, 4)


@pytest.mark.parametrize("size", [(50_000, 50_000, "at most"), (16_000, 16_000, "truncated"), (0, 4, "0 × 4")])
@pytest.mark.parametrize("bits", [8, 16])
def test_hostile_png(tmp_path, size, bits):
    width, height, match = size
    write_png(tmp_path / "a.png", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0), zlib.compress(bytes(10)))
    assert_fails(tmp_path / "a.png", match)


def test_damaged_png(tmp_path):
    path = png_file(tmp_path / "a.png", np.full((4, 4, 3), 700), [1, 1, 1, 1])
    data = bytearray(path.read_bytes())
    data[45] ^= 1
    path.write_bytes(data)
    assert_fails(path, "checksum")
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    write_png(path, header, zlib.compress(bytes([9]) + bytes(24 * 4 + 3)))
    assert_fails(path, "no such filter")
    write_png(path, header[:-1] + b"\x01", zlib.compress(bytes(100)))
    assert_fails(path, "interlaced")


def test_real_photograph_has_more_than_eight_bits(data_dir):
    path = data_dir / "relight" / "diligent_ball" / "images" / "001.png"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    image = read_linear(path)
    assert len((image * 65_535).round().unique()) > 1000
