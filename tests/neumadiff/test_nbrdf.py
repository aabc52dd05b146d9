import io
import json
import zipfile

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fields.errors import DataError
from fields.neumadiff.nbrdf import read_metadata, read_networks, write_networks
from fields.neumadiff.network import DIALECTS, Networks

SHAPES = ((21, 6), (21,), (21, 21), (21,), (3, 21), (3,))
BLUE = "blue-metallic-paint"


@pytest.fixture
def brdf(data_dir):
    folder = data_dir / "brdf"
    if not (folder / "nbrdf_weights.npz").exists():
        pytest.skip("FIELDS_DATA has no brdf/nbrdf_weights.npz")
    return folder


def layers(weights):
    """The six tensors, out × in, of (675,)."""
    sizes = [int(np.prod(shape)) for shape in SHAPES]
    return [part.view(shape) for part, shape in zip(weights.split(sizes), SHAPES, strict=True)]


def write_keras(path, weights, group=""):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        model = file.create_group(group) if group else file
        model.attrs["layer_names"] = [b"dense_7", b"dense_8", b"dense_10", b"lambda_1"]
        model.create_group("lambda_1").attrs["weight_names"] = np.zeros(0)
        parts = iter(layers(weights))
        for name in ("dense_7", "dense_8", "dense_10"):
            layer = model.create_group(name)
            layer.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
            layer[f"{name}/kernel:0"], layer[f"{name}/bias:0"] = next(parts).T.numpy(), next(parts).numpy()


def write_six(path, weights):
    for name, part in zip(("fc1", "b1", "fc2", "b2", "fc3", "b3"), layers(weights), strict=True):
        np.save(path.with_name(f"{path.name}_{name}.npy"), part.T.numpy())


def write_torch(path, weights):
    names = [f"fc{k}.{part}" for k in (1, 2, 3) for part in ("weight", "bias")]
    torch.save(dict(zip(names, layers(weights), strict=True)), path)


@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_written_is_read_again(tmp_path, name):
    networks = Networks(torch.randn(3, 675), DIALECTS[name])
    file, names = tmp_path / "some.nbrdf.npz", ["gold", "Räuchereiche", "red"]
    metadata = {"category": ["metal", "wood", "plastic"], "mean": [1.5, 0.25, 0.1]}
    write_networks(file, networks, names, metadata)
    found, found_names = read_networks(file)
    assert torch.equal(found.weights, networks.weights) and found.dialect is DIALECTS[name] and found_names == names
    assert read_metadata(file) == metadata


@pytest.mark.parametrize(
    ("file", "write", "dialect", "name"),
    [
        ("steel.h5", write_keras, "sztrajman", "steel"),
        ("whole.h5", lambda path, weights: write_keras(path, weights, "model_weights"), "sztrajman", "whole"),
        ("steel_b2.npy", lambda path, weights: write_six(path.with_name("steel"), weights), "sztrajman", "steel"),
        ("steel.model.pth", write_torch, "m3ashy", "steel"),
        ("NeuMERL.npy", lambda path, weights: np.save(path, weights[None].double().numpy()), "m3ashy", "NeuMERL-0000"),
        ("one.npz", lambda path, weights: np.savez(path, weights=weights, names="one", dialect="reciprocal"), "reciprocal", "one"),
    ],
)  # fmt: skip
def test_kinds_are_told_apart(tmp_path, file, write, dialect, name):
    weights = torch.randn(675)
    write(tmp_path / file, weights)
    found, names = read_networks(tmp_path / file)
    assert torch.equal(found.weights, weights[None]) and found.dialect.name == dialect and names == [name]


@pytest.mark.parametrize(
    ("theta_h", "rgb"),
    [(0.0, (0.11645, 0.11929, 0.33752)), (0.1, (0.08356, 0.07942, 0.21768)), (0.3, (0.01815, 0.01548, 0.03817)),
     (1.0, (0.00190, 0.00146, 0.00365))],
)  # fmt: skip
def test_published_networks_say_what_they_should(brdf, theta_h, rgb):
    """Values given to five decimals; the same from Keras's file and from the array of all."""
    networks, names = read_networks(brdf / "nbrdf_weights.npz")
    assert len(networks) == len(names) == len(read_metadata(brdf / "nbrdf_weights.npz")["source"]) == 127
    pytest.importorskip("h5py")
    alone, _ = read_networks(brdf / f"nbrdf/merl/{BLUE}.h5")
    assert torch.equal(alone.weights, networks[[names.index(BLUE)]].weights)
    found = alone(torch.tensor([[theta_h, 0.2, torch.pi / 2]]))
    assert_close(found, torch.tensor([[rgb]]), atol=6e-6, rtol=0)


