"""Every reader, on some damaged files: one clear error, in time, and in memory that their size allows."""

from importlib import import_module

import pytest
from fields.benchmarks.fuzz.running import run
from fields.benchmarks.fuzz.targets import TARGETS

FEW = {"material.binary": 3, "model-garf": 6, "fragments.stl": 10}
"""Inputs of those that take long to read."""


@pytest.fixture(scope="module", autouse=True)
def _imported():
    """What readers import, before the processes that read are forked, rather than in each of them."""
    for name in ("apps.sweep.plan", "data.check", "garf.results", "io.run", "neumadiff.files", "reacto.evaluation", "relighting.layouts"):  # fmt: skip
        import_module(f"fields.{name}")
    for name in ("scipy.spatial.transform", "trimesh.exchange.gltf"):
        import_module(name)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_get_one_error(name):
    found = [one for one in run(name, range(FEW.get(name, 20))) if one is not None]
    assert not found, "\n".join(f"seed {one.seed}, {one.file}: {one.kind} at {one.where}: {one.what}" for one in found)
