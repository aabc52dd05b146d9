"""Settings of the reassembly model, and what is registered of it."""

from __future__ import annotations

from dataclasses import dataclass

from fields.methods import Learner


@dataclass(frozen=True)
class GarfConfig:
    """Defaults are those of the shipped model, which trains on two CPU cores."""

    objects: int = 1500
    """Broken objects to learn from: made on the fly, or taken from the data."""
    size: str = "cpu"
    """cpu, or paper: the published networks, 12.7 and 43.5 million parameters, for a GPU."""
    encoder_iterations: int = 4000
    """For telling break from original surface, and what fits; an object each."""
    encoder_rate: float = 2e-3
    """AdamW learning rate; rises over a twentieth of the iterations, then falls to nothing."""
    fit: float = 0.3
    """Weight of the loss of what fits."""
    joint_objects: int = 150
    """Objects whose fragments are tried against each other, to learn how right joints look."""
    flow_iterations: int = 8000
    """For the flow; `batch` objects each. 0: no flow, joints are found from breaks alone."""
    flow_rate: float = 1e-3
    """AdamW learning rate, as above."""
    batch: int = 8
    """Objects per iteration of the flow."""
    tokens: int = 400
    """Points of each object that the flow sees, most of them on breaks."""

    @property
    def iterations(self) -> int:
        return self.encoder_iterations + self.flow_iterations


GARF = Learner(
    name="garf",
    summary="reassembly of broken objects: learns from objects it breaks itself",
    config=GarfConfig,
    training="fields.garf.training:GarfTraining",
    field="fields.garf.model:Garf",
)
