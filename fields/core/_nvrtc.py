"""Compiling kernels for NVIDIA GPUs with NVRTC, the compiler library that torch's CUDA wheels bring along.

No toolkit, driver or GPU is needed to compile. Machine code is kept on disk, in `cache_folder()`, under a hash of
everything that determines it; processes that want the same kernel at once compile it once.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fields.core._kernels import SOURCES, SUFFIX, kernels
from fields.errors import BackendError

_SCALAR = {torch.float32: "float", torch.float64: "double"}


@functools.cache
def find_nvrtc() -> Path:
    """The NVRTC library: of the wheels in this environment, else of CUDA_HOME, else where cuda-pathfinder finds it.

    Raises:
        BackendError: there is none.
    """
    wheels = find_spec("nvidia")
    roots = [Path(p) for p in (wheels.submodule_search_locations or [])] if wheels else []
    folders = [folder for root in roots for name in ("lib", "bin") for folder in sorted(root.glob(f"*/{name}"), reverse=True)]  # fmt: skip
    if home := os.environ.get("CUDA_HOME"):
        folders += [Path(home) / "lib64", Path(home) / "lib", Path(home) / "bin"]
    for folder in folders:
        for file in [*sorted(folder.glob("libnvrtc.so.*")), *sorted(folder.glob("nvrtc64_*.dll"))]:
            if "builtins" not in file.name and "alt" not in file.name:
                return file
    if find_spec("cuda") and find_spec("cuda.pathfinder"):
        from cuda import pathfinder

        with contextlib.suppress(pathfinder.DynamicLibNotFoundError):
            return Path(str(pathfinder.load_nvidia_dynamic_lib("nvrtc").abs_path))
    raise BackendError(
        "NVRTC is not installed. CUDA builds of torch bring it; alone it is `pip install nvidia-cuda-nvrtc`."
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(find_nvrtc()))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


@functools.cache
def version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "asking its version")
    return f"{major.value}.{minor.value}"


@functools.cache
def supported() -> tuple[int, ...]:
    """The architectures this NVRTC knows, ascending, as numbers: 90 for sm_90."""
    count = ctypes.c_int()
    _check(_library().nvrtcGetNumSupportedArchs(ctypes.byref(count)), "asking for its architectures")
    numbers = (ctypes.c_int * count.value)()
    _check(_library().nvrtcGetSupportedArchs(numbers), "asking for its architectures")
    return tuple(sorted(numbers))


def target(capability: tuple[int, int]) -> str:
    """What to compile for: machine code of the device; for one newer than this NVRTC, the newest PTX it knows, which
    the driver translates.

    Raises:
        BackendError: the device is older than anything this NVRTC compiles for.
    """
    number = capability[0] * 10 + capability[1]
    if number in supported():
        return f"sm_{number}"
    older = [a for a in supported() if a < number]
    if not older:
        raise BackendError(
            f"This GPU (compute capability {capability[0]}.{capability[1]}) is older than NVRTC {version()} supports "
            f"(from {supported()[0] / 10}). Use a torch of an older CUDA, or FIELDS_BACKEND=reference."
        )
    return f"compute_{older[-1]}"


def source(kernel: str, dtype: torch.dtype) -> tuple[str, str]:
    """The translation unit of one kernel, and the name of its entry point."""
    which, entry = kernels()[kernel], f"{kernel}_{SUFFIX[dtype]}"
    struct = which.struct.replace("<T", f"<{_SCALAR[dtype]}")
    return f'#include "{which.header}"\ntypedef {struct} Kernel;\nFIELDS_ENTRY({entry}, Kernel)\n', entry


def defines(team: int, special: dict[str, Any]) -> list[str]:
    """The macros of csrc/common.h as compiler options."""

    def text(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return [f"-DFIELDS_TEAM={team}", *(f"-DFIELDS_{name.upper()}={text(v)}" for name, v in sorted(special.items()))]


def compile_kernel(kernel: str, dtype: torch.dtype, architecture: str, team: int = 1, special: dict | None = None) -> bytes:  # fmt: skip
    """Machine code (for "sm_90") or PTX (for "compute_90") of one kernel.

    Raises:
        BackendError: NVRTC is missing, or rejects the source; quotes its first error.
    """
    return compile_source(source(kernel, dtype)[0], architecture, defines(team, special or {}))


def compile_source(text: str, architecture: str, options: list[str]) -> bytes:
    nvrtc, program = _library(), ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"fields.cu", 0, None, None), "reading")
    flags = [*_flags(architecture), f"--include-path={SOURCES}", *options]
    array = (ctypes.c_char_p * len(flags))(*[flag.encode() for flag in flags])
    try:
        if nvrtc.nvrtcCompileProgram(program, len(flags), array):
            log = _read(program, "ProgramLog").decode(errors="replace").strip("\0\n ")
            first = next((line for line in log.splitlines() if "error" in line), log[:200])
            raise BackendError(
                f"NVRTC {version()} cannot compile a kernel for {architecture}: {first.strip()}. "
                "Please report this with the output of `fields doctor`; FIELDS_BACKEND=reference works meanwhile."
            )
        return _read(program, "CUBIN" if architecture.startswith("sm_") else "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _flags(architecture: str) -> list[str]:
    # Before CUDA 13.5, a lambda with an `auto` parameter counts as a host function unless the device is the default.
    return [f"--gpu-architecture={architecture}", "--std=c++17", "--extra-device-vectorization", "--device-as-default-execution-space"]  # fmt: skip


def _read(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)), "reading its output")
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(_library(), f"nvrtcGet{what}")(program, text), "reading its output")
    return text.raw


def _check(status: int, doing: str) -> None:
    if status:
        raise BackendError(f"NVRTC failed while {doing}: {_library().nvrtcGetErrorString(status).decode()}.")


# ---------------------------------------------------------------------------------------- the cache on disk


def cache_folder() -> Path:
    """Where machine code is kept: $FIELDS_CACHE, else ``fields`` in the user's cache folder."""
    if chosen := os.environ.get("FIELDS_CACHE"):
        return Path(chosen) / "kernels"
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "fields" / "kernels"


