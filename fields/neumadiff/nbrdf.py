"""Neural reflectances in files: ours, and those that others publish.

.nbrdf.npz      ours: weights (M, 675) or (675,), dialect, names, and whatever else is known as JSON text
.npz            the same without a dialect: as Sztrajman et al.'s networks are gathered, name and source with them
.h5             Keras, one network of Sztrajman et al.
_fc1.npy …      six files, _fc1, _b1, _fc2, _b2, _fc3, _b3: the same for their renderer's plug-in. Any of them stands for all
.npy            NeuMERL of M3ashy: weights (M, 675)
.pth            a state dictionary of PyTorch, one network of M3ashy

Nothing in them is run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.errors import DataError, FieldsError
from fields.io.atomic import write_atomically
from fields.io.reading import parse_json, read_npy, read_npz, said
from fields.neumadiff.network import DIALECTS, WEIGHTS, WIDTHS, Networks, dialect

SUFFIXES = (".npz", ".h5", ".npy", ".pth")
_SHAPES = tuple(shape for i, o in zip(WIDTHS[:-1], WIDTHS[1:], strict=True) for shape in ((o, i), (o,)))
_SIX = ("_fc1", "_b1", "_fc2", "_b2", "_fc3", "_b3")


@dataclass
class _Found:
    weights: Any
    dialect: str
    names: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)


def read_networks(path: Path) -> tuple[Networks, list[str]]:
    """The networks of a file of any of the kinds above, and their names.

    Raises:
        DataError: no such file, another kind of file, or a damaged one.
    """
    found = _read(path)
    return Networks(found.weights, dialect(found.dialect)), found.names


def read_metadata(path: Path) -> dict[str, Any]:
    """What else a file says of its networks; raises as `read_networks`."""
    return _read(path).metadata


def write_networks(
    path: Path, networks: Networks, names: Sequence[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes our own file.

    Args:
        metadata: plain data, such as categories, captions, statistics and where the networks come from.

    Raises:
        DataError: no networks, weights that are not finite, or another number of names.
    """
    weights = networks.weights.detach().cpu().float()
    if not len(weights) or len(names) != len(weights):
        raise DataError(f"{path}: was not written, for {len(weights)} networks have {len(names)} names. Give each one.")
    if not weights.isfinite().all():
        raise DataError(f"{path}: was not written, for not all weights are finite. Fit the material again.")
    arrays: dict[str, Any] = {
        "weights": weights.numpy(),
        "dialect": np.array(networks.dialect.name),
        "names": np.array(list(names), str),
        "metadata": np.array(json.dumps(dict(metadata or {}))),
    }

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.savez(stream, **arrays)

    write_atomically(path, write)


def _read(path: Path) -> _Found:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: not a kind of file that networks are read from. Give one of {', '.join(SUFFIXES)}.")
    try:
        found = reader(path)
        weights = torch.from_numpy(np.array(found.weights, np.float32))
        if weights.ndim not in (1, 2) or weights.shape[-1] != WEIGHTS or weights.numel() == 0:
            raise ValueError(f"weights have shape {tuple(weights.shape)}, not (M, {WEIGHTS})")
        found.weights = weights.view(-1, WEIGHTS)
        if not found.weights.isfinite().all():
            raise ValueError("not all of its weights are finite")
        if len(found.names) != len(found.weights):
            raise ValueError(f"it has {len(found.names)} names for {len(found.weights)} networks")
        if found.dialect not in DIALECTS:
            raise ValueError(f"it is in a dialect {found.dialect!r}, not one of {', '.join(DIALECTS)}")
    except FieldsError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{error.filename or path}: no such file.") from None
    except Exception as error:  # whatever a parser makes of a damaged file
        raise DataError(
            f"{path}: cannot be read as neural reflectances: {said(error)}. Fetch or write it again."
        ) from None
    return found


def _npz(path: Path) -> _Found:
    arrays = read_npz(path, ("weights", "dialect", "names", "name", "source", "metadata").__contains__)
    metadata = parse_json(str(arrays["metadata"])) if "metadata" in arrays else {}
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are no names and values")
    if "source" in arrays:
        metadata["source"] = arrays["source"].tolist()
    names = np.atleast_1d(arrays["names"] if "names" in arrays else arrays["name"])
    return _Found(arrays["weights"], str(arrays.get("dialect", "sztrajman")), [str(n) for n in names], metadata)


def _npy(path: Path) -> _Found:
    ending = next((end for end in _SIX if path.stem.endswith(end)), None)
    if ending is None:
        weights = _mapped(path)
        return _Found(weights, "m3ashy", [f"{path.stem}-{i:04d}" for i in range(len(np.atleast_2d(weights)))])
    name = path.stem.removesuffix(ending)
    return _Found(_joined([_mapped(path.with_name(f"{name}{end}.npy")).T for end in _SIX]), "sztrajman", [name])


def _mapped(path: Path) -> np.ndarray:
    array = read_npy(path)
    if array.dtype.kind != "f":
        raise ValueError("it does not hold an array of floating-point numbers")
    return array


def _h5(path: Path) -> _Found:
    try:
        import h5py
    except ImportError:
        raise FieldsError(f"{path}: HDF5 files need h5py: pip install h5py.") from None
    layers: dict[str, list[Any]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layers.setdefault(name.rpartition("/")[0], []).append(item)

    # Their order is told by their shapes. Keras writes it into attributes, too, but libhdf5 turns in circles in damaged ones.
    with h5py.File(path, "r") as file:
        file.get("model_weights", file).visititems(visit)
        place = {shape[::-1]: i for i, shape in enumerate(_SHAPES)}
        whole = [sorted(layer, key=lambda s: -s.ndim) for layer in layers.values()]
        ordered = sorted(whole, key=lambda layer: place.get(layer[0].shape, len(place)))
        stored = [s for layer in ordered for s in layer]
        if [s.shape[::-1] for s in stored] != list(_SHAPES):
            raise ValueError(f"its layers have shapes {[s.shape for s in stored]}")
        return _Found(_joined([s[()].T for s in stored]), "sztrajman", [path.stem])


def _pth(path: Path) -> _Found:
    state = torch.load(path, map_location="cpu", weights_only=True)
    layers = [state[f"fc{layer}.{part}"] for layer in (1, 2, 3) for part in ("weight", "bias")]
    return _Found(_joined(layers), "m3ashy", [path.name.split(".")[0]])


def _joined(layers: Sequence[Any]) -> Tensor:
    """(675,) of matrices (out, in) and biases."""
    shapes = [tuple(layer.shape) for layer in layers]
    if shapes != list(_SHAPES):
        raise ValueError(f"its layers have shapes {shapes}")
    return torch.cat([torch.as_tensor(np.array(layer, np.float32)).flatten() for layer in layers])


_READERS: dict[str, Callable[[Path], _Found]] = dict(zip(SUFFIXES, (_npz, _h5, _npy, _pth), strict=True))
