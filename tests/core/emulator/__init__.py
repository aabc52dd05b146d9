"""Runs GPU kernels without a GPU: the text and the macros that NVRTC gets go to the C++ compiler, and a small machine of
32 fibers per warp executes them (``gpu.h``). Tensors are the CPU's, everything else is as on a GPU: the specialisation,
the packing of arguments, teams, atomics, half-precision storage."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from fields.core import _backend, _nvrtc
from fields.core._kernels import SOURCES

_HERE = Path(__file__).parent
COMPILER = shutil.which("g++")


@functools.cache
def _folder() -> Path:
    """Where compiled kernels stay between test runs."""
    folder = Path(os.environ.get("FIELDS_CACHE") or tempfile.gettempdir()) / f"fields-emulated-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def _entry(kernel: str, dtype: torch.dtype, team: int, special: tuple):
    text, entry = _nvrtc.source(kernel, dtype)
    # Knowing the channels changes what a compiler can unroll, nothing else: one build serves all. Where rows are not
    # whole quads, so does one.
    macros = dict(special)
    if not os.environ.get("FIELDS_EMULATE_EXACTLY"):
        macros.pop("channels", None), macros.pop("summed", None)
    unit = f'#include "{_HERE / "gpu.h"}"\n{text}'
    command = [
        COMPILER,
        "-std=c++17",
        "-O1",
        "-w",
        "-fPIC",
        "-shared",
        "-mf16c",
        "-mfma",
        "-ffp-contract=fast",
        f"-I{SOURCES}",
        *_nvrtc.defines(team, macros),
    ]
    known = "\0".join([unit, *command, _nvrtc._headers_digest(), (_HERE / "gpu.h").read_text()])
    file = _folder() / f"{hashlib.sha256(known.encode()).hexdigest()}.so"
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=_folder()) as scratch:
            source, built = Path(scratch, "kernel.cpp"), Path(scratch, "kernel.so")
            source.write_text(unit)
            subprocess.run([*command, str(source), "-o", str(built)], check=True)
            os.replace(built, file)
    function = getattr(ctypes.CDLL(str(file)), entry)
    function.argtypes, function.restype = [ctypes.c_char_p, ctypes.c_int64], None
    return function


def _launch(kernel, dtype, packed, items, team, special, device) -> None:
    if items:
        _entry(kernel, dtype, team, tuple(special.items()))(packed, items)


def emulate(monkeypatch) -> None:
    """From now on, operators on CPU tensors run as on a GPU."""
    monkeypatch.setattr(_backend, "on_gpu", lambda tensor: True)
    monkeypatch.setattr(_backend._cuda, "launch", _launch)
