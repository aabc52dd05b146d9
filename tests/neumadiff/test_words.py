import colorsys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields.neumadiff.encoders import text_encoder
from fields.neumadiff.words import HUES, captions, colour_of, hue_off, lab, words_in


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((1, 0, 0), "red"), ((0, 1, 0), "green"), ((0, 0, 1), "blue"), ((1, 1, 0), "yellow"), ((1, 0.26, 0), "orange"), ((0, 0.6, 0.6), "turquoise"),
     ((0.5, 0, 0.5), "purple"), ((1, 0.2, 0.5), "pink"), ((0.3, 0.15, 0.05), "brown"), ((0.01, 0.01, 0.01), "black"), ((0.2, 0.2, 0.2), "grey"),
     ((0.9, 0.9, 0.9), "white")],
)  # fmt: skip
def test_colours_by_name(rgb, name):
    assert colour_of(torch.tensor(rgb, dtype=torch.float32)).name == name


def test_lab_as_others_compute_it():
    """Tolerance: matrices given to different digits."""
    color = pytest.importorskip("skimage.color")
    srgb = torch.rand(200, 3, dtype=torch.float64)
    linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    assert torch.allclose(lab(linear), torch.from_numpy(color.rgb2lab(srgb.numpy())), atol=0.03)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0.02, 1), st.floats(0, 1), st.floats(0.1, 40))
def test_every_colour_has_captions_that_are_understood(hue, value, saturation, width):
    colour = torch.tensor(colorsys.hsv_to_rgb(hue, saturation, value))
    every = captions(colour, width, "plastic")
    assert len(every) == len(set(every)) >= 5
    vectors = text_encoder("words").encode(every)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(len(every)), atol=1e-5)


def test_a_name_stays_with_its_material():
    gold = captions(torch.tensor([1.0, 0.77, 0.34]), 2.0, "metal", ("gold",))
    assert {"gold", "glossy gold", "metal"} <= set(gold) and not any("gold" in c for c in captions(torch.tensor([0.34, 1, 0.77]), 2.0, "metal"))  # fmt: skip


def test_what_means_the_same_reads_the_same():
    encode = text_encoder("words").encode
    assert words_in("A very shiny, METALLIC thing of gray colour") == ["glossy", "metal", "thing", "grey"]
    assert torch.equal(*encode(["rough dark rubber", "dark rough silicone"]).split(1))
    assert not encode(["of the a"]).any()


def test_vectors_are_the_same_on_every_machine():
    """The first number of the word red, as the shipped model has learned it."""
    assert float(text_encoder("words").encode(["red"])[0, 0]) == pytest.approx(0.0627664, abs=1e-6)


def test_hues_lie_apart():
    hues = torch.tensor(list(HUES.values()), dtype=torch.float32)
    off = torch.stack([hue_off(hues, float(h)) for h in hues]) + 360 * torch.eye(len(hues))
    assert off.min() >= 26
