"""Damaged files, made of valid ones by what is known of their kind.

Half of them are damaged as bytes. The others keep what protects a file from chance (checksums, lengths, compression), so that the
damage gets as far as it would if somebody meant it.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any

_INTEGERS = (
    0,
    1,
    2,
    127,
    255,
    256,
    65_535,
    2**20,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63,
    2**64 - 1,
    -1,
)
_FLOATS = (0.0, -1.0, 1e-310, 1e30, 3e38, 1e308, float("inf"), float("-inf"), float("nan"))
_WORDS = (b"0", b"-1", b"1", b"2", b"17", b"1e9", b"-1e38", b"1e400", b"nan", b"inf", b"99999999", b"4294967297",
          b"99999999999999999999", b"9" * 5000, b"", b"x", b"1 2", b"0.5")  # fmt: skip
_TEXTS = ("", "x", ".", "..", "/dev/zero", "a\0b", "\ud800", "x" * 5000, "weights", "<i8", "O", "1e400", "${HOME}")
_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


def mutate(data: bytes, suffix: str, rng: Random) -> bytes:
    """`data`, of a valid file with this ending, once or several times damaged."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        inside = _INSIDE.get(suffix)
        if inside is not None and rng.random() < 0.6:
            try:
                data = inside(data, rng)
                continue
            except Exception:  # damaged before, so that its inside is no longer found
                pass
        data = _bytes(data, rng)
    return data


# ---------------------------------------------------------------------------------------- bytes


def _bytes(data: bytes, rng: Random) -> bytes:
    if not data:
        return rng.randbytes(rng.randrange(64))
    return rng.choice((_flip, _flip, _cut, _number, _number, _word, _word, _remove, _repeat, _insert, _splice))(
        data, rng
    )


def _place(data: bytes, rng: Random) -> int:
    """More often near the beginning, where headers are."""
    return rng.randrange(min(len(data), rng.choice((32, 512, len(data)))))


def _flip(data: bytes, rng: Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(data: bytes, rng: Random) -> bytes:
    return data[: _place(data, rng)] if rng.random() < 0.5 else data[: len(data) - 1 - _place(data, rng)]


def _number(data: bytes, rng: Random) -> bytes:
    at, value = _place(data, rng), rng.choice(_INTEGERS)
    size = rng.choice((1, 2, 4, 8))
    new = (value % 256**size).to_bytes(size, rng.choice(("little", "big")))
    if rng.random() < 0.3:
        new = struct.pack(rng.choice(("<d", ">d")), rng.choice(_FLOATS))
    return data[:at] + new + data[at + len(new) :]


def _word(data: bytes, rng: Random) -> bytes:
    """A number that is written out, replaced."""
    found = list(_NUMBER.finditer(data[:100_000]))
    if not found:
        return _number(data, rng)
    one = rng.choice(found[:20] if rng.random() < 0.5 else found)
    return data[: one.start()] + rng.choice(_WORDS) + data[one.end() :]


def _remove(data: bytes, rng: Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 64, 4096)) :]


def _repeat(data: bytes, rng: Random) -> bytes:
    at, size = _place(data, rng), rng.choice((1, 4, 64, 1024))
    return data[:at] + data[at : at + size] * rng.choice((2, 3, 50)) + data[at + size :]


def _insert(data: bytes, rng: Random) -> bytes:
    at = _place(data, rng)
    return (
        data[:at]
        + rng.choice((rng.randbytes(8), bytes(8), b"\n", b" ", b"\xff" * 8, b"[" * 5000, b"{", b'"'))
        + data[at:]
    )


def _splice(data: bytes, rng: Random) -> bytes:
    at, source = _place(data, rng), _place(data, rng)
    part = data[source : source + rng.choice((4, 16, 256))]
    return data[:at] + part + data[at + len(part) :]


# ---------------------------------------------------------------------------------------- trees of plain data


