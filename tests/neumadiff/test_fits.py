import math

import pytest
import torch
from torch.testing import assert_close

from fields.errors import DataError
from fields.neumadiff.angles import cosines, directions, half_difference
from fields.neumadiff.fits import read_fits
from fields.neumadiff.nbrdf import read_networks

COLOUR = "[0.1, 0.2, 0.3]"
MODELS = {
    "Bagher": f"albedo = {COLOUR}, alpha = [0.01, 0.02, 0.03], p = [0.4, 0.5, 0.6], eta = [[1.1, 0.9, 0.8], [0.1, 0.2, 0.3]], "
    "K = [40, 20, 15], Lambda = [2.6, 2.9, 2.7], c = [1e-07, 1e-07, 5e-08], k = [47.7, 36.2, 31.6], theta0 = [0.2, 0.06, -0.06]",
    "LowAshikhminShirley": f"albedo = {COLOUR}, sharpness = 300.0, fresnelReflectance = 1.5",
    "LowCookTorrance": f"albedo = {COLOUR}, roughness = 0.1, eta = 1.5",
    "LowMicrofacetFit": f"A = {COLOUR}, B = 500.0, C = 1.2, eta = 1.5",
    "LowSmooth": f"A = {COLOUR}, B = 500.0, C = 1.2, eta = 1.5",
    "NganAshikhminShirley": f"albedo = {COLOUR}, fresnelReflectance = 0.05, sharpness = 300.0",
    "NganBlinnPhong": f"albedo = {COLOUR}, sharpness = 300.0",
    "NganCookTorrance": f"albedo = {COLOUR}, eta = 0.05, roughness = 0.1",
    "NganLafortune": f"albedo = {COLOUR}, Cxy = -0.577, Cz = 0.577, sharpness = 75.0",
    "NganWard": f"albedo = {COLOUR}, roughness = 0.1",
    "NganWardDuer": f"albedo = {COLOUR}, roughness = 0.1",
}  # fmt: skip


def fits(tmp_path, model, parameters, diffuse="[0.0, 0.0, 0.0]", names=("a",)):
    file = tmp_path / "some.fit"
    line = f"= Aggregate(Lambertian(albedo = {diffuse}), {model}({parameters}))"
    file.write_text("# where they come from\n" + "".join(f"{name} {line}\n" for name in names))
    return read_fits(file)


def above(count):
    angles = torch.rand(count, 3) * torch.tensor([torch.pi / 2, torch.pi / 2, 2 * torch.pi])
    light, eye = cosines(angles)
    return angles[(light > 0.01) & (eye > 0.01)]


@pytest.mark.parametrize("model", MODELS)
def test_light_and_eye_may_change_places(tmp_path, model):
    """Where numbers are equal up to rounding of angles in float32; and every model's is finite, not negative, and differs between materials that differ."""
    fit = fits(tmp_path, model, MODELS[model], names=("a", "b"))
    angles = above(500)
    light, eye = directions(angles)
    found = fit(angles)
    assert found.shape == (len(fit), len(angles), 3) == (2, len(angles), 3) and fit.names == ["a", "b"]
    assert_close(found, fit(half_difference(eye, light)), rtol=2e-3, atol=1e-6)
    assert found.isfinite().all() and (found >= 0).all() and found.max() > 0


def test_by_hand(tmp_path):
    """At the mirror's angle, where lobes are at their tops. Tables of 2005 leave out that MERL's channels have factors of 1, 1.15 and 1.66."""
    angles = torch.tensor([[0.0, math.acos(0.5), 0.0]])
    colour, units = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1, 1.15, 1.66])

    def top(model):
        return fits(tmp_path, model, MODELS[model])(angles)[0, 0]

    assert_close(top("NganWard"), units * colour / (4 * math.pi * 0.01 * 0.5), rtol=1e-5, atol=0)
    assert_close(top("NganWardDuer"), units * colour / (4 * math.pi * 0.01 * 0.25), rtol=1e-5, atol=0)
    assert_close(top("NganBlinnPhong"), units * colour * 302 / (2 * math.pi), rtol=1e-5, atol=0)
    assert_close(top("NganLafortune"), units * colour * 77 / (2 * math.pi), rtol=1e-4, atol=0)
    schlick = 0.05 + 0.95 / 32
    assert_close(top("NganAshikhminShirley"), units * colour * 301 / (8 * math.pi) * schlick / 0.25, rtol=1e-5, atol=0)
    assert_close(top("NganCookTorrance"), units * colour * 100 / math.pi**2 * schlick / 0.25, rtol=1e-5, atol=0)
    # Fresnel's equations for glass at 60°, both polarizations.
    inside = math.cos(math.asin(math.sin(math.acos(0.5)) / 1.5))
    s, p = (0.5 - 1.5 * inside) / (0.5 + 1.5 * inside), (1.5 * 0.5 - inside) / (1.5 * 0.5 + inside)
    glass = (s * s + p * p) / 2
    assert_close(top("LowCookTorrance"), colour * 100 / math.pi * glass / 0.25, rtol=1e-5, atol=0)
    assert_close(top("LowAshikhminShirley"), colour * 301 / (8 * math.pi) * glass / 0.25, rtol=1e-5, atol=0)
    assert_close(top("LowMicrofacetFit"), colour / math.pi * glass / 0.25, rtol=1e-5, atol=0)
    assert_close(top("LowSmooth"), colour * glass, rtol=1e-5, atol=0)


