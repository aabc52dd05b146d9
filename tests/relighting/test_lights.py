"""Lights in files: read, written and moved, or refused with a word on what is wrong."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields.errors import DataError
from fields.relighting.lights import IDENTITY, Light, load_lights

quick = settings(max_examples=50, deadline=None)
number = st.floats(-1e6, 1e6)
colour = st.lists(st.floats(0, 1e6), min_size=3, max_size=3)
position = st.lists(number, min_size=3, max_size=3)
unit = position.filter(lambda v: math.hypot(*v) > 1e-3).map(lambda v: [x / math.hypot(*v) for x in v])

GOOD = {
    "directional": {"type": "directional", "direction": [0, 0.6, 0.8], "rgb": [1, 2, 3]},
    "point": {"type": "point", "position": [1, 2, 3], "rgb": [1, 2, 3]},
    "sg": {"type": "sg", "direction": [0, 0.6, 0.8], "kappa": 30, "rgb": [1, 2, 3]},
}
QUARTER = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]


@pytest.fixture
def sky(tmp_path):
    """A map of which the pixel in the middle of the upper half is lit, and the record of a light that is it."""
    radiance = np.zeros((16, 32, 3), np.float32)
    radiance[4, 16] = 1
    np.save(tmp_path / "sky.npy", radiance)
    return {"type": "env", "file": "sky.npy", "rgb": [1, 2, 3]}


def similarity(scale=1.0, shift=(0.0, 0.0, 0.0), rotation=QUARTER):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = scale * torch.tensor(rotation, dtype=torch.float64)
    matrix[:3, 3] = torch.tensor(shift)
    return matrix


@quick
@given(st.one_of(
    st.fixed_dictionaries({"type": st.just("directional"), "direction": unit, "rgb": colour}),
    st.fixed_dictionaries({"type": st.just("point"), "position": position, "rgb": colour}),
    st.fixed_dictionaries({"type": st.just("sg"), "direction": unit, "rgb": colour, "kappa": st.floats(1e-3, 1e6)}),
))  # fmt: skip
def test_round_trip(tmp_path_factory, record):
    folder = tmp_path_factory.getbasetemp()
    light = Light.parse(record, folder, "x")
    again = json.loads(json.dumps(light.as_json()))
    assert again.keys() == record.keys()
    for key, value in record.items():  # directions are made unit to the last digit
        assert again[key] == (pytest.approx(value, abs=1e-12) if key == "direction" else value)


def test_round_trip_of_a_map(tmp_path, sky):
    light = Light.parse(sky | {"frame": "blender", "rotation": QUARTER}, tmp_path, "x")
    assert Light.parse(light.as_json(), tmp_path / "elsewhere", "x") == light
    del sky["rgb"]
    light = Light.parse(sky, tmp_path, "x")
    assert (
        light.rgb == (1, 1, 1)
        and light.frame == "yup"
        and light.rotation == IDENTITY
        and "rotation" not in light.as_json()
    )


def test_the_same_light_is_equal(tmp_path):
    lights = [Light.parse(GOOD[kind], tmp_path, "x") for kind in GOOD for _ in range(2)]
    assert len(set(lights)) == 3


def test_list_of_lights(tmp_path, sky):
    (tmp_path / "lights.json").write_text(json.dumps([*GOOD.values(), sky]))
    lights = load_lights(tmp_path / "lights.json")
    assert [light.kind for light in lights] == ["directional", "point", "sg", "env"]
    assert lights[3].file == tmp_path / "sky.npy"


BAD = [
    ("directional", {"direction": None}, "no \"direction\""),
    ("directional", {"direction": [0, 0, 0]}, "length 0"),
    ("directional", {"direction": [0, 3, 4]}, "length 5.*\n.*unit vector"),
    ("directional", {"direction": [1, 0]}, r"\[1, 0\].*\n.*3 finite"),
    ("directional", {"direction": "up"}, "3 finite"),
    ("sg", {"direction": [0, math.nan, 1]}, "3 finite"),
    ("sg", {"kappa": None}, "no \"kappa\""),
    ("sg", {"kappa": 0}, "above 0"),
    ("sg", {"kappa": [3]}, "a finite number"),
    ("sg", {"kappa": True}, "a finite number"),
    ("point", {"position": None}, "no \"position\""),
    ("point", {"position": [1, 2, math.inf]}, "3 finite"),
    ("point", {"position": [1, 2, 10**400]}, "3 finite"),
    ("point", {"rgb": None}, "no \"rgb\""),
    ("point", {"rgb": [1, -2, 3]}, "negative"),
    ("point", {"rgb": [1, 2, 3, 4]}, "3 finite"),
    ("point", {"type": "laser"}, "type 'laser'"),
    ("point", {"type": ["sg"]}, "type \\['sg'\\]"),
    ("env", {"file": None}, "no \"file\""),
    ("env", {"file": 3}, "no \"file\""),
    ("env", {"file": "nowhere.hdr"}, "nowhere.hdr does not exist"),
    ("env", {"frame": "maya"}, "'maya' is no frame"),
    ("env", {"frame": []}, "is no frame"),
    ("env", {"rotation": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}, "not a rotation"),
    ("env", {"rotation": [[1, 0, 0], [0, 1, 0]]}, "not a rotation"),
    ("env", {"rotation": 7}, "not a rotation"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "match"), BAD)
def test_bad_lights(tmp_path, sky, kind, change, match):
    record = {k: v for k, v in ((GOOD | {"env": sky})[kind] | change).items() if v is not None}
    with pytest.raises(DataError, match=match) as caught:
        Light.parse(record, tmp_path, "frame 3")
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("frame 3: ") and len(lines) == 2 and lines[1].endswith("."), lines


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{}", "not a list"),
        ("[]", "not a list"),
        ("[", "not valid JSON"),
        ("[3]", "light 0: a light of type None"),
        ("[" * 10**5, "JSON"),
    ],
)
def test_bad_lists(tmp_path, text, match):
    (tmp_path / "lights.json").write_text(text)
    with pytest.raises(DataError, match=match):
        load_lights(tmp_path / "lights.json")


def test_no_list(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_lights(tmp_path / "lights.json")


def test_convention_moved(tmp_path):
    """Directions turn; positions move; irradiance at the moved place is what it was, so intensity grows with the scale squared."""
    move = similarity(2.0, (10.0, 0.0, 0.0))
    sun = Light.parse(GOOD["directional"], tmp_path, "x").moved(move)
    assert sun.direction == pytest.approx((-0.6, 0, 0.8)) and sun.rgb == (1, 2, 3)
    lamp = Light.parse(GOOD["point"], tmp_path, "x").moved(move)
    assert lamp.position == pytest.approx((6, 2, 6)) and lamp.rgb == pytest.approx((4, 8, 12))
    glow = Light.parse(GOOD["sg"], tmp_path, "x").moved(move)
    assert glow.direction == pytest.approx((-0.6, 0, 0.8)) and glow.rgb == (1, 2, 3) and glow.kappa == 30


def test_maps_of_lights(tmp_path, sky):
    lamp = Light.parse(sky, tmp_path, "x")
    environment = lamp.environment()
    place = int(environment.radiance.sum(-1).argmax())
    assert environment.radiance.view(-1, 3)[place].tolist() == [1, 2, 3]
    direction = environment.directions().view(-1, 3)[place].tolist()
    turned = lamp.moved(similarity(3.0)).environment().directions().view(-1, 3)[place].tolist()
    assert turned == pytest.approx([-direction[1], direction[0], direction[2]], abs=1e-6)
    glow = Light.parse(GOOD["sg"], tmp_path, "x").environment()
    # A map of 256 rows, bilinear; its pixels are a fifteenth of the lobe's width.
    assert glow.sample(torch.tensor([[0, 0.6, 0.8]]))[0].tolist() == pytest.approx([1, 2, 3], rel=5e-3)
