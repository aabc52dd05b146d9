"""What a script calls: docstrings that say what is true, points, normals, notebooks."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from fields.apps.common import demo_scene

import fields
from fields.data import load_scene


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    scene = load_scene(demo_scene(), downscale=8)
    fields.train("tensorf-vm", scene, out, iterations=200, rays=1024, voxels=(24**3, 32**3))
    return out


@pytest.mark.parametrize("name", ["fields.rendering", "fields.geometry.query", "fields.conventions"])
def test_docstrings(name, run):
    found = doctest.testmod(import_module(name), extraglobs={"fields": fields, "torch": torch, "run": run})
    assert found.attempted and not found.failed


def test_a_query_is_what_the_renderer_sees(run):
    """Colour and density asked for at the samples of a ray composite to the ray's rendering."""
    field = fields.load(run)
    origins, directions = fields.orbit(5, size=(8, 8)).image_rays(2)
    o, d = origins.reshape(-1, 3), directions.reshape(-1, 3)
    t0, t1, rays, x, _ = field.march(o, d)
    seen = fields.query(field, field.denormalise(x), d[rays])
    optical = seen.density * (t1 - t0)
    want = field.render_rays(o, d, torch.zeros(3))
    for ray in range(0, 64, 7):
        mine = rays == ray
        through = torch.exp(-torch.cat([torch.zeros(1), optical[mine].cumsum(0)]))
        weights = through[:-1] - through[1:]
        # The renderer leaves out samples that add less than a thousandth.
        torch.testing.assert_close(weights @ seen.rgb[mine], want.rgb[ray], rtol=0, atol=0.02)
        torch.testing.assert_close(weights.sum(), want.opacity[ray], rtol=0, atol=1e-3)


def test_what_is_not_there_is_empty(run):
    field = fields.load(run)
    far = fields.query(field, torch.full((3, 3), 50.0))
    assert (far.density == 0).all() and (far.normal == 0).all() and far.rgb.isfinite().all()
    assert fields.query(field, torch.empty(0, 3)).density.shape == (0,)


def test_normals_are_rendered_when_asked_for(run):
    field, camera = fields.load(run), fields.orbit(5, size=(24, 18))
    plain, image = fields.render(field, camera), fields.render(field, camera, normal=True)
    assert plain.normal is None and torch.equal(plain.rgb, image.rgb)
    hit = image.opacity > 0.9
    assert image.normal.shape == (18, 24, 3)
    torch.testing.assert_close(image.normal[hit].norm(dim=-1), torch.ones(int(hit.sum())))
    _, directions = camera.image_rays(0)
    assert (image.normal[hit] * directions[hit]).sum(-1).mean() < -0.3  # towards who looks


def test_a_notebook_shows_the_picture(run):
    import imageio.v3 as iio

    image = fields.render(fields.load(run), fields.orbit(5, size=(24, 18)))
    shown = iio.imread(image._repr_png_(), extension=".png")
    assert shown.shape == (18, 24, 3)
    assert abs(torch.from_numpy(shown) / 255 - image.rgb).max() <= 0.5 / 255 + 1e-6


def test_the_example_of_the_readme(run, tmp_path, monkeypatch):
    readme = Path(__file__).parents[1] / "README.md"
    if not readme.exists():
        pytest.skip("the README is not beside the tests")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "strivec-demo").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(re.search(r"```python\n(.*?)```", readme.read_text(), re.S)[1], found)
    assert found["image"].rgb.shape == (360, 480, 3) and found["image"]._repr_png_().startswith(b"\x89PNG")
