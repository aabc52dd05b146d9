"""Where parts may be, before pictures say it."""

import torch

from fields.reacto.rigging import Rig, _apart


def test_what_another_part_passes_through_is_not_of_this_one():
    """A plane of another part cuts a box; of its two pieces the one remains on which points of the part were seen."""
    x = torch.linspace(-0.99, 0.99, 60)
    flat = torch.stack(torch.meshgrid(x, x, torch.zeros(1), indexing="ij"), -1).view(-1, 3)
    box, eye, still = torch.tensor([-1.0, -1, -1, 1, 1, 1]), torch.eye(4), torch.zeros(3)
    full = torch.ones(16, 16, 16, dtype=torch.bool)
    own = Rig(-1, torch.zeros(6), still, eye, box, flat + torch.tensor([0, 0, 0.9]), full)
    other = Rig(0, torch.zeros(6), still, eye, box, flat, full)
    lifted = torch.eye(4).repeat(3, 1, 1)
    lifted[:, 2, 3] = torch.tensor([0.0, 0.05, 0.1])  # it passes through two layers of cells
    kept = _apart([own, other], 0, [eye.expand(3, 4, 4), lifted]).occupied
    assert kept[..., 9:].all() and not kept[..., :9].any()
    assert _apart([own], 0, [eye.expand(3, 4, 4)]).occupied.all()
