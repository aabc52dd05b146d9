"""A field as a .slim file: a level is one layer of one rank, and any number of first levels is a field.

Ranks and layers are two ways to be smaller: fewer components, or coarser ones. The order of the levels goes through both,
so that every prefix has about the layers that its ranks deserve.

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

from fields.errors import CheckpointError, ConfigError
from fields.methods import method
from fields.slimmerf import container
from fields.slimmerf.codec import decode, encode
from fields.slimmerf.field import SlimmeRF
from fields.tensorf.field import TensoRF
from fields.tensors import FactorisedGrid

_LINE = 0.25  # step of a line, of its plane's step over its plane's root mean square: lines are few
_NETWORK = 1 / 24  # step of a matrix of the network, of its root mean square
_MOST_OCCUPANCY = 1 << 24  # cells
_LZMA: dict[str, Any] = {"format": lzma.FORMAT_RAW, "filters": [{"id": lzma.FILTER_LZMA2, "preset": 9}]}
_RANKS_PER_LAYER = 1.5  # how many layers later the last rank begins than the first
LAYERS = 5
_MOST_NUMBERS = 1 << 28  # of all factors: what a file may ask memory for


@dataclass(frozen=True)
class Steps:
    """How coarsely planes are rounded, at the finest."""

    density: float
    """In units of the density feature, before the softplus."""
    appearance: float
    """In units of the 27 features."""

    def times(self, factor: float) -> Steps:
        return Steps(self.density * factor, self.appearance * factor)


DEFAULT_STEPS = Steps(0.125, 0.01)


def order(ranks: int) -> list[tuple[int, int]]:
    """(rank, layer) of every level: coarse before fine, and first ranks before last ones."""
    levels = [(rank, layer) for rank in range(ranks) for layer in range(LAYERS)]
    return sorted(levels, key=lambda level: (level[1] + _RANKS_PER_LAYER * level[0] / ranks, level[1]))


def to_slim(field: TensoRF, steps: Steps, run: dict[str, Any], ranks: int | None = None) -> bytes:
    """The bytes of a .slim file.

    Args:
        run: the config of the field's run: method, settings and scene go into the header.
        ranks: how many of the field's go into the file; all by default.

    Raises:
        ConfigError: not a VM field with as many appearance components per density component as any other.
    """
    arguments = field.constructor_arguments()
    have, colours = arguments["density_rank"], arguments["appearance_rank"]
    if arguments["layout"] != "vm" or arguments["decoder"] not in ("mlp", "sh", "rgb"):
        raise ConfigError("Only fields of planes × lines with our own decoders become .slim files.")
    if colours % have:
        raise ConfigError(f"{colours} appearance components cannot be dealt out to {have} ranks evenly.")
    ranks = ranks or have
    each = colours // have
    coded = [_code_rank(field, rank, each, steps) for rank in range(ranks)]
    chunks: list[tuple[bytes, dict[str, Any]]] = []
    for rank, layer in order(ranks):
        parts = coded[rank][layer]
        if not chunks:
            parts = _base(field) + parts
        chunks.append((_frame(parts), {"rank": rank, "layer": layer}))
    model: dict[str, Any] = {key: run[key] for key in ("schema", "method", "settings", "scene") if key in run}
    arguments |= {"density_rank": ranks, "appearance_rank": each * ranks}
    model |= {"field": arguments, "steps": [steps.density, steps.appearance], "layers": LAYERS}
    return container.pack(model, chunks)


def _code_rank(field: TensoRF, rank: int, each: int, steps: Steps) -> list[list[bytes]]:
    """Parts of every layer of a rank: of the first, lines, columns of the basis, and planes; of the others, planes."""
    basis = field.decoder.basis.weight.detach().cpu()
    basis = basis.view(len(basis), 3, -1)[:, :, each * rank : each * (rank + 1)]
    lengths = basis.norm(dim=0).clamp(min=1e-9)
    columns = (basis / lengths * 127).round().to(torch.int8).numpy().tobytes()
    lines, planes = [columns], []
    for mode in range(3):
        for c in range(-1, each):
            grid, at = (field.density_grid, rank) if c < 0 else (field.appearance_grid, each * rank + c)
            step = steps.density if c < 0 else steps.appearance
            line, plane = _component(grid, mode, at, 1.0 if c < 0 else float(lengths[mode, c]), step)
            lines.append(line)
            planes.append(plane)
    return [(lines if layer == 0 else []) + [plane[layer] for plane in planes] for layer in range(LAYERS)]


def from_slim(slim: container.Slim, levels: int | None = None) -> TensoRF:
    """The field of a file's first levels, or of all that are there.

    Raises:
        CheckpointError: a file whose contents do not fit its header.
    """
    chunks = slim.chunks[:levels]
    try:
        return _build(slim.model, chunks, slim.table)
    except (
        ConfigError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        IndexError,
        OverflowError,
        lzma.LZMAError,
        EOFError,
    ) as error:
        raise CheckpointError(
            f"The .slim file does not hold what its header says ({error}). Copy it again from its source."
        ) from None


def load(source: str | Path | bytes | BinaryIO, most: int | None = None) -> tuple[TensoRF, dict[str, Any]]:
    """The best field in the first `most` bytes of a .slim file, on the CPU, and its config, like that of a run folder."""
    slim = container.read(source, most)
    field = from_slim(slim)
    return field.eval().requires_grad_(False), slim.model | {"field": field.constructor_arguments(), "note": slim.note}


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


def _component(grid: FactorisedGrid, mode: int, at: int, scale: float, step: float) -> tuple[bytes, list[bytes]]:
    """The coded line, and the layers of the plane."""
    plane, line = (grid.factors[2 * mode + k].detach()[..., at].cpu().double().numpy() for k in (0, 1))
    size = float(np.sqrt(np.mean(line**2))) or 1.0
    plane, line = plane * (size * scale), line / size
    exponent = _exponent(float(np.sqrt(np.mean(plane**2))) / step)
    return bytes([exponent]) + encode(line, _line_step(exponent))[0], encode(plane, step, LAYERS)


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


def _build(model: dict[str, Any], chunks: list[bytes], table: list[dict[str, Any]]) -> TensoRF:
    arguments, (density_step, appearance_step) = dict(model["field"]), (float(s) for s in model["steps"])
    layers, all_ranks = model["layers"], arguments["density_rank"]
    if not (0 < density_step < math.inf and 0 < appearance_step < math.inf and 0 < layers <= 32):
        raise ValueError("its steps make no sense")
    each = arguments["appearance_rank"] // all_ranks
    got: dict[int, list[list[bytes]]] = {}
    base: list[bytes] = []
    network = 3 if arguments["decoder"] == "mlp" else 0
    for i, (chunk, row) in enumerate(zip(chunks, table, strict=False)):
        layer, of_rank = row["layer"], got.setdefault(row["rank"], [])
        count = 3 * (1 + each)
        wanted = (1 + 2 * network if i == 0 else 0) + (1 + count if layer == 0 else 0) + count
        parts = list(_parts(chunk, wanted))
        if i == 0:
            base, parts = parts[: 1 + 2 * network], parts[1 + 2 * network :]
        if layer != len(of_rank):
            raise ValueError("a layer comes before the one above it")
        of_rank.append(parts)
    ranks = len(got)
    if sorted(got) != list(range(ranks)) or ranks > all_ranks:
        raise ValueError("a rank comes before the one before it")
    x, y, z = (int(n) for n in arguments["resolution"])
    if min(x, y, z) < 2 or (x * y + x * z + y * z + x + y + z) * ranks * (1 + each) > _MOST_NUMBERS:
        raise ValueError(f"a field of {x} × {y} × {z} knots")
    if not all(0 < int(arguments[name]) <= 4096 for name in ("feature_dim", "hidden", "frequencies")):
        raise ValueError("a network of no size")
    loaded = method(str(model["method"])).load_field()
    kind = loaded if issubclass(loaded, TensoRF) else SlimmeRF
    arguments |= {"density_rank": ranks, "appearance_rank": each * ranks, "occupancy_resolution": [2, 2, 2]}
    field = kind(**arguments)
    with torch.no_grad():
        field.occupied = _unpack_occupancy(base[0])
        basis_weight: Tensor = field.decoder.basis.weight
        for layer_of_network, (weight, bias) in zip(
            field.decoder.mlp, zip(base[1::2], base[2::2], strict=True), strict=True
        ):
            _read_layer(layer_of_network, weight, bias)
        basis = basis_weight.view(-1, 3, each * ranks)
        for rank, of_rank in got.items():
            first = of_rank[0]
            columns, lines = first[0], first[1 : 2 + 3 * (1 + each) - 1]
            planes = [first[1 + len(lines) :], *of_rank[1:]]
            some = torch.frombuffer(bytearray(columns), dtype=torch.int8).float() / 127
            basis[:, :, each * rank : each * (rank + 1)] = some.view(-1, 3, each)
            for k, line in enumerate(lines):
                mode, c = divmod(k, 1 + each)
                grid, at = (field.density_grid, rank) if c == 0 else (field.appearance_grid, each * rank + c - 1)
                step = density_step if c == 0 else appearance_step
                _read_component(grid, mode, at, line, [p[k] for p in planes], step, layers)
    return field


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
