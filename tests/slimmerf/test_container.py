"""The file whose every prefix is a model: prefixes, damage, pipes and the web."""

import http.server
import io
import json
import os
import random
import struct
import threading
import zlib

import pytest

from fields.errors import CheckpointError, ConfigError
from fields.slimmerf import container

MODEL = {"method": "slimmerf", "field": {"knots": 3}}


def some_file(seed=0, chunks=6):
    rng = random.Random(seed)
    payloads = [rng.randbytes(rng.randrange(1, 400)) for _ in range(chunks)]
    return container.pack(MODEL, [(p, {"rank": i}) for i, p in enumerate(payloads)]), payloads


def test_every_prefix_is_the_last_whole_level():
    data, payloads = some_file()
    whole = container.read(data)
    assert whole.chunks == payloads and whole.model == MODEL and not whole.note
    ends = [row["end"] for row in whole.table]
    assert ends[-1] == len(data) and [row["rank"] for row in whole.table] == list(range(6))
    for n in range(len(data)):
        levels = sum(end <= n for end in ends)
        if not levels:
            with pytest.raises(CheckpointError, match=r"ends before its first level|not a \.slim"):
                container.read(data[:n])
            continue
        slim = container.read(data[:n])
        assert slim.chunks == payloads[:levels]
        torn = n > ends[levels - 1]
        expected = f"level {levels + 1} of 6 is not there whole" if torn else f"the first {levels} of 6 levels"
        assert expected in slim.note
        assert container.read(data, most=n).chunks == slim.chunks


def test_a_thousand_bit_flips():
    data, payloads = some_file(1)
    begin = container.read(data).start
    rng = random.Random(2)
    for _ in range(1000):
        damaged = bytearray(data)
        at = rng.randrange(len(data))
        damaged[at] ^= 1 << rng.randrange(8)
        try:
            slim = container.read(bytes(damaged))
        except CheckpointError:
            assert at < begin + len(payloads[0])
            continue
        assert slim.chunks == payloads[: len(slim.chunks)]
        if at >= begin:
            assert len(slim.chunks) < 6 and "is damaged" in slim.note


def hostile(change):
    """A file whose header says something else, under a checksum that fits."""
    data, _ = some_file(3)
    (length,) = struct.unpack("<I", data[8:12])
    header = json.loads(zlib.decompress(data[12 : 12 + length]))
    header = change(header) or header
    deflated = header if isinstance(header, bytes) else zlib.compress(json.dumps(header).encode())
    return (
        data[:8]
        + struct.pack("<I", len(deflated))
        + deflated
        + struct.pack("<I", zlib.crc32(deflated))
        + data[16 + length :]
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["table"][0].update(bytes=1 << 39),
        lambda h: h["table"][0].update(bytes=-1),
        lambda h: h["table"][0].update(bytes=True),
        lambda h: h["table"][1].pop("crc32"),
        lambda h: h.update(table=[]),
        lambda h: h.update(table=[{"bytes": 0, "crc32": 0}] * 5000),
        lambda h: h.update(table=3),
        lambda h: h.pop("model"),
        lambda h: b"not deflated",
        lambda h: zlib.compress(b"[" * 100_000),
        lambda h: zlib.compress(b"0" * (64 << 20)),
    ],
)
def test_hostile_headers(change):
    try:
        slim = container.read(hostile(change))
    except CheckpointError as error:
        assert "\n" not in str(error)
    else:
        assert len(slim.chunks) == 1 and slim.note  # the second row is the bad one


def test_other_files_say_so(tmp_path):
    for data in (b"", b"PK\3\4 something else", b"SLRF"):
        with pytest.raises(CheckpointError):
            container.read(data)
    with pytest.raises(CheckpointError, match=r"no_such.slim: cannot be read \(No such file"):
        container.read(tmp_path / "no_such.slim")
    data, _ = some_file()
    with pytest.raises(CheckpointError, match="version 7"):
        container.read(data[:4] + struct.pack("<H", 7) + data[6:])


