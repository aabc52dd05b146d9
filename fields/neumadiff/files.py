"""Materials in files of any kind that is read."""

from __future__ import annotations

from pathlib import Path

from fields.errors import DataError
from fields.neumadiff.angles import Reflectance
from fields.neumadiff.merl import Table, read_merl, write_merl
from fields.neumadiff.nbrdf import SUFFIXES, read_metadata, read_networks, write_networks
from fields.neumadiff.network import Networks
from fields.neumadiff.rgl import read_rgl, write_rgl
from fields.neumadiff.statistics import SCALES


def read_materials(path: Path) -> tuple[Reflectance, list[str]]:
    """What a file's materials reflect, and their names: MERL's .binary, RGL's .bsdf, or networks.

    Raises:
        DataError: no such file, another kind of file, or a damaged one.
    """
    if path.suffix == ".binary":
        return read_merl(path), [path.stem]
    if path.suffix == ".bsdf":
        return read_rgl(path), [path.stem]
    if path.suffix in SUFFIXES:
        return read_networks(path)
    raise DataError(f"{path}: is not a file of materials that is read here: .binary, .bsdf, {', '.join(SUFFIXES)}.")


def scale_of(path: Path) -> str:
    """The scale that a file's reflectances are on, see `fields.neumadiff.statistics.SCALES`: MERL's, where it says nothing."""
    scale = read_metadata(path).get("scale", "merl") if path.suffix in SUFFIXES else "merl"
    if scale not in SCALES:
        raise DataError(f"{path}: is on a scale {scale!r}; there are {', '.join(SCALES)}.")
    return scale


def write_material(path: Path, material: Reflectance, name: str) -> None:
    """Writes one material as the file's suffix says: MERL's .binary or RGL's .bsdf of any, .nbrdf.npz of a network.

    Raises:
        DataError: another suffix, or what is no network.
    """
    if path.suffix == ".binary":
        write_merl(path, Table.of(material))
    elif path.suffix == ".bsdf":
        write_rgl(path, material, name)
    elif path.name.endswith(".nbrdf.npz"):
        if not isinstance(material, Networks):
            raise DataError(f"{path}: what is to be written is not a network. `fields brdf fit` makes one of it.")
        write_networks(path, material, [name])
    else:
        raise DataError(f"{path}: materials are written as .binary, .bsdf or .nbrdf.npz.")
