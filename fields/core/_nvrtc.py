"""Compiling the kernels for NVIDIA GPUs with NVRTC, the compiler library that torch's CUDA wheels bring along.

No toolkit, driver or GPU is needed to compile.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
from importlib.util import find_spec
from pathlib import Path

from fields.core._backend import _HEADERS, SOURCES
from fields.errors import BackendError

HOST_ONLY = ("decoder.h",)
"""Headers without GPU code."""


@functools.cache
def find_nvrtc() -> Path:
    """The NVRTC library: of the wheels in this environment, else of CUDA_HOME.

    Raises:
        BackendError: there is none.
    """
    wheels = find_spec("nvidia")
    roots = [Path(p) for p in (wheels.submodule_search_locations or [])] if wheels else []
    folders = [folder for root in roots for folder in sorted(root.glob("*/lib"), reverse=True)]
    if home := os.environ.get("CUDA_HOME"):
        folders += [Path(home) / "lib64", Path(home) / "lib"]
    for folder in folders:
        for file in sorted(folder.glob("libnvrtc.so.*")):
            if "builtins" not in file.name and "alt" not in file.name:
                return file
    raise BackendError(
        "NVRTC is not installed. CUDA builds of torch bring it; alone it is `pip install nvidia-cuda-nvrtc`."
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(find_nvrtc()))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def _check(status: int, doing: str) -> None:
    if status:
        raise BackendError(f"NVRTC failed while {doing}: {_library().nvrtcGetErrorString(status).decode()}.")


def source() -> str:
    """One translation unit of all headers that run on GPUs."""
    headers = [h for h in _HEADERS if h not in HOST_ONLY and (SOURCES / h).exists()]
    return "".join(f'#include "{header}"\n' for header in headers)


def compile_kernels(architecture: str, scalar: str = "float") -> str:
    """PTX of every kernel for an architecture such as "sm_90" and a scalar type, "float" or "double".

    Raises:
        BackendError: NVRTC is missing, or rejects the source; quotes its first error.
    """
    nvrtc, program = _library(), ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source().encode(), b"fields.cu", 0, None, None), "reading")
    virtual = architecture.replace("sm_", "compute_")
    flags = [f"--gpu-architecture={virtual}", "--std=c++17", f"--include-path={SOURCES}", f"-DFIELDS_{scalar.upper()}"]
    options = (ctypes.c_char_p * len(flags))(*[flag.encode() for flag in flags])
    try:
        if nvrtc.nvrtcCompileProgram(program, len(flags), options):
            log = _read(program, "ProgramLog")
            first = next((line for line in log.splitlines() if "error" in line), log.strip()[:200])
            raise BackendError(
                f"The kernels do not compile for {architecture}: {first.strip()}. Please report this with `fields doctor`."
            )
        return _read(program, "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    _check(getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)), "reading its output")
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(_library(), f"nvrtcGet{what}")(program, text), "reading its output")
    return text.value.decode()


def entries(ptx: str) -> set[str]:
    """Names of the kernels in PTX."""
    return set(re.findall(r"\.entry\s+(\w+)", ptx))
