import sys

import pytest
import torch

import fields.core
from fields.core import march_rays
from fields.core.optional import nerfacc_march, tinycudann_network
from fields.errors import BackendError


def test_marching_through_nerfaccs_interface(monkeypatch):
    """`fields.core` has nerfacc's names and shapes, so here it stands in for the package."""
    monkeypatch.setitem(sys.modules, "nerfacc", fields.core)
    origins = torch.nn.functional.normalize(torch.randn(60, 3), dim=-1) * 3
    directions = torch.nn.functional.normalize(torch.randn(60, 3) * 0.3 - origins, dim=-1)
    near, far, aabb = torch.full((60,), 0.1), torch.full((60,), 9.0), torch.tensor([-1.0, -1, -1, 1, 1, 1.5])
    occupied = torch.rand(8, 9, 10) > 0.5
    got = nerfacc_march(origins, directions, near, far, occupied, aabb, 0.03)
    want = march_rays(origins, directions, near, far, occupied, aabb, 0.03, positions=True)
    assert len(want[0]) > 100
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("nerfacc", lambda: nerfacc_march(*[torch.zeros(1, 3)] * 2, *[torch.zeros(1)] * 2, torch.ones(2, 2, 2), torch.zeros(6), 0.1)),
        ("tinycudann", lambda: tinycudann_network(150, 128)),
    ],
)  # fmt: skip
def test_a_package_that_is_missing_is_named(package, use, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendError, match=f"{package} cannot be imported.*Install it"):
        use()
