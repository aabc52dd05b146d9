"""Exports of a short training of the demo, read by other programs, against the geometry the demo was made from."""

import json
import shutil
import subprocess
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from fields.apps.common import demo_scene
from scipy.spatial import cKDTree

import fields
from fields.io.images import to_bytes
from fields.io.run import load_config
from fields.paths import from_json, orbit_around
from tests.commands import run

SHORT = ["--iterations", 150, "--downscale", 2, "--device", "cpu"]
MESH = ["--resolution", "96"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert run("train", "strivec", "--out", out, "--geometry-iterations", 150, *SHORT) == 0
    return out


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Points of the surface that the demo's cameras see, from the formulas it was rendered from."""
    return np.asarray(trimesh.load(demo_scene() / "surface.ply").vertices)


@pytest.fixture(scope="module")
def meshes(trained, tmp_path_factory) -> Path:
    """The same mesh in every format, and one with a texture."""
    folder = tmp_path_factory.mktemp("meshes")
    for ending in ("glb", "ply", "obj"):
        assert run("export", trained, "--mesh", folder / f"mesh.{ending}", *MESH) == 0
    for ending in ("glb", "obj"):
        few = ["--texture", 512, "--faces", 4000]
        assert run("export", trained, "--mesh", folder / f"painted.{ending}", *MESH, *few) == 0
    return folder


def one(file: Path) -> trimesh.Trimesh:
    return trimesh.load(file, process=False, force="mesh")


# ---------------------------------------------------------------------------------------- where it is


def test_the_mesh_lies_on_the_true_surface_in_the_files_frame(meshes, truth, capsys):
    """Both ways, in the mean, within a hundredth of the diagonal. The underside of the plinth no camera has seen."""
    mesh = one(meshes / "mesh.glb")
    diagonal = np.linalg.norm(np.ptp(truth, axis=0))
    samples, _ = trimesh.sample.sample_surface(mesh, 100_000, seed=0)
    samples = samples[samples[:, 2] > truth[:, 2].min()]
    assert cKDTree(samples).query(truth)[0].mean() < 0.005 * diagonal
    assert cKDTree(truth).query(samples)[0].mean() < 0.01 * diagonal
    assert mesh.metadata["frame"] == "input" and mesh.metadata["units"] == "units of the input"
    assert mesh.metadata["up"] == "+Z"


def test_depth_maps_lie_on_the_true_surface(trained, truth, tmp_path):
    assert run("export", trained, "--maps", tmp_path) == 0
    cameras, names = fields.load_cameras(tmp_path)
    assert len(cameras) == 60 and names[7] == "normal/0007.png"
    depth, normal = iio.imread(tmp_path / "depth" / "0007.tiff"), iio.imread(tmp_path / names[7]) / 127.5 - 1
    assert depth.dtype == np.float32 and depth.shape == normal.shape[:2] == (100, 100)
    origins, directions = cameras.image_rays(7)
    along = torch.from_numpy(depth) / (directions @ cameras.forward[7])
    hit = depth > 0
    points = (origins + along[..., None] * directions).numpy()[hit]
    off = cKDTree(truth).query(points)[0]
    assert 0.1 < hit.mean() < 0.5 and off.mean() < 0.01 * np.linalg.norm(np.ptp(truth, axis=0))
    # Bytes, and means of what differs along a ray.
    assert np.abs(np.linalg.norm(normal[hit], axis=-1) - 1).max() < 0.02
    assert (normal * directions.numpy()).sum(-1)[hit].mean() < -0.3


def test_a_grid_is_the_field_at_its_points(trained, tmp_path):
    assert run("export", trained, "--grid", tmp_path / "g.npz", "--resolution", 24) == 0
    grid = np.load(tmp_path / "g.npz")
    assert max(grid["density"].shape) == 25 and grid["rgb"].shape == (*grid["density"].shape, 3)
    i = np.stack(np.nonzero(grid["density"] > 1), -1)[::50]
    points = i @ grid["frame_from_grid"][:3, :3].T + grid["frame_from_grid"][:3, 3]
    seen = fields.query(fields.load(trained), torch.from_numpy(points).float())
    # Near the faces of cells a rounding decides whether one is empty.
    same = np.isclose(grid["density"][tuple(i.T)], seen.density, rtol=1e-3)
    assert len(i) > 5 and same.mean() > 0.9 and str(grid["up"]) == "+Z"


# ---------------------------------------------------------------------------------------- other programs


def test_every_format_holds_the_same_mesh(meshes):
    glb, ply, obj = (one(meshes / f"mesh.{ending}") for ending in ("glb", "ply", "obj"))
    for other in (ply, obj):
        np.testing.assert_allclose(other.vertices, glb.vertices, atol=1e-6)
        assert np.array_equal(other.faces, glb.faces) and other.is_watertight
    srgb = ply.visual.vertex_colors[:, :3].astype(int)
    assert np.abs(obj.visual.vertex_colors[:, :3].astype(int) - srgb).max() <= 1
    assert len(np.unique(srgb, axis=0)) > 1000


def test_a_texture_shows_the_colours_of_the_field(trained, meshes):
    """At the middle of triangles, where the picture has a texel of its own, it has what the field shows there."""
    from fields.geometry.surface import colours_from_outside

    field = fields.load(trained)
    for ending in ("glb", "obj"):
        mesh = one(meshes / f"painted.{ending}")
        assert 3000 < len(mesh.faces) <= 4100 and mesh.visual.uv.min() >= 0 and mesh.visual.uv.max() <= 1
        large = np.argsort(mesh.area_faces)[-500:]
        corners = mesh.faces[large]
        middle, normal = mesh.vertices[corners].mean(1), mesh.vertex_normals[corners].mean(1)
        want = colours_from_outside(field, middle, normal / np.linalg.norm(normal, axis=-1, keepdims=True))
        picture = np.asarray((getattr(mesh.visual.material, "baseColorTexture", None) or mesh.visual.material.image).convert("RGB"))  # fmt: skip
        u, v = mesh.visual.uv[corners].mean(1).T
        got = picture[((1 - v) * 512).astype(int), (u * 512).astype(int)].astype(int)
        assert (
            np.median(np.abs(got - want.astype(int)).max(-1)) < 12
        )  # half a texel beside it, and normals differ a little


@pytest.mark.parametrize("name", ["mesh.glb", "painted.glb"])
def test_the_glb_is_valid(meshes, name):
    """As Khronos' validator has it, without so much as a hint."""
    script = """const v = require('gltf-validator'), fs = require('fs');
        v.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1]))).then(r => console.log(JSON.stringify(r.issues)));"""
    if not shutil.which("node"):
        pytest.skip("no node on this machine")
    done = subprocess.run(["node", "-e", script, str(meshes / name)], capture_output=True, text=True)
    if "Cannot find module" in done.stderr:
        pytest.skip("node cannot find gltf-validator: npm install gltf-validator, and name its folder in NODE_PATH")
    issues = json.loads(done.stdout)
    assert not issues["messages"], issues


@pytest.mark.parametrize("texture", [[], ["--texture", 256, "--faces", 2000]])
def test_usd_declares_its_axes(trained, meshes, tmp_path, texture):
    usd = pytest.importorskip("pxr.Usd", reason="usd-core is not installed")
    from pxr import UsdGeom, UsdShade

    assert run("export", trained, "--mesh", tmp_path / "mesh.usdc", *MESH, *texture) == 0
    stage = usd.Stage.Open(str(tmp_path / "mesh.usdc"))
    assert UsdGeom.GetStageUpAxis(stage) == "Z" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert stage.GetRootLayer().customLayerData["frame"] == "input"
    mesh = UsdGeom.Mesh(stage.GetDefaultPrim())
    points, faces = np.array(mesh.GetPointsAttr().Get()), np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    if texture:
        material, _ = UsdShade.MaterialBindingAPI(mesh).ComputeBoundMaterial()
        file = UsdShade.Shader(stage.GetPrimAtPath(f"{material.GetPath()}/texture")).GetInput("file").Get()
        assert iio.imread(tmp_path / file.path).shape == (256, 256, 3) and 1500 < len(faces) <= 2100
    else:
        want = one(meshes / "mesh.ply")
        np.testing.assert_allclose(points, want.vertices, atol=1e-6)
        assert np.array_equal(faces, want.faces)


@pytest.mark.parametrize("name", ["mesh.glb", "mesh.ply", "mesh.obj", "painted.obj"])
def test_open3d_reads_it(meshes, name):
    open3d = pytest.importorskip("open3d", reason="open3d is not installed")
    mesh = open3d.io.read_triangle_mesh(str(meshes / name))
    want = one(meshes / name)
    assert len(mesh.triangles) == len(want.faces)
    np.testing.assert_allclose(mesh.get_max_bound(), want.vertices.max(0), atol=1e-5)


# ---------------------------------------------------------------------------------------- the same from a script


def test_the_command_renders_the_bits_of_the_function(trained, tmp_path):
    assert run("render", trained, "--path", "orbit", "--frames", 4, "--size", 48, 36, "--out", tmp_path) == 0
    field = fields.load(trained)
    cameras = orbit_around(from_json(load_config(trained)["scene"]["cameras"]), field.aabb, 4, size=(48, 36))
    for i, image in enumerate(fields.render_path(field, cameras)):
        assert np.array_equal(iio.imread(tmp_path / "rgb" / f"{i:04d}.png"), to_bytes(image.rgb))


def test_words_for_what_is_not_installed(trained, tmp_path, capsys, monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *rest):
        if name.split(".")[0] in ("pxr", "xatlas", "fast_simplification"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    for arguments, words in (
        (["a.usdc"], "pip install 'fields[usd]'"),
        (["a.glb", "--faces", "500"], "pip install 'fields[mesh]'"),
        (["a.glb", "--texture", "64", "--faces", "999999999"], "pip install 'fields[mesh]'"),
    ):
        assert run("export", trained, "--mesh", tmp_path / arguments[0], *arguments[1:], "--resolution", 24) == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mesh", "a.ply", "--texture", "256"], "cannot write .ply"),
        (["--mesh", "a.glb", "--texture", "4"], "16 to 16384"),
        (["--mesh", "a.glb", "--faces", "2"], "at least 4"),
        (["--grid", "a.vdb"], ".npz"),
        (["--grid", "a.npz", "--resolution", "1"], "2 to 1024"),
    ],
)
def test_refusals(trained, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert run("export", trained, *arguments) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())
