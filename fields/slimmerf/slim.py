"""A field as a .slim file: a level is some layers of the planes of one kind and rank, and any first levels are a field.

Ranks and layers are two ways to be smaller: fewer components, or coarser ones. The order of the levels goes through both;
see `fields.slimmerf.order`.

The error of a coded factor matters as much as it changes the product, so every component is first balanced: its line gets
a mean square of 1 and its plane carries the size, appearance in units of the features (the column of the basis matrix has
length 1). Then one step for all density planes and one for all appearance planes costs the fewest bytes per error.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from fields.core.decoder import encoded_width
from fields.errors import CheckpointError, ConfigError, FieldsError
from fields.io.run import results_folder
from fields.methods import method
from fields.paths import from_json, to_json
from fields.slimmerf import container
from fields.slimmerf.codec import decode, encode
from fields.slimmerf.field import cut
from fields.slimmerf.order import KINDS, Level, Views, best_order
from fields.tensorf.field import TensoRF
from fields.tensors import FactorisedGrid

_LINE = 0.25  # step of a line, of its plane's step over its plane's root mean square: lines are few
_NETWORK = 1 / 24  # step of a matrix of the network, of its root mean square
_MOST_OCCUPANCY = 1 << 24  # cells
_LZMA: dict[str, Any] = {"format": lzma.FORMAT_RAW, "filters": [{"id": lzma.FILTER_LZMA2, "preset": 9}]}
LAYERS = 5
_MOST_CAMERAS = 16
_MOST_NUMBERS = 1 << 28  # of a field: what a file may ask memory for

Parts = list[list[bytes]]
"""Of every layer of a kind and rank. The first has columns of the basis (of appearance), lines, and planes; others, planes."""


@dataclass(frozen=True)
class Steps:
    """How coarsely planes are rounded, at the finest."""

    density: float
    """In units of the density feature, before the softplus."""
    appearance: float
    """In units of the 27 features."""

    def times(self, factor: float) -> Steps:
        return Steps(self.density * factor, self.appearance * factor)

    def of(self, kind: str) -> float:
        return self.density if kind == "density" else self.appearance


DEFAULT_STEPS = Steps(0.125, 0.01)


def to_slim(
    field: TensoRF,
    steps: Steps,
    run: dict[str, Any],
    ranks: int | None = None,
    layers: int = LAYERS,
    bases: list[Tensor] | None = None,
) -> bytes:
    """The bytes of a .slim file.

    Args:
        run: the config of the field's run: method, settings and scene go into the header; the scene's cameras decide which
            level comes first.
        ranks: how many of the field's go into the file; all by default.
        layers: of every plane.
        bases: matrices (F, 3 k c) to use with the first k = 1, 2, … ranks, from `fields.slimmerf.gauge.put_in_order`. By
            default columns of the field's: a field that was trained to be cut needs no others.

    Raises:
        ConfigError: not a VM field with as many appearance components per density component as any other.
    """
    arguments = field.constructor_arguments()
    have, colours = arguments["density_rank"], arguments["appearance_rank"]
    if arguments["layout"] != "vm" or arguments["decoder"] not in ("mlp", "sh", "rgb"):
        raise ConfigError("Only fields of planes × lines with our own decoders become .slim files.")
    if colours % have:
        raise ConfigError(f"{colours} appearance components cannot be dealt out to {have} ranks evenly.")
    if ranks not in (None, have):
        field = cut(field, ranks, colours // have * ranks)
        arguments = field.constructor_arguments()
    model: dict[str, Any] = {key: run[key] for key in ("schema", "method", "settings", "scene") if key in run}
    model |= {
        "field": arguments,
        "steps": [steps.density, steps.appearance],
        "layers": layers,
        "bases": bases is not None,
    }
    base = _base(field)
    coded = {(k, r): _code(field, k, r, steps, layers, bases) for r in range(ranks or have) for k in KINDS}
    chunks: list[tuple[bytes, dict[str, Any]]] = []
    there: dict[tuple[str, int], int] = {}
    for kind, rank, count in _order(field, model, base, coded, bases):
        first = there.get((kind, rank), 0)
        there[kind, rank] = first + count
        parts = [part for layer in coded[kind, rank][first : first + count] for part in layer]
        chunks.append((_frame(base + parts if not chunks else parts), {"kind": kind, "rank": rank, "layers": count}))
    if cameras := model.get("scene", {}).get("cameras"):
        model["scene"] = model["scene"] | {"cameras": _some(cameras)}
    return container.pack(model, chunks)


def _some(cameras: dict[str, Any]) -> dict[str, Any]:
    """Enough of a run's cameras to find a way around its scene."""
    all_cameras = from_json(cameras)
    return to_json(all_cameras[:: -(-len(all_cameras) // _MOST_CAMERAS)])


def _order(
    field: TensoRF,
    model: dict[str, Any],
    base: list[bytes],
    coded: dict[tuple[str, int], Parts],
    bases: list[Tensor] | None,
) -> list[Level]:
    """By what they are worth to the cameras of the run; where there are none, coarse layers and first ranks first."""
    cameras = model.get("scene", {}).get("cameras")
    if not cameras:
        units = [(layer, rank, kind) for kind, rank in coded for layer in range(model["layers"])]
        return [Level(kind, rank, 1) for _, rank, kind in sorted(units, key=lambda unit: unit[:2])]
    rounded = [
        _build(model, base, {unit: parts[: layer + 1] for unit, parts in coded.items()}).to(field.aabb.device)
        for layer in range(model["layers"])
    ]
    views = Views(field, rounded, from_json(cameras).to(field.aabb.device), bases)
    return best_order(views, {unit: [sum(map(len, layer)) for layer in parts] for unit, parts in coded.items()})


def _code(field: TensoRF, kind: str, rank: int, steps: Steps, layers: int, bases: list[Tensor] | None) -> Parts:
    """Columns of the basis are the rank's; of a field with a basis for each number of ranks, those of all up to this one."""
    basis = _by_mode(field.decoder.basis.weight.detach()).cpu()
    lengths = basis.norm(dim=0).clamp(min=1e-9)
    lines, planes = [], []
    for grid, mode, at in _components(field, kind, rank):
        scale = 1.0 if kind == "density" else float(lengths[mode, at])
        line, plane = _code_component(grid, mode, at, scale, steps.of(kind), layers)
        lines.append(line)
        planes.append(plane)
    first, *more = ([plane[layer] for plane in planes] for layer in range(layers))
    if kind == "density":
        return [[*lines, *first], *more]
    mine = _columns(field, rank)
    if bases is None:
        columns = _code_columns(basis[..., mine] / lengths[:, mine])
    else:
        columns = _code_columns(_by_mode(bases[rank]).cpu() / lengths[:, : mine.stop])
    return [[columns, *lines, *first], *more]


def _components(field: TensoRF, kind: str, rank: int) -> Iterator[tuple[FactorisedGrid, int, int]]:
    """Grid, mode and number of what makes up a rank, in the order of the file."""
    columns = _columns(field, rank)
    for mode in range(3):
        if kind == "density":
            yield field.density_grid, mode, rank
        else:
            yield from ((field.appearance_grid, mode, at) for at in range(columns.start, columns.stop))


def _columns(field: TensoRF, rank: int) -> slice:
    """Which appearance components of each mode are a rank's."""
    each = field.appearance_grid.channels // field.density_grid.channels
    return slice(each * rank, each * (rank + 1))


def _by_mode(basis: Tensor) -> Tensor:
    """(features, 3, components of each mode)."""
    return basis.view(len(basis), 3, -1)


def from_slim(slim: container.Slim, levels: int | None = None) -> TensoRF:
    """The field of a file's first levels, or of all that are there.

    Raises:
        CheckpointError: a file whose contents do not fit its header.
    """
    try:
        return _build(slim.model, *_unpack(slim.model, slim.chunks[:levels], slim.table))
    except (
        FieldsError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        EOFError,
        lzma.LZMAError,
    ) as error:
        raise CheckpointError(
            f"{slim.name}: does not hold what its header says ({error}). Copy it again from its source."
        ) from None


def slim_path(run: Path, config: dict[str, Any]) -> Path:
    """Where the file of a run goes unless told otherwise."""
    name = Path(config.get("scene", {}).get("path", run)).name
    return results_folder(run) / "exports" / f"{name}.slim"


def sixteen_bits(field: TensoRF) -> int:
    """Bytes of all numbers in 16 bits and a bit per occupancy cell: what the paper counts (its section 3.3)."""
    return 2 * sum(p.numel() for p in field.parameters()) + -(-field.occupied.numel() // 8)


def load(source: str | Path | bytes | BinaryIO, most: int | None = None) -> TensoRF:
    """The best field in the first `most` bytes of a .slim file, on the CPU and in evaluation mode."""
    return from_slim(container.read(source, most)).eval().requires_grad_(False)


def load_config(source: str | Path | bytes | BinaryIO) -> dict[str, Any]:
    """What config.json of a run folder says, of the whole model; and a "note" where the file lacks some of it."""
    slim = container.read(source)
    return slim.model | {"note": slim.note}


# ---------------------------------------------------------------------------------------- parts of a chunk


def _frame(parts: list[bytes]) -> bytes:
    """Parts behind their lengths, 1 to 3 bytes each."""
    lengths = b"".join(_varint(len(p)) for p in parts)
    return lengths + b"".join(parts)


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def _parts(chunk: bytes, count: int) -> Iterator[bytes]:
    """Raises ValueError for a chunk of other parts."""
    lengths, at = [], 0
    for _ in range(count):
        n = shift = 0
        while True:
            byte = chunk[at]
            at += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 35:
                raise ValueError("a part is longer than any file")
        lengths.append(n)
    if at + sum(lengths) != len(chunk):
        raise ValueError("a level has other parts")
    for n in lengths:
        yield chunk[at : at + n]
        at += n


def _code_columns(columns: Tensor) -> bytes:
    """In 8 bits."""
    largest = float(columns.abs().max().clamp(min=1e-9))
    return np.float32(largest).tobytes() + (columns * (127 / largest)).round().to(torch.int8).numpy().tobytes()


def _decode_columns(data: bytes, features: int) -> Tensor:
    """(features, 3, …)."""
    columns = torch.frombuffer(bytearray(data[4:]), dtype=torch.int8).view(features, 3, -1)
    return columns * (float(np.frombuffer(data[:4], "<f4")[0]) / 127)


def _code_component(
    grid: FactorisedGrid, mode: int, at: int, scale: float, step: float, layers: int
) -> tuple[bytes, list[bytes]]:
    """The coded line, and the layers of the plane."""
    plane, line = (grid.factors[2 * mode + k].detach()[..., at].cpu().double().numpy() for k in (0, 1))
    size = float(np.sqrt(np.mean(line**2))) or 1.0
    plane, line = plane * (size * scale), line / size
    exponent = _exponent(float(np.sqrt(np.mean(plane**2))) / step)
    return bytes([exponent]) + encode(line, _line_step(exponent))[0], encode(plane, step, layers)


def _exponent(steps: float) -> int:
    """How many steps a plane is large, as a byte: powers of √2."""
    return max(0, min(255, round(2 * math.log2(max(steps, 1e-12))) + 64))


def _line_step(exponent: int) -> float:
    return min(0.5, _LINE / 2 ** ((exponent - 64) / 2))


def _base(field: TensoRF) -> list[bytes]:
    """Occupancy and network: what every level needs."""
    parts = [_pack_occupancy(field.occupied.cpu())]
    layer: Any
    for layer in field.decoder.mlp:
        weight = layer.weight.detach().cpu().numpy()
        size = float(np.sqrt(np.mean(weight.astype(np.float64) ** 2))) or 1.0
        parts.append(np.float32(size).tobytes() + encode(weight.reshape(-1) / size, _NETWORK)[0])
        parts.append(layer.bias.detach().cpu().numpy().astype("<f2").tobytes())
    return parts


def _pack_occupancy(occupied: Tensor) -> bytes:
    return np.array(occupied.shape, "<u2").tobytes() + lzma.compress(np.packbits(occupied.numpy()).tobytes(), **_LZMA)


def _unpack_occupancy(data: bytes) -> Tensor:
    shape = [int(n) for n in np.frombuffer(data[:6], "<u2")]
    count = math.prod(shape)
    if not 0 < count <= _MOST_OCCUPANCY:
        raise ValueError(f"an occupancy of {shape}")
    bits = lzma.LZMADecompressor(**_LZMA).decompress(data[6:], -(-count // 8))
    return torch.from_numpy(np.unpackbits(np.frombuffer(bits, np.uint8), count=count).astype(bool)).view(shape)


# ---------------------------------------------------------------------------------------- a field again


def _unpack(
    model: dict[str, Any], chunks: list[bytes], table: list[dict[str, Any]]
) -> tuple[list[bytes], dict[tuple[str, int], Parts]]:
    """The base, and what is there of each kind and rank."""
    arguments = model["field"]
    each = arguments["appearance_rank"] // arguments["density_rank"]
    in_base = 1 + 2 * (3 if arguments["decoder"] == "mlp" else 0)
    base: list[bytes] = []
    coded: dict[tuple[str, int], Parts] = {}
    for chunk, row in zip(chunks, table, strict=False):
        kind, rank, layers = row["kind"], row["rank"], row["layers"]
        planes, columns = (3, 0) if kind == "density" else (3 * each, 1)
        if kind not in KINDS or not 0 <= rank < arguments["density_rank"] or not 0 < layers <= model["layers"]:
            raise ValueError(f"a level of {kind} {rank}")
        have = coded.setdefault((kind, rank), [])
        head = 0 if have else columns + planes
        parts = list(_parts(chunk, (0 if base else in_base) + head + planes * layers))
        if not base:
            base, parts = parts[:in_base], parts[in_base:]
        have.append(parts[: head + planes])
        have.extend(parts[at : at + planes] for at in range(head + planes, len(parts), planes))
    for kind in KINDS:
        ranks = [rank for k, rank in coded if k == kind]
        if ranks != list(range(len(ranks))):
            raise ValueError("a rank comes before the one before it")
    return base, coded


def _build(model: dict[str, Any], base: list[bytes], coded: dict[tuple[str, int], Parts]) -> TensoRF:
    """The field of these parts. What is there of one kind only has nothing, not noise, in its place of the other."""
    arguments, steps, layers = dict(model["field"]), Steps(*map(float, model["steps"])), model["layers"]
    if not (0 < steps.density < math.inf and 0 < steps.appearance < math.inf and 0 < layers <= 32):
        raise ValueError("its steps make no sense")
    each, ranks = arguments["appearance_rank"] // arguments["density_rank"], 1 + max(rank for _, rank in coded)
    arguments |= {"density_rank": ranks, "appearance_rank": each * ranks, "occupancy_resolution": [2, 2, 2]}
    _check_size(arguments)
    kind_of_field = method(str(model["method"])).load_field()
    if not issubclass(kind_of_field, TensoRF):
        raise ValueError(f"a field of {model['method']}")
    field = kind_of_field(**arguments)
    with torch.no_grad():
        for factor in (*field.density_grid.factors, *field.appearance_grid.factors):
            factor.zero_()
        field.occupied = _unpack_occupancy(base[0])
        for layer, weight, bias in zip(field.decoder.mlp, base[1::2], base[2::2], strict=True):
            _read_layer(layer, weight, bias)
        basis = _by_mode(field.decoder.basis.weight.detach().zero_())
        for (kind, rank), (first, *more) in coded.items():
            if kind == "appearance":
                mine, (columns, *first) = _columns(field, rank), first
                basis[..., 0 if model["bases"] else mine.start : mine.stop] = _decode_columns(columns, len(basis))
            components = list(_components(field, kind, rank))
            lines, planes = first[: len(components)], [first[len(components) :], *more]
            for (grid, mode, at), line, *of_plane in zip(components, lines, *planes, strict=True):
                _read_component(grid, mode, at, line, of_plane, steps.of(kind), layers)
    return field


def _check_size(arguments: dict[str, Any]) -> None:
    """Raises ValueError for a field of no size, or of more numbers than a file may ask memory for."""
    x, y, z = (int(n) for n in arguments["resolution"])
    features, hidden, frequencies = (int(arguments[name]) for name in ("feature_dim", "hidden", "frequencies"))
    if min(x, y, z) < 2 or min(features, hidden, frequencies) < 1:
        raise ValueError("a field of no size")
    components = arguments["density_rank"] + arguments["appearance_rank"]
    factors = (x * y + x * z + y * z + x + y + z) * components
    network = features * 3 * components + hidden * (encoded_width(features, frequencies, frequencies) + hidden + 3)
    if factors + network > _MOST_NUMBERS:
        raise ValueError(f"a field of {factors + network} numbers")


def _read_layer(layer: Any, weight: bytes, bias: bytes) -> None:
    size = float(np.frombuffer(weight[:4], "<f4")[0])
    values = decode([weight[4:]], (layer.weight.numel(),), _NETWORK) * size
    layer.weight.copy_(torch.from_numpy(values).view_as(layer.weight))
    layer.bias.copy_(torch.from_numpy(np.frombuffer(bias, "<f2").astype(np.float32)))


def _read_component(
    grid: FactorisedGrid, mode: int, at: int, line: bytes, layers: list[bytes], step: float, all_layers: int
) -> None:
    plane, along = grid.factors[2 * mode], grid.factors[2 * mode + 1]
    along[..., at] = torch.from_numpy(decode([line[1:]], tuple(along.shape[:-1]), _line_step(line[0])))
    plane[..., at] = torch.from_numpy(decode(layers, tuple(plane.shape[:-1]), step, all_layers))
