"""``fields doctor``: what this machine has, which backend is used, and what to do about what is missing."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec


def main(arguments: list[str]) -> int:
    if arguments:
        print("usage: fields doctor\n\nSays what this machine has, and what to do about what is missing.")
        return 0 if arguments[0] in ("-h", "--help") else 2

    import torch

    from fields.core import _backend, _cpu, _cuda, _nvrtc
    from fields.errors import BackendError

    lines, problems = [], []
    lines.append(("fields", f"{_version('fields')} on Python {platform.python_version()}, {platform.platform()}"))
    lines.append(("torch", f"{torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} cores"))
    lines.append(("memory", _memory()))
    try:
        lines.append(("CPU kernels", _cpu.library()[1]))
    except BackendError as error:
        lines.append(("CPU kernels", "missing"))
        problems.append(str(error))
    lines.append(("backend", _backend.backend_name() if not problems else "none"))
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        lines.append(("GPU", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    else:
        cpu_build = "torch is a CPU build"
        built = f"torch is built for CUDA {torch.version.cuda}, but sees no GPU" if torch.version.cuda else cpu_build
        lines.append(("GPU", f"none ({built})"))
    try:
        kernels = f"NVRTC {_nvrtc.version()} ({_nvrtc.find_nvrtc()}), cache {_nvrtc.cache_folder()}"
        if torch.cuda.is_available():
            kernels += f", compiling for {_cuda.architecture()}"
        lines.append(("GPU kernels", kernels))
    except BackendError as error:
        lines.append(("GPU kernels", "no compiler; not needed without a GPU"))
        if torch.cuda.is_available():
            problems.append(str(error))
    optional = ("open3d", "trimesh", "nerfacc", "tinycudann", "pytorch3d", "mitsuba")
    present = [f"{name} {_version(name)}" for name in optional if find_spec(name)]
    lines.append(("optional", ", ".join(present) or "none of " + ", ".join(optional)))
    try:
        import imageio_ffmpeg

        lines.append(("video", imageio_ffmpeg.get_ffmpeg_version()))
    except (ImportError, RuntimeError):
        lines.append(("video", "no ffmpeg"))
        problems.append("Videos cannot be written: pip install imageio-ffmpeg.")
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:<{width}}  {text}")
    for problem in problems:
        print(f"\n{problem}", file=sys.stderr)
    return 2 if problems else 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _memory() -> str:
    try:
        page, total, free = (os.sysconf(name) for name in ("SC_PAGE_SIZE", "SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (ValueError, OSError):
        return "unknown"
    return f"{free * page / 2**30:.1f} of {total * page / 2**30:.1f} GiB free"
