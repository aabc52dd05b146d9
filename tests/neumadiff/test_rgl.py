import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fields.errors import DataError, ShapeError
from fields.neumadiff.angles import half_difference
from fields.neumadiff.nbrdf import read_networks
from fields.neumadiff.network import Networks
from fields.neumadiff.rgl import PRIMARIES, WAVELENGTHS, read_rgl, write_rgl
from fields.neumadiff.tensor_file import read_tensor_file, write_tensor_file
from fields.neumadiff.warp import Warp

COLOUR = torch.tensor([0.05, 0.1, 0.25])


def lambert(angles):
    return COLOUR.expand(1, len(angles), 3)


def glossy(angles):
    """A diffuse part, and a highlight a few degrees wide and four hundred times as bright, that brightens towards grazing."""
    lobe = (-(angles[:, 0].tan() / 0.05).square()).exp() * (0.5 + (1 - angles[:, 1].cos()) ** 5)
    return (COLOUR + 40 * lobe[:, None] * torch.tensor([1.0, 0.9, 0.8]))[None]


def directions(count, least=0.0):
    z, turn = torch.rand(count) * (1 - least) + least, torch.rand(count) * 2 * torch.pi
    across = (1 - z * z).sqrt()
    return torch.stack([across * turn.cos(), across * turn.sin(), z], -1)


def pairs(count, least=0.0):
    """To the light and to the eye; half of them near the highlight."""
    eye, light = directions(count, least), directions(count, least)
    near = torch.nn.functional.normalize(torch.randn(count, 3) * 0.05 + torch.tensor([0, 0, 1.0]), dim=-1)
    mirrored = 2 * (eye * near).sum(-1, keepdim=True) * near - eye
    use = (mirrored[:, 2:] > least) & (torch.rand(count, 1) < 0.5)
    return torch.where(use, mirrored, light), eye