@functools.cache
def _headers_digest() -> str:
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in sorted(SOURCES.glob("*.h")))).hexdigest()


def cached_kernel(kernel: str, dtype: torch.dtype, architecture: str, team: int = 1, special: dict | None = None) -> bytes:  # fmt: skip
    """`compile_kernel`, from the disk where it is known there.

    A cache that cannot be written (read-only, full) is done without; a damaged file in it is compiled again.
    """
    determining = [source(kernel, dtype)[0], *_flags(architecture), *defines(team, special or {}), version(), _headers_digest()]  # fmt: skip
    file = cache_folder() / hashlib.sha256("\0".join(determining).encode()).hexdigest()
    if (code := _stored(file)) is not None:
        return code
    with _alone(file.with_suffix(".lock")):
        if (code := _stored(file)) is None:  # another process may have been quicker
            code = compile_kernel(kernel, dtype, architecture, team, special)
            _store(file, code)
    return code


def _stored(file: Path) -> bytes | None:
    """The contents behind their own digest, or None if the file is missing or damaged."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    digest, code = data[:32], data[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _store(file: Path, code: bytes) -> None:
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".")
        with open(handle, "wb") as out:
            out.write(hashlib.sha256(code).digest() + code)
        os.replace(temporary, file)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keeps other processes out where the system and the folder allow it; compiling twice would only cost time."""
    handle = None
    try:
        import fcntl

        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = open(lock, "w")  # noqa: SIM115  (closed below, after the work)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except (ImportError, OSError):
        pass
    try:
        yield
    finally:
        if handle is not None:
            handle.close()
