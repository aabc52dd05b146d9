"""A file whose every prefix is a smaller model.

    magic "SLRF" | version u16 | flags u16 | length of the header u32 | header | crc32 of it u32 | chunk 0 | chunk 1 | …

Little-endian. The header is deflated JSON: a table of the chunks (bytes, crc32, what the writer says of each) and the
model's plain data. Nothing follows the last chunk, so the first bytes of a file, however many came through, are the header
and the chunks that are whole; each builds on those before it.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import URLError
from urllib.request import Request, urlopen

from fields.errors import CheckpointError, ConfigError
from fields.io.atomic import write_atomically

MAGIC, VERSION = b"SLRF", 1
_START = struct.Struct("<4sHHI")
_MOST_HEADER = 16 << 20  # bytes, inflated
_MOST_CHUNKS = 4096
_OWN = ("bytes", "crc32", "end")


@dataclass
class Slim:
    """What could be read."""

    name: str
    """The file, for messages."""
    model: dict[str, Any]
    """The model's plain data."""
    table: list[dict[str, Any]]
    """Of every chunk of the whole file: "bytes", "crc32", "end" (size of the file up to it), and the writer's own."""
    chunks: list[bytes]
    """The whole and undamaged ones from the first."""
    note: str
    """What is missing, and why; empty if nothing is."""
    start: int
    """Bytes before the first chunk."""


def pack(model: dict[str, Any], chunks: list[tuple[bytes, dict[str, Any]]]) -> bytes:
    """The bytes of a file."""
    table = [{**facts, "bytes": len(data), "crc32": zlib.crc32(data)} for data, facts in chunks]
    header = zlib.compress(json.dumps({"model": model, "table": table}, separators=(",", ":")).encode(), 9)
    start = _START.pack(MAGIC, VERSION, 0, len(header))
    return b"".join([start, header, struct.pack("<I", zlib.crc32(header)), *(data for data, _ in chunks)])


def read(source: str | Path | bytes | BinaryIO, most: int | None = None) -> Slim:
    """Reads a file, or the first `most` bytes of it.

    Args:
        source: a path, an http(s) address (asked for no more than `most` bytes), the bytes, or a binary stream, which is
            read from where it is to its end or to `most`, without seeking.

    Raises:
        CheckpointError: it cannot be read, is no such file, or ends before its first chunk does.
    """
    name, stream = _open(source, most)
    with stream:
        return _read(name, lambda n: _exactly(stream, n), most)


def _open(source: str | Path | bytes | BinaryIO, most: int | None) -> tuple[str, BinaryIO]:
    if isinstance(source, bytes):
        return "the file", io.BytesIO(source)
    if not isinstance(source, str | Path):
        return getattr(source, "name", "the stream"), source
    try:
        if str(source).startswith(("http://", "https://")):
            headers = {} if most is None else {"Range": f"bytes=0-{most - 1}"}
            return str(source), urlopen(Request(str(source), headers=headers), timeout=30)
        return str(source), Path(source).open("rb")
    except (OSError, URLError, ValueError) as error:
        raise _unreadable(source, error) from None


def _exactly(stream: BinaryIO, n: int) -> bytes:
    """n bytes, or as many as there are: a pipe hands over parts, and an absurd n must not make memory."""
    parts, left = [], n
    while left:
        try:
            part = stream.read(min(left, 1 << 20))
        except OSError:
            break  # a connection that broke: what came through counts
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _read(name: str, take: Callable[[int], bytes], most: int | None) -> Slim:
    left = most if most is not None else 1 << 62

    def next_bytes(n: int) -> bytes:
        nonlocal left
        data = take(min(n, left))
        left -= len(data)
        return data

    start = next_bytes(_START.size)
    if start[:4] != MAGIC[: len(start)] or not start:
        raise CheckpointError(f"{name}: not a .slim file. Give one that `fields slim` wrote.")
    too_short = CheckpointError(f"{name}: ends before its first level does. Copy more of it.")
    if len(start) < _START.size:
        raise too_short
    _, version, _, length = _START.unpack(start)
    if version != VERSION:
        raise CheckpointError(f"{name}: version {version} of the format, this reads {VERSION}. Update fields.")
    if length > _MOST_HEADER:
        raise CheckpointError(f"{name}: its header is damaged. Copy it again from its source.")
    deflated, check = next_bytes(length), next_bytes(4)
    if len(deflated) < length or len(check) < 4:
        raise too_short
    table, model = _header(name, deflated, check)
    begin = end = _START.size + length + 4
    for row in table:
        end += row["bytes"]
        row["end"] = end
    chunks, note = [], ""
    for i, row in enumerate(table):
        data = next_bytes(row["bytes"])
        if len(data) < row["bytes"] or zlib.crc32(data) != row["crc32"]:
            whole = len(data) == row["bytes"]
            why = "is damaged" if whole else "is not there whole"
            note = f"{name}: level {i + 1} of {len(table)} {why}; it and what builds on it are left out"
            if not data:  # cut on purpose, between two levels
                note = f"{name}: the first {i} of {len(table)} levels"
            if not i and whole:
                raise CheckpointError(f"{name}: its first level is damaged. Copy it again from its source.")
            break
        chunks.append(data)
    if not chunks:
        raise too_short
    return Slim(name, model, table, chunks, note, begin)


