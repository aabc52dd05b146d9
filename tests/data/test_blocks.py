import os
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fields.data import blocks, load_scene
from fields.data.blocks import Block, Rows
from fields.data.frames import Mask
from fields.data.images import load_images, read_header
from fields.errors import DataError
from fields.methods import method
from fields.training.pixels import PixelSampler, rows_near_silhouettes
from tests.data import scenes


@pytest.fixture(params=["memory", "file"])
def anywhere(request, monkeypatch):
    if request.param == "file":
        monkeypatch.setattr(blocks, "IN_MEMORY", 0)
        monkeypatch.setattr(blocks, "_RESIDENT", 1 << 12)  # what is read is let go of all the time
        monkeypatch.setattr(blocks, "_AROUND", 1 << 8)
    return request.param


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_block_keeps_what_is_written(anywhere, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    truth = torch.randint(0, 256, (50_000, 4), dtype=torch.uint8)
    block, opened = Block((50_000, 4)), open_files()
    assert (block._pages is not None) == (anywhere == "file") and not list(tmp_path.iterdir())
    for rows in range(0, 50_000, 1000):
        block.data[rows : rows + 1000] = truth[rows : rows + 1000]
        block.will_read(4000)
    rows = torch.randint(50_000, (999,))
    view = block.data[7:9]
    assert torch.equal(block[rows], truth[rows]) and torch.equal(view, truth[7:9])
    monkeypatch.setattr(blocks, "_PART", 777)
    block.first_columns(3)
    assert torch.equal(block.data, truth[:, :3])
    del block, view
    assert open_files() <= opened


def test_numbers_of_other_kinds(anywhere):
    truth = torch.randn(100, 2, 3).half()
    block = Block(tuple(truth.shape), torch.float16)
    block.data.copy_(truth)
    assert torch.equal(block.data, truth)


def test_what_lies_in_a_file_is_not_this_processs_memory(monkeypatch):
    """Of 64 MB that are written and read all over, what counts stays near the bound: twice it, and what copies take."""
    monkeypatch.setattr(blocks, "IN_MEMORY", 0)
    monkeypatch.setattr(blocks, "_RESIDENT", 1 << 22)

    def resident() -> int:
        return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    torch.randint(1 << 24, (32,)), torch.zeros(1 << 20)  # whatever a first call takes
    block, before = Block((1 << 24, 4)), resident()
    for start in range(0, 1 << 24, 1 << 19):
        block.will_read(1 << 21)
        block.data[start : start + (1 << 19)] = start >> 19
        assert resident() - before < 3 << 22
    for _ in range(40):
        rows = torch.randint(1 << 24, (32,))
        assert torch.equal(block[rows][:, 0], (rows >> 19).byte()) and resident() - before < 3 << 22


def test_a_full_disk_is_said(monkeypatch):
    monkeypatch.setattr(blocks, "IN_MEMORY", 0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(DataError, match=r"no room for 0.1 GB of images .*TMPDIR"):
            Block((1 << 24, 4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(DataError, match="/nowhere: no room"):
        Block((1,))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_rows_are_those_of_a_tensor(share):
    of_images = [torch.rand(n) < share for n in (0, 1, 1000, 37)]
    starts = torch.tensor([0, 5, 6, 1010])
    parts = [s + m.nonzero()[:, 0] for s, m in zip(starts, of_images, strict=True)]
    truth, rows = torch.cat(parts), Rows(parts, torch.device("cpu"))
    assert len(rows) == len(truth)
    if len(truth):
        which = torch.randint(len(truth), (300,))
        assert torch.equal(rows[which], truth[which])
    assert torch.equal(torch.cat([truth[:0], *rows.parts(13)]), truth)
    odd = rows.where(lambda part: part % 2 == 1, 11)
    assert torch.equal(torch.cat([truth[:0], *odd.parts()]), truth[truth % 2 == 1])
    assert torch.equal(torch.cat(list(Rows.all(9, rows.device).parts(4))), torch.arange(9))


def test_images_are_the_same_in_a_file(monkeypatch, tmp_path):
    """Of mixed sizes and kinds, with masks, whole and reduced, chosen, opaque."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, s, np.uint8) for s in ((40, 61, 3), (50, 33, 4), (23, 20))]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for array, path in zip(arrays, paths, strict=True):
        Image.fromarray(array).save(path)
    Image.fromarray((arrays[0][..., 0] > 99).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    Image.fromarray(np.full((9, 9, 4), 255, np.uint8)).save(tmp_path / "opaque.png")
    masks = [Mask(tmp_path / "mask.png", inverted=True), None, None]
    cases = [(paths, {}), (paths, {"masks": masks}), (paths, {"masks": masks, "masks_are_alpha": True}),
             (paths, {"downscale": 2, "masks": masks}), ([tmp_path / "opaque.png"], {})]  # fmt: skip

    def all_of(case):
        store = load_images(case[0], [read_header(p) for p in case[0]], **case[1])
        yield store
        yield store.select([len(store) - 1, 0])

    for case in cases:
        monkeypatch.setattr(blocks, "IN_MEMORY", 1 << 30)
        here = list(all_of(case))
        monkeypatch.setattr(blocks, "IN_MEMORY", 0)
        for one, other in zip(here, all_of(case), strict=True):
            assert one.blocks[0]._pages is None and other.blocks[0]._pages is not None
            for name in ("data", "offsets", "width", "height", "masks"):
                a, b = getattr(one, name), getattr(other, name)
                assert (a is None and b is None) or torch.equal(a, b), name
            usable = one.usable_rows()
            assert (usable is None) == (one.masks is None)
            if usable is not None:
                assert torch.equal(torch.cat(list(usable.parts())), one.masks.nonzero()[:, 0])


def test_batches_are_those_of_all_rows_in_one_tensor(anywhere, tmp_path):
    """What was drawn when rows were a tensor of their own, with the same generator: bit for bit."""
    scenes.write_blender(tmp_path)
    scene = load_scene(tmp_path)
    store = scene.train.images
    rows = rows_near_silhouettes(store, 1)
    solid = torch.cat(
        [torch.nn.functional.max_pool2d((store.image(i)[None, ..., 3] > 0).float(), 3, 1, 1).view(-1) for i in range(len(store))]
    )  # fmt: skip
    truth = solid.nonzero()[:, 0]
    sampler = PixelSampler(scene.train, torch.Generator().manual_seed(3), rows)
    sampler.keep(lambda origins, directions: directions[:, 0] > 0)
    rays = scene.train.cameras.rays(*(lambda i, x, y: (i, torch.stack([x, y], -1) + 0.5))(*store.locate(truth)))
    truth = truth[rays[1][:, 0] > 0]
    drawn = truth[torch.randint(len(truth), (500,), generator=torch.Generator().manual_seed(3))]
    index, x, y = store.locate(drawn)
    origins, directions, colours = sampler.draw(500, torch.zeros(3))
    expected = scene.train.cameras.rays(index, torch.stack([x, y], -1) + 0.5)
    assert torch.equal(origins, expected[0]) and torch.equal(directions, expected[1])
    pixels = store.data[drawn].float() / 255
    assert torch.equal(colours, pixels[:, :3] * pixels[:, 3:])


def test_training_does_not_see_where_its_images_lie(monkeypatch, tmp_path):
    """The real training, three iterations: the same bits."""
    chosen = method("tensorf-vm")
    scenes.write_blender(tmp_path)
    settings = replace(chosen.configure("fast", real=False).scaled(3), rays=256, voxels=(4096, 4096))

    def trained():
        scene = chosen.load_scene(tmp_path)
        training = chosen.load_training()(settings, scene, 0)
        for i in range(3):
            training.step(i)
        return scene, training.state()[0]

    (scene, here), bound = trained(), blocks.IN_MEMORY
    monkeypatch.setattr(blocks, "IN_MEMORY", 0)
    monkeypatch.setattr(blocks, "_RESIDENT", 1 << 12)
    monkeypatch.setattr(blocks, "_AROUND", 1 << 8)
    other, there = trained()
    assert bound == 1 << 30 and scene.train.images.blocks[0]._pages is None
    assert other.train.images.blocks[0]._pages is not None
    assert here.keys() == there.keys() and all(torch.equal(here[k], there[k]) for k in here)