def test_lambert_below_and_above_the_horizon(tmp_path):
    fit = fits(tmp_path, "LowSmooth", "A = [0, 0, 0], B = 1.0, C = 1.0, eta = 1.5", "[0.1, 0.5, 1.0]")
    found = fit(torch.tensor([[0.2, 0.3, 0.4], [1.5, 1.5, 0.0]]))
    assert_close(found[0], torch.tensor([[0.1, 0.5, 1.0], [0.0, 0.0, 0.0]]) / math.pi)


@pytest.mark.parametrize(
    ("table", "error"),
    [("bagher_sgd", 0.029), ("low_ashikhminshirley_E1", 0.030), ("low_ashikhminshirley_E2", 0.030), ("low_cooktorrance_E1", 0.032),
     ("low_cooktorrance_E2", 0.032), ("low_lowmicrofacet_E2", 0.024), ("low_lowsmooth_E2", 0.032), ("ngan_ashikhminshirley", 0.039),
     ("ngan_blinnphong", 0.063), ("ngan_cooktorrance", 0.047), ("ngan_lafortune", 0.053), ("ngan_ward", 0.069), ("ngan_wardduer", 0.058)],
)  # fmt: skip
def test_fits_are_near_the_networks_of_the_same_materials(data_dir, table, error):
    """Median over materials of the mean difference of log(1 + cosine · reflectance), half of the half vectors crowded at the highlight. The errors are
    measured, and the models' own, not those of how they are written down: across the highlight, SGD's median ratio to the networks is 0.92 to 1.06."""
    file = data_dir / f"brdf/fits/{table}.fit"
    if not file.exists():
        pytest.skip("FIELDS_DATA has no brdf/fits")
    fit = read_fits(file)
    networks, names = read_networks(data_dir / "brdf/nbrdf_weights.npz")
    r = torch.rand(6000, 3)
    r[::2, 0] = r[::2, 0].square()
    angles = r * torch.tensor([torch.pi / 2, torch.pi / 2, 2 * torch.pi])
    light, eye = cosines(angles)
    angles, light = angles[(light > 0.05) & (eye > 0.05)], light[(light > 0.05) & (eye > 0.05), None]
    theirs = networks[[names.index(name) for name in fit.names]](angles)
    difference = ((fit(angles) * light).log1p() - (theirs * light).log1p()).abs().mean((1, 2))
    assert difference.median() < 1.1 * error + 0.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steel = __import__('os').getcwd()", "line 1 is not a fit"),
        (f"steel = Aggregate(Lambertian(albedo = {COLOUR}), NganWard(albedo = {COLOUR}, roughness = open('x')))", "line 1"),
        (f"steel = Aggregate(Lambertian(albedo = {COLOUR}), NganWard(albedo = {COLOUR}, roughness = NaN))", "line 1"),
        (f"steel = Aggregate(Lambertian(albedo = {COLOUR}), NganWard(albedo = {COLOUR}))", "roughness"),
        (f"steel = Aggregate(Lambertian(albedo = {COLOUR}), Unknown(albedo = {COLOUR}))", "Unknown"),
        (f"steel = Aggregate(Lambertian(albedo = [1, 2]), NganWard(albedo = {COLOUR}, roughness = 0.1))", "line 1"),
        ("# nothing", "fits of nothing"),
    ],
)  # fmt: skip
def test_damaged_tables_get_one_line(tmp_path, text, message):
    file = tmp_path / "steel.fit"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_fits(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_fits(tmp_path / "none.fit")
