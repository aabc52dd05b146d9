import numpy as np
import pytest

from fields.errors import DataError
from fields.garf.hdf5 import object_names, read_object, with_partners, write_objects
from fields.garf.objects import broken
from fields.garf.wear import Wear

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


def test_partners_of_a_real_fracture(data_dir):
    from fields.garf.reading import load_fragments

    bowl = with_partners(load_fragments(data_dir / "fragments" / "bb_bowl_4b93_fractured_13"))
    # Both chips broke off the bowl.
    assert 0 in bowl[1].partner and 0 in bowl[2].partner and {1, 2} <= set(bowl[0].partner.tolist())
