"""What is wrong with a capture is said in one line and its fix in another, and pickles stay unopened."""

import pytest
from PIL import Image

from fields.errors import DataError
from fields.relighting.layouts import FORMATS
from fields.relighting.scene import load_scene
from tests.relighting.captures import (
    LIGHTS,
    edit,
    write_bigs,
    write_diligent,
    write_lit,
    write_nrhints,
    write_sss_gs,
    write_uw_ps,
)


def assert_fails(path, match, lines=2, **options):
    with pytest.raises(DataError, match=match) as caught:
        load_scene(path, **options)
    text = str(caught.value).split("\n")
    assert len(text) == lines and text[-1].endswith((".", ")")), text


def set_light(**values):
    return lambda d: d["frames"][1]["light"].update(values)


BAD_LIT = {
    "no light": (lambda d: d["frames"][1].pop("light"), r'train.json: frame 1 \(images/0_1.exr\): no "light"'),
    "no lights": (lambda d: [f.pop("light") for f in d["frames"]], "none of its 4 frames says what light"),
    "no position": (lambda d: d["frames"][1]["light"].pop("position"), r'frame 1 .*no "position"'),
    "NaN": (set_light(position=[0, float("nan"), 1]), r'frame 1 .*"position" of this light is .*nan'),
    "negative": (set_light(rgb=[1, -1, 1]), r'frame 1 .*"rgb" of this light is negative'),
    "unknown kind": (set_light(type="laser"), "a light of type 'laser'"),
    "direction": (lambda d: d["frames"][1].update(light={"type": "directional", "rgb": [1, 1, 1]}), 'no "direction"'),
    "no frames": (lambda d: d.update(frames=[]), "it lists no frames"),
    "no objects": (lambda d: d["frames"].append("a.exr"), "frame 4 is 'a.exr'"),
    "unit": (lambda d: d.update(light_unit="lumen"), "\"light_unit\" is 'lumen'"),
    "space": (lambda d: d.update(color_space="aces"), "\"color_space\" is 'aces'"),
    "srgb floats": (lambda d: d.update(color_space="srgb"), r"\.exr holds linear light"),
    "set": (lambda d: d["frames"][1].update(set=7), '"set" is 7'),
    "no pose": (lambda d: d["frames"][1].pop("transform_matrix"), "frame 1 .*has no transform_matrix"),
    "no lens": (lambda d: d.pop("fl_x"), "no focal length"),
    "no picture": (lambda d: d["frames"][1].update(file_path="images/7.exr"), "7.exr: this image does not exist"),
    "mask": (lambda d: d["frames"][1].update(mask_path="m.png"), "m.png: this mask does not exist"),
    "mask path": (lambda d: d["frames"][1].update(mask_path=3), "the path of its mask is 3"),
    "ending": (lambda d: d["frames"][1].update(file_ext=3), '"file_ext" is 3'),
    "all held out": (lambda d: [f.update(set="olat") for f in d["frames"]], "no photographs to train on"),
}


@pytest.mark.parametrize("change,match", BAD_LIT.values(), ids=BAD_LIT)
def test_bad_lit_transforms(tmp_path, cameras, change, match):
    write_lit(tmp_path, cameras)
    edit(tmp_path / "transforms_train.json", change)
    assert_fails(tmp_path, match, lines=1 if "to train on" in match else 2)


def test_bad_files(tmp_path, cameras):
    write_lit(tmp_path, cameras)
    file = tmp_path / "transforms_train.json"
    text = file.read_text()
    file.write_text(text[:-20])
    assert_fails(tmp_path, r"transforms_train.json: not valid JSON: .* at line 1")
    file.write_text("{}")
    assert_fails(tmp_path, 'transforms_train.json: no list "frames"')
    file.unlink()
    assert_fails(tmp_path, "transforms_train.json: this file does not exist", format="lit-transforms")
    assert_fails(tmp_path, r"no photographs under known lights found here \(looked for transforms.json")
    assert_fails(tmp_path / "nowhere", "nowhere: no such folder")
    with pytest.raises(DataError, match=f"'magic' is no layout.*\n.*{', '.join(FORMATS)}"):
        load_scene(tmp_path, format="magic")


BAD_NRHINTS = {
    "no position": (lambda d: d["frames"][1].pop("pl_pos"), r'frame 1 \(./train/r_1\): no "pl_pos"'),
    "NaN": (
        lambda d: d["frames"][1].update(pl_pos=[0, 0, float("nan")]),
        'frame 1 .*from "pl_pos" and "pl_intensity": .*nan',
    ),
    "two numbers": (lambda d: d["frames"][1].update(pl_pos=[0, 0]), "must be 3 finite numbers"),
    "negative": (lambda d: d["frames"][1].update(pl_intensity=[-1, 1, 1]), "negative"),
    "intrinsics": (lambda d: d.update(camera_intrinsics=[1, 2, 3]), '"camera_intrinsics" is .*\n.*cx, cy, fx, fy'),
}


BAD_SSS_GS = {
    "fewer lights": (lambda d: d["frames"][1].update(light_positions=LIGHTS[:2]), "train.json: camera 1 has 3 file_paths, 2 light_positions"),
    "fewer intensities": (lambda d: d["frames"][1].update(light_intensities=[1]), "camera 1 has 3 file_paths, 3 light_positions, 1 light_int"),
    "no lights": (lambda d: d["frames"][1].pop("light_positions"), 'camera 1 has no list "light_positions"'),
    "no pictures": (lambda d: d["frames"][1].update(file_paths=[]), 'camera 1 has no list "file_paths"'),
    "a number": (lambda d: d["frames"][1].update(file_paths=["a", 3, "b"]), 'camera 1 has 3 among its "file_paths"'),
    "null": (lambda d: d["frames"][1].update(light_positions=[LIGHTS[0], None, LIGHTS[0]]), r'frame 1 \(./resized/c1.0_1\): no "light_pos'),
    "NaN": (lambda d: d["frames"][1].update(light_positions=[[0, float("nan"), 1]] * 3), "frame 1 .*nan"),
}  # fmt: skip


