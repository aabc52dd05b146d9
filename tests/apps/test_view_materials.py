"""`fields view` of materials: chosen, lit, kept, saved; drawn by a model; on somebody's mesh, in somebody's light; and with a mouse."""

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from fields.apps import cli
from fields.apps.viewer.materials import MaterialsViewer, _light_in, _placed
from fields.apps.viewer.wall import Wall, on_mesh

from fields.geometry.shapes import Mesh
from fields.io.atomic import write_json, write_tensors
from fields.io.exr import write_exr
from fields.io.images import to_bytes
from fields.io.run import SCHEMA
from fields.neumadiff.fitting import fit
from fields.neumadiff.made_up import KINDS, made_up
from fields.neumadiff.model import MaterialModel
from fields.neumadiff.nbrdf import read_metadata, read_networks, write_networks
from fields.neumadiff.network import Networks
from fields.neumadiff.preview import LitSpheres
from fields.neumadiff.rows import Rows
from fields.neumadiff.statistics import statistics
from fields.relighting.develop import develop


@pytest.fixture(scope="module")
def networks():
    return fit(made_up(3, 3).materials, 3, begin="spread", iterations=300)


@pytest.fixture
def folder(tmp_path, networks):
    write_networks(tmp_path / "materials.nbrdf.npz", networks, ["one", "two", "three"], {"scale": "physical"})
    return tmp_path


@pytest.fixture
def viewer(folder, monkeypatch):
    monkeypatch.setattr("fields.apps.viewer.stage.Stage.run", lambda stage: None)  # turns are taken by the tests
    viewer = MaterialsViewer(folder, port=7690)
    yield viewer
    viewer.stop()


@pytest.fixture
def drawing(tmp_path, networks, monkeypatch):
    """Of a model that has learned nothing, but where the weights of networks are."""
    torch.manual_seed(0)
    kinds = sorted(KINDS)
    near = networks.weights[:1] + 1e-3 * torch.randn(len(kinds), 675)
    parents = torch.zeros(len(kinds), 2, dtype=torch.long)
    rows = Rows(near, kinds, [[kind] for kind in kinds], parents, statistics(Networks(near)).vector)
    model = MaterialModel.of(rows, "cpu", "words")
    run = tmp_path / "run"
    write_json(run / "config.json", {"schema": SCHEMA, "method": "neumadiff", "field": model.constructor_arguments()})
    write_tensors(run / "model.safetensors", model.state_dict(), {})
    monkeypatch.setattr("fields.apps.viewer.stage.Stage.run", lambda stage: None)
    monkeypatch.chdir(tmp_path)
    viewer = MaterialsViewer(run, port=7690)
    yield viewer
    viewer.stop()


def settle(viewer):
    while viewer.stage.turn():
        pass


def sent(name, content):
    return SimpleNamespace(name=name, content=content)