def test_cut_is_a_copy_of_the_first_bytes(tmp_path):
    data, payloads = some_file()
    size = container.cut(data, 3, tmp_path / "b.slim")
    assert (tmp_path / "b.slim").read_bytes() == data[:size]
    assert container.read(tmp_path / "b.slim").chunks == payloads[:3]
    with pytest.raises(CheckpointError, match="levels 1 to 6, not 7"):
        container.cut(data, 7, tmp_path / "b.slim")


@pytest.mark.parametrize("rest", ["longer", "missing"])
def test_upgrading(tmp_path, rest):
    data, _ = some_file()
    end = container.read(data).table[1]["end"]
    small, more = tmp_path / "small.slim", tmp_path / "rest.part"
    small.write_bytes(data[: end + 7])  # with the beginning of a third level
    more.write_bytes(data if rest == "longer" else data[end:])
    assert len(container.upgrade(small, more, small).chunks) == 6
    assert small.read_bytes() == data


def test_facts_in_the_table_change_no_chunk(tmp_path):
    data, payloads = some_file()
    slim = container.read(data)
    told = container.described(slim, [{"psnr": float(i)} for i in range(len(slim.table))])
    again = container.read(told)
    assert again.chunks == payloads and [row["psnr"] for row in again.table] == [0.0, 1, 2, 3, 4, 5]
    assert [row["crc32"] for row in again.table] == [row["crc32"] for row in slim.table]
    small, more = tmp_path / "small.slim", tmp_path / "more.slim"
    small.write_bytes(data[: slim.table[1]["end"]])
    more.write_bytes(told)  # the same model, though its header says more
    assert len(container.upgrade(small, more, small).chunks) == 6


def test_levels_within_a_size():
    slim = container.read(some_file()[0])
    ends = [row["end"] for row in slim.table]
    assert [container.levels_within(slim, end) for end in ends] == [1, 2, 3, 4, 5, 6]
    assert [container.levels_within(slim, end - 1) for end in ends[1:]] == [1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="the first level takes"):
        container.levels_within(slim, slim.table[0]["end"] - 1)


def test_what_does_not_belong_changes_nothing(tmp_path):
    data, _ = some_file()
    end = container.read(data).table[1]["end"]
    small, more = tmp_path / "small.slim", tmp_path / "rest.part"
    small.write_bytes(data[:end])
    for rest in (some_file(9)[0], b"", data[end + 1 :], data[:end]):
        more.write_bytes(rest)
        with pytest.raises(CheckpointError, match="adds no level"):
            container.upgrade(small, more, small)
        assert small.read_bytes() == data[:end]


def test_a_file_that_is_not_there_says_so(tmp_path):
    data, _ = some_file()
    (tmp_path / "a.slim").write_bytes(data)
    for small, rest in (("no.slim", "a.slim"), ("a.slim", "no.slim")):
        with pytest.raises(CheckpointError, match=r"no\.slim: cannot be read"):
            container.upgrade(tmp_path / small, tmp_path / rest, tmp_path / "out.slim")
    assert not (tmp_path / "out.slim").exists()


def test_from_a_pipe_that_ends_early():
    data, payloads = some_file()
    ends = [row["end"] for row in container.read(data).table]
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(data[: ends[2] + 5])
    with os.fdopen(reader, "rb") as file:
        assert container.read(file).chunks == payloads[:3]


@pytest.mark.parametrize("ranges", [True, False])
def test_from_the_web(ranges):
    data, payloads = some_file()
    ends = [row["end"] for row in container.read(data).table]
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Range"))
            part = data
            if ranges and asked[-1]:
                part = data[: int(asked[-1].rpartition("-")[2]) + 1]
            self.send_response(206 if ranges else 200)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/a.slim"
    try:
        assert container.read(address, most=ends[3]).chunks == payloads[:4]
        assert asked == [f"bytes=0-{ends[3] - 1}"]
        assert container.read(address).chunks == payloads
    finally:
        server.shutdown()
    with pytest.raises(CheckpointError, match="cannot be read"):
        container.read("http://127.0.0.1:9/a.slim")


def test_a_stream_is_read_no_further_than_asked():
    data, _ = some_file()
    stream = io.BytesIO(data)
    stream.close = lambda: None  # type: ignore[method-assign]
    container.read(stream, most=len(data) - 10)
    assert stream.tell() == len(data) - 10