BAD_BIGS = {
    "no light": (lambda d: d["frames"][1].pop("light"), r"olat_2/transforms_train.json: frame 1 .* its \"light\" is None"),
    "another kind": (lambda d: d["frames"][1]["light"].update(type="env"), "its \"light\" is .*'env'"),
    "no position": (lambda d: d["frames"][1]["light"].pop("position"), 'no "position"'),
    "negative": (lambda d: d["frames"][1]["light"].update(intensity=-1), "negative"),
    "no picture": (lambda d: d["frames"][1].update(file_path="a.exr"), r"a.exr: .*not exist \(from olat_2/transforms_train.json: frame 1"),
}  # fmt: skip


COLLECTIONS = {
    "nrhints": (write_nrhints, "transforms_train.json", BAD_NRHINTS),
    "sss_gs": (write_sss_gs, "transforms_train.json", BAD_SSS_GS),
    "bigs": (write_bigs, "olat_2/transforms_train.json", BAD_BIGS),
}


@pytest.mark.parametrize("name,case", [(name, case) for name, (*_, cases) in COLLECTIONS.items() for case in cases])
def test_a_bad_collection(tmp_path, cameras, name, case):
    write, file, cases = COLLECTIONS[name]
    change, match = cases[case]
    write(tmp_path, cameras)
    edit(tmp_path / file, change)
    assert_fails(tmp_path, match)


def replace_line(file, i, line):
    lines = file.read_text().splitlines()
    lines[i : i + 1] = [] if line is None else [line]
    file.write_text("\n".join(lines))


def test_bad_diligent(tmp_path):
    write_diligent(tmp_path / "ball", count=4)

    def check(name, i, line, match):
        file = tmp_path / "ball" / name
        good = file.read_bytes()
        file.unlink() if i is None else replace_line(file, i, line)
        assert_fails(tmp_path / "ball", match, format="diligent")
        file.write_bytes(good)

    check("light_intensities.txt", 1, None, "4 filenames, 4 light directions, 3 light intensities")
    check("filenames.txt", 1, None, "3 filenames, 4 light directions, 4 light intensities")
    check("light_directions.txt", 1, "0 nan 1", "light_directions.txt: line 2 is '0 nan 1'")
    check("light_directions.txt", 1, "0 1", "light_directions.txt: line 2 is '0 1'")
    check("light_directions.txt", 1, "0 0 2", "line 2: .*length 2")
    check("light_intensities.txt", 1, "1 -1 1", "line 2: .*negative")
    check("light_intensities.txt", 1, "one", "light_intensities.txt: line 2 is 'one'")
    for name in ("light_directions.txt", "light_intensities.txt", "filenames.txt"):
        check(name, None, None, f"{name}: this file does not exist")
    check("filenames.txt", 1, "x.png", "x.png: this image does not exist")
    check("mask.png", None, None, "mask.png: this picture does not exist")
    Image.new("L", (32, 24)).save(tmp_path / "ball" / "mask.png")
    assert_fails(tmp_path / "ball", "mask.png: it is black all over")


def test_bad_uw_ps(tmp_path):
    write_uw_ps(tmp_path, count=3)
    (tmp_path / "pot" / "pot.1.png").rename(tmp_path / "spare.png")
    assert_fails(tmp_path / "pot", r"pot: 2 photographs \(0, 2\), but 3 \(0, 1, 2\) of the mirror sphere")
    (tmp_path / "spare.png").rename(tmp_path / "pot" / "pot.1.png")
    dark = tmp_path / "chrome" / "chrome.2.png"
    Image.new("RGB", (100, 90)).save(dark)
    assert_fails(tmp_path / "pot", "chrome.2.png: the mirror sphere shows no highlight")
    (tmp_path / "chrome").rename(tmp_path / "elsewhere")
    assert_fails(tmp_path / "pot", "chrome: the mirror sphere that light directions come from")


def test_pickles_are_refused(tmp_path, cameras):
    """In one line, and unopened."""
    match = "pickles run code when they are opened"

    def refuse(path, name):
        assert_fails(path, f"{name}: {match}", lines=1)

    (tmp_path / "trhm" / "bucket_ol3t75" / "000").mkdir(parents=True)
    for name in ("bucket_ol3t75/000/000_00.pkl", "other.pickle"):
        (tmp_path / "trhm" / name).write_bytes(b"")
        refuse(tmp_path / "trhm", name)
        refuse(tmp_path / "trhm" / name, name)
        (tmp_path / "trhm" / name).unlink()

    write_lit(tmp_path / "lit", cameras)
    file = tmp_path / "lit" / "transforms_train.json"
    good = file.read_text()
    (tmp_path / "lit" / "images" / "0.pkl").write_bytes(b"")
    for values in ({"file_path": "images/0.pkl"}, {"file_path": "images/0"}, {"file_path": "images/0", "file_ext": ".pkl"},
                   {"mask_path": "images/0.pkl"}, {"light": {"type": "env", "file": "images/0.pkl"}}):  # fmt: skip
        edit(file, lambda d, values=values: d["frames"][1].update(values))
        refuse(tmp_path / "lit", "0.pkl")
        file.write_text(good)

    write_diligent(tmp_path / "ball")
    (tmp_path / "ball" / "light_directions.txt").rename(tmp_path / "ball" / "light_directions.pkl")
    refuse(tmp_path / "ball", "light_directions.pkl")