def test_m3ashys_network_says_what_it_should(brdf):
    """As MERL's files store it, values given to four or five digits; in 1/sr, near to the other network of the same paint."""
    networks, names = read_networks(brdf / f"m3ashy/{BLUE}.model.pth")
    angles = torch.tensor([[0.0, 0.2, torch.pi / 2], [1.0, 0.2, torch.pi / 2]])
    assert names == [BLUE]
    expected = torch.tensor([[[168.44, 148.98, 292.88], [2.264, 1.453, 2.989]]])
    units = torch.tensor(DIALECTS["m3ashy"].units)
    assert_close(networks(angles) / units, expected, rtol=5e-4, atol=0)
    assert_close(networks(angles[:1]), torch.tensor([[[0.11645, 0.11929, 0.33752]]]), rtol=0.06, atol=0)


def npz(path, **arrays):
    np.savez(path, **{"weights": np.zeros((2, 675), np.float32), "names": np.array(["a", "b"]), **arrays})


def huge_npz(path):
    """An array whose header says a terabyte."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (400_000_000, 675)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", stream.getvalue() + b"\0" * 100)


@pytest.mark.parametrize(
    ("file", "write", "message"),
    [
        ("a.npz", lambda p: p.write_bytes(b"hello"), "zip"),
        ("a.npz", huge_npz, "does not have"),
        ("a.npz", lambda p: npz(p, weights=np.zeros((2, 674))), "674"),
        ("a.npz", lambda p: npz(p, weights=np.zeros((0, 675)), names=np.zeros(0, str)), "shape"),
        ("a.npz", lambda p: npz(p, weights=np.full((2, 675), np.nan)), "finite"),
        ("a.npz", lambda p: npz(p, weights=np.array([None])), "does not have"),
        ("a.npz", lambda p: npz(p, names=np.array(["a"])), "1 names for 2"),
        ("a.npz", lambda p: npz(p, dialect="klingon"), "klingon"),
        ("a.npz", lambda p: npz(p, metadata="{"), "cannot be read"),
        ("a.h5", lambda p: p.write_bytes(b"hello"), "cannot be read"),
        ("a.pth", lambda p: torch.save({"fc1.weight": torch.zeros(21, 6)}, p), "fc1.bias"),
        ("a.pth", lambda p: torch.save(io.StringIO("code"), p), "cannot be read"),
        ("a.npy", lambda p: np.save(p, np.zeros((4, 5))), "shape"),
        ("a.npy", lambda p: np.save(p, np.zeros((4, 675), int)), "floating"),
        ("a_fc1.npy", lambda p: np.save(p, np.zeros((6, 21))), "a_b1.npy: no such file"),
        ("a.bin", lambda p: p.write_bytes(b""), "Give one of"),
        ("a.npz", lambda p: None, "no such file"),
    ],
)  # fmt: skip
def test_damaged_files_get_one_line(tmp_path, file, write, message):
    write(tmp_path / file)
    with pytest.raises(DataError, match=message) as error:
        read_networks(tmp_path / file)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_read_again_is_not_written(tmp_path):
    for weights, names in (
        (torch.zeros(2, 675), ["a"]),
        (torch.full((1, 675), torch.inf), ["a"]),
        (torch.zeros(0, 675), []),
    ):
        with pytest.raises(DataError, match="not written"):
            write_networks(tmp_path / "a.nbrdf.npz", Networks(weights), names)
    assert not list(tmp_path.iterdir())


def test_our_file_is_plain(tmp_path):
    """What others need to know to read it."""
    write_networks(tmp_path / "a.nbrdf.npz", Networks(torch.zeros(1, 675)), ["a"], {"caption": "matte"})
    with np.load(tmp_path / "a.nbrdf.npz", allow_pickle=False) as stored:
        assert {k: (v.shape, v.dtype.kind) for k, v in stored.items()} == {
            "weights": ((1, 675), "f"), "dialect": ((), "U"), "names": ((1,), "U"), "metadata": ((), "U")}  # fmt: skip
        assert json.loads(str(stored["metadata"])) == {"caption": "matte"}
