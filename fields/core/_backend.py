"""Finding, loading and launching the kernels of ``csrc/``.

The arguments of a kernel are the members of its C++ struct, and the C++ text is the only place that lists them: this
module reads them there, so a launch names them and nothing is declared twice::

    launch("ray_aabb", rays_o.shape[0], dtype=rays_o.dtype, rays_o=rays_o, rays_d=rays_d, aabbs=aabbs, ...)
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.errors import BackendError

SOURCES = Path(__file__).parent / "csrc"
_HEADERS = ("grid.h", "rays.h", "march.h", "volrend.h", "decoder.h", "neighbours.h", "pdf.h", "cloud.h")
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
_DTYPES = {
    "int64_t": torch.int64,
    "int32_t": torch.int32,
    "uint8_t": torch.uint8,
    "float": torch.float32,
    "double": torch.float64,
}
_SCALARS = {"int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "uint8_t": ctypes.c_uint8, "float": ctypes.c_float,
            "double": ctypes.c_double}  # fmt: skip


# ---------------------------------------------------------------------------------------- which backend


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
def cpu_library() -> tuple[ctypes.CDLL, str]:
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
            library = ctypes.CDLL(str(file))
            if not hasattr(library, "fields_source"):
                stale = file
                continue
            library.fields_source.restype = ctypes.c_char_p
            if library.fields_source() != _fingerprint():
                stale = file
                continue
            if (team := _openmp_runtime()) is not None:
                library.fields_use_team(team)
            return library, name
    what = f"{stale} was compiled from other sources than {SOURCES}" if stale else f"There are no compiled CPU kernels in {SOURCES.parent}"  # fmt: skip
    raise BackendError(
        f"{what}. Install the package (`pip install .`), "
        "or set FIELDS_BACKEND=reference to use the slow plain-PyTorch twins."
    )


def use_reference(tensor: Tensor) -> bool:
    """Whether ops on `tensor` run as their plain-PyTorch twins: asked for, or no kernels for the device."""
    choice = os.environ.get("FIELDS_BACKEND", "auto")
    if choice not in {"auto", "cpu", "reference"}:
        raise BackendError(f"FIELDS_BACKEND is {choice!r}; it can be auto, cpu or reference.")
    if choice == "reference":
        return True
    if tensor.device.type != "cpu":
        _warn_reference(tensor.device.type)
        return True
    return False


@functools.cache
def _warn_reference(device: str) -> None:
    warnings.warn(f"fields.core has no compiled kernels for {device} yet: the plain-PyTorch twins run instead.")


def backend_name(device: torch.device | str = "cpu") -> str:
    """The backend in words, for reports: ``cpu-avx512``, ``reference`` …"""
    if use_reference(torch.empty(0, device=device)):
        return "reference"
    return f"cpu-{cpu_library()[1]}"


def keep_freed_memory() -> None:
    """Lets the allocator keep freed blocks for the next iteration instead of returning them to the system."""
    if os.environ.get("FIELDS_BACKEND", "auto") != "reference":
        cpu_library()[0].fields_keep_freed_memory()


# ---------------------------------------------------------------------------------------- reading the C++ text


@functools.cache
def _text() -> str:
    text = "\n".join((SOURCES / name).read_text() for name in _HEADERS if (SOURCES / name).exists())
    return re.sub(r"//[^\n]*", "", text)


@functools.cache
def kernels() -> dict[str, str]:
    """Every kernel's name and the C++ struct that holds its arguments."""
    found = dict(re.findall(r"^FIELDS_KERNEL\((\w+),[^,]+,\s*(?:fields::)?(\w+)", _text(), re.M))
    groups = re.findall(r"#define (FIELDS_\w+_KERNELS)\(.*?\)((?:.*\\\n)*.*\n)", _text())
    for macro, body in groups:
        members = re.findall(r"FIELDS_KERNEL\(\w+##(\w+),[^,]+,\s*(\w+)", body)
        for prefix in re.findall(rf"^{macro}\((\w+),", _text(), re.M):
            found.update({f"{prefix}{suffix}": arguments for suffix, arguments in members})
    return found


@functools.cache
def _members(arguments: str) -> tuple[tuple[str, str, bool, int], ...]:
    """(name, type, is pointer, array length or 0) of each member of the C++ struct `arguments`."""
    body = re.search(rf"struct {arguments}(?:\s*:[^{{]*)? \{{\n(.*?)(?:^\}};|FIELDS_FN|template)", _text(), re.S | re.M)
    assert body, f"no struct {arguments} in {SOURCES}"
    lines = re.findall(r"^\s*(?:const )?(\w+)(\*?) (\w+)(?:\[(\d+)\])?;", body[1], re.M)
    return tuple((name, kind, bool(star), int(length or 0)) for kind, star, name, length in lines)


@functools.cache
def _structure(arguments: str, dtype: torch.dtype) -> type[ctypes.Structure]:
    def ctype(kind: str, pointer: bool, length: int):
        scalar = (
            {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}[dtype] if kind == "T" else _SCALARS[kind]
        )
        base: Any = ctypes.c_void_p if pointer else scalar
        return base * length if length else base

    fields = [(name, ctype(kind, pointer, length)) for name, kind, pointer, length in _members(arguments)]
    return type(arguments, (ctypes.Structure,), {"_fields_": fields})


def _pointer(kernel: str, name: str, kind: str, dtype: torch.dtype, value: Tensor | None) -> int | None:
    if value is None:
        return None
    expected = dtype if kind == "T" else _DTYPES[kind]
    stored = torch.uint8 if value.dtype is torch.bool else value.dtype
    if stored is not expected or not value.is_contiguous() or value.device.type != "cpu":
        raise BackendError(
            f"{kernel}: {name} must be contiguous {expected} on the CPU, "
            f"not {value.dtype} on {value.device} with strides {value.stride()}."
        )
    return value.data_ptr()


def launch(kernel: str, items: int, dtype: torch.dtype, grain: int = 256, **arguments) -> None:
    """Runs `items` items of a kernel on torch's threads, `grain` items at a time.

    Tensors become pointers (None a null pointer), lists become arrays, numbers numbers; every member of the kernel's
    struct must be given by name. Nothing is copied: inputs must be contiguous and of the kernel's types.
    """
    members = _members(kernels()[kernel])
    packed = _structure(kernels()[kernel], dtype)()
    missing = {name for name, *_ in members} ^ arguments.keys()
    if missing:
        raise BackendError(f"{kernel}: missing or unknown arguments {sorted(missing)}.")
    for name, kind, pointer, length in members:
        value = arguments[name]
        if not length:
            setattr(packed, name, _pointer(kernel, name, kind, dtype, value) if pointer else value)
            continue
        array = getattr(packed, name)
        for k, v in enumerate(value):
            array[k] = _pointer(kernel, name, kind, dtype, v) if pointer else v
    function = getattr(cpu_library()[0], f"{kernel}_{_SUFFIX[dtype]}")
    function(
        ctypes.byref(packed), ctypes.c_int64(items), ctypes.c_int64(grain), ctypes.c_int32(torch.get_num_threads())
    )
