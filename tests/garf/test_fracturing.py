import numpy as np
import pytest
from scipy.spatial import cKDTree

from fields.errors import DataError, ShapeError
from fields.garf.fracturing import Style, fracture, random_count, solid_of
from fields.garf.fragment import sample, shares
from fields.garf.roughness import HURST, self_affine
from fields.garf.solids import KINDS, random_solid

manifold3d = pytest.importorskip("manifold3d")


@pytest.mark.parametrize("kind", KINDS)
def test_fragments_are_closed_fill_the_solid_and_know_their_partners(kind):
    rng = np.random.default_rng(list(KINDS).index(kind))
    _, solid = random_solid(rng, kind)
    pieces = fracture(solid, 7, rng)
    assert len(pieces) == 7
    # manifold3d works in double precision; 1e-9 is far above its rounding and far below any lost sliver.
    assert sum(p.volume for p in pieces) == pytest.approx(solid.volume(), rel=1e-9)
    volumes = [p.volume for p in pieces]
    assert volumes == sorted(volumes, reverse=True) and volumes[-1] > 0.02 * solid.volume() / 7
    for i, piece in enumerate(pieces):
        edges = np.sort(piece.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all(), "an edge has one side only"
        assert i not in piece.partner and piece.partner.max() >= 0
        for j in np.unique(piece.partner[piece.partner >= 0]):
            other = pieces[j]
            mine, theirs = piece.corners[piece.partner == j].mean(1), other.corners.mean(1)
            assert np.median(cKDTree(theirs).query(mine)[0]) < 0.02  # a few triangles of the cutter


def test_broken_surface_is_twice_what_was_cut_and_the_rest_is_the_solids():
    rng = np.random.default_rng(5)
    _, solid = random_solid(rng, "stone")
    pieces = fracture(solid, 5, rng)
    whole = sum(p.areas[p.partner < 0].sum() for p in pieces)
    assert whole == pytest.approx(solid.surface_area(), rel=1e-9)
    towards = np.zeros((5, 5))
    for i, p in enumerate(pieces):
        for j in range(5):
            towards[i, j] = p.areas[p.partner == j].sum()
    # Both sides of a crack have one area. Whose triangle a break triangle faces is told by its centre, so some near where
    # three pieces meet are told wrong: a twentieth of the break at most.
    assert np.abs(towards - towards.T).sum() < 0.05 * towards.sum()


def test_cavity_of_an_eggshell_stays_inside():
    rng = np.random.default_rng(1)
    _, shell = random_solid(rng, "eggshell")
    pieces = fracture(shell, 2, rng, Style(spread=0.06))
    assert len(pieces) == 2 and sum(p.volume for p in pieces) == pytest.approx(shell.volume(), rel=1e-9)


def test_the_same_seed_breaks_the_same_way():
    one, two = (
        fracture(random_solid(np.random.default_rng(3), "bowl")[1], 4, np.random.default_rng(9)) for _ in range(2)
    )
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.vertices, b.vertices) and np.array_equal(a.faces, b.faces)


def test_rougher_styles_are_rougher():
    def relief(style: Style) -> float:
        rng = np.random.default_rng(0)
        cube = manifold3d.Manifold.cube((1.0, 1.0, 1.0), True)
        piece = fracture(cube, 2, rng, style)[0]
        points = piece.corners[piece.partner >= 0].mean(1)
        return float(np.linalg.svd(points - points.mean(0))[1][2] / np.sqrt(len(points)))

    assert relief(Style(0.003, 0.0001)) < relief(Style(0.02, 0.0001)) < relief(Style(0.02, 0.12))


def test_counts_are_mostly_small():
    counts = np.array([random_count(np.random.default_rng(i)) for i in range(4000)])
    assert counts.min() == 2 and counts.max() == 20 and np.median(counts) in (4, 5) and (counts == 2).mean() > 0.15


def test_noise_has_the_spectrum_of_fracture():
    noise = self_affine(np.random.default_rng(0), (256, 256), 2, 100)
    assert abs(noise.mean()) < 1e-12 and noise.std() == pytest.approx(1)
    power = np.abs(np.fft.fft2(noise)) ** 2
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(256, 1 / 256)] * 2, indexing="ij"))
    rings = [(4, 8), (16, 32), (64, 100)]
    level = [np.log(power[(k >= a) & (k < b)].mean()) for a, b in rings]
    middle = [np.log(np.mean(k[(k >= a) & (k < b)] ** (-2 * HURST - 2))) for a, b in rings]
    # Means over hundreds of frequencies and more, of chi-squared variables: within 15 %.
    assert np.ptp(np.array(level) - middle) < 0.3
    assert power[k > 101].max() < 1e-18 * power.max()


def test_open_and_inverted_meshes_are_refused():
    cube = manifold3d.Manifold.cube((1.0, 1.0, 1.0)).to_mesh64()
    vertices, faces = np.asarray(cube.vert_properties), np.asarray(cube.tri_verts).astype(np.int64)
    assert solid_of(vertices, faces).volume() == pytest.approx(1)
    with pytest.raises(DataError, match="closed"):
        solid_of(vertices, faces[:-1])
    with pytest.raises(DataError, match="inside out"):
        solid_of(vertices, faces[:, ::-1])


def test_samples_are_shared_by_area_and_lie_on_their_triangles():
    rng = np.random.default_rng(2)
    pieces = fracture(random_solid(rng, "vase")[1], 6, rng)
    samples = sample(pieces, 5000, rng)
    assert len(samples.points) == 5000 and (np.diff(samples.fragment) >= 0).all()
    areas = np.array([p.areas.sum() for p in pieces])
    assert np.abs(np.bincount(samples.fragment) - shares(areas, 5000, 20)).max() == 0
    for i, piece in enumerate(pieces):
        at = samples.of(i)
        off = samples.points[at] - piece.corners[samples.face[at], 0]
        assert np.abs((off * samples.normals[at]).sum(1)).max() < 1e-12
        # Stratified by area: a part of the triangles holds its share of the points to within two.
        half = np.arange(len(piece.faces)) < len(piece.faces) // 2
        assert abs(half[samples.face[at]].sum() - len(at) * piece.areas[half].sum() / areas[i]) <= 2
    with pytest.raises(ShapeError, match="20"):
        sample(pieces, 100, rng)
