"""OpenEXR: every compression, layer and window; hostile headers take neither memory nor time."""

import struct

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fields.errors import FieldsError, ShapeError
from fields.io.hdr import read_linear, size_of, write_exr
from tests.io.pictures import assert_fails, quick, save_exr


@pytest.mark.parametrize("compression", ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24"])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_exr(tmp_path, compression, kind):
    pixels = np.random.default_rng(0).uniform(0, 9, (40, 24, 4)).astype(np.float16).astype(kind)
    path = save_exr(tmp_path / "a.exr", {"RGBA": pixels, "depth": pixels[..., 0].copy()}, compression=compression)
    np.testing.assert_array_equal(
        read_linear(path).numpy(), pixels.astype(np.float32)
    )  # PXR24 keeps 24 bits, of 11 that matter
    assert size_of(path) == (24, 40)


def test_exr_of_luminance(tmp_path):
    path = save_exr(tmp_path / "a.exr", {"Y": np.full((3, 4), 2, np.float16)})
    assert torch.equal(read_linear(path), torch.full((3, 4, 3), 2.0))


@pytest.mark.parametrize("left, top", [(2, 1), (-1, -2), (6, 3), (12, 1), (-9, 0)])
def test_convention_exr_windows(tmp_path, left, top):
    """The picture is the display window; where the data window does not reach, it is black."""
    pixels = np.random.default_rng(0).uniform(1, 2, (4, 15, 3)).astype(np.float32)
    window = (np.array([left, top], np.int32), np.array([left + 14, top + 3], np.int32))
    display = (np.array([0, 0], np.int32), np.array([9, 5], np.int32))
    path = save_exr(tmp_path / "a.exr", {"RGB": pixels}, {"dataWindow": window, "displayWindow": display})
    expected = np.zeros((50, 50, 3), np.float32)
    expected[top + 10 : top + 14, left + 10 : left + 25] = pixels
    np.testing.assert_array_equal(read_linear(path).numpy(), expected[10:16, 10:20])
    assert size_of(path) == (10, 6)


def test_exr_that_is_no_picture(tmp_path):
    whole, half = np.ones((4, 6), np.float32), np.ones((2, 3), np.float32)
    assert_fails(
        save_exr(tmp_path / "a.exr", {"depth": whole, "R": whole, "B": whole}), "no channel G, only B, R, depth"
    )
    assert_fails(save_exr(tmp_path / "b.exr", {c: whole.astype(np.uint32) for c in "RGB"}), "integers")
    import OpenEXR

    chroma = {c: OpenEXR.Channel(c, half, 2, 2) for c in "RGB"}
    window = (np.array([0, 0], np.int32), np.array([5, 3], np.int32))
    assert_fails(save_exr(tmp_path / "c.exr", chroma, {"dataWindow": window, "displayWindow": window}), "subsampled")


BOTH = (b"dataWindow", b"displayWindow")


@pytest.mark.parametrize(
    ("corner", "windows", "match"),
    [
        ((10**5, 10**5), BOTH, "data window has 100001"),
        ((10**5, 10**5), BOTH[:1], "data window has 100001"),
        ((10**5, 10**5), BOTH[1:], "a speck"),
        ((16_000, 16_000), BOTH, "truncated"),
        ((-5, -5), BOTH, "header is damaged"),
    ],
)
def test_hostile_exr(tmp_path, corner, windows, match):
    path = save_exr(tmp_path / "a.exr", {"RGB": np.ones((8, 16, 3), np.float16)})
    data = path.read_bytes()
    for name in windows:
        at = data.index(name + b"\0box2i\0") + len(name) + 11
        data = data[:at] + struct.pack("<4i", 0, 0, *corner) + data[at + 16 :]
    path.write_bytes(data)
    assert_fails(path, match)


@quick
@given(arrays.arrays(np.float32, (4, 6, 4), elements=st.floats(0, 1e6, width=32)))
def test_exr_round_trip(tmp_path, values):
    values = torch.from_numpy(values)
    write_exr(tmp_path / "a.exr", {"": values, "sss": values[..., :3], "depth": values[..., 0]})
    assert torch.equal(read_linear(tmp_path / "a.exr"), values.clamp(max=65_504).half().float())


def test_exr_layers(tmp_path):
    import OpenEXR

    depth, sss = torch.full((4, 6), 1e-9), torch.full((4, 6, 3), -1e9)
    write_exr(tmp_path / "new" / "a.exr", {"sss": sss, "depth": depth, "alpha": depth.clamp(min=0.25)})
    with OpenEXR.File(str(tmp_path / "new" / "a.exr"), separate_channels=True) as file:
        pixels = {name: channel.pixels for name, channel in file.channels().items()}
        assert file.header()["compression"] == OpenEXR.ZIP_COMPRESSION
    assert sorted(pixels) == ["alpha", "depth", "sss.B", "sss.G", "sss.R"]
    assert pixels["depth"].dtype == np.float32 and (pixels["depth"] == np.float32(1e-9)).all()
    assert pixels["alpha"].dtype == np.float16 and (pixels["sss.G"] == -65_504).all()


def test_exr_that_cannot_be_written(tmp_path):
    with pytest.raises(ShapeError, match="'sss'"):
        write_exr(tmp_path / "a.exr", {"": torch.zeros(4, 6, 3), "sss": torch.zeros(4, 5, 3)})
    with pytest.raises(ShapeError, match="'x'"):
        write_exr(tmp_path / "a.exr", {"x": torch.zeros(4, 6, 2)})
    (tmp_path / "file").write_text("")
    with pytest.raises(FieldsError, match="cannot be written"):
        write_exr(tmp_path / "file" / "a.exr", {"": torch.zeros(4, 6, 3)})
