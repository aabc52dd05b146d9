"""The BSDF in Mitsuba says what the network says, and draws as its density says."""

import math

import numpy as np
import pytest
import torch
from fields.benchmarks import materials_mitsuba
from fields.benchmarks.translucent.variant import choose_variant

from fields.errors import DataError
from fields.neumadiff.angles import half_difference
from fields.neumadiff.energy import Conserving, albedo, look_up
from fields.neumadiff.importance import Sampler
from fields.neumadiff.mitsuba import register
from fields.neumadiff.network import DIALECTS, Networks
from fields.relighting.environment import Environment

mi = pytest.importorskip("mitsuba", reason="the BSDF is for Mitsuba 3: pip install mitsuba")
dr = pytest.importorskip("drjit")

FOUND = []


@pytest.fixture
def fast():
    """LLVM, where it works: each test sets the variant, for others set theirs."""
    if not FOUND:
        FOUND.append(choose_variant())
    if FOUND[0] == "scalar_rgb":
        pytest.skip("many directions at once need LLVM, and none works here")
    mi.set_variant(FOUND[0])
    register()


@pytest.fixture
def scalar():
    mi.set_variant("scalar_rgb")
    register()


def unruly(dialect="reciprocal", seed=0):
    """Random networks that reflect more than they get; m3ashy's units are a thousand times smaller."""
    weights = torch.randn(1, 675, generator=torch.Generator().manual_seed(seed)) * 0.3
    weights[:, 672:] += 1 + 7 * (dialect == "m3ashy")
    return Networks(weights, DIALECTS[dialect])


def measured(data_dir):
    with np.load(data_dir / "brdf" / "nbrdf_weights.npz") as file:
        weights, names = torch.from_numpy(file["weights"]), file["name"].tolist()
    chosen = np.random.default_rng(0).permutation(len(names))[:20]
    return [(names[i], Networks(weights[[i]], DIALECTS["sztrajman"])) for i in chosen]


def record(network, **more):
    weights = mi.TensorXf(network.weights[0].numpy())
    return {"type": "nbrdf", "weights": weights, "dialect": network.dialect.name} | more


