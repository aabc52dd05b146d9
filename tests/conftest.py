import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def data_dir() -> Path:
    """The folder of real scenes named by FIELDS_DATA; tests that need it skip where it is absent."""
    folder = os.environ.get("FIELDS_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FIELDS_DATA does not name a folder of real scenes")
    return Path(folder)
