"""Which of Mitsuba's variants runs on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_LLVM = "DRJIT_LIBLLVM_PATH"
_OLDEST = 15  # LLVM that Dr.Jit takes
_PROBE = """
import mitsuba as mi
mi.set_variant("llvm_ad_rgb")
wax = {"type": "homogeneous", "sigma_t": 1.0, "albedo": 0.9}
ball = {"type": "sphere", "bsdf": {"type": "dielectric"}, "interior": wax}
mi.render(mi.load_dict({"type": "scene", "integrator": {"type": "volpath"}, "ball": ball, "light": {"type": "constant"},
    "sensor": {"type": "perspective", "film": {"type": "hdrfilm", "width": 8, "height": 8}}}), spp=4).numpy()
"""


def choose_variant() -> str:
    """Sets and names llvm_ad_rgb where it works, else scalar_rgb: for this whole process.

    Versions of LLVM that load may still abort when they meet a medium, which nothing can catch, so another process tries first.
    """
    import mitsuba as mi

    for library in _libraries():
        environment = os.environ | ({_LLVM: library} if library else {})
        if not subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True).returncode:
            os.environ.update(environment)
            mi.set_variant("llvm_ad_rgb")
            return "llvm_ad_rgb"
    mi.set_variant("scalar_rgb")
    return "scalar_rgb"


def _libraries() -> Iterator[str]:
    """Paths to try, newest first; at the end "", which leaves the search to Dr.Jit."""
    if _LLVM in os.environ:
        yield os.environ[_LLVM]
        return
    found = {}
    for file in Path("/usr").glob("lib*/**/libLLVM*.so*"):
        if version := re.search(r"libLLVM(?:\.so\.|-)(\d+)", file.name):
            found[int(version[1])] = str(file)
    yield from (found[version] for version in sorted(found, reverse=True) if version >= _OLDEST)
    yield ""
