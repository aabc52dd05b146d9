"""Compiling for GPUs, and the cache of what was compiled, with a real NVRTC and no GPU."""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fields.core import _cuda, _nvrtc, cloud, grids
from fields.core._kernels import kernels
from fields.errors import BackendError
from fields.methods import methods

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
FOR_GPUS = {
    name: kernel for name, kernel in kernels().items() if kernel.header not in ("decoder.h", "networks.h")
}  # the CPU's


@pytest.fixture(scope="module", autouse=True)
def nvrtc():
    try:
        return _nvrtc.find_nvrtc()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FIELDS_CACHE", str(tmp_path))
    return tmp_path / "kernels"


def configured() -> list[tuple[str, int, dict]]:
    """(kernel, team, macros) of all that training and rendering with the settings in configs/ launch on a GPU."""
    found = {}
    clouds = [name for name in FOR_GPUS if name.startswith("cloud_")]

    def grid(names: str, layout: str, rank: int, summed: bool, stored: torch.dtype = torch.float32):
        factors = [torch.empty(2, 2, rank, dtype=stored)]
        team, special, _ = grids.specialised(factors, (rank,) * (3 if layout == "vm" else 1), summed)
        for name in names.split():
            found[f"{layout}_{name}", rank, summed, stored] = f"{layout}_{name}", team, special

    for method in methods().values():
        for preset in method.presets():
            settings = method.configure(preset)
            if not hasattr(settings, "layout"):  # a cloud
                found |= {(n, aligned): (n, cloud._TEAM, {"aligned": aligned}) for n in clouds for aligned in (0, 1)}
                continue
            grid("value grad_factors visible_count visible_write", settings.layout, settings.density_rank, True)
            grid("value grad_factors", settings.layout, settings.appearance_rank, False)
            grid("value", settings.layout, settings.appearance_rank, False, torch.float16)
    rays = [name for name, kernel in FOR_GPUS.items() if kernel.header == "volrend.h"]
    others = {name for name, kernel in FOR_GPUS.items() if kernel.header not in ("volrend.h", "grid.h", "visible.h")}
    plain = sorted(others - {*clouds, "box_adam", "march_write"})
    teams = {32: [*rays, "box_adam"], 8: ["march_write"], 1: plain}
    return [*found.values(), *((name, team, {}) for team, names in teams.items() for name in names)]


def told_apart() -> set[str]:
    """The least architecture of each set for which the headers ask the compiler to read different text."""
    number = {name: 10 * int(name.removeprefix("sm_")) for name in ARCHITECTURES}  # as in __CUDA_ARCH__
    text = "".join(file.read_text() for file in _nvrtc.SOURCES.glob("*.h"))
    from_ = {int(n) for n in re.findall(r"__CUDA_ARCH__ >= (\d+)", text)}
    assert len(re.findall(r"__CUDA_ARCH__ *[<>=!]", text)) == len(from_), "a condition this test cannot read"
    return {min((a for a in ARCHITECTURES if number[a] >= n), key=number.__getitem__) for n in from_ | {0}}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_and_everything_configured_compiles(architecture):
    """To PTX; machine code is made by the tests of the cache. What is configured adds macros to the same kernels, and is
    compiled where the text differs."""
    virtual = architecture.replace("sm_", "compute_")
    wanted = [*((name, 4, {}) for name in FOR_GPUS), *(configured() if architecture in told_apart() else ())]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        codes = list(pool.map(lambda k: _nvrtc.compile_kernel(k[0], torch.float32, virtual, *k[1:]), wanted))
    for (name, *_), code in zip(wanted, codes, strict=True):
        assert f".entry {name}_f32".encode() in code


