import io

import numpy as np
import pytest
import torch
from PIL import Image

from fields.data.frames import Mask
from fields.data.images import decode, load_images, read_header
from fields.errors import DataError


def store(paths, **kwargs):
    return load_images(paths, [read_header(p) for p in paths], **kwargs)


@pytest.fixture
def mixed(tmp_path):
    """Three images of different sizes, RGB, RGBA and grey; returns paths and arrays."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, s, np.uint8) for s in ((4, 6, 3), (5, 3, 4), (2, 2))]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for a, p in zip(arrays, paths, strict=True):
        Image.fromarray(a).save(p)
    return paths, arrays


def test_mixed_sizes_live_in_one_block(mixed):
    paths, arrays = mixed
    s = store(paths)
    assert len(s) == 3 and s.channels == 4 and s.data.shape == (24 + 15 + 4, 4) and s.data.dtype == torch.uint8
    assert (s.image(0)[..., :3].numpy() == arrays[0]).all() and (s.image(0)[..., 3] == 255).all()
    assert (s.image(1).numpy() == arrays[1]).all()
    assert (s.image(-1)[..., :3].numpy() == arrays[2][:, :, None]).all()
    index, x, y = torch.tensor([0, 1, 2, 0]), torch.tensor([5, 2, 0, 0]), torch.tensor([3, 4, 1, 0])
    assert torch.equal(
        s.pixels(index, x, y),
        torch.stack([s.image(int(i))[b, a] for i, a, b in zip(index, x, y, strict=True)]),
    )
    flat = torch.arange(s.data.shape[0])
    assert torch.equal(s.flat_index(*s.locate(flat)), flat)
    assert s.to("cpu").nbytes == s.nbytes == 43 * 4


def test_opaque_alpha_is_dropped(tmp_path):
    Image.fromarray(np.full((3, 3, 4), 255, np.uint8)).save(tmp_path / "a.png")
    assert store([tmp_path / "a.png"]).channels == 3


def test_downscaling_averages_blocks_and_cuts_the_rest(tmp_path):
    a = np.random.default_rng(1).integers(0, 256, (9, 11, 3), np.uint8)
    Image.fromarray(a).save(tmp_path / "a.png")
    s = store([tmp_path / "a.png"], downscale=2)
    expected = a[:8, :10].reshape(4, 2, 5, 2, 3).mean((1, 3))
    assert s.image(0).shape == (4, 5, 3)
    assert np.abs(s.image(0).numpy() - expected).max() <= 0.51


def test_downscaling_weights_colour_by_alpha(tmp_path):
    a = np.zeros((2, 2, 4), np.uint8)
    a[0, 0] = (200, 100, 50, 255)
    a[1, 1] = (0, 255, 0, 0)  # green, but transparent: must not show
    Image.fromarray(a).save(tmp_path / "a.png")
    pixel = decode(tmp_path / "a.png", 4, 2)[0, 0]
    assert abs(int(pixel[3]) - 64) <= 1
    assert np.abs(pixel[:3].astype(int) - [200, 100, 50]).max() <= 4  # 6 bits are left at a quarter of the alpha


@pytest.mark.parametrize("mode", ["P", "L", "LA", "1", "CMYK", "I;16"])
def test_every_kind_of_pixel_becomes_8_bit_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.array([[0, 257 * 100], [65535, 257]], np.uint16)).save(path)
        assert decode(path, 3)[:, :, 0].tolist() == [[0, 100], [255, 1]]
        return
    Image.fromarray(np.full((4, 4, 3), 255, np.uint8)).convert(mode).save(path)
    assert (decode(path, 3) >= 250).all()


def test_palette_transparency_counts_as_alpha(tmp_path):
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 1), 1)
    image.save(tmp_path / "a.png", transparency=0)
    s = store([tmp_path / "a.png"])
    assert s.image(0)[..., 3].tolist() == [[0, 0], [0, 255]]


def test_exif_does_not_turn_the_image(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    header = read_header(tmp_path / "a.jpg")
    assert header.rotated and (header.width, header.height) == (8, 4)
    assert store([tmp_path / "a.jpg"]).image(0).shape == (4, 8, 3)


def test_masks_select_pixels_or_become_alpha(tmp_path):
    Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(tmp_path / "a.png")
    m = np.zeros((4, 4), np.uint8)
    m[:, 2:] = 255
    Image.fromarray(m).save(tmp_path / "m.png")
    path, mask = [tmp_path / "a.png"], tmp_path / "m.png"
    s = store(path, masks=[Mask(mask)])
    assert s.channels == 3 and s.mask(0).tolist() == [[False, False, True, True]] * 4
    assert s.usable(torch.tensor([0, 0]), torch.tensor([0, 3]), torch.tensor([1, 1])).tolist() == [
        False,
        True,
    ]
    assert store(path, masks=[Mask(mask, inverted=True)]).mask(0)[0].tolist() == [True, True, False, False]
    assert store(path, masks=[Mask(mask)], masks_are_alpha=True).image(0)[0, :, 3].tolist() == [
        0,
        0,
        255,
        255,
    ]
    assert store(path, masks=[Mask(mask)], downscale=2).mask(0).tolist() == [[False, True]] * 2
    Image.fromarray(m[::2, ::2]).save(mask)  # a mask of half the size
    assert store(path, masks=[Mask(mask)]).mask(0)[0].tolist() == [False, False, True, True]


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_truncated_image_is_named(tmp_path, kind):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        buffer, "JPEG" if kind == "jpg" else "PNG"
    )
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(DataError, match=rf"cut\.{kind}: the image is truncated"):
        store([path])


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.png: this image does not exist"):
        read_header(tmp_path / "no.png")
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(DataError, match=r"a\.png: not a readable image"):
        read_header(tmp_path / "a.png")
