"""Readers on damaged files, in processes of their own, whose time and memory are bounded."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import random
import resource
import signal
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fields.benchmarks.fuzz.mutations import mutate
from fields.benchmarks.fuzz.targets import TARGETS, Target

from fields.errors import FieldsError

ROOM = 64 << 20
"""Bytes that reading may take whatever the size of the input: libraries, thread stacks, arenas."""
SECONDS = 10.0
_ADDRESSES = 4 << 30  # of memory that is asked for and never touched, beyond which asking fails


@dataclass(frozen=True)
class Finding:
    """What a reader made of an input, where that was not one clear error."""

    seed: int
    file: str
    """The damaged one, in the sample's folder."""
    kind: str
    """exception, memory, hang or crash."""
    what: str
    """One line."""
    where: str
    """The innermost place in this package."""
    data: bytes
    """What the file was."""


def damage(target: Target, folder: Path, seed: int) -> tuple[Path, bytes]:
    """Damages one file of a sample, and gives what it was. Of many, now and then, one is emptied, missing, or a folder."""
    rng = random.Random(seed)
    file = rng.choice(sorted(f for f in folder.rglob(target.damaged) if f.is_file()))
    before, what = file.read_bytes(), rng.random()
    file.unlink()
    if what < 0.01:
        file.mkdir()
    elif what > 0.02:
        file.write_bytes(b"" if what > 0.99 else mutate(before, file.suffix, rng))
    return file, before


def restore(file: Path, before: bytes) -> None:
    if file.is_dir():
        file.rmdir()
    file.write_bytes(before)


def run(name: str, seeds: Sequence[int], seconds: float = SECONDS) -> Iterator[Finding | None]:
    """For every seed what is wrong with the reader `name`, or None. A process does them one after the other; where it dies, another goes on."""
    done = 0
    while done < len(seeds):
        read_end, write_end = os.pipe()
        with tempfile.TemporaryFile() as log:
            child = os.fork()
            if not child:
                os.close(read_end)
                try:
                    _work(TARGETS[name], seeds[done:], os.fdopen(write_end, "wb"), log.fileno(), seconds)
                finally:
                    os._exit(0)
            os.close(write_end)
            with os.fdopen(read_end, "rb") as pipe:
                for found in _unpickled(pipe):
                    done += 1
                    yield found
            _, status = os.waitpid(child, 0)
            if done < len(seeds):
                log.seek(0)
                text = log.read().decode(errors="replace")
                if text.startswith("Traceback"):
                    raise RuntimeError(f"{name}: its sample cannot be made or read.\n{text}")
                yield _died(name, seeds[done], text, status)
                done += 1


def _unpickled(pipe: Any) -> Iterator[Any]:
    while True:
        try:
            yield pickle.load(pipe)
        except (EOFError, pickle.UnpicklingError):
            return


def _died(name: str, seed: int, text: str, status: int) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        TARGETS[name].build(Path(folder))
        file, _ = damage(TARGETS[name], Path(folder), seed)
        data = file.read_bytes() if file.is_file() else b""
        lines = [line.strip() for line in text.splitlines() if "fields/" in line and "/fuzz/" not in line]
        code = os.waitstatus_to_exitcode(status)
        kind = "hang" if text.startswith("Timeout") else "crash"
        what = text.splitlines()[0] if text else signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Finding(seed, str(file.relative_to(folder)), kind, what, lines[0] if lines else "", data)


def _work(target: Target, seeds: Iterable[int], out: Any, log: int, seconds: float) -> None:
    """In a process of its own: reads damaged samples and writes what it finds to `out`."""
    torch.set_num_threads(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    ctypes.CDLL(None).mallopt(
        -8, 1
    )  # M_ARENA_MAX: threads share one heap, so that their address space says what they use
    faulthandler.enable(log)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        try:
            target.build(path)
            target.read(path)  # imports what it needs; a valid sample is read
        except BaseException:
            os.write(log, traceback.format_exc().encode())
            return
        for seed in seeds:
            file, before = damage(target, path, seed)
            data = file.read_bytes() if file.is_file() else b""
            size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
            faulthandler.dump_traceback_later(seconds, exit=True, file=log)
            kind, what, where = _read(target, path, ROOM + target.factor * size)
            faulthandler.cancel_dump_traceback_later()
            name = str(file.relative_to(path))
            pickle.dump(Finding(seed, name, kind, what, where, data) if kind else None, out)
            out.flush()
            restore(file, before)


def _read(target: Target, folder: Path, allowed: int) -> tuple[str, str, str]:
    """Kind, description and place of what is wrong; empty where nothing is."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + _ADDRESSES, resource.RLIM_INFINITY))
    kind = what = where = ""
    try:
        target.read(folder)
    except FieldsError as error:
        if _from_memory(error):
            kind, what, where = "memory", "asked for more than there is", _place(error)
        elif not str(error).strip():
            kind, what, where = "exception", f"{type(error).__name__} without a word", _place(error)
    except BaseException as error:
        kind, what, where = "exception", f"{type(error).__name__}: {str(error)[:200]}", _place(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    grown = _status("VmHWM") - before
    if not kind and grown > allowed:
        kind, what = "memory", f"took {grown >> 20} MiB, may take {allowed >> 20}"
    return kind, what, where


def _status(key: str) -> int:
    """Bytes, of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) << 10


def _from_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _place(error: BaseException) -> str:
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "/fields/" in f.filename or "/apps/" in f.filename
    ]
    frames = [f for f in frames if "site-packages" not in f.filename] or frames
    return f"{'/'.join(Path(frames[-1].filename).parts[-3:])}:{frames[-1].lineno} {frames[-1].name}" if frames else ""
