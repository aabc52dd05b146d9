"""Finding and loading the kernels compiled for this CPU."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch

from fields.core._kernels import SOURCES, SUFFIX
from fields.errors import BackendError


@functools.cache
def _instruction_sets() -> tuple[str, ...]:
    """The builds of the library this CPU can run, best first."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return ("baseline",)
    capability = torch.backends.cpu.get_cpu_capability()
    return {"AVX512": ("avx512", "avx2", "baseline"), "AVX2": ("avx2", "baseline")}.get(capability, ("baseline",))


def _openmp_runtime() -> ctypes.c_void_p | None:
    """The address of GOMP_parallel in the OpenMP runtime that torch has loaded, if there is one."""
    root = Path(torch.__file__).parent
    for folder in (root / "lib", root.parent / "torch.libs"):
        for file in sorted(folder.glob("lib*omp*")):
            try:
                return ctypes.cast(ctypes.CDLL(str(file)).GOMP_parallel, ctypes.c_void_p)
            except (OSError, AttributeError):
                continue
    return None


def _library_folders() -> list[Path]:
    """Beside this file; and, where this is a checkout, in the installed package."""
    folders = [Path(__file__).parent]
    with contextlib.suppress(PackageNotFoundError):
        folders.append(Path(str(distribution("fields").locate_file("fields/core"))))
    return folders


@functools.cache
def _fingerprint() -> bytes:
    """Of the C++ text, as CMakeLists.txt computes it: the arguments read from it must be those that were compiled."""
    files = sorted(file for file in SOURCES.iterdir() if file.suffix in {".h", ".cpp"})
    digests = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256(digests.encode()).hexdigest().encode()


@functools.cache
def library() -> tuple[ctypes.CDLL, str]:
    """The compiled CPU kernels and the instruction set they use.

    Raises:
        BackendError: the library is missing or of other sources, as in a checkout that was edited but not installed.
    """
    stale = None
    for name in _instruction_sets():
        for folder in _library_folders():
            file = folder / f"_kernels_{name}.so"
            if not file.exists():
                continue
            loaded = ctypes.CDLL(str(file))
            if not hasattr(loaded, "fields_source"):
                stale = file
                continue
            loaded.fields_source.restype = ctypes.c_char_p
            if loaded.fields_source() != _fingerprint():
                stale = file
                continue
            if (team := _openmp_runtime()) is not None:
                loaded.fields_use_team(team)
            return loaded, name
    what = f"{stale} was compiled from other sources than {SOURCES}" if stale else f"There are no compiled CPU kernels in {SOURCES.parent}"  # fmt: skip
    raise BackendError(
        f"{what}. Install the package (`pip install .`), "
        "or set FIELDS_BACKEND=reference to use the slow plain-PyTorch twins."
    )


@functools.cache
def function(kernel: str, dtype: torch.dtype) -> Any:
    found = getattr(library()[0], f"{kernel}_{SUFFIX[dtype]}")
    found.argtypes = [ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int32]
    found.restype = None
    return found
