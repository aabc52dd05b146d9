"""How likely it is that surfaces belong together, from what speaks for it and against it.

A logistic regression on two dozen numbers: few enough to be read, and calibrated, so that its answer means something.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fields.garf.confidence import AS_THOUGHT, Calibration, regression
from fields.garf.contact import EVIDENCE

_LITTLE = 1e-4
"""Areas are told apart down to this, in squared sizes of the object."""
SIDES = (
    "breaks",  # area of break
    "whole",  # area of all surface
    "usual",  # area of break that a fragment of the object has, in the mean
    "fragments",  # of the object
)
"""What there is to be joined: of the side that has less, of those fragments that touch; then of the object."""
COUNT = len(EVIDENCE) + 13


def features(evidence: Tensor, sides: Tensor) -> Tensor:
    """(…, COUNT) of evidence (…, len(EVIDENCE)) and `SIDES` (…, 4)."""
    touching, close, fitting, gap, tilt, continued, stepped, covered, doubled, inside = evidence.unbind(-1)
    breaks, whole, usual, fragments = sides.unbind(-1)
    area = touching + 1e-5
    against = stepped + covered + doubled + inside
    ratios = [close / area, fitting / area, gap / area, tilt / area, (continued + 1e-5) / (continued + stepped + 2e-5),
              area / 2 / (breaks + 1e-5), against / touching.clamp(min=1e-3)]  # fmt: skip
    # How much is little depends on the object: a thin shell in twenty pieces has nothing but small breaks.
    sizes = [breaks + _LITTLE, whole + _LITTLE, (breaks + 1e-5) / (whole + 1e-5), usual + _LITTLE, fragments, area / (usual + _LITTLE)]  # fmt: skip
    logs = torch.cat([evidence + _LITTLE, torch.stack(sizes, -1)], -1).log10()
    return torch.cat([logs, torch.stack(ratios, -1)], -1)


class Verifier(nn.Module):
    mean: Tensor
    deviation: Tensor
    joints: Tensor
    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(COUNT))
        self.register_buffer("deviation", torch.ones(COUNT))
        self.linear = nn.Linear(COUNT, 1)
        for name in ("joints", "places"):
            self.register_buffer(name, torch.tensor(AS_THOUGHT))

    @property
    def of_joints(self) -> Calibration:
        """Of joints that stand in an assembly."""
        return Calibration(*self.joints.tolist())

    @property
    def of_places(self) -> Calibration:
        """Of fragments in an assembly."""
        return Calibration(*self.places.tolist())

    def forward(self, evidence: Tensor, sides: Tensor) -> Tensor:
        """Log-odds (…,) that what was seen is a joint."""
        standard = (features(evidence, sides) - self.mean) / self.deviation
        return self.linear(standard)[..., 0]

    def fit(self, evidence: Tensor, sides: Tensor, right: Tensor, penalty: float = 0.01) -> None:
        """Learns from joints (N,) of which it is known whether they are right: Newton's method, to the end."""
        raw = features(evidence, sides).double()
        self.mean.copy_(raw.mean(0))
        self.deviation.copy_(raw.std(0) + 1e-6)
        x = torch.cat([(raw - self.mean) / self.deviation, torch.ones(len(raw), 1).double()], 1)
        w = regression(x, right, torch.tensor([penalty * len(x) / 10] * COUNT + [1e-9]))
        with torch.no_grad():
            self.linear.weight.copy_(w[None, :-1])
            self.linear.bias.copy_(w[-1:])
