import numpy as np
import pytest

from fields.errors import DataError
from fields.garf.clouds import Cloud
from fields.garf.hdf5 import object_names, read_object, with_partners, write_objects
from fields.garf.objects import broken, prepare_from
from fields.garf.reassembly import load_model
from fields.garf.wear import Wear
from tests.commands import run

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def pieces():
    return broken(7, 12, "stone", Wear())[1]


@pytest.fixture
def file(tmp_path, pieces):
    path = tmp_path / "broken.hdf5"
    write_objects(path, iter([("artifact/a/fractured_0", "train", pieces), ("everyday/b/mode_1", "val", pieces[:2])]))
    return path


def test_what_is_written_is_read_again_in_the_order_of_numbers(file, pieces):
    assert object_names(file) == ["artifact/a/fractured_0", "everyday/b/mode_1"]
    assert object_names(file, "val") == ["everyday/b/mode_1"]
    found = read_object(file, "artifact/a/fractured_0")
    assert [p.name for p in found] == [f"piece_{k}" for k in range(12)]
    for a, b in zip(found, pieces, strict=True):
        assert (
            np.array_equal(a.vertices, b.vertices)
            and np.array_equal(a.faces, b.faces)
            and np.array_equal(a.partner, b.partner)
        )


@pytest.mark.parametrize("level", [True, False])
def test_breaks_are_found_where_the_file_does_not_know_them(file, pieces, level):
    with h5py.File(file, "a") as h:
        group = h["artifact/a/fractured_0/pieces"]
        for key in list(group):
            del group[key]["shared_faces"]
            if not level:
                h.move(f"artifact/a/fractured_0/pieces/{key}", f"artifact/a/fractured_0/{key}")
        if not level:
            del h["artifact/a/fractured_0/pieces"]
    for found, true in zip(read_object(file, "artifact/a/fractured_0"), pieces, strict=True):
        both = true.areas[(found.partner >= 0) & (true.partner >= 0)].sum()
        # Slivers between differently cut triangles are missed or guessed: a twentieth of the area.
        assert both > 0.95 * true.areas[true.partner >= 0].sum() and both > 0.95 * true.areas[found.partner >= 0].sum()


def test_damaged_files_get_one_line(tmp_path, file):
    with pytest.raises(DataError, match="no object"):
        read_object(file, "artifact/zzz")
    with pytest.raises(DataError, match="no such file"):
        object_names(tmp_path / "none.hdf5")
    (tmp_path / "text.hdf5").write_text("hello")
    with pytest.raises(DataError, match="not an HDF5 file"):
        object_names(tmp_path / "text.hdf5")
    with h5py.File(file, "a") as h:
        h["everyday/b/mode_1/pieces/1/faces"][0] = 10**9
    with pytest.raises(DataError, match="piece 1"):
        read_object(file, "everyday/b/mode_1")


def test_a_model_learns_from_a_file(tmp_path, pieces, capfd):
    """Of two to twenty pieces those for training, whatever their level and labels; the others are not looked at."""
    path, many = tmp_path / "sets" / "broken.hdf5", [*pieces, *pieces[:9]]
    objects = [("everyday/b/mode_1", "train", pieces[:2]), ("artifact/a/fractured_0", "train", pieces), ("artifact/many", "train", many),
               ("artifact/one", "train", pieces[:1]), ("artifact/a/fractured_1", "val", pieces)]  # fmt: skip
    write_objects(path, iter(objects))
    with h5py.File(path, "a") as h:
        for key in ("0", "1"):
            del h[f"everyday/b/mode_1/pieces/{key}/shared_faces"]
            h.move(f"everyday/b/mode_1/pieces/{key}", f"everyday/b/mode_1/{key}")
        del h["everyday/b/mode_1/pieces"]
    short = ["--encoder-iterations", 2, "--flow-iterations", 2, "--batch", 1, "--joint-objects", 1]
    assert run("train", "garf", "--data", path, *short, "--out", tmp_path / "run") == 0
    kept = {p.name: Cloud.load(p) for p in (tmp_path / "run" / "objects" / "broken").iterdir()}
    assert sorted(kept) == ["artifact~a~fractured_0.npz", "everyday~b~mode_1.npz"]
    assert [cloud.pieces for _, cloud in sorted(kept.items())] == [12, 2]
    true = np.sum([p.areas[p.partner >= 0].sum() for p in pieces]) / np.sum([p.areas.sum() for p in pieces])
    # One point of 5000 for each equal share of area: within a hundredth.
    assert (kept["artifact~a~fractured_0.npz"].partner >= 0).float().mean() == pytest.approx(true, abs=0.01)
    assert load_model(tmp_path / "run").denoiser is not None
    first = {p: p.read_bytes() for p in prepare_from(path, tmp_path / "again", 1, lambda done, total: None)}
    assert len(first) == 1 and all(
        p.read_bytes() == (tmp_path / "run" / "objects" / "broken" / p.name).read_bytes() for p in first
    )


SPOILT = {
    "no file": (lambda path: path.unlink(), "no such file"),
    "no split": (lambda path: remove(path, "data_split"), "/data_split/CATEGORY/train"),
    "nothing to train on": (lambda path: remove(path, "data_split/artifact"), "no objects of 2 to 20 pieces"),
    "an object that is not there": (lambda path: remove(path, "artifact/a"), "an object for train: not there"),
    "a piece that is no mesh": (lambda path: remove(path, "artifact/a/fractured_0/pieces/1/faces"), "piece 1"),
}  # fmt: skip


def remove(path, name):
    with h5py.File(path, "a") as h:
        del h[name]


@pytest.mark.parametrize("case", SPOILT)
def test_learning_from_a_file_that_is_not_right_gets_one_line(case, tmp_path, file, capfd):
    spoil, said = SPOILT[case]
    spoil(file)
    assert run("train", "garf", "--data", file, "--out", tmp_path / "run") == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert said in error and error.startswith("error: ") and "broken.hdf5" in error


def test_partners_of_a_real_fracture(data_dir):
    from fields.garf.reading import load_fragments

    bowl = with_partners(load_fragments(data_dir / "fragments" / "bb_bowl_4b93_fractured_13"))
    # Both chips broke off the bowl.
    assert 0 in bowl[1].partner and 0 in bowl[2].partner and {1, 2} <= set(bowl[0].partner.tolist())
