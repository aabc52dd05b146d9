"""Several processes train what one does: every method and model, on two of them over gloo."""

import pytest
import torch

from fields.errors import ConfigError, ProcessError
from fields.methods import methods, models
from fields.training import processes
from tests.training.together import trained, work

NAMES = [*methods(), *models()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder, and what one process makes of each."""
    folder = tmp_path_factory.mktemp("together")
    return folder, {name: trained(name, folder, resume=False) for name in NAMES}


@pytest.fixture(scope="module")
def together(alone):
    """What each of two makes of them."""
    folder, _ = alone
    torch.multiprocessing.spawn(work, (2, folder, NAMES), nprocs=2)
    return {name: [torch.load(folder / f"{name}-{rank}.pt") for rank in range(2)] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a(name, alone, together):
    (first, last, losses), others = alone[1][name], together[name]
    a, b = others
    for k in a[1]:
        assert torch.equal(a[1][k], b[1][k]), k
    worst = 0, ""
    for k in first:
        if k.endswith("exp_avg"):
            e = float((a[0][k]-first[k]).abs().max() / first[k].abs().max().clamp(min=1e-12))
            worst = max(worst, (e, k))
    print(name, len([k for k in first if k.endswith("exp_avg")]), worst, [abs(x/y-1) for x,y in zip(losses, a[2])], flush=True)
