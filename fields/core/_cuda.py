"""Launching kernels on NVIDIA GPUs through the driver, on torch's current stream.

A kernel is compiled for the device at hand when it is first used (`fields.core._nvrtc`), loaded once per device, and
launched with its C++ struct by value. Launching never synchronises and allocates nothing, so it can be captured in a
CUDA graph, once the kernels in it have run before.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from typing import Any

import torch

from fields.core import _nvrtc
from fields.errors import BackendError

_THREADS = 128  # of a block, as FIELDS_ENTRY declares
_loading = threading.Lock()
_functions: dict[tuple, ctypes.c_void_p] = {}


@functools.cache
def _driver() -> ctypes.CDLL:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError as error:
        raise BackendError(f"The NVIDIA driver's {name} cannot be loaded ({error}). Install the driver.") from None
    launch = driver.cuLaunchKernel
    launch.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 7, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    driver.cuCtxPushCurrent_v2.argtypes = [ctypes.c_void_p]
    driver.cuModuleLoadData.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    driver.cuModuleGetFunction.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p]
    return driver


def _check(status: int, doing: str) -> None:
    if status:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(status, ctypes.byref(text))
        why = text.value.decode() if text.value else "unknown error"
        raise BackendError(f"The NVIDIA driver failed while {doing}: {why} ({status}).")


@functools.cache
def _context(device: int) -> ctypes.c_void_p:
    """The context torch uses on a device: its primary one."""
    torch.cuda.init()
    driver, handle, context = _driver(), ctypes.c_int(), ctypes.c_void_p()
    _check(driver.cuInit(0), "starting")
    _check(driver.cuDeviceGet(ctypes.byref(handle), device), f"looking for GPU {device}")
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle), f"opening GPU {device}")
    return context


@functools.cache
def architecture(device: int | None = None) -> str:
    """What kernels are compiled for on a device, such as "sm_90"."""
    return _nvrtc.target(torch.cuda.get_device_capability(device))


def launch(
    kernel: str, dtype: torch.dtype, packed: bytes, items: int, team: int, special: dict[str, Any], device: torch.device
) -> None:
    """Runs `items` items of a kernel, each by `team` threads, with the bytes of its struct as argument."""
    if not items:
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    key = kernel, dtype, team, index, *special.values()
    function = _functions.get(key)
    if function is None:
        function = _load(key, kernel, dtype, team, special, index)
    stream = torch.cuda.current_stream(index).cuda_stream
    count = ctypes.c_int64(items)
    arguments = (ctypes.c_void_p * 2)(ctypes.cast(ctypes.c_char_p(packed), ctypes.c_void_p), ctypes.addressof(count))
    blocks = (items * team + _THREADS - 1) // _THREADS
    driver = _driver()
    # The thread may never have used this device, or be using another library's context: ours only for the launch.
    _check(driver.cuCtxPushCurrent_v2(_context(index)), "entering its context")
    try:
        _check(
            driver.cuLaunchKernel(function, blocks, 1, 1, _THREADS, 1, 1, 0, stream, arguments, None),
            f"launching {kernel} with {items} items",
        )
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def _load(key: tuple, kernel: str, dtype: torch.dtype, team: int, special: dict, index: int) -> ctypes.c_void_p:
    with _loading:
        if key in _functions:  # another thread was quicker
            return _functions[key]
        code = _nvrtc.cached_kernel(kernel, dtype, architecture(index), team, special)
        driver, module, function = _driver(), ctypes.c_void_p(), ctypes.c_void_p()
        _check(driver.cuCtxPushCurrent_v2(_context(index)), "entering its context")
        try:
            _check(driver.cuModuleLoadData(ctypes.byref(module), code), f"loading {kernel}")
            entry = _nvrtc.source(kernel, dtype)[1].encode()
            _check(driver.cuModuleGetFunction(ctypes.byref(function), module, entry), f"looking for {kernel}")
        finally:
            driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        _functions[key] = function
        return function
