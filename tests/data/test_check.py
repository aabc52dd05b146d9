import io
import json

import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console

from fields.data.check import check_scene
from tests.data import scenes


def text_of(report) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.render())
    return console.export_text()


def test_a_good_scene(tmp_path):
    scenes.write_blender(tmp_path / "s", n=24)
    report = check_scene(tmp_path / "s", tmp_path / "out")
    assert report.ok and report.picture == tmp_path / "out" / "bounds.png"
    assert np.asarray(Image.open(report.picture)).std() > 5
    text = text_of(report)
    for word in ("blender", "18 train, 6 test", "40 x 30", "pinhole", "covering", "ready for training"):
        assert word in text


def test_all_errors_are_listed_at_once(tmp_path):
    scenes.write_transforms(tmp_path)
    (tmp_path / "images" / "001.png").unlink()
    (tmp_path / "images" / "002.png").write_text("hello")
    file = tmp_path / "transforms.json"
    meta = json.loads(file.read_text())
    del meta["frames"][3]["transform_matrix"]
    file.write_text(json.dumps(meta))
    report = check_scene(tmp_path)
    errors = [p.what for p in report.problems if p.severity == "error"]
    assert len(errors) == 3 and not report.ok
    assert all(any(name in e for e in errors) for name in ("001.png", "002.png", "003.png"))
    assert "cannot be trained on" in text_of(report)


def warnings(path) -> str:
    report = check_scene(path)
    assert report.ok
    return "\n".join(p.what for p in report.problems)


def test_blur_duplicates_and_exposure_are_noticed(tmp_path):
    c = scenes.write_transforms(tmp_path, n=12, width=80, height=60, focal=96.0)
    noise = np.random.default_rng(0).integers(0, 60, (60, 80, 3))
    for i in range(12):
        image = (scenes.picture(c, i)[:, :, :3] * 0.7 + np.roll(noise, i, 0)) * (1.0 if i < 6 else 0.25)
        scenes.save(image.astype(np.uint8), tmp_path / "images" / f"{i:03}.png")
    blurred = Image.open(tmp_path / "images" / "003.png").filter(ImageFilter.GaussianBlur(3))
    blurred.save(tmp_path / "images" / "003.png")
    Image.open(tmp_path / "images" / "001.png").save(tmp_path / "images" / "002.png")
    text = warnings(tmp_path)
    assert "blurred" in text and "003.png" in text
    assert "images/001.png and images/002.png show the same picture from different poses" in text
    assert "exposure was probably automatic" in text


def test_bad_cameras_are_noticed(tmp_path):
    scenes.write_transforms(tmp_path, n=12, meta={"k1": -3.0, "aabb_scale": 1, "cx": 1.0, "cy": 15.0})
    file = tmp_path / "transforms.json"
    meta = json.loads(file.read_text())
    for i, f in enumerate(meta["frames"]):
        f["transform_matrix"][2][3] += 300.0 if i == 5 else 0.0
    file.write_text(json.dumps(meta))
    text = warnings(tmp_path)
    for words in ("folds over", "do not look at the box", "stand far away", "principal point"):
        assert words in text
