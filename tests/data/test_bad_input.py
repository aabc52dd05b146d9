"""Every mistake ends in one DataError that names the file and says what to do."""

import json

import numpy as np
import pytest

from fields.data import load_scene
from fields.data.check import check_scene
from fields.errors import DataError, FieldsError
from tests.data import scenes


def edit(path, change):
    """Apply `change` to the parsed transforms.json."""
    file = path / "transforms.json"
    meta = json.loads(file.read_text())
    change(meta)
    file.write_text(json.dumps(meta))


def drop_matrix(meta):
    del meta["frames"][3]["transform_matrix"]


def nan_pose(meta):
    meta["frames"][3]["transform_matrix"][0][3] = float("nan")


def scaled_pose(meta):
    m = meta["frames"][3]["transform_matrix"]
    m[:3] = [[2 * v for v in row[:3]] + row[3:] for row in m[:3]]


def mirrored_pose(meta):
    m = meta["frames"][3]["transform_matrix"]
    m[:3] = [[-row[0], *row[1:]] for row in m[:3]]


def ragged_pose(meta):
    meta["frames"][3]["transform_matrix"][1] = [1, 2]


def no_file_path(meta):
    del meta["frames"][3]["file_path"]


def no_frames(meta):
    meta["frames"] = []


def no_focal(meta):
    del meta["fl_x"]


def odd_lens(meta):
    meta["camera_model"] = "MAGIC"


def text_for_number(meta):
    meta["fl_x"] = "wide"


def missing_mask(meta):
    meta["frames"][3]["mask_path"] = "masks/3.png"


BAD_JSON = {
    drop_matrix: r"frame 3 \(images/003.png\) has no transform_matrix",
    nan_pose: r"frame 3 .* NaN",
    scaled_pose: r"frame 3 .* not rigid",
    mirrored_pose: r"frame 3 .* mirrors space",
    ragged_pose: r"frame 3 .* not a table of numbers",
    no_file_path: r'frame 3 has no "file_path"',
    no_frames: r"lists no images",
    no_focal: r"no focal length",
    odd_lens: r"unknown camera model MAGIC",
    text_for_number: r"fl_x is 'wide', not a number",
    missing_mask: r"3.png: this mask does not exist",
}


@pytest.mark.parametrize("change", BAD_JSON, ids=lambda f: f.__name__)
def test_bad_frames(tmp_path, change):
    scenes.write_transforms(tmp_path)
    edit(tmp_path, change)
    assert_fails(tmp_path, BAD_JSON[change])


def assert_fails(path, match, **options):
    """Both the loader and the checker say so; the message has two lines, the second being the fix."""
    with pytest.raises(DataError, match=match) as caught:
        load_scene(path, **options)
    lines = str(caught.value).split("\n")
    assert len(lines) == 2 and lines[1].endswith((".", "?", ")")), lines
    if not options:
        report = check_scene(path)
        assert not report.ok and any(p.severity == "error" and p.fix for p in report.problems)


def test_missing_image(tmp_path):
    scenes.write_transforms(tmp_path)
    (tmp_path / "images" / "004.png").unlink()
    assert_fails(tmp_path, r"images/004.png: this image does not exist \(from transforms.json: frame 4")


def test_truncated_image(tmp_path):
    scenes.write_transforms(tmp_path, width=200, height=150)
    file = tmp_path / "images" / "004.png"
    file.write_bytes(file.read_bytes()[:900])
    assert_fails(tmp_path, r"004.png: the image is truncated")


def test_mixed_sizes_without_intrinsics(tmp_path):
    c = scenes.write_transforms(tmp_path)
    edit(tmp_path, lambda meta: [meta.pop(k) for k in ("w", "h")])
    scenes.save(scenes.picture(c, 4)[:20, :20, :3], tmp_path / "images" / "004.png")
    assert_fails(tmp_path, r"004.png is 20 x 20.*one lens for both")


def test_turned_image(tmp_path):
    c = scenes.write_transforms(tmp_path)
    scenes.save(scenes.picture(c, 4)[:, :, :3].swapaxes(0, 1), tmp_path / "images" / "004.png")
    assert_fails(tmp_path, r"004.png is 30 x 40, but its intrinsics are for 40 x 30.*90 degrees")


def test_malformed_json_names_the_line(tmp_path):
    scenes.write_transforms(tmp_path)
    file = tmp_path / "transforms.json"
    lines = file.read_text().split("\n")
    lines[6] = lines[6].replace(",", "") + " oops"
    file.write_text("\n".join(lines))
    assert_fails(tmp_path, r"transforms.json: not valid JSON: .* at line [67]")
    file.write_text('{"frames": 3}')
    assert_fails(tmp_path, 'no list "frames"')


def test_paths_that_hold_no_scene(tmp_path):
    assert_fails(tmp_path / "nowhere", "nowhere: no such folder")
    assert_fails(tmp_path, r"no scene found here \(looked for transforms.json.*poses_bounds.npy")
    with pytest.raises(DataError, match="'magic' is not a scene format"):
        load_scene(tmp_path, format="magic")


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("keep", [4, 30, 0.7])
def test_truncated_colmap(tmp_path, name, keep):
    scenes.write_colmap(tmp_path)
    file = tmp_path / "sparse" / "0" / name
    data = file.read_bytes()
    file.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    assert_fails(tmp_path, f"{name}: the file is truncated")


def test_damaged_colmap(tmp_path):
    scenes.write_colmap(tmp_path)
    file = tmp_path / "sparse" / "0" / "cameras.bin"
    data = bytearray(file.read_bytes())
    data[12] = 77
    file.write_bytes(bytes(data))
    assert_fails(tmp_path, "cameras.bin: camera 1 has the unknown model number 77")
    scenes.write_colmap(tmp_path / "text", binary=False)
    file = tmp_path / "text" / "sparse" / "0" / "images.txt"
    file.write_text(file.read_text().replace("1 a/003.png", "x a/003.png"))
    assert_fails(tmp_path / "text", "images.txt: line 8: could not convert")


def test_llff_counts_and_pickles(tmp_path):
    scenes.write_llff(tmp_path)
    (tmp_path / "images" / "004.png").unlink()
    assert_fails(tmp_path, "8 images, but poses_bounds.npy has 9 poses")
    np.save(tmp_path / "poses_bounds.npy", np.array([print], dtype=object), allow_pickle=True)
    assert_fails(tmp_path, "poses_bounds.npy: not a readable array")


def test_nsvf_pose_and_intrinsics(tmp_path):
    scenes.write_nsvf(tmp_path)
    pose = tmp_path / "pose" / "0_001.txt"
    good = pose.read_text()
    pose.write_text("1 2 3")
    assert_fails(tmp_path, "0_001.txt: .*expected 4 x 4")
    pose.write_text(good)
    (tmp_path / "intrinsics.txt").write_text("hello")
    assert_fails(tmp_path, "intrinsics.txt: not a table of numbers")


def test_fractional_downscale(tmp_path):
    scenes.write_transforms(tmp_path)
    assert_fails(tmp_path, "downscale = 1.5", downscale=1.5)


def test_every_error_is_a_fields_error():
    assert issubclass(DataError, FieldsError)