def test_warp_goes_there_and_back():
    warp = Warp(torch.rand(2, 5, 7, dtype=torch.float64))
    side = torch.linspace(0, 1, 9, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij")[::-1], -1).view(-1, 2)
    for which, u in enumerate(warp.sample(side)):
        back = warp.invert(u.view(-1, 2), torch.full((81,), float(which), dtype=torch.float64))
        assert_close(back, grid)


def test_warp_by_hand():
    """A density of 2x: half of the square is left of √½. Where it is 2y, below."""
    rising = torch.tensor([[0.0, 2.0], [0.0, 2.0]], dtype=torch.float64)
    found = Warp(torch.stack([rising, rising.T])).sample(torch.tensor([0.5], dtype=torch.float64))
    assert_close(found[:, 0, 0], torch.tensor([[0.5**0.5, 0.5], [0.5, 0.5**0.5]], dtype=torch.float64))


def test_warp_is_mitsubas():
    mi = pytest.importorskip("mitsuba", reason="compares with Mitsuba 3: pip install mitsuba")
    mi.set_variant("scalar_rgb")
    density = torch.rand(3, 5, 7).double()
    theirs = mi.MarginalContinuous2D1(density.float().numpy(), [[0.0, 1.0, 2.0]])
    u, which = torch.rand(50, 2).double(), torch.rand(50).double() * 2
    expected = [theirs.invert(mi.ScalarPoint2f(*p), [e])[0] for p, e in zip(u.tolist(), which.tolist(), strict=True)]
    # Theirs is float32.
    assert_close(Warp(density).invert(u, which), torch.tensor(np.array(expected)).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("reflectance", [lambert, glossy])
def test_what_is_written_is_read_again(tmp_path, reflectance):
    """As near as a square of 48 places tells: in the median to a hundredth, up to 2° from the surface. Measured 0.1 % and 0.6 %."""
    write_rgl(tmp_path / "a.bsdf", reflectance, "a material")
    light, eye = pairs(4000, 0.03)
    angles = half_difference(light, eye)
    found, expected = read_rgl(tmp_path / "a.bsdf")(angles), reflectance(angles)
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert ((found - expected).abs() / expected).median() < 0.01
    assert abs((found * light[:, 2:]).sum() / (expected * light[:, 2:]).sum() - 1) < 0.02


MITSUBA = """
import json, sys
import mitsuba as mi
mi.set_variant("scalar_spectral")
bsdf = mi.load_dict({"type": "measured", "filename": sys.argv[1]})
given = json.load(sys.stdin)
context, found = mi.BSDFContext(), {"value": [], "weight": [], "again": [], "pdf": []}
si = mi.SurfaceInteraction3f()
for light, eye, wavelengths, draw in zip(given["light"], given["eye"], given["wavelengths"], given["draw"]):
    si.wi, si.wavelengths = eye, wavelengths
    found["value"].append(list(bsdf.eval(context, si, light)))
    drawn, weight = bsdf.sample(context, si, 0.5, draw)
    found["weight"].append(list(weight))
    found["again"].append(list(bsdf.eval(context, si, drawn.wo)))
    found["pdf"].append([drawn.pdf, bsdf.pdf(context, si, drawn.wo)])
json.dump(found, sys.stdout)
"""


def seen_by_mitsuba(file, light, eye):
    """What Mitsuba's plug-in for such files says, in a process of its own: at four of the wavelengths for each pair of directions."""
    if importlib.util.find_spec("mitsuba") is None:
        pytest.skip("renders the file with Mitsuba 3: pip install mitsuba")
    picked = torch.randint(len(WAVELENGTHS), (len(light), 4))
    given = {"light": light.tolist(), "eye": eye.tolist(), "draw": torch.rand(len(light), 2).tolist(),
             "wavelengths": torch.tensor(WAVELENGTHS)[picked].tolist()}  # fmt: skip
    answer = subprocess.run([sys.executable, "-c", MITSUBA, str(file)], input=json.dumps(given), capture_output=True, text=True)  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return picked, {name: torch.tensor(values) for name, values in json.loads(answer.stdout).items()}


@pytest.mark.parametrize("name", ["lambert", "glossy", "red-plastic", "nickel"])
def test_mitsuba_sees_the_reflectance(tmp_path, request, name):
    """Half of the pairs near the highlight. Measured medians, relative: 0.1, 0.4, 0.7 and 0.5 %; of what light is seen altogether, 0.1 to 2 %."""
    if name in ("lambert", "glossy"):
        reflectance = {"lambert": lambert, "glossy": glossy}[name]
    else:
        file = request.getfixturevalue("data_dir") / "brdf/nbrdf_weights.npz"
        if not file.exists():
            pytest.skip("FIELDS_DATA has no brdf/nbrdf_weights.npz")
        networks, names = read_networks(file)
        reflectance = networks[names.index(name)]
    write_rgl(tmp_path / "a.bsdf", reflectance, name)
    light, eye = pairs(1500, 0.03)
    picked, found = seen_by_mitsuba(tmp_path / "a.bsdf", light, eye)
    spectra = reflectance(half_difference(light, eye))[0] @ torch.tensor(PRIMARIES)
    expected = spectra.gather(1, picked) * light[:, 2:]
    assert ((found["value"] - expected).abs() / expected.clamp(min=1e-9)).median() < 0.02
    assert abs(found["value"].sum() / expected.sum() - 1) < 0.03
    # What is drawn is drawn as often as said, and weighs accordingly.
    drawn = found["weight"].sum(1) > 0
    assert drawn.float().mean() > 0.8
    drawn_pdf, pdf = found["pdf"][drawn].T
    assert ((drawn_pdf - pdf).abs() < 0.02 * pdf).float().mean() > 0.95
    weight = found["again"][drawn] / pdf[:, None]
    assert ((found["weight"][drawn] - weight).abs() < 0.02 * weight).float().mean() > 0.95


def test_primaries_are_seen_as_red_green_and_blue():
    """Under D65 by the standard observer; written with three decimals."""
    mi = pytest.importorskip("mitsuba", reason="knows the standard observer: pip install mitsuba")
    mi.set_variant("scalar_spectral")
    assert_close(torch.tensor(PRIMARIES).sum(0), torch.ones(len(WAVELENGTHS)), atol=1.1e-3, rtol=0)
    nm = np.arange(360, 831.0)
    xyz = np.array([list(mi.cie1931_xyz(w)) for w in nm]) * np.array([[mi.cie_d65(w)] for w in nm])
    rgb_of_xyz = np.array([[3.240479, -1.53715, -0.498535], [-0.969256, 1.875991, 0.041556], [0.055648, -0.204043, 1.057311]])  # fmt: skip
    seen = np.array([np.interp(nm, WAVELENGTHS, p) @ xyz for p in PRIMARIES]) @ rgb_of_xyz.T / xyz[:, 1].sum()
    assert_close(torch.tensor(seen), torch.eye(3).double(), atol=5e-4, rtol=0)


def test_black_is_written_too(tmp_path):
    write_rgl(tmp_path / "a.bsdf", lambda angles: torch.zeros(1, len(angles), 3))
    assert not read_rgl(tmp_path / "a.bsdf")(torch.rand(20, 3)).any()
    assert all(np.isfinite(array).all() for array in read_tensor_file(tmp_path / "a.bsdf").values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rgb": None}, "no colours"),
        ({"vndf": None}, "vndf is missing"),
        ({"ndf": np.full((2, 2), np.nan)}, "ndf is missing or damaged"),
        ({"phi_i": np.zeros(8)}, "anisotropic"),
        ({"theta_i": np.zeros(24)}, "do not ascend"),
        ({"theta_i": np.zeros(23)}, "do not fit"),
        ({"vndf": np.zeros((1, 24, 8, 8))}, "not positive"),
        ({"rgb": np.zeros((1, 24, 4, 8, 8))}, "do not fit"),
        ({"sigma": np.zeros((2, 2))}, "not positive"),
    ],
)  # fmt: skip
def test_damaged_files_get_one_line(tmp_path, change, message):
    file = tmp_path / "a.bsdf"
    write_rgl(file, lambert)
    arrays = {**read_tensor_file(file), **change}
    write_tensor_file(file, {name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=message) as error:
        read_rgl(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ShapeError, match="one material"):
        write_rgl(tmp_path / "a.bsdf", Networks(torch.zeros(2, 675)))
    with pytest.raises(DataError, match="finite"):
        write_rgl(tmp_path / "a.bsdf", lambda angles: torch.full((1, len(angles), 3), torch.nan))
    assert not list(tmp_path.iterdir())
