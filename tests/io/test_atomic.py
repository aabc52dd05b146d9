import json
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fields.errors import CheckpointError
from fields.io.atomic import read_tensors, write_tensors


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=4), st.floats(0, 1), st.integers(0, 10**6))
def test_masks_come_back_as_they_were(tmp_path_factory, shape, filled, seed):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < filled
    file = tmp_path_factory.mktemp("io") / "x.safetensors"
    write_tensors(file, {"mask": mask, "x": torch.arange(3)}, {"a": [1, None]})
    tensors, plain = read_tensors(file)
    assert plain == {"a": [1, None]} and torch.equal(tensors["x"], torch.arange(3))
    assert tensors["mask"].dtype is torch.bool and tensors["mask"].shape == mask.shape
    assert torch.equal(tensors["mask"], mask)


def test_a_grid_takes_a_bit_per_cell_and_less_where_it_is_plain(tmp_path):
    noise, ball = torch.rand(64, 64, 64) < 0.5, torch.zeros(64, 64, 64, dtype=torch.bool)
    ball[16:48, 16:48, 16:48] = True
    for mask, most in ((noise, 64**3 / 8 + 1000), (ball, 2000)):
        write_tensors(tmp_path / "x.safetensors", {"mask": mask}, {})
        assert (tmp_path / "x.safetensors").stat().st_size < most


def deflated(size: int) -> torch.Tensor:
    return torch.frombuffer(bytearray(zlib.compress(bytes(size))), dtype=torch.uint8)


@pytest.mark.parametrize(
    "stored",
    [deflated(7), deflated(9), deflated(10**8), deflated(8)[:-3], torch.zeros(20, dtype=torch.uint8), torch.zeros(8)],
    ids=["too short", "too long", "bomb", "cut off", "not deflated", "not bytes"],
)
def test_damaged_masks_are_named(tmp_path, stored):
    file = tmp_path / "x.safetensors"
    save_file({"mask": stored}, file, {"fields": "{}", "bits": json.dumps({"mask": [4, 4, 4]})})
    with pytest.raises(CheckpointError, match=r"x\.safetensors: its masks are damaged"):
        read_tensors(file)


@pytest.mark.parametrize(
    "bits", ["[]", "nonsense", '{"other": [8]}', '{"mask": "abc"}', '{"mask": [-8, -8]}', '{"mask": 5}']
)
def test_damaged_shapes_are_named(tmp_path, bits):
    file = tmp_path / "x.safetensors"
    save_file({"mask": deflated(8)}, file, {"fields": "{}", "bits": bits})
    with pytest.raises(CheckpointError, match=r"x\.safetensors: its masks are damaged"):
        read_tensors(file)
