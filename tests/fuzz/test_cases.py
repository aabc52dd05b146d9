"""What fuzzing found that is worth a name."""

import json
import struct
import zlib

import numpy as np
import pytest
from fields.benchmarks.fuzz.targets import TARGETS
from PIL import Image

from fields.errors import CheckpointError, DataError


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_device_is_no_point_cloud(tmp_path):
    """It has no end; and the scene does without, as it does without a file that is not there."""
    TARGETS["scene-transforms"].build(tmp_path)
    edit(tmp_path / "transforms.json", ply_file_path="/dev/zero")
    TARGETS["scene-transforms"].read(tmp_path)


def test_cameras_at_the_end_of_the_world(tmp_path):
    TARGETS["scene-llff"].build(tmp_path)
    table = np.load(tmp_path / "poses_bounds.npy")
    table[1, 3] = 1e300
    np.save(tmp_path / "poses_bounds.npy", table)
    with pytest.raises(DataError, match=r"row 1 .* a number beyond 1e\+12"):
        TARGETS["scene-llff"].read(tmp_path)


def test_a_header_of_more_pixels_than_its_file_can_have(tmp_path):
    """Memory for them would be taken before that is noticed."""
    TARGETS["picture.png"].build(tmp_path)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", 13_000, 13_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match="13000 × 13000 pixels and is too short"):
        TARGETS["picture.png"].read(tmp_path)


def test_a_picture_starts_no_program(tmp_path):
    """Pillow shows PostScript by way of Ghostscript, whatever the file is called."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", "EPS")
    with pytest.raises(DataError, match=r"a\.png: not a readable image"):
        TARGETS["picture.png"].read(tmp_path)


def test_a_field_is_no_larger_than_what_is_stored_of_it(tmp_path):
    TARGETS["run"].build(tmp_path)
    field = json.loads((tmp_path / "config.json").read_text())["field"]
    edit(tmp_path / "config.json", field=field | {"resolution": [2**15] * 3})
    with pytest.raises(CheckpointError, match=r"a field of \d+ numbers, of which \d+ are there"):
        TARGETS["run"].read(tmp_path)


def test_an_hdf5_array_that_nobody_has_written(tmp_path):
    import h5py

    TARGETS["fragments.hdf5"].build(tmp_path)
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        del file["artifact/a/b/pieces/0/vertices"]
        file.create_dataset("artifact/a/b/pieces/0/vertices", (2**40, 3), np.float64, chunks=(1, 3))
    with pytest.raises(DataError, match=r"piece 0 of artifact/a/b: not whole .an array of 26388279066624 bytes"):
        TARGETS["fragments.hdf5"].read(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"frames": [' + "9" * 5000 + "]}", '{"frames": [], "train_filenames": [true]}']
)
def test_json_that_parsers_trip_over(tmp_path, text):
    TARGETS["scene-transforms"].build(tmp_path)
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(DataError, match=r"transforms\.json: "):
        TARGETS["scene-transforms"].read(tmp_path)
