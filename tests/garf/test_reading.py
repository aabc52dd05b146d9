"""Fragments as files: what is read, and what is said of what cannot be."""

import numpy as np
import pytest
import trimesh

from fields.errors import DataError
from fields.garf.reading import discs, load_fragments, load_mesh


def ball(radius=1.0, shift=0.0):
    mesh = trimesh.creation.icosphere(3, radius)
    mesh.apply_translation([shift, 0, 0])
    return mesh


@pytest.mark.parametrize("ending", ["ply", "obj", "stl", "off", "glb"])
def test_every_format_gives_the_same_closed_mesh(tmp_path, ending):
    for k in range(2):
        ball(1 + k).export(tmp_path / f"piece{k}.{ending}")
    found = load_fragments(tmp_path)
    assert [f.name for f in found] == ["piece0", "piece1"]
    for k, fragment in enumerate(found):
        assert len(fragment.faces) == 1280 and len(fragment.vertices) == 642
        assert fragment.volume == pytest.approx(ball(1 + k).volume, rel=1e-5)


def test_files_come_in_the_order_of_their_numbers(tmp_path):
    for k in (10, 9, 1):
        ball().export(tmp_path / f"piece_{k}.ply")
    (tmp_path / "notes.txt").write_text("not a mesh")
    assert [f.name for f in load_fragments(tmp_path)] == ["piece_1", "piece_9", "piece_10"]


def test_one_file_with_several_meshes(tmp_path):
    scene = trimesh.Scene({"a": ball(1), "b": ball(2)})
    scene.graph.update("b", matrix=trimesh.transformations.translation_matrix([5, 0, 0]))
    scene.export(tmp_path / "both.glb")
    found = {f.name: f for f in load_fragments(tmp_path / "both.glb")}
    assert sorted(found) == ["both_a", "both_b"]
    assert found["both_b"].vertices.mean(0) == pytest.approx([5, 0, 0], abs=1e-5)


def test_scanned_points_become_a_surface_of_their_area(tmp_path):
    rng = np.random.default_rng(0)
    normals = rng.standard_normal((6000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for given in (normals, None):
        found = discs("ball", 0.5 * normals, given)
        # The disc to the twelfth neighbour is a rough measure of density: within a tenth on average.
        assert found.areas.sum() == pytest.approx(np.pi, rel=0.1)
        assert (np.einsum("ij,ij->i", found.normals, normals) > 0.9).mean() > 0.99
    trimesh.PointCloud(0.5 * normals).export(tmp_path / "a.ply")
    ball().export(tmp_path / "b.ply")
    assert len(load_fragments(tmp_path)[0].faces) == 6000


def test_files_of_one_name_and_folders_that_look_like_files(tmp_path):
    ball().export(tmp_path / "a.ply")
    ball().export(tmp_path / "a.stl")
    (tmp_path / "more.ply").mkdir()
    assert [f.name for f in load_fragments(tmp_path)] == ["a", "a (2)"]


def test_a_closed_mesh_that_is_inside_out_is_turned(tmp_path):
    """Far from the origin too, where the volume about it would be lost in rounding; an open one is left as it is."""
    whole = ball(1, 1e8)
    turned = trimesh.Trimesh(whole.vertices, whole.faces[:, ::-1], process=False)
    assert turned.volume < 0
    for k, mesh in enumerate((turned, trimesh.Trimesh(turned.vertices, turned.faces[1:], process=False))):
        lines = [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in mesh.vertices]
        lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
        (tmp_path / f"{k}.obj").write_text("\n".join(lines))
    closed, opened = load_fragments(tmp_path)
    assert closed.volume == pytest.approx(ball().volume, rel=1e-4)  # coordinates of 1e8 are kept to 1e-8
    assert opened.volume < 0


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def spoil_nan(folder):
    mesh = ball()
    mesh.vertices[3] = np.nan
    mesh.export(folder / "b.ply")


HEADER = "ply\nformat binary_little_endian 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
BAD = {
    "empty file": (lambda d: write(d / "b.ply", ""), "b.ply"),
    "truncated": (lambda d: write(d / "b.ply", ball().export(file_type="ply")[:3000]), "b.ply"),
    "nonsense": (lambda d: write(d / "b.glb", "glTF?" * 100), "b.glb"),
    "a billion points": (lambda d: write(d / "b.ply", HEADER.format(10**9)), "b.ply"),
    "not a number": (spoil_nan, "not numbers"),
    "no faces, few points": (lambda d: trimesh.PointCloud(np.random.rand(20, 3)).export(d / "b.ply"), "at least 100"),
    "far and coarse": (lambda d: ball(0.001, 1e6).export(d / "b.ply"), "far from the origin"),
    "one place": (lambda d: trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False).export(d / "b.ply"), "one place"),
    "flat to nothing": (lambda d: trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]], process=False).export(d / "b.ply"), "no area"),
    "nothing else": (lambda d: None, "one fragment"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_fragments_get_one_line_that_names_them(tmp_path, case):
    ball().export(tmp_path / "a.ply")
    spoil, said = BAD[case]
    spoil(tmp_path)
    with pytest.raises(DataError, match=said):
        load_fragments(tmp_path)


def test_folders_without_fragments(tmp_path):
    with pytest.raises(DataError, match="no fragments"):
        load_fragments(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load_fragments(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no such file"):
        load_mesh(tmp_path / "elsewhere.ply")
    for k in range(101):
        trimesh.creation.box().export(tmp_path / f"{k}.stl")
    with pytest.raises(DataError, match="100 is the most"):
        load_fragments(tmp_path)
