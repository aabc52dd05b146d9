import itertools
import struct

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fields.errors import DataError, ShapeError
from fields.neumadiff.merl import Table, bin_angles, read_merl, valid_bins, write_merl
from fields.neumadiff.network import DIALECTS, MERL_UNITS, Networks

RIGHT = torch.pi / 2


def random_table(phi_bins=180, holes=0.3):
    values = torch.rand(3, 90, 90, phi_bins, dtype=torch.float64) * 100
    return Table(torch.where(torch.rand(90, 90, phi_bins) < holes, -1.0, values))


def random_angles(count):
    return torch.rand(count, 3) * torch.tensor([RIGHT, RIGHT, 2 * torch.pi])


@pytest.mark.parametrize("phi_bins", [180, 360])
def test_what_was_read_is_written_again_byte_by_byte(tmp_path, phi_bins):
    body = np.random.default_rng(0).standard_normal((3, 90, 90, phi_bins)).astype("<f8")
    original = struct.pack("<3i", 90, 90, phi_bins) + body.tobytes()
    (tmp_path / "a.binary").write_bytes(original)
    write_merl(tmp_path / "b.binary", read_merl(tmp_path / "a.binary"))
    assert (tmp_path / "b.binary").read_bytes() == original


def test_convention_where_a_value_is_in_a_file(tmp_path):
    """Bin (θh, θd, φd) of green is value 1458000 + φd + 180 (θd + 90 θh)."""
    values = torch.zeros(3, 90, 90, 180, dtype=torch.float64)
    values[1, 3, 20, 77] = 5
    write_merl(tmp_path / "a.binary", Table(values))
    stored = np.fromfile(tmp_path / "a.binary", "<f8", offset=12)
    assert np.flatnonzero(stored).tolist() == [1_458_000 + 77 + 180 * (20 + 90 * 3)]


def test_bins_above_the_horizon():
    assert valid_bins().sum() == 1_111_432
    full = valid_bins(360)
    assert torch.equal(full[..., :180], valid_bins())
    # The other half is of light and eye in each other's places. Where one of them is on the horizon, rounding decides: no more than one in a thousand are.
    assert (full[..., 180:] != valid_bins()).sum() < 1000


@pytest.mark.parametrize("phi_bins", [180, 360])
def test_nearest_is_the_bin_that_angles_are_in(phi_bins):
    """By a loop of scalars, after the database's formulae."""
    table, angles = random_table(phi_bins), random_angles(200).double()
    found = table.nearest(angles)[0]
    for (theta_h, theta_d, phi_d), value in zip(angles.tolist(), found, strict=True):
        phi_d = phi_d % np.pi if phi_bins == 180 else phi_d
        where = min(int(90 * np.sqrt(theta_h / RIGHT)), 89), min(int(theta_d / RIGHT * 90), 89), int(phi_d / np.pi * 180)  # fmt: skip
        assert_close(value, table.values[:, *where] * torch.tensor(MERL_UNITS, dtype=torch.float64))


@pytest.mark.parametrize("phi_bins", [180, 360])
def test_interpolation_leaves_out_what_was_not_measured(phi_bins):
    """By a loop over corners. Tolerance: positions in float32, where a bin number of 360 is known to 3e-5, and values change by their size from bin to bin."""
    table, angles = random_table(phi_bins), random_angles(300)
    found = table(angles)[0]
    angles = angles.double()
    bins = torch.stack([90 * (angles[:, 0] / RIGHT).sqrt(), angles[:, 1] / RIGHT * 90, angles[:, 2] / np.pi * 180], 1)
    bins[:, :2] = bins[:, :2].clamp(max=89)
    for place, value in zip(bins.numpy(), found, strict=True):
        low = np.floor(place).astype(int)
        total, weights = 0.0, 0.0
        for corner in itertools.product((0, 1), repeat=3):
            weight = np.prod([f if c else 1 - f for c, f in zip(corner, place - low, strict=True)])
            h, d, p = low + corner
            bin_value = table.values[:, min(h, 89), min(d, 89), p % phi_bins]
            if (bin_value >= 0).all():
                total, weights = total + weight * bin_value, weights + weight
        if weights > 0.01:
            assert_close(value.double(), total / weights * torch.tensor(MERL_UNITS).double(), rtol=1e-2, atol=1e-3)


def test_interpolation_is_linear_in_bins():
    """A table that grows by one from bin to bin of θh: halfway between the lower edges of bins 2 and 3, it is 2.5, though that is not halfway in radians."""
    values = torch.arange(90, dtype=torch.float64)[None, :, None, None].expand(3, 90, 90, 180)
    angle = (2.5 / 90) ** 2 * RIGHT
    found = Table(values)(torch.tensor([[angle, 0.3, 1.0], [RIGHT, 0.3, 1.0]]))
    assert_close(found[0], torch.tensor([[2.5], [89.0]]) * torch.tensor(MERL_UNITS), rtol=1e-5, atol=0)


