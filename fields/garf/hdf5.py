"""Broken objects in HDF5 files: the layout of Breaking Bad as GARF's authors publish it, and its relatives.

    /data_split/CATEGORY/train, val      names of objects
    /NAME/pieces/I/vertices, faces       assembled
    /NAME/pieces/I/shared_faces          (F,) −1, or the piece that broke off at a triangle

Some files lack the level `pieces`, or `shared_faces`, or both; then breaks are found by what lies on each other. HDF5 lists names as text
(0, 1, 10, 11, 2 …): pieces are numbers here, and in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fields.errors import DataError, FieldsError
from fields.garf.fragment import Fragment
from fields.io.atomic import write_atomically
from fields.io.reading import INFLATES, reading

_TOUCH = 1e-3
"""Of the diagonal: triangles of two pieces this near, that face each other, are both sides of a break."""


def object_names(path: Path, split: str | None = None, most: int | None = None) -> list[str]:
    """Names of the objects in a file; of a split (train, val) those that the file counts to it; with two to `most` pieces.

    Raises:
        DataError: no HDF5 file; or one that does not know the split, or has objects in it that are not there.
    """
    with _opened(path) as file:
        names = sorted(_objects(file)) if split is None else _split(path, file, split)
        what = f"{path}: an object" if split is None else f"{path}: an object for {split}"
        with reading(what, "there, in pieces", "Fetch the file again."):
            return [name for name in names if most is None or 2 <= len(_pieces(file[name])[1]) <= most]


def read_object(path: Path, name: str) -> list[Fragment]:
    """The pieces of an object, in their places, with `partner`.

    Raises:
        DataError: no such object, or one that is damaged.
    """
    with _opened(path) as file:
        if name not in file:
            raise DataError(f"{path}: no object {name!r}. `object_names` lists them.")
        with reading(f"{path}: {name}", "an object in pieces", "Fetch the file again."):
            group, keys = _pieces(file[name])
        pieces, known = [], True
        for key in keys:
            with reading(f"{path}: piece {key} of {name}", "whole", "Fetch the file again."):
                piece = group[key]
                vertices, faces = _array(piece["vertices"], np.float64), _array(piece["faces"], np.int64)
                shared = _array(piece["shared_faces"], np.int64) if "shared_faces" in piece else None
            whole = (
                vertices.ndim == faces.ndim == 2
                and vertices.shape[1] == faces.shape[1] == 3
                and np.isfinite(vertices).all()
                and (shared is None or shared.ndim == 1)
            )
            if not whole or len(faces) == 0 or faces.min() < 0 or faces.max() >= len(vertices):
                raise DataError(f"{path}: piece {key} of {name} is not a mesh of triangles. Fetch the file again.")
            known &= shared is not None and len(shared) == len(faces)
            pieces.append(Fragment(f"piece_{key}", vertices, faces, shared))
    if len(pieces) < 2:
        raise DataError(f"{path}: {name} has {len(pieces)} pieces; it takes two or more.")
    return pieces if known else with_partners(pieces)


def with_partners(pieces: list[Fragment]) -> list[Fragment]:
    """Assembled pieces that know which of their triangles lie on another piece."""
    from scipy.spatial import cKDTree

    vertices = np.concatenate([p.vertices for p in pieces])
    reach = _TOUCH * float(np.linalg.norm(np.ptp(vertices, 0)))
    found = []
    for i, piece in enumerate(pieces):
        middles = piece.corners.mean(1)
        partner, nearest = np.full(len(piece.faces), -1), np.full(len(piece.faces), np.inf)
        for j, other in enumerate(pieces):
            if i == j:
                continue
            index = cKDTree(other.corners.mean(1)).query(middles, min(8, len(other.faces)))[1]
            # A triangle's plane passes near the other's middle, and the two are no further apart than they are large.
            index = index.reshape(len(middles), -1)
            offset = middles[:, None] - other.corners.mean(1)[index]
            height = np.abs((offset * other.normals[index]).sum(-1))
            size = np.sqrt(other.areas[index]) + np.sqrt(piece.areas)[:, None]
            facing = (other.normals[index] * piece.normals[:, None]).sum(-1) < -0.7
            fits = facing & (height < reach) & (np.linalg.norm(offset, axis=-1) < size + reach)
            best = np.where(fits, np.linalg.norm(offset, axis=-1), np.inf).min(1)
            closer = best < nearest
            partner[closer], nearest[closer] = j, best[closer]
        found.append(Fragment(piece.name, piece.vertices, piece.faces, partner))
    return found


def write_objects(path: Path, objects: Iterator[tuple[str, str, list[Fragment]]]) -> None:
    """Writes objects in the published layout.

    Args:
        objects: CATEGORY/NAME of each, the split it belongs to, and its pieces in their places, with `partner`.
    """
    h5py = _h5py()

    def write(target: Path) -> None:
        splits: dict[tuple[str, str], list[bytes]] = {}
        with h5py.File(target, "w", locking=False) as file:  # it is locked already
            for name, split, pieces in objects:
                splits.setdefault((name.split("/")[0], split), []).append(name.encode())
                file[f"{name}/pieces_names"] = [p.name.encode() for p in pieces]
                for i, piece in enumerate(pieces):
                    partner = np.full(len(piece.faces), -1) if piece.partner is None else piece.partner
                    columns = {
                        "vertices": piece.vertices,
                        "faces": piece.faces,
                        "shared_faces": partner.astype(np.int64),
                    }
                    for column, values in columns.items():
                        file.create_dataset(f"{name}/pieces/{i}/{column}", data=values, compression="gzip")
            for (category, split), names in splits.items():
                file[f"data_split/{category}/{split}"] = names

    write_atomically(path, write)


def _split(path: Path, file: Any, split: str) -> list[str]:
    try:
        lists = [_array(category[split], object) for category in file["data_split"].values() if split in category]
        return [name.decode() for names in lists for name in names]
    except (LookupError, AttributeError, TypeError, ValueError, OSError):
        raise DataError(
            f"{path}: does not say which objects are for {split}. It takes /data_split/CATEGORY/{split}, a list of names."
        ) from None


def _array(stored: Any, kind: Any) -> np.ndarray:
    """Raises ValueError for one of which the file can hold next to nothing: HDF5 has arrays of any size that nobody has written."""
    if stored.nbytes > INFLATES * stored.file.id.get_filesize():
        raise ValueError(f"an array of {stored.nbytes} bytes in a file of {stored.file.id.get_filesize()}")
    return np.asarray(stored, kind)


def _pieces(group: Any) -> tuple[Any, list[str]]:
    """What has the pieces of an object, and their numbers in it."""
    group = group.get("pieces", group)
    return group, sorted((key for key in group if key.isdigit()), key=int)


def _objects(file: Any) -> list[str]:
    names: set[str] = set()

    def visit(name: str, node: Any) -> None:
        if name.endswith("/vertices"):
            names.add(name.rsplit("/", 2)[0].removesuffix("/pieces"))

    file.visititems(visit)
    return list(names)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    h5py = _h5py()
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except OSError as error:
        raise DataError(f"{path}: not an HDF5 file, or a damaged one ({error}). Fetch it again.") from None
    with reading(path, "a whole HDF5 file", "Fetch it again."), file:
        yield file


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise FieldsError("HDF5 files need h5py: pip install 'fields[fragments]'.") from None
    return h5py
