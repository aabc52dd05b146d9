"""`fields view` of reassembled fragments: taken apart, put by hand, saved; and the same with a mouse."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from fields.apps import cli
from fields.apps.viewer.fragments import FragmentsViewer
from viser import transforms

from fields.garf.objects import broken
from fields.garf.reassembly import Joint, Reassembly
from fields.garf.results import read_results, write_fragments, write_poses
from fields.garf.wear import Wear

pytest.importorskip("manifold3d")


@pytest.fixture
def folder(tmp_path):
    """Of three fragments, as if the smallest fitted nowhere."""
    _, pieces, _ = broken(2_000_100, 3, "vase", Wear())
    pieces = [replace(piece, name=f"sherd_{i}") for i, piece in enumerate(pieces)]
    shares = [(piece.partner >= 0) * 0.9 for piece in pieces]
    found = Reassembly(
        pieces, 0, np.tile(np.eye(4), (3, 1, 1)), [0, 0, 1], [1.0, 0.8, 1.0], [Joint(0, 1, 0.8)], 1.0, shares
    )
    write_poses(tmp_path / "vase", found)
    write_fragments(tmp_path / "vase", found)
    return tmp_path / "vase"


@pytest.fixture
def viewer(folder):
    viewer = FragmentsViewer(folder, port=7490)
    yield viewer
    viewer.stop()


def places(viewer) -> np.ndarray:
    return np.array([piece.frame.position for piece in viewer.pieces])


def test_fragments_go_apart_and_hide(viewer):
    together = places(viewer)
    viewer.explode.value = 1.0
    np.testing.assert_allclose(places(viewer), 2 * together)
    # Whoever fits nowhere stands beside the others, along x.
    assert together[2, 0] > together[:2, 0].max() + 0.1
    viewer.shown[1].value = False
    assert [piece.frame.visible for piece in viewer.pieces] == [True, False, True]


def test_colours_say_piece_confidence_and_break(viewer):
    def colours():
        return [{k: mesh.color for k, mesh in piece.meshes.items()} for piece in viewer.pieces]

    assert all(len(set(bands.values())) == 1 for bands in colours()), "a piece has one colour"
    assert len({bands[0] for bands in colours()}) == 3
    viewer.colours.value = "confidence"
    sure, likely, nowhere = (bands[0] for bands in colours())
    assert sure[1] > sure[0] and likely[1] > likely[0] and likely != sure and len(set(nowhere)) == 1
    viewer.colours.value = "break"
    assert all(set(bands) == {0, 4} and bands[0] != bands[4] for bands in colours())


def test_a_joint_chooses_the_fragment_that_may_be_wrong(viewer):
    (button,) = viewer.joint_buttons
    assert button.label == "sherd_0 – sherd_1: 0.80"
    button._impl.update_cb[0](None)
    assert viewer.chosen == 1 and viewer.handle.visible
    assert [next(iter(p.meshes.values())).opacity for p in viewer.pieces] == [None, None, pytest.approx(0.12)]
    viewer.picker.value = "sherd_0"
    assert viewer.chosen == 0 and not viewer.handle.visible, "the anchor stays where it is"
    assert viewer.snap_button.disabled


def test_dragged_snapped_undone_saved(viewer, folder):
    """Out of its place beside the object to about where it belongs, which is where it was broken off: at the identity."""
    report = folder / "report.html"
    report.write_text("as it was")
    viewer.explode.value = 0.5
    viewer.choose(2)
    start = viewer.found.world_from_fragment[2].copy()
    viewer.drag(let_go=True)
    assert viewer.undo_button.disabled, "the handle was touched, and nothing moved"
    turn = transforms.SO3.exp(np.array([0.1, -0.05, 0.08]))
    viewer.handle.wxyz = turn.wxyz
    home = 1.5 * (viewer.pieces[2].middle - viewer.box.mean(0)) / viewer.size
    viewer.handle.position = home + np.array([0.02, 0.02, -0.02])
    viewer.drag(let_go=False)
    assert np.array_equal(viewer.found.world_from_fragment[2], start), "not before it is let go"
    viewer.drag(let_go=True)
    np.testing.assert_allclose(viewer.found.world_from_fragment[2][:3, :3], turn.as_matrix(), atol=1e-6)
    assert "loose" in viewer.message.content
    viewer.snap()
    np.testing.assert_allclose(viewer.found.world_from_fragment[2], np.eye(4), atol=5e-3)
    assert "settled on" in viewer.message.content and viewer.found.group == [0, 0, 0]
    assert len(viewer.joint_buttons) == len(viewer.found.joints) > 1
    viewer.save()
    saved = read_results(folder)
    assert saved.group == [0, 0, 0] and np.array_equal(saved.world_from_fragment, viewer.found.world_from_fragment)
    assert len(trimesh.load(folder / "assembled.ply").faces) == sum(len(f.faces) for f in saved.fragments)
    assert report.read_text() == "as it was"
    viewer.undo()
    viewer.undo()
    assert np.array_equal(viewer.found.world_from_fragment[2], start) and viewer.found.group == [0, 0, 1]
    assert viewer.undo_button.disabled


def test_the_command_listens_here_only(folder):
    command = [sys.executable, "-m", "fields.apps.cli", "view", str(folder), "--port", "7590"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.terminate()
    assert "Traceback" not in process.stdout.read()


def test_folders_that_are_none_are_refused_in_a_line(folder, capsys):
    def said(*arguments):
        assert cli.main(["view", str(folder), *arguments]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "--compare" in said("--compare", str(folder))
    assert "--port" in said("--port", "99999")
    poses = json.loads((folder / "poses.json").read_text())
    (folder / "poses.json").write_text(json.dumps(poses | {"anchor": "nobody"}))
    assert "not poses of the fragments beside them" in said()
    (folder / "fragments.safetensors").unlink()
    assert "fragments.safetensors: no such file. `fields reassemble`" in said()
    (folder / "poses.json").unlink()
    assert "no such file" in said()


def test_with_a_mouse(chromium, viewer):
    """Chosen by a click, dragged by an arrow of the handle, snapped, undone."""
    page = chromium.new_page(viewport={"width": 1000, "height": 640})
    page.goto(viewer.url)
    page.get_by_text("2 of 3 fragments put together").wait_for(timeout=60_000)
    time.sleep(5)
    canvas = page.locator("canvas").first.bounding_box()

    def pixel(point) -> np.ndarray:
        (client,) = viewer.server.get_clients().values()
        camera = client.camera
        x, y, z = transforms.SO3(camera.wxyz).as_matrix().T @ (point - camera.position)
        focal = canvas["height"] / 2 / np.tan(camera.fov / 2)
        return np.array([canvas["width"] / 2 + focal * x / z, canvas["height"] / 2 + focal * y / z])

    corner = viewer.found.assembled()[2].corners.mean(1) - viewer.box.mean(0)
    toward = next(iter(viewer.server.get_clients().values())).camera.position
    page.mouse.click(*pixel(corner[(corner @ toward).argmax()] / viewer.size))
    page.get_by_text("fits nowhere").first.wait_for()
    assert viewer.chosen == 2
    time.sleep(1)
    arrow = transforms.SO3(viewer.handle.wxyz).as_matrix()[:, 2]
    page.mouse.move(*pixel(viewer.handle.position + 0.32 * arrow))
    page.mouse.down()
    page.mouse.move(*pixel(viewer.handle.position + 0.5 * arrow), steps=8)
    page.mouse.up()
    page.get_by_text("is loose").wait_for()
    page.get_by_role("button", name="Snap").click()
    page.get_by_text("fits nothing there").wait_for(timeout=60_000)
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Undone").wait_for()
    page.close()