def test_phi_goes_round():
    """Halfway from the last bin to the first; and light and eye may change places."""
    values = torch.zeros(3, 90, 90, 180, dtype=torch.float64)
    values[..., 0] = 1500
    found = Table(values)(torch.tensor([[0.5, 0.5, turn] for turn in (179.5, 359.5, -0.5)]).deg2rad())
    assert_close(found[0, :, 0], torch.full((3,), 0.5), rtol=1e-4, atol=0)


def test_where_nothing_near_was_measured_the_last_that_was_holds_on():
    values = torch.full((3, 90, 90, 180), -1.0, dtype=torch.float64)
    values[:, :, :40] = 1500
    table = Table(values)
    angles = torch.tensor([[0.2, 39.5, 1.0], [0.2, 80.0, 1.0]]) * torch.tensor([1, RIGHT / 90, 1])
    assert_close(table(angles)[0, :, 0], torch.ones(2))
    assert (table.nearest(angles)[0, 1] < 0).all()


def test_a_table_of_a_reflectance_says_what_it_says():
    """In its bins; in between, as near as a bin is small to what changes over an angle of one."""

    def reflectance(angles):
        smooth = 1 + angles[:, 0].cos() * angles[:, 1].sin() * angles[:, 2].cos().square()
        return torch.stack([smooth, 2 * smooth, 3 * smooth], -1)[None]

    for phi_bins in (180, 360):
        table = Table.of(reflectance, phi_bins)
        assert torch.equal(table.valid, valid_bins(phi_bins))
        middles = (bin_angles(phi_bins)[20:22, 30:32] + torch.tensor([0.001, 0.01, 0.01])).view(-1, 3).float()
        edges = bin_angles(phi_bins)[20:22, 30:32].reshape(-1, 3).float()
        assert_close(table.nearest(middles), reflectance(edges))
        assert_close(table(edges), reflectance(edges), rtol=1e-4, atol=0)
        angles = random_angles(1000) * torch.tensor([0.4, 0.4, 1])
        assert_close(table(angles), reflectance(angles), rtol=1e-3, atol=0)
    assert Table.of(reflectance, fill_invalid=False).valid.all()


def test_statistics_by_hand():
    values = torch.full((3, 90, 90, 180), -1.0, dtype=torch.float64)
    values[0, :45], values[1:, :45] = 1500, 0
    mean, largest, deviation = Table(values).statistics()
    expected = [torch.tensor([v, 0, 0], dtype=torch.float64) for v in (0.5, 1, 0.5)]
    assert_close([mean, largest, deviation], expected)


@pytest.mark.parametrize(("name", "mean"), [("nickel", 7.96), ("white-fabric", 0.144)])
def test_statistics_of_materials(data_dir, name, mean):
    """Red means of published networks over all bins, those below the horizon too; given to three digits."""
    file = data_dir / "brdf/nbrdf_weights.npz"
    if not file.exists():
        pytest.skip("FIELDS_DATA has no brdf/nbrdf_weights.npz")
    with np.load(file, allow_pickle=False) as stored:
        weights = torch.from_numpy(stored["weights"][stored["name"] == name])
    table = Table.of(Networks(weights, DIALECTS["sztrajman"]), fill_invalid=False)
    assert_close(table.statistics()[0][0].item(), mean, rtol=5e-3, atol=0)


def damaged(kind):
    header, body = [90, 90, 180], np.ones((3, 90, 90, 180))
    if kind == "huge":
        return struct.pack("<3i", 1000, 1000, 1000) + b"\0" * 100
    if kind == "negative size":
        return struct.pack("<3i", -90, -90, 180)
    if kind == "nan":
        body[1, 2, 3, 4] = np.nan
    if kind == "infinite":
        body[2, 0, 0, 0] = np.inf
    if kind == "nothing":
        body[1] = -1
    whole = struct.pack("<3i", *header) + body.tobytes()
    return {"empty": b"", "cut": whole[:-8], "longer": whole + b"\0"}.get(kind, whole)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("huge", "header is"), ("negative size", "header is"), ("empty", "header is"), ("cut", "bytes"), ("longer", "bytes"),
     ("nan", "finite"), ("infinite", "finite"), ("nothing", "no bin")],
)  # fmt: skip
def test_damaged_files_get_one_line(tmp_path, kind, message):
    file = tmp_path / "steel.binary"
    file.write_bytes(damaged(kind))
    with pytest.raises(DataError, match=message) as error:
        read_merl(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_a_table(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_merl(tmp_path / "none.binary")
    with pytest.raises(ShapeError, match="90, 90"):
        Table(torch.zeros(3, 90, 90, 90))
    with pytest.raises(ShapeError, match="one material"):
        Table.of(lambda angles: torch.zeros(2, len(angles), 3))
    with pytest.raises(DataError, match="finite"):
        write_merl(tmp_path / "a.binary", Table.of(lambda angles: torch.full((1, len(angles), 3), torch.nan)))
    assert not (tmp_path / "a.binary").exists()
