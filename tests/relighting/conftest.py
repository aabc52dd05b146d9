"""Fixtures of captures."""

import pytest
import torch

from fields.data import Cameras
from tests.relighting.captures import EYES, FOCAL, HEIGHT, WIDTH


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    return Cameras.look_at(torch.tensor(EYES), torch.zeros(3), (0.0, 1.0, 0.0), focal=FOCAL, width=WIDTH, height=HEIGHT)