def _header(name: str, deflated: bytes, check: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    damaged = CheckpointError(f"{name}: its header is damaged. Copy it again from its source.")
    if struct.unpack("<I", check)[0] != zlib.crc32(deflated):
        raise damaged
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(deflated, _MOST_HEADER)
        header = json.loads(text)
        table, model = header["table"], header["model"]
        whole = inflate.eof and isinstance(model, dict) and 0 < len(table) <= _MOST_CHUNKS
        if not whole or not all(_count(row["bytes"]) and _count(row["crc32"]) for row in table):
            raise damaged
    except (zlib.error, ValueError, KeyError, TypeError, RecursionError):
        raise damaged from None
    return table, model


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


def levels_within(slim: Slim, size: int) -> int:
    """How many chunks a file of so many bytes has room for.

    Raises:
        ConfigError: none.
    """
    levels = sum(row["end"] <= size for row in slim.table[: len(slim.chunks)])
    if not levels:
        raise ConfigError(f"{size} bytes: the first level takes {slim.table[0]['end']}. Allow more.")
    return levels


def cut(data: bytes, level: int, out: Path) -> int:
    """Writes the first `level` chunks of a file, its own first bytes, and returns how many bytes they are.

    Raises:
        CheckpointError: the file has no such level whole.
    """
    slim = read(data)
    if not 1 <= level <= len(slim.chunks):
        raise CheckpointError(f"{slim.name}: has the levels 1 to {len(slim.chunks)}, not {level}.")
    end = slim.table[level - 1]["end"]
    write_atomically(out, lambda file: file.write_bytes(data[:end]))
    return end


def described(slim: Slim, facts: list[dict[str, Any]]) -> bytes:
    """The bytes of a whole file again, with more facts in the rows of its table."""
    rows = [
        {k: v for k, v in (row | more).items() if k not in _OWN} for row, more in zip(slim.table, facts, strict=True)
    ]
    return pack(slim.model, list(zip(slim.chunks, rows, strict=True)))


def bytes_of(path: Path) -> bytes:
    """A whole file. Raises CheckpointError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(source: str | Path, error: Exception) -> CheckpointError:
    reason = getattr(error, "strerror", None) or str(error)
    return CheckpointError(f"{source}: cannot be read ({reason}). Give a .slim file that `fields slim` wrote.")


def upgrade(small: Path, rest: Path, out: Path) -> Slim:
    """Joins a file with what it lacks: a file of the bytes behind its own, or a longer file of the same model.

    `out` may be `small`; it changes only if all went well.

    Raises:
        CheckpointError: they do not belong together, or nothing is gained.
    """
    first, more, have = bytes_of(small), bytes_of(rest), read(small)
    end = have.table[len(have.chunks) - 1]["end"]
    joined = more if more.startswith(MAGIC) else first[:end] + more
    try:
        slim = read(joined)
    except CheckpointError:
        slim = have
    if [row["crc32"] for row in slim.table] != [row["crc32"] for row in have.table]:
        slim = have
    if len(slim.chunks) <= len(have.chunks):
        raise CheckpointError(
            f"{rest}: adds no level to {small}, which has {len(have.chunks)} of {len(have.table)}. "
            f"Give the bytes from {end} on, or a longer file of the same model."
        )
    whole = joined[: slim.table[len(slim.chunks) - 1]["end"]]
    write_atomically(out, lambda file: file.write_bytes(whole))
    return slim
