"""Pictures of high dynamic range of any kind: nothing but a DataError comes of a damaged one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fields.errors import DataError
from fields.io.hdr import decode_srgb, encode_srgb, read_linear, size_of
from tests.io.pictures import assert_fails, png_file, quick, random_rgbe, rgbe_file, save_exr


def test_npy(tmp_path):
    values = np.random.default_rng(0).uniform(0, 9, (3, 5, 3))
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(read_linear(tmp_path / "a.npy").numpy(), values.astype(np.float32))
    np.save(tmp_path / "a.npy", values[..., 0])
    assert read_linear(tmp_path / "a.npy").shape == (3, 5, 3) and size_of(tmp_path / "a.npy") == (5, 3)
    for bad, match in (
        (values[..., :2], "shape"),
        (values > 1, "floating"),
        (np.array([print]), "objects"),
        (values[:0], "5 × 0"),
    ):
        np.save(tmp_path / "a.npy", bad, allow_pickle=True)
        assert_fails(tmp_path / "a.npy", match)
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (9000, 9000, 3)})
    assert_fails(tmp_path / "a.npy", "not a readable picture")


def test_missing_empty_unknown(tmp_path):
    assert_fails(tmp_path / "a.hdr", "does not exist")
    (tmp_path / "a.hdr").write_bytes(b"")
    assert_fails(tmp_path / "a.hdr", "empty")
    (tmp_path / "a.tga").write_bytes(b"x")
    assert_fails(tmp_path / "a.tga", "no known kind")


@pytest.mark.parametrize("suffix", [".hdr", ".exr", ".png", ".npy", ".jpg"])
def test_wrong_contents(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"GIF89a" + bytes(100))
    assert_fails(tmp_path / f"a{suffix}", "not a readable picture")


def whole_files(folder):
    """A good file of every kind."""
    rng = np.random.default_rng(0)
    pixels = np.tile(rng.uniform(0, 9, (20, 4, 3)).astype(np.float16), (1, 5, 1))
    np.save(folder / "a.npy", pixels)
    Image.fromarray((pixels * 20).astype(np.uint8)).save(folder / "8.png")
    yield folder / "a.npy"
    yield folder / "8.png"
    yield rgbe_file(folder / "old.hdr", random_rgbe(8, 30), runs="old")
    yield rgbe_file(folder / "new.hdr", random_rgbe(8, 30), runs="new")
    yield rgbe_file(folder / "flat.hdr", random_rgbe(8, 30))
    yield png_file(folder / "16.png", rng.integers(0, 65_536, (9, 8, 3)), [0, 1, 2, 3, 4, 4, 3, 2, 1])
    for compression in ("NO", "RLE", "ZIP", "PIZ"):
        yield save_exr(folder / f"{compression}.exr", {"RGB": pixels}, compression=compression)


def test_truncation_anywhere_is_a_data_error(tmp_path):
    for path in whole_files(tmp_path):
        whole, full = path.read_bytes(), read_linear(path)
        for size in sorted({*range(1, len(whole), max(1, len(whole) // 60)), *range(len(whole) - 4, len(whole))}):
            path.write_bytes(whole[:size])
            try:
                # (Pillow does without the last chunk of a PNG, which has no pixels.)
                assert torch.equal(read_linear(path), full) and path.name == "8.png", (path.name, size)
            except DataError as error:
                assert str(path) in str(error)


@quick
@given(st.randoms(use_true_random=False))
def test_damage_anywhere_is_a_data_error_or_a_picture(tmp_path, random):
    if not (tmp_path / "16.png").exists():
        for path in whole_files(tmp_path):
            (tmp_path / f"{path.name}.whole").write_bytes(path.read_bytes())
    for whole in tmp_path.glob("*.whole"):
        data = bytearray(whole.read_bytes())
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        path = whole.with_suffix("")
        path.write_bytes(data)
        try:
            image = read_linear(path)
        except DataError:
            continue
        assert image.isfinite().all() and image.min() >= 0 and image.shape[2] in (3, 4)


def test_pixels_that_are_no_light(tmp_path):
    image = np.ones((4, 6, 3), np.float32)
    bad = image.copy()
    bad[2, 5, 1], bad[3] = np.nan, np.inf
    np.save(tmp_path / "a.npy", bad)
    assert_fails(tmp_path / "a.npy", "7 of 24 pixels are NaN or infinite, the first at row 2, column 5")
    bad = image.copy()
    bad[1, 2], bad[0, 0] = -0.5, -2e-7
    np.save(tmp_path / "a.npy", bad)
    assert_fails(tmp_path / "a.npy", "1 of 24 pixels are negative, down to -0.5")
    bad[1, 2] = -9e-7
    np.save(tmp_path / "a.npy", bad)
    assert read_linear(tmp_path / "a.npy").min() == 0


def test_srgb_curve():
    x = torch.linspace(0, 1, 4097, dtype=torch.float64)
    # The two pieces of the standard's curve meet to 1e-7 only.
    torch.testing.assert_close(decode_srgb(encode_srgb(x)), x, atol=1e-7, rtol=0)
    assert float(encode_srgb(torch.tensor(0.18))) == pytest.approx(0.4613561, abs=1e-6)  # the grey card
    assert encode_srgb(torch.tensor([-1.0, 7.0])).tolist() == pytest.approx([0, 1], abs=1e-7)


def test_real_maps(data_dir):
    """Against what is known of them: three.js' spot is 1 lux in all; the quarry's sun is 8.7e4."""
    maps = {p.name: read_linear(p) for p in sorted((data_dir / "envmaps").glob("*.[eh]*r"))}
    if not maps:
        pytest.skip(f"{data_dir / 'envmaps'} has no maps")
    assert {n: (m.shape[1], m.shape[0]) for n, m in maps.items()} == {
        n: size_of(data_dir / "envmaps" / n) for n in maps
    }
    assert maps["quarry_01_1k.hdr"].max() == pytest.approx(8.7e4, rel=0.01)
    assert maps["physg_envmap1.exr"].max() == 3.5 and maps["mitsuba_museum.exr"].shape == (256, 512, 3)
