"""Every reader, on a few tens of damaged files: one clear error, in time, and in memory that their size allows."""

import fields.apps.sweep.plan
import pytest
from fields.benchmarks.fuzz.running import run
from fields.benchmarks.fuzz.targets import TARGETS

import fields.data.check
import fields.garf.results
import fields.io.run
import fields.neumadiff.files
import fields.reacto.evaluation
import fields.relighting.layouts  # noqa: F401 — imported before the processes that read are forked, not in each of them

FEW = {"material.binary": 3, "model-garf": 6, "fragments.stl": 10}
"""Inputs of those that take long to read."""


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_get_one_error(name):
    found = [one for one in run(name, range(FEW.get(name, 20))) if one is not None]
    assert not found, "\n".join(f"seed {one.seed}, {one.file}: {one.kind} at {one.where}: {one.what}" for one in found)
