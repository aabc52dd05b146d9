"""`fields data cameras` on photographs whose cameras are known, and on what is none."""

import numpy as np
import pytest
from PIL import Image

from fields.data import read_capture
from tests.commands import run


@pytest.mark.timeout(600)
def test_cameras_of_photographs_are_found(data_dir, tmp_path):
    """Ten neighbouring photographs of the fox: the centres that COLMAP gave to the makers of this scene, up to a similarity."""
    pytest.importorskip("pycolmap")
    known = read_capture(data_dir / "scenes" / "fox", "auto")
    frames = sorted(known.frames, key=lambda frame: frame.name)[:10]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "masks").mkdir()
    for k, frame in enumerate(frames):
        with Image.open(frame.image) as picture:
            picture.save(tmp_path / "pictures" / f"{k:02d}.jpg", quality=95)
            Image.new("L", picture.size, 200).save(tmp_path / "masks" / f"{k:02d}.png")
    out = tmp_path / "scene"
    assert (
        run("data", "cameras", tmp_path / "pictures", "--masks", tmp_path / "masks", "--longest", 720, "--out", out)
        == 0
    )
    found = read_capture(out, "auto")
    assert len(found.frames) == 10 and found.frames[0].mask is not None
    ours, theirs = (
        np.stack([f.pose[:3, 3] for f in sorted(some, key=lambda f: f.name)]) for some in (found.frames, frames)
    )
    a, b = ours - ours.mean(0), theirs - theirs.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    scale = (s * [1, 1, np.linalg.det(u @ vt)]).sum() / np.square(a).sum()
    off = np.linalg.norm(scale * a @ turn.T - b, axis=1)
    assert off.max() < 0.05 * np.ptp(b, 0).max()  # fewer pictures, smaller ones, one shared lens


@pytest.fixture
def pictures(tmp_path):
    pytest.importorskip("pycolmap")
    (tmp_path / "pictures").mkdir()
    for k in range(4):
        Image.new("RGB", (64, 48), (10 * k, 90, 90)).save(tmp_path / "pictures" / f"{k}.png")
    return tmp_path / "pictures"


def complaint(capsys, *arguments) -> str:
    assert run("data", "cameras", *arguments) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_pictures_without_features(pictures, tmp_path, capsys):
    assert "no camera was found" in complaint(capsys, pictures, "--out", tmp_path / "scene")
    assert not (tmp_path / "scene").exists()


def test_a_mask_is_missing_or_of_another_size(pictures, tmp_path, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    assert "no mask 0.png" in complaint(capsys, pictures, "--masks", masks, "--out", tmp_path / "scene")
    Image.new("L", (32, 48), 255).save(masks / "0.png")
    assert "32 × 48" in complaint(capsys, pictures, "--masks", masks, "--out", tmp_path / "scene")


def test_neither_pictures_nor_a_video(pictures, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no video")
    assert "nor a video" in complaint(capsys, tmp_path / "notes.txt", "--out", tmp_path / "scene")
    assert "not an empty folder" in complaint(capsys, pictures, "--out", pictures)
    assert "not an empty folder" in complaint(capsys, pictures, "--out", tmp_path / "notes.txt")
    assert "cannot be written" in complaint(capsys, pictures, "--out", tmp_path / "notes.txt" / "scene")
    assert "--every" in complaint(capsys, pictures, "--every", 0, "--out", tmp_path / "scene")