def pairs(count):
    """To the light and to the eye, (N, 3), above the surface; a third of them mirror each other within a degree."""
    random = torch.Generator().manual_seed(3)
    light, eye = torch.nn.functional.normalize(torch.randn(2, count, 3, generator=random), dim=-1)
    near = torch.randn(count // 3, 3, generator=random) * 0.01
    light[: count // 3] = torch.nn.functional.normalize(eye[: count // 3] * torch.tensor([-1.0, -1, 1]) + near, dim=-1)
    light[:, 2], eye[:, 2] = light[:, 2].abs(), eye[:, 2].abs()
    return light, eye


def vectors(directions):
    return mi.Vector3f(directions.T.numpy())


def interaction(eye):
    si = dr.zeros(mi.SurfaceInteraction3f, len(eye))
    si.wi = vectors(eye)
    return si


def check_values(network, conserving):
    """Tolerance: single precision, in sums that exp then makes up to a thousand times larger."""
    bsdf = mi.load_dict(record(network, conserving=conserving))
    reflectance = Conserving.of(network) if conserving else network
    light, eye = pairs(3000)
    with torch.no_grad():
        expected = (reflectance(half_difference(light, eye))[0] * light[:, 2:]).numpy()
    found = np.array(bsdf.eval(mi.BSDFContext(), interaction(eye), vectors(light))).T
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    density = np.array(bsdf.pdf(mi.BSDFContext(), interaction(eye), vectors(light)))
    # Where a half vector is on the edge of a bin, rounding says on which side; there are few.
    agree = np.isclose(density, Sampler.of(reflectance).pdf(light, eye).numpy(), rtol=1e-3)
    assert agree.mean() > 0.998
    both = bsdf.eval_pdf(mi.BSDFContext(), interaction(eye), vectors(light))
    assert np.array_equal(np.array(both[0]).T, found) and np.array_equal(np.array(both[1]), density)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("conserving", [True, False])
def test_says_what_networks_say(fast, dialect, conserving):
    check_values(unruly(dialect), conserving)


def test_says_what_measured_networks_say(fast, data_dir):
    for _, network in measured(data_dir)[:5]:
        check_values(network, True)


# ------------------------------------------------------------------------------------ χ²


class AroundMirror:
    """Directions by their turn about the mirrored eye, and how far from it: in rings that grow from 0.01° on. Not of even areas."""

    growth = 9.0

    def __init__(self, eye):
        self.frame = mi.Frame3f(mi.Vector3f(-eye[0], -eye[1], eye[2]))

    def bounds(self):
        return mi.ScalarBoundingBox2f([-math.pi, 0], [math.pi, 1])

    def aspect(self):
        return 3

    def map_forward(self, p):
        alpha = math.pi / math.expm1(self.growth) * (dr.exp(self.growth * p.y) - 1)
        sine, cosine = dr.sincos(alpha)
        return self.frame.to_world(mi.Vector3f(sine * dr.cos(p.x), sine * dr.sin(p.x), cosine))

    def map_backward(self, directions):
        local = self.frame.to_local(directions)
        alpha = dr.atan2(dr.sqrt(local.x * local.x + local.y * local.y), local.z)
        y = dr.log(1 + alpha * (math.expm1(self.growth) / math.pi)) / self.growth
        return mi.Vector2f(dr.atan2(local.y, local.x), y)

    def area(self, directions):
        """On the sphere, of a unit of the plane."""
        y = self.map_backward(directions).y
        slope = math.pi / math.expm1(self.growth) * self.growth * dr.exp(self.growth * y)
        return slope * dr.sin(math.pi / math.expm1(self.growth) * (dr.exp(self.growth * y) - 1))


def check_draws(network, tests):
    """Mitsuba's own adapter would leave out draws that weigh nothing, and there are networks that are black in some directions."""
    from mitsuba.chi2 import ChiSquareTest

    eye, bsdf, context = [0.48, 0.36, 0.8], mi.load_dict(record(network)), mi.BSDFContext()
    domain, si = AroundMirror(eye), dr.zeros(mi.SurfaceInteraction3f)
    si.wi = mi.Vector3f(eye)

    def sample(u):
        drawn, _ = bsdf.sample(context, si, u.x, mi.Point2f(u.y, u.z))
        return drawn.wo, dr.select(drawn.pdf > 0, mi.Float(1), 0)

    def density(wo):
        return bsdf.pdf(context, si, wo) * domain.area(wo)

    test = ChiSquareTest(domain, sample, density, sample_dim=3, sample_count=200_000, res=48, ires=16)
    assert test.run(significance_level=0.01, test_count=tests, quiet=True), test.messages
    # Nothing is drawn below the surface.
    assert abs(test.pdf_sum[0] - 1) < 5e-3 and test.histogram_sum[0] > 0.999


def test_draws_of_measured_networks(fast, data_dir):
    for _, network in measured(data_dir):
        check_draws(network, 25)


def test_draws_of_random_networks(fast):
    for seed in range(5):
        check_draws(unruly(seed=seed), 25)


# ------------------------------------------------------------------------------------ in scenes


def write(path, network):
    with path.open("wb") as file:
        names = [f"material {i}" for i in range(len(network))]
        np.savez(file, weights=network.weights.numpy(), dialect=network.dialect.name, names=names)


def test_from_xml(scalar, tmp_path):
    """Both materials of a file, in the variant that is always there, beside the file that names it by a relative path."""
    two = Networks(torch.cat([unruly(seed=1).weights, unruly(seed=2).weights]))
    write(tmp_path / "two.nbrdf.npz", two)
    plugin = (
        '<bsdf type="nbrdf"><string name="filename" value="two.nbrdf.npz"/><integer name="index" value="{}"/></bsdf>'
    )
    light, eye = torch.tensor([[0.6, 0.0, 0.8]]), torch.tensor([[0.0, 0.6, 0.8]])
    si = dr.zeros(mi.SurfaceInteraction3f)
    si.wi = mi.Vector3f(eye[0].tolist())
    for index in (0, 1):
        (tmp_path / "scene.xml").write_text(f'<scene version="3.0.0"><shape type="sphere">{plugin.format(index)}</shape></scene>')  # fmt: skip
        (bsdf,) = (shape.bsdf() for shape in mi.load_file(str(tmp_path / "scene.xml")).shapes())
        expected = Conserving.of(two[index])(half_difference(light, eye))[0, 0] * light[0, 2]
        found = bsdf.eval(mi.BSDFContext(), si, mi.Vector3f(light[0].tolist()))
        assert list(found) == pytest.approx(expected.tolist(), rel=1e-4)
        drawn, weight = bsdf.sample(mi.BSDFContext(), si, 0.9, mi.Point2f(0.2, 0.7))
        assert drawn.pdf == pytest.approx(bsdf.pdf(mi.BSDFContext(), si, drawn.wo), rel=1e-4)
        assert list(weight * drawn.pdf) == pytest.approx(list(bsdf.eval(mi.BSDFContext(), si, drawn.wo)), rel=1e-4)


def test_one_side_and_no_other_lobe(scalar):
    bsdf = mi.load_dict(record(unruly()))
    si = dr.zeros(mi.SurfaceInteraction3f)
    up, down = mi.Vector3f(0.6, 0, 0.8), mi.Vector3f(0.6, 0, -0.8)
    si.wi = up
    assert list(bsdf.eval(mi.BSDFContext(), si, down)) == [0, 0, 0] and bsdf.pdf(mi.BSDFContext(), si, down) == 0
    transmission = mi.BSDFContext()
    transmission.type_mask = mi.BSDFFlags.DeltaTransmission
    assert list(bsdf.eval(transmission, si, up)) == [0, 0, 0] and bsdf.pdf(transmission, si, up) == 0
    si.wi = down
    assert list(bsdf.eval(mi.BSDFContext(), si, up)) == [0, 0, 0]
    assert list(bsdf.sample(mi.BSDFContext(), si, 0.9, mi.Point2f(0.2, 0.7))[1]) == [0, 0, 0]


def test_light_and_eye_change_places_with_the_mode(scalar):
    network = unruly("sztrajman")
    bsdf = mi.load_dict(record(network, conserving=False))
    one, other = torch.tensor([[0.6, 0.0, 0.8]]), torch.tensor([[0.0, 0.28, 0.96]])
    si = dr.zeros(mi.SurfaceInteraction3f)
    si.wi = mi.Vector3f(one[0].tolist())
    for mode, light, eye in ((mi.TransportMode.Radiance, other, one), (mi.TransportMode.Importance, one, other)):
        found = bsdf.eval(mi.BSDFContext(mode), si, mi.Vector3f(other[0].tolist()))
        expected = network(half_difference(light, eye))[0, 0] * 0.96
        assert list(found) == pytest.approx(expected.tolist(), rel=1e-4)


def test_sphere_in_white_light_shows_the_albedo(fast):
    """Ring by ring. Tolerance: a pixel in 24 is 2° of the sphere in the middle; noise of 256 samples of spread below one, over thirty pixels."""
    network, size = unruly(), 24
    image = materials_mitsuba.sphere(record(network), Environment.constant((1.0, 1, 1)), size, 256)
    table = albedo(Conserving.of(network))
    at = ((torch.arange(size) + 0.5) / size * 2 - 1) * materials_mitsuba.HALF_WIDTH
    radius = torch.hypot(at[:, None], at[None, :])
    for low, high in ((0.0, 0.3), (0.3, 0.6), (0.6, 0.85)):
        ring = (radius >= low) & (radius < high)
        expected = look_up(table, (1 - radius[ring] ** 2).sqrt())[0].mean(0)
        assert image[ring.numpy()].mean(0) == pytest.approx(expected.numpy(), rel=0.02, abs=1e-4)
    assert not image[(radius > 1.15).numpy()].any()


def test_convention_sphere(scalar):
    """The eye is at +Z, x to the right and y up, in any axes of the map."""
    white = {"type": "diffuse", "reflectance": {"type": "rgb", "value": 1.0}}

    def lit_from(direction):
        return Environment.spherical_gaussians([(direction, 50.0, (10.0, 10, 10))], height=32)

    def halves(environment):
        image = materials_mitsuba.sphere(white, environment, 16, 16).mean(2)
        return image[:, 8:].mean() / image[:, :8].mean(), image[:8].mean() / image[8:].mean(), image.mean()

    right, top, front = (halves(lit_from(d)) for d in ((1, 0, 0.0), (0, 1, 0.0), (0, 0, 1.0)))
    assert right[0] > 3 and 0.8 < right[1] < 1.25 and top[1] > 3 and 0.8 < top[0] < 1.25
    assert front[2] > 1.5 * right[2] and halves(lit_from((0, 0, -1.0)))[2] < 0.1 * front[2]
    turned = halves(
        lit_from((0, 0, 1.0)).turned(90)
    )  # from the eye, counter-clockwise as seen from above: to the right
    assert turned[0] > 3


@pytest.mark.parametrize(
    ("given", "says"),
    [({}, "no material is named"), ({"filename": "two.nbrdf.npz", "index": 2}, "no material 2"), ({"weights": 674}, r"shape \(674,\)"),
     ({"weights": 675, "dialect": "latin"}, "no dialect 'latin'")],
)  # fmt: skip
def test_says_what_is_wrong(scalar, tmp_path, given, says):
    write(tmp_path / "two.nbrdf.npz", Networks(torch.zeros(2, 675)))
    if "filename" in given:
        given = given | {"filename": str(tmp_path / given["filename"])}
    if "weights" in given:
        given = given | {"weights": mi.TensorXf(np.zeros(given["weights"], np.float32))}
    with pytest.raises(Exception, match=says):
        mi.load_dict({"type": "nbrdf"} | given)


def test_colours_are_needed():
    mi.set_variant("scalar_spectral")
    with pytest.raises(DataError, match="_rgb"):
        register()
    mi.set_variant("scalar_rgb")
