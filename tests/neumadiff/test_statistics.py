import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fields.neumadiff.network import DIALECTS, Networks
from fields.neumadiff.principled import Principled
from fields.neumadiff.statistics import NAMES, classes, reciprocity_error, statistics


def of(base, specular=0.0, width=0.5):
    """One grey material."""
    return Principled(
        torch.full((1, 3), base), torch.tensor([0.5]), torch.tensor([[[specular] * 3, [0.0] * 3]]), torch.full((1, 2), width), torch.zeros(1, 3)
    )  # fmt: skip


def test_lambert():
    """All light that falls from above on a perfect half-white surface: half of it. It has no highlight."""

    def lambert(angles):
        return torch.full((1, len(angles), 3), 0.5 / math.pi)

    found = statistics(lambert)
    assert_close(found.albedo, torch.full((1, 3), 0.5), atol=1e-4, rtol=0)
    assert_close(found.base, torch.full((1, 3), 0.5))
    assert float(found.half_width) == 90 and float(found.base_share) == pytest.approx(1, abs=1e-3)
    assert (reciprocity_error(lambert) == 0).all()


@pytest.mark.parametrize("width", [0.01, 0.05, 0.2])
def test_a_highlight_is_as_wide_as_ggx_says(width):
    """Where tan² θ = α² (√2 − 1); the angles across it are some hundredths of that apart, and Fresnel and shadowing hardly change there."""
    expected = math.degrees(math.atan(width * math.sqrt(math.sqrt(2) - 1)))
    assert float(statistics(of(0.0, 0.8, width)).half_width) == pytest.approx(expected, rel=0.06)


def test_classes_by_hand():
    mirror, metal, plastic, cloth = (classes(statistics(m), "physical") for m in (of(0, 0.9, 0.008), of(0, 0.8, 0.15), of(0.5, 0.04, 0.02), of(0.3)))  # fmt: skip
    assert mirror["mirror"] and mirror["metallic"] and mirror["high specular"]
    assert metal["metallic"] and not metal["mirror"]
    assert plastic["plastic"] and not plastic["metallic"]
    assert cloth["diffuse"] and cloth["low specular"] and not cloth["metallic"]
    for found in (mirror, metal, plastic, cloth):
        assert sum(bool(found[f"{level} specular"]) for level in ("low", "medium", "high")) == 1


def test_vectors_are_of_the_order_of_one():
    vector = statistics(of(0.5, 0.04, 0.05)).vector
    assert vector.shape == (1, len(NAMES)) and vector.isfinite().all() and vector.abs().max() < 12


@pytest.mark.skipif("FIELDS_DATA" not in os.environ, reason="FIELDS_DATA names no folder with measured materials")
def test_published_materials():
    """Means over all bins of a table of the red of two materials, as others have them, within what 4096 of 1.5 million bins tell; and 0.33 for what is
    white there. Metals are metallic and cloth is diffuse, as people who looked at them say."""
    known = np.load(Path(os.environ["FIELDS_DATA"]) / "brdf" / "nbrdf_weights.npz", allow_pickle=False)
    names = list(known["name"])
    found = statistics(Networks(torch.from_numpy(known["weights"]), DIALECTS["sztrajman"]))
    assert float(found.mean[names.index("nickel"), 0]) == pytest.approx(7.96, rel=0.05)
    assert float(found.mean[names.index("white-fabric"), 0]) == pytest.approx(0.144, rel=0.02)
    assert float(found.albedo[names.index("white-fabric"), 0]) == pytest.approx(0.33, abs=0.01)
    told = classes(found)
    fabrics = [k for k, name in enumerate(names) if "fabric" in name and known["source"][k] == "merl"]
    assert told["diffuse"][fabrics].all() and len(fabrics) > 5
    paints = [k for k, name in enumerate(names) if "metallic-paint" in name and known["source"][k] == "merl"]
    assert told["metallic"][paints].float().mean() > 0.9
