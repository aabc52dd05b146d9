"""Pictures of high dynamic range: what is read is what the file says, and nothing but a DataError comes of a damaged one."""

import struct
import zlib

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fields.errors import DataError, FieldsError, ShapeError
from fields.io.hdr import decode_srgb, encode_srgb, has_eight_bits, read_linear, size_of, write_exr

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# ------------------------------------------------------------------------------------ files to read


def rgbe_file(path, rgbe, order=b"-Y %d +X %d", header=b"", runs="none"):
    """Writes (n, m, 4) uint8, m pixels to a scanline."""
    n, m = rgbe.shape[:2]
    coded = {"none": lambda line: line.tobytes(), "old": old_runs, "new": new_runs}[runs]
    body = b"".join(coded(line) for line in rgbe)
    path.write_bytes(
        b"#?RADIANCE\n# made by a test\nFORMAT=32-bit_rle_rgbe\n" + header + b"\n" + order % (n, m) + b"\n" + body
    )
    return path


def old_runs(line):
    """Every pixel, then a run of how often it comes again."""
    out, i = b"", 0
    while i < len(line):
        n = 1
        while i + n < len(line) and (line[i + n] == line[i]).all():
            n += 1
        out += line[i].tobytes()
        again = n - 1
        while again:  # chains of runs count in base 256
            out += bytes([1, 1, 1, again & 255])
            again >>= 8
        i += n
    return out


def new_runs(line):
    """Runs where three or more bytes are the same, literals elsewhere."""
    out = bytes([2, 2, len(line) >> 8, len(line) & 255])
    for channel in line.T:
        i = 0
        while i < len(line):
            n = 1
            while i + n < len(line) and channel[i + n] == channel[i] and n < 127:
                n += 1
            out += bytes([128 + n, channel[i]]) if n > 2 else bytes([n]) + channel[i : i + n].tobytes()
            i += n
    return out


def meaning(rgbe):
    """(…, 3) of (…, 4) uint8, in words of the format: mantissa / 256 · 2^(exponent − 128)."""
    value = rgbe[..., :3] / 256 * 2.0 ** (rgbe[..., 3:].astype(float) - 128)
    return np.where(rgbe[..., 3:] > 0, value, 0)


def random_rgbe(n, m, seed=0):
    """With runs in it; never the marks (1, 1, 1, …) and (2, 2, …) of coded scanlines."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.integers(3, 256, (n, -(-m // 4), 4), np.uint8), 4, axis=1)[:, :m] & np.array(
        [255, 255, 255, 159], np.uint8
    )


def png_file(path, values, filters):
    """Writes (H, W, C) uint16 with a filter of choice for each row."""
    height, width, channels = values.shape
    raw = values.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    size, lines = 2 * channels, []
    above = np.zeros(raw.shape[1] + size, int)
    for row, kind in zip(raw, filters, strict=True):
        line = np.concatenate([np.zeros(size, int), row])
        left, up, corner = line[:-size], above[size:], above[:-size]
        p = left + up - corner
        distance = np.stack([abs(p - left), abs(p - up), abs(p - corner)])
        paeth = np.choose(distance.argmin(0), [left, up, corner])  # the first of equals, as the standard wants
        guess = [0 * left, left, up, (left + up) // 2, paeth][kind]
        lines.append(bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        above = line
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    write_png(path, struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0), zlib.compress(b"".join(lines)))
    return path


def write_png(path, header, data):
    chunks = ((b"IHDR", header), (b"IDAT", data[: len(data) // 2]), (b"IDAT", data[len(data) // 2 :]), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def save_exr(path, channels, header=None, compression="ZIP"):
    import OpenEXR

    kinds = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    OpenEXR.File(kinds | (header or {}), channels).write(str(path))
    return path


def assert_fails(path, match):
    """Of two lines, of which the second is the fix."""
    with pytest.raises(DataError, match=match) as caught:
        read_linear(path)
    lines = str(caught.value).split("\n")
    assert lines[0].startswith(str(path)) and len(lines) == 2 and lines[1].endswith("."), lines


# ------------------------------------------------------------------------------------ Radiance


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


# ------------------------------------------------------------------------------------ PNG


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


# ------------------------------------------------------------------------------------ OpenEXR


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


# ------------------------------------------------------------------------------------ any file


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
