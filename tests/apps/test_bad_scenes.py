"""Scenes with something wrong: one clear line, exit code 2, nothing written."""

import json
import math
import shutil
from pathlib import Path

import pytest
from fields.apps import cli
from fields.apps.common import demo_scene
from PIL import Image

from tests.data import scenes


@pytest.fixture
def scene(tmp_path) -> Path:
    """The embedded demo, copied to be damaged."""
    return Path(shutil.copytree(demo_scene(), tmp_path / "scene"))


def images(scene: Path) -> list[Path]:
    return sorted((scene / "train").glob("*.png"))


def edit(scene: Path, change) -> None:
    for file in (scene / "transforms_train.json", scene / "transforms_test.json"):
        meta = json.loads(file.read_text())
        change(meta)
        file.write_text(json.dumps(meta))


def missing_image(scene):
    images(scene)[5].unlink()


def truncated_image(scene):
    file = images(scene)[5]
    file.write_bytes(file.read_bytes()[:700])


def empty_image(scene):
    images(scene)[5].write_bytes(b"")


def frame_without_matrix(scene):
    edit(scene, lambda meta: meta["frames"][3].pop("transform_matrix"))


def pose_that_is_not_a_number(scene):
    edit(scene, lambda meta: meta["frames"][3]["transform_matrix"][0].__setitem__(3, math.nan))


def pose_that_is_not_rigid(scene):
    edit(scene, lambda meta: meta["frames"][3]["transform_matrix"][0].__setitem__(0, 7.0))


def no_images(scene):
    edit(scene, lambda meta: meta["frames"].clear())


def mixed_sizes(scene):
    with Image.open(images(scene)[5]) as image:
        small = image.resize((image.width, image.height // 2))
    small.save(images(scene)[5])


def nothing_to_see(scene):
    for file in images(scene):
        with Image.open(file) as image:
            Image.new("RGBA", image.size).save(file)


def not_json(scene):
    (scene / "transforms_train.json").write_text('{"frames": [')


CASES = {
    missing_image: "r_005.png",
    truncated_image: "r_005.png",
    empty_image: "r_005.png",
    frame_without_matrix: "transform_matrix",
    pose_that_is_not_a_number: "transforms_train.json",
    pose_that_is_not_rigid: "transforms_train.json",
    no_images: "no images",
    mixed_sizes: "r_005.png",
    nothing_to_see: "silhouettes",
    not_json: "transforms_train.json",
}


@pytest.mark.parametrize("damage", CASES, ids=lambda damage: damage.__name__)
def test_one_line_and_nothing_written(scene, tmp_path, capsys, damage):
    damage(scene)
    out = tmp_path / "run"
    assert cli.main(["train", "tensorf-vm", "--data", str(scene), "--out", str(out), "--iterations", "5"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and CASES[damage] in errors[0], errors
    assert not out.exists()


def test_box_that_no_ray_hits(tmp_path, capsys):
    scenes.write_nsvf(tmp_path / "scene")
    (tmp_path / "scene" / "bbox.txt").write_text("100 100 100 101 101 101 0.1\n")
    out = tmp_path / "run"
    assert cli.main(["train", "tensorf-vm", "--data", str(tmp_path / "scene"), "--out", str(out)]) == 2
    assert "no ray of any training image meets the box [100.0, 100.0, 100.0]" in capsys.readouterr().err
    assert not out.exists()