@pytest.mark.parametrize(("width", "height"), [(700, 640), (1920, 1080), (64, 64), (300, 1200)])
@pytest.mark.parametrize("count", [0, 1, 2, 8, 63])
def test_small_pictures_fit_beside_the_large_one(count, width, height):
    wall = Wall(count, width, height)
    assert wall.left + wall.large <= width and wall.large <= height
    assert (wall.left > 0) == (count > 1)
    middles = [((i % wall.columns + 0.5) * wall.side / width, (i // wall.columns + 0.5) * wall.side / height)
               for i in range(wall.count)]  # fmt: skip
    assert all(y < 1 for _, y in middles)
    assert [wall.index(*at) for at in middles] == list(range(wall.count))
    assert wall.index(0.999, 0.5) is None


def test_the_chosen_one_is_lit_first_then_large_then_the_others(viewer):
    one, two, three = viewer.materials
    viewer.choose(two)
    assert viewer.stage.turn() and two.tile and not one.tile and viewer.large() is None
    assert viewer.stage.turn() and viewer.large() is not None and not one.tile
    settle(viewer)
    assert one.tile and three.tile and two.tile[1].shape == (128, 128, 3)
    # The large picture is the small one, only finer: what is left are edges, and what a finer sphere shows of highlights.
    fine = torch.nn.functional.avg_pool2d(viewer.large()[1].permute(2, 0, 1), 4).permute(1, 2, 0)
    assert (fine - two.tile[1]).abs().median() < 0.01 * fine.mean()
    before = two.tile
    viewer.light.value = "sunset"
    assert viewer.large() is None and viewer.urgency() == 1
    settle(viewer)
    assert viewer.large() is not None and (two.tile[1] - before[1]).abs().mean() > 1e-2


def test_a_wall_shows_whom_it_is_of(viewer):
    settle(viewer)
    wall = Wall(3, 700, 600)
    viewer.materials[1].kept = True
    dark, light = (wall.picture(viewer.materials, viewer.chosen, viewer.large()[1], stops) for stops in (0.0, 2.0))
    assert dark.shape == (600, 700, 3) and light.mean() > 1.2 * dark.mean()
    assert (dark[0, 0] == 235).all(), "the frame of the chosen one"
    row, column = (1 // wall.columns + 1) * wall.side - 2, (1 % wall.columns + 1) * wall.side - 2
    assert dark[row, column].tolist() == [70, 190, 110], "the mark of one that is kept"
    middle = (wall.left + 700) // 2
    assert dark[300, middle].max() > 60 > dark[5, middle].max()


def test_kept_ones_are_saved_and_never_over_another_file(viewer, folder, networks):
    viewer.save()
    assert "Nothing is kept" in viewer.message.content
    for k in (2, 0):
        viewer.choose(viewer.materials[k])
        viewer.keep.value = True
    viewer.choose(viewer.materials[1])
    assert not viewer.keep.value
    viewer.save()
    found, names = read_networks(folder / "chosen.nbrdf.npz")
    assert names == ["one", "three"] and torch.equal(found.weights, networks.weights[[0, 2]])
    assert read_metadata(folder / "chosen.nbrdf.npz")["scale"] == "physical"
    other = MaterialsViewer(folder / "chosen.nbrdf.npz", port=7690)
    assert other.out.name == "chosen-1.nbrdf.npz"
    other.stop()


def test_names_are_shown_as_they_are(tmp_path, networks):
    name = "<img src=x onerror=alert(1)> ![](http://x) `a`\n# b"
    write_networks(tmp_path / "a.nbrdf.npz", networks[0], [name])
    viewer = MaterialsViewer(tmp_path / "a.nbrdf.npz", port=7690)
    title = viewer.title.content.splitlines()[0]
    assert title.startswith(r"### \<img src\=x onerror\=alert(1)\> \!\[\](http:") and title.endswith(r"\`a\` \# b")
    viewer.stop()


def test_on_a_mesh_colours_are_those_of_the_sphere(networks):
    """Of a sphere far away, whose normals the eye sees as they are, and turned: wherever the eye stands, light comes with it."""
    lit = LitSpheres(networks[0], rows=48)
    ball = trimesh.creation.icosphere(3)
    mesh = Mesh(ball.vertices, ball.vertices.astype(np.float32), np.zeros_like(ball.vertices, np.uint8), ball.faces)
    pose = torch.eye(4)
    pose[2, 3] = 1e4
    straight = on_mesh(mesh, lit, "merl", pose, 0.0)
    front = ball.vertices[:, 2] > 0.05
    wanted = to_bytes(develop(lit(torch.from_numpy(mesh.normals)[None])[0, 0]))
    assert (
        np.abs(straight.astype(int) - wanted)[front].max() <= 2
    )  # lines of sight lean by 1e-4, and the edge of a lamp has 255 steps in 0.02
    turn = torch.from_numpy(trimesh.transformations.rotation_matrix(1.0, [1, 2, 3])).float()
    turned = Mesh(
        (ball.vertices @ turn[:3, :3].T.numpy()), mesh.normals @ turn[:3, :3].T.numpy(), mesh.colours, mesh.faces
    )
    assert np.abs(on_mesh(turned, lit, "merl", turn @ pose, 0.0).astype(int) - straight)[front].max() <= 2
    # Close by, what is seen edge-on is on the rim of the lit sphere.
    pose[2, 3] = 2.0
    rim = np.abs(ball.vertices[:, 2] - 0.5) < 0.05
    near = on_mesh(mesh, lit, "merl", pose, 0.0)[rim]
    assert np.isin(near, straight).mean() > 0.9


def test_meshes_and_maps_are_taken_from_the_browser(viewer, tmp_path):
    torus = trimesh.creation.torus(3.0, 1.0).export(file_type="ply")
    place, kinds = viewer.shape, "../../evil/torus.ply"
    viewer.take(sent(kinds, torus), viewer.meshes, place, _placed)
    assert place.value == "torus.ply" and viewer.mesh is not None
    assert np.linalg.norm(viewer.mesh.positions, axis=1).max() == pytest.approx(1)
    outward = (viewer.mesh.normals * (viewer.mesh.positions * [1, 1, 0])).sum(1)
    assert outward.max() > 0.9, "smooth normals, outward at the outermost"
    settle(viewer)
    assert viewer.large() is not None

    def refused(name, content, read=_placed):
        viewer.take(sent(name, content), viewer.meshes, place, read)
        (line,) = viewer.message.content.splitlines()
        assert "/tmp" not in line
        assert place.value == "torus.ply"
        return line

    assert "not a mesh that can be read" in refused("a.ply", b"ply\nformat nonsense")
    assert "not a kind of mesh" in refused("a.exe", b"")
    assert "null" in refused("a\0.ply", b"") and "directory" in refused("..", b"")
    assert "larger than 64 MB" in refused("a.ply", bytes((64 << 20) + 1))
    assert "map.hdr" in refused("map.hdr", b"no picture", _light_in)
    write_exr(tmp_path / "sky.exr", {"": torch.ones(8, 16, 3)})
    viewer.take(sent("sky.exr", (tmp_path / "sky.exr").read_bytes()), viewer.lights, viewer.light, _light_in)
    assert viewer.light.value == "sky.exr" and viewer.message.content == ""


def test_a_model_draws_keeps_and_replaces(drawing):
    viewer, controls = drawing, drawing.drawing
    assert viewer.chosen is None and viewer.urgency() == 0 and "Nothing" in viewer.title.content
    controls.count.value = 3
    viewer.draw()
    assert len(viewer.materials) == 3 and viewer.chosen is viewer.materials[0] and controls.seed.value == 1
    first = viewer.materials[1]
    viewer.choose(first)
    viewer.keep.value = True
    viewer.draw()
    assert viewer.materials[0] is first and viewer.chosen is viewer.materials[1] and len(viewer.materials) == 6
    controls.text.value = "of the"
    viewer.draw()
    assert "no word of it is known" in viewer.message.content and len(viewer.materials) == 6
    viewer.save()
    assert read_networks(viewer.out)[1] == ["material 0.1"] and viewer.out.parent.name == "materials"


def test_statistics_are_asked_for_as_they_are_set(drawing):
    controls = drawing.drawing
    assert controls.wanted(None) is None
    for metal in (False, True):
        controls.metal.value = metal
        for degrees in (2.0, 12.0):
            controls.width.value = degrees
            controls.colour.value = (200, 60, 60)
            wanted = controls.wanted(None)
            # Smith's shadowing and Fresnel's term make a highlight somewhat narrower than its distribution.
            assert float(wanted.half_width[0]) == pytest.approx(degrees, rel=0.1, abs=0.3)
            assert float(wanted.base_share[0]) < 0.36 if metal else float(wanted.base_share[0]) > 0.8
            red, green, _ = wanted.albedo[0].tolist()
            assert 0.45 < red < 0.7 and green < 0.12  # sRGB 200 and 60 are 0.58 and 0.05
    assert controls.like.value == "what is set here"
    drawing.draw()
    controls.like.value = "the large one"
    chosen = drawing.chosen
    assert torch.equal(controls.wanted(chosen).vector, statistics(chosen.reflectance).vector)


def test_the_command_listens_here_only_and_says_that_there_is_no_model(folder):
    command = [sys.executable, "-m", "fields.apps.cli", "view", str(folder), "--port", "7690"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.terminate()
    assert "Traceback" not in process.stdout.read()


def test_hostile_files_are_refused_in_a_line(folder, networks, capsys):
    def said(path, *more):
        assert cli.main(["view", str(path), *more]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    file = folder / "materials.nbrdf.npz"
    assert "has materials: --compare" in said(file, "--compare", str(folder))
    assert "--port" in said(file, "--port", "99999")
    assert "no such file" in said(folder / "none.npz")
    data = file.read_bytes()
    for name, content in {"cut.npz": data[: len(data) // 2], "text.binary": b"no table", "text.bsdf": b"", "a.pth": b"x"}.items():  # fmt: skip
        (folder / name).write_bytes(content)
        assert name in said(folder / name)
    write_networks(file, networks, ["a", "b", "c"], {"scale": "of fish"})
    assert "scale" in said(folder)
    file.write_bytes(b"")
    assert "cannot be read" in said(folder)
    (folder / "run").mkdir()
    write_json(folder / "run/config.json", {"schema": SCHEMA, "method": "neumadiff", "field": {"size": "huge"}})
    assert "model.safetensors" in said(folder / "run")


def test_weights_beyond_all_measure_are_black_or_white(tmp_path):
    weights = 1e30 * torch.randn(2, 675, generator=torch.Generator().manual_seed(0))
    write_networks(tmp_path / "wild.nbrdf.npz", Networks(weights), ["a", "b"])
    viewer = MaterialsViewer(tmp_path / "wild.nbrdf.npz", port=7690)
    until = time.monotonic() + 60
    while viewer.urgency() and time.monotonic() < until:
        time.sleep(0.1)
    assert viewer.large() is not None
    assert Wall(2, 300, 200).picture(viewer.materials, viewer.chosen, viewer.large()[1], 0.0).shape == (200, 300, 3)
    viewer.stop()


def test_with_a_mouse(chromium, folder):
    """Chosen by a click, kept, turned into a knob."""
    viewer = MaterialsViewer(folder, port=7690)
    page = chromium.new_page(viewport={"width": 1000, "height": 640})
    page.goto(viewer.url)
    page.get_by_text("one", exact=True).wait_for(timeout=60_000)
    time.sleep(5)
    window = next(iter(viewer.windows.values()))
    canvas, wall = page.locator("canvas").first.bounding_box(), window.wall
    at = (2 % wall.columns + 0.5) * wall.side / wall.width, (2 // wall.columns + 0.5) * wall.side / wall.height
    page.mouse.click(canvas["x"] + at[0] * canvas["width"], canvas["y"] + at[1] * canvas["height"])
    page.get_by_text("three", exact=True).wait_for()
    page.get_by_text("Keep", exact=True).click()
    page.get_by_role("button", name="Save what is kept").click()
    page.get_by_text("Saved 1 to").wait_for()
    page.get_by_label("Shape", exact=True).first.click()
    page.get_by_role("option", name="knob", exact=True).click()
    time.sleep(8)
    assert viewer.large() is not None and viewer.sharp[1][1] == "knob"
    page.close()
    viewer.stop()
