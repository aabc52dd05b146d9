import os
from pathlib import Path

import pytest
import torch

from tests.core import emulator


def pytest_addoption(parser):
    parser.addoption(
        "--backend",
        choices=("cpu", "cuda", "emulated"),
        default="cpu",
        help="where tensors of the tests live and kernels run: cuda needs a GPU; emulated runs the GPU kernels' text on a "
        "CPU, slowly",
    )
    parser.addoption("--browser", action="store_true", help="also use the viewer in Chromium, which takes minutes")


def pytest_configure(config):
    """Processes that run tests side by side share the cores, and so do the commands that they start."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if workers > 1:
        threads = max(1, (os.cpu_count() or 1) // workers)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _backend(request, monkeypatch):
    """Every test is run on the backend the command line names: those of the core by where their tensors are made,
    commands because they choose a GPU where there is one."""
    backend = request.config.getoption("--backend")
    if backend == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("--backend cuda: torch sees no GPU")
        if "core" in request.path.parts:
            torch.set_default_device("cuda")
    if backend == "emulated":
        emulator.emulate(monkeypatch)
    torch.manual_seed(0)
    yield backend
    torch.set_default_device("cpu")


@pytest.fixture
def data_dir() -> Path:
    """The folder of real scenes named by FIELDS_DATA; tests that need it skip where it is absent."""
    folder = os.environ.get("FIELDS_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FIELDS_DATA does not name a folder of real scenes")
    return Path(folder)
