"""Where parts may be, before pictures say it."""

import torch

from fields.reacto.rigging import Rig, _apart, _seen_through


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


def test_what_is_seen_through_is_empty():
    """A camera above an open tub of 16³ cells sees its bottom; the walls, along which it looks, stay. The tub rises while it is watched."""
    box, eye, full = torch.tensor([-1.0, -1, -1, 1, 1, 1]), torch.eye(4), torch.ones(16, 16, 16, dtype=torch.bool)
    x = torch.linspace(-0.8, 0.8, 100)
    bottom = torch.stack(torch.meshgrid(x, x, torch.tensor([-0.8]), indexing="ij"), -1).view(-1, 3)
    z = torch.linspace(-0.95, 0.95, 60)
    wall = torch.stack(torch.meshgrid(torch.tensor([0.94]), z, z, indexing="ij"), -1).view(-1, 3)
    tub = Rig(-1, torch.zeros(6), torch.zeros(2), eye, box, torch.cat([bottom, wall]), full)
    poses = eye.repeat(2, 1, 1)
    poses[1, 2, 3] = 0.7
    frame = torch.arange(len(bottom)) % 2
    seen = bottom + poses[frame, :3, 3]
    kept = _seen_through(tub, poses, (frame, torch.tensor([0.0, 0, 6]).expand_as(seen), seen)).occupied
    assert not kept[3:13, 3:13, 6:].any()  # what is in the tub
    assert kept[:, :, :2].all() and kept[14:].all()  # its bottom, and the wall that was seen
    beside = _seen_through(
        tub, poses, (frame, torch.tensor([0.0, 0, 6]).expand_as(seen), seen + torch.tensor([4.0, 0, 0]))
    )
    assert beside.occupied[:8].all()  # what sights do not cross