def test_every_kernel_compiles_in_double():
    """For derivative checks: the same text, so one architecture stands for all."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        codes = pool.map(lambda name: _nvrtc.compile_kernel(name, torch.float64, "compute_75", 4), FOR_GPUS)
        assert all(f".entry {name}_f64".encode() in code for name, code in zip(FOR_GPUS, codes, strict=True))


def test_wide_loads_and_vector_atomics_are_used():
    """What specialisation is for: rows of four channels move in one instruction, and are added in one on sm_90."""
    special = grids.specialised([torch.empty(2, 2, 16)], (16, 16, 16), True)[1]
    ptx = _nvrtc.compile_kernel("vm_grad_factors", torch.float32, "compute_90", 4, special)
    assert b"ld.global.v4.f32" in ptx and b".global.add.v4.f32" in ptx
    older = _nvrtc.compile_kernel("vm_grad_factors", torch.float32, "compute_80", 4, special)
    assert (b"ld.global.v4.f32" in older and b"red.global.add.f32" in older) or b"atom.global.add.f32" in older


def test_fixed_point_sums_use_integer_atomics():
    ptx = _nvrtc.compile_kernel("vm_grad_factors", torch.float32, "compute_90", 4, {"sum": "int64_t"})
    assert b".global.add.u64" in ptx and b".add.f32 \t[" not in ptx


def test_machine_code_is_kept_and_damage_is_mended(cache, monkeypatch):
    first = _nvrtc.cached_kernel("ray_aabb", torch.float32, "sm_80")
    (file,) = (f for f in cache.iterdir() if f.suffix != ".lock")
    monkeypatch.setattr(_nvrtc, "compile_kernel", lambda *a: pytest.fail("compiled again"))
    assert _nvrtc.cached_kernel("ray_aabb", torch.float32, "sm_80") == first
    monkeypatch.undo()
    monkeypatch.setenv("FIELDS_CACHE", str(cache.parent))
    for damaged in (file.read_bytes()[:-1], b"", b"x" * 100):
        file.write_bytes(damaged)
        assert _nvrtc.cached_kernel("ray_aabb", torch.float32, "sm_80") == first
        assert file.read_bytes()[32:] == first


def test_what_determines_the_code_determines_the_key(cache, monkeypatch):
    def files():
        return {f for f in cache.iterdir() if f.suffix != ".lock"}

    _nvrtc.cached_kernel("ray_aabb", torch.float32, "sm_80")
    for change in (("sm_90",), ("sm_80", 2), ("sm_80", 1, {"aligned": 1})):
        before = files()
        _nvrtc.cached_kernel("ray_aabb", torch.float32, *change)
        assert len(files()) == len(before) + 1
    for name in ("version", "_headers_digest"):
        before = files()
        monkeypatch.setattr(_nvrtc, name, lambda: "another")
        _nvrtc.cached_kernel("ray_aabb", torch.float32, "sm_80")
        assert len(files()) == len(before) + 1


def test_eight_processes_at_once_compile_once(cache):
    program = (
        "import torch; from fields.core import _nvrtc; real = _nvrtc.compile_kernel\n"
        "_nvrtc.compile_kernel = lambda *a: (print('compiled'), real(*a))[1]\n"
        "code = _nvrtc.cached_kernel('vm_grad_x', torch.float32, 'sm_80', 4)\n"
        "import hashlib; print(hashlib.sha256(code).hexdigest())"
    )
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(8)
    ]
    outputs = [p.communicate()[0].split() for p in processes]
    assert all(p.returncode == 0 for p in processes)
    assert sum(o.count("compiled") for o in outputs) == 1
    assert len({o[-1] for o in outputs}) == 1
    assert not list(cache.glob(".*"))  # nothing temporary is left


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    monkeypatch.setenv("FIELDS_CACHE", str(blocked))
    assert _nvrtc.cached_kernel("ray_aabb", torch.float32, "sm_80").startswith(b"\x7fELF")


def test_first_use_is_quick():
    """All kernels of a training with the paper's settings, as one process meets them one after the other. The aim is
    three seconds; twice that leaves room for a busy machine."""
    names = ("ray_aabb", "march_count", "march_write", "clearance", "encode", "encode_backward", "weights_forward",
             "weights_backward", "accumulate_forward", "accumulate_backward")  # fmt: skip
    wanted = [k for k in configured() if k[0] in names]
    for rank, summed in ((16, True), (48, False)):
        team, special, _ = grids.specialised([torch.empty(2, 2, rank)], (rank,) * 3, summed)
        wanted += [("vm_value", team, special), ("vm_grad_factors", team, special)]
    assert len(wanted) == 14
    began = time.perf_counter()
    for name, team, special in wanted:
        _nvrtc.cached_kernel(name, torch.float32, "sm_90", team, special)
    assert time.perf_counter() - began < 6


def test_the_compilers_words_reach_the_user():
    with pytest.raises(BackendError, match=r"sm_80.*expected an expression.*fields doctor"):
        _nvrtc.compile_source("__global__ void broken() { int x = ; }", "sm_80", [])


def test_devices_newer_and_older_than_the_compiler(monkeypatch):
    assert _nvrtc.target((9, 0)) == "sm_90"
    newest = _nvrtc.supported()[-1]
    assert _nvrtc.target((99, 0)) == f"compute_{newest}"
    with pytest.raises(BackendError, match="older than NVRTC"):
        _nvrtc.target((3, 5))


def test_without_nvrtc_it_says_how_to_get_it(monkeypatch):
    _nvrtc.find_nvrtc.cache_clear()
    monkeypatch.setattr(_nvrtc, "find_spec", lambda name: None)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    try:
        with pytest.raises(BackendError, match="pip install nvidia-cuda-nvrtc"):
            _nvrtc.find_nvrtc()
    finally:
        _nvrtc.find_nvrtc.cache_clear()


def test_nvrtc_is_found_under_cuda_home(monkeypatch, tmp_path):
    real = _nvrtc.find_nvrtc()
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / real.name).symlink_to(real)
    _nvrtc.find_nvrtc.cache_clear()
    monkeypatch.setattr(_nvrtc, "find_spec", lambda name: None)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    try:
        assert _nvrtc.find_nvrtc() == tmp_path / "lib64" / real.name
    finally:
        _nvrtc.find_nvrtc.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_without_a_driver_it_says_so():
    _cuda._driver.cache_clear()
    with pytest.raises(BackendError, match=r"driver's libcuda\.so\.1 cannot be loaded"):
        _cuda._driver()