def _json(data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.1:
        return rng.choice(
            (b"[" * 200_000, b'{"a":' * 100_000, b"9" * 10_000, b"null", b'"x"', b"[]", b"{}", b"NaN", b"[1e999]")
        )
    text = json.dumps(_tree(json.loads(data), rng)).encode()
    if rng.random() < 0.1 and text.startswith(b"{"):  # a key twice, the second of which counts
        text = (
            text[:-1]
            + b', "'
            + rng.choice(re.findall(rb'"(\w+)":', text) or [b"a"])
            + b'": '
            + rng.choice(_WORDS[:6])
            + b"}"
        )
    return text


def _tree(tree: Any, rng: Random) -> Any:
    """The same with one node changed."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any, depth: int = 0) -> None:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            places.extend([(node, key)] * (4 if depth < 2 else 1))
            visit(node[key], depth + 1)

    visit(tree)
    if not places or rng.random() < 0.03:
        return _other(tree, rng)
    node, key = rng.choice(places)
    what = rng.random()
    if what < 0.15:
        del node[key]
    elif what < 0.25 and isinstance(node, list):
        node.insert(key, node[key])
    elif what < 0.3 and isinstance(node, dict):
        node[rng.choice(_TEXTS[:4])] = node.pop(key)
    else:
        node[key] = _other(node[key], rng)
    return tree


def _other(node: Any, rng: Random) -> Any:
    if (
        isinstance(node, str) and node[:1] in ("{", "[") and rng.random() < 0.9
    ):  # JSON within JSON, as safetensors have it
        return json.dumps(_tree(json.loads(node), rng))
    if isinstance(node, int | float) and rng.random() < 0.6:
        return rng.choice((*_INTEGERS, *_FLOATS, 10**400, -node, node * 2, node + 1, True))
    if isinstance(node, list) and rng.random() < 0.4:
        return rng.choice((node[:-1], node * 2, node[:1], [node], node[::-1]))
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    return rng.choice((None, True, 0, -1, 1.5, 10**30, float("nan"), [], {}, [[]], {"a": 1}, [1, "x"], deep, *_TEXTS))


# ---------------------------------------------------------------------------------------- containers


@lru_cache
def zeros(megabytes: int) -> bytes:
    """So many, deflated: a thousandth of them."""
    deflate = zlib.compressobj(9)
    return b"".join([*(deflate.compress(bytes(1 << 20)) for _ in range(megabytes)), deflate.flush()])


def _npy(data: bytes, rng: Random) -> bytes:
    """Another shape or type, in a header of the right length."""
    (length,) = struct.unpack_from("<H", data, 8)
    header = data[10 : 10 + length].rstrip()
    if rng.random() < 0.7:
        header = _word(header, rng)
    else:
        kind = rng.choice(
            (
                b"'<i4'",
                b"'|O'",
                b"'<f2'",
                b"'<U99999999'",
                b"'|V1000000'",
                b"'|S0'",
                b"'<c16'",
                b"[('a', '<f4')]",
                b"'<M8[s]'",
                b"3",
            )
        )
        header = re.sub(rb"('descr': ).*?(, 'fortran)", lambda m: m[1] + kind + m[2], header)
    return data[:8] + struct.pack("<H", len(header) + 1) + header + b"\n" + data[10 + length :]


def _zip(data: bytes, rng: Random) -> bytes:
    """One member damaged, left out, or inflated to far more than the archive; checksums fit."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    names = source.namelist()
    chosen, what = rng.choice(names), rng.random()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            body = source.read(name)
            if name == chosen:
                if what < 0.1:
                    continue
                if what < 0.2:
                    body = body[: rng.randrange(len(body) + 1)] + bytes(rng.choice((1, 64)) << 20)
                elif what < 0.3:
                    name = rng.choice(names)
                else:
                    body = mutate(body, "." + name.rpartition(".")[2], rng)
            archive.writestr(name, body)
    return target.getvalue()


def _png(data: bytes, rng: Random) -> bytes:
    """One chunk changed, or what its pixels inflate to."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    i = rng.randrange(len(chunks))
    kind, body = chunks[i]
    if kind == b"IDAT" and rng.random() < 0.5:
        body = zeros(64) if rng.random() < 0.2 else zlib.compress(_bytes(zlib.decompress(body), rng))
    elif kind == b"IHDR" and rng.random() < 0.5:
        at = rng.choice((0, 4))
        body = (
            body[:at]
            + struct.pack(">I", rng.choice((0, 1, 4000, 13_000, 40_000, 2**31 - 1, 2**32 - 1)))
            + body[at + 4 :]
        )
    else:
        body = _bytes(body, rng)
    chunks[i : i + 1] = [(kind, body)] * rng.choice((0, 1, 1, 1, 1, 1, 1, 2))
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _safetensors(data: bytes, rng: Random) -> bytes:
    (size,) = struct.unpack_from("<Q", data)
    header = json.dumps(_tree(json.loads(data[8 : 8 + size]), rng)).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def _glb(data: bytes, rng: Random) -> bytes:
    (size,) = struct.unpack_from("<I", data, 12)
    header = json.dumps(_tree(json.loads(data[20 : 20 + size]), rng)).encode()
    header += b" " * (-len(header) % 4)
    rest = data[20 + size :]
    return data[:8] + struct.pack("<II4s", 20 + len(header) + len(rest), len(header), b"JSON") + header + rest


def _slim(data: bytes, rng: Random) -> bytes:
    """Header and levels, each under the checksum that fits."""
    (length,) = struct.unpack_from("<I", data, 8)
    header, at, chunks = json.loads(zlib.decompress(data[12 : 12 + length])), 16 + length, []
    for row in header["table"]:
        chunks.append(data[at : at + row["bytes"]])
        at += row["bytes"]
    if rng.random() < 0.5:
        i = rng.randrange(len(chunks))
        chunks[i] = _bytes(chunks[i], rng)
        header["table"][i] |= {"bytes": len(chunks[i]), "crc32": zlib.crc32(chunks[i])}
    else:
        header = _tree(header, rng)
    deflated = zlib.compress(json.dumps(header).encode()) if rng.random() < 0.95 else zeros(64)
    return b"".join(
        [data[:8], struct.pack("<I", len(deflated)), deflated, struct.pack("<I", zlib.crc32(deflated)), *chunks]
    )


def _hdf5(data: bytes, rng: Random) -> bytes:
    """A group, array or attribute replaced."""
    import h5py
    import numpy as np

    target = io.BytesIO(data)
    with h5py.File(target, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = rng.choice(names)
        value = rng.choice(
            (
                3,
                "x",
                b"x" * 9,
                np.zeros((0, 3)),
                np.zeros((2, 3)),
                np.full((5, 3), np.nan),
                np.array([b"a", b"b"]),
                np.arange(12),
            )
        )
        attributes = list(file[name].attrs) or list(file.attrs)
        if attributes and rng.random() < 0.4:
            place = file[name] if file[name].attrs else file
            place.attrs[rng.choice(attributes)] = value
        else:
            del file[name]
            what = rng.random()
            if what < 0.3:
                file.create_group(name)
            elif what < 0.5:  # of a size that nothing is stored of
                file.create_dataset(name, (rng.choice((10, 2**28, 2**40)), 3), np.float32, chunks=(1, 3))
            elif what < 0.9:
                file[name] = value
    return target.getvalue()


def _yaml(data: bytes, rng: Random) -> bytes:
    import yaml

    if rng.random() < 0.15:
        laughs = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
        return rng.choice((laughs.encode() + b"scenes: *a11\nmethods: *a11\n", b"scenes: !!python/object/apply:os.system [true]\n",
                           b"- " * 3000 + b"x", b"&a [*a]", b"{" * 3000, b"scenes: &a {b: *a}\nmethods: *a\n", b"\t", b"2001-99-99"))  # fmt: skip
    if b"*" in data:  # a tree of aliases may have no end
        return _bytes(data, rng)
    return json.dumps(_tree(yaml.safe_load(data), rng)).encode()  # JSON is YAML


_INSIDE: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": _json, ".npy": _npy, ".npz": _zip, ".pth": _zip, ".png": _png, ".safetensors": _safetensors, ".glb": _glb, ".gltf": _json,
    ".slim": _slim, ".h5": _hdf5, ".hdf5": _hdf5, ".yaml": _yaml,
}  # fmt: skip
"""By a file's ending: what changes a valid one behind its protections."""
