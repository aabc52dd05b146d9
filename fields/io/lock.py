"""One process at a time in a file or a folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from fields.errors import ConfigError, FieldsError

try:
    import fcntl
except ImportError:  # not a system with such locks
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Has the folder, which is made, for itself. The system frees it when the process ends, however it does. One that was
    made and has nothing in it goes.

    Raises:
        ConfigError: another process has it.
        FieldsError: the folder cannot be written.
    """
    path = folder / NAME
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab+", buffering=0)  # noqa: SIM115 — closed below
    except OSError as error:
        raise FieldsError(f"{folder}: cannot be written ({error.strerror}). Choose another --out.") from error
    with file:
        if taken := _owner_if_taken(file):
            raise ConfigError(f"{folder}: process {taken} trains into it. Wait for it, or choose another --out.")
        try:
            file.truncate(0)
            file.write(f"{os.getpid()} on {platform.node()}".encode())
        except OSError as error:
            path.unlink(missing_ok=True)
            raise FieldsError(f"{folder}: cannot be written ({error.strerror}). Free some space.") from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # until one that something has been written into
                for one in made:
                    one.rmdir()


def locked(file: int | FileIO) -> bool:
    """Locks an open file until it is closed; False where another process has it. Raises OSError where nothing can be locked."""
    if fcntl is None:
        raise OSError("no locks")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner_if_taken(file: FileIO) -> str:
    """Locks the file, or tells whose it is."""
    file.seek(0)
    owner = file.read(200).decode(errors="replace") or "(which has not yet said its number)"
    try:
        # Whoever had it may have removed it since it was opened, and somebody else made a new one.
        return "" if locked(file) and _same(file) else owner
    except OSError:  # a system or file system without locks: whether the process that it names lives
        pid, _, host = owner.partition(" on ")
        return owner if host == platform.node() and _lives(pid) else ""


def _same(file: FileIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except OSError:
        return False


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return int(pid) != os.getpid()  # of one before this that had the same number
