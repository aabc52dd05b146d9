"""Settings of the reassembly model, and what is registered of it."""

from __future__ import annotations

from dataclasses import dataclass

from fields.errors import ConfigError
from fields.methods import Learner


@dataclass(frozen=True)
class GarfConfig:
    """Defaults are those of the shipped model, which trains on two CPU cores."""

    data: str | None = None
    """HDF5 file of broken objects, laid out as Breaking Bad is for GARF, to learn breaks from, and the flow: those it has for training, of two to
    twenty pieces. Default: objects that are made up."""
    objects: int = 1500
    """Objects to learn from; of `data` at most so many."""
    size: str = "cpu"
    """cpu, or paper: the published networks, 12.7 and 43.5 million parameters, for a GPU."""
    start_from: str | None = None
    """Run folder of a model whose encoder and verifier are kept: only the flow is learned, for them."""
    encoder_iterations: int = 4000
    """For telling break from original surface, and what fits; `encoder_batch` objects each."""
    encoder_batch: int = 1
    """Objects per iteration of the encoder."""
    encoder_rate: float = 2e-3
    """AdamW learning rate; rises over a twentieth of the iterations, then falls to nothing."""
    fit: float = 0.3
    """Weight of the loss of what fits."""
    joint_objects: int = 100
    """Objects whose fragments are tried against each other, to learn how right joints look."""
    flow_iterations: int = 0
    """For the flow, `batch` objects each. The shipped model has none: joints are found from breaks."""
    flow_rate: float = 1e-3
    """AdamW learning rate, as above."""
    batch: int = 16
    """Objects per iteration of the flow."""
    tokens: int = 192
    """Points of each object that the flow sees, most of them on breaks."""

    def __post_init__(self) -> None:
        if self.size not in ("cpu", "paper"):
            raise ConfigError(f"size is {self.size!r}; there are cpu and paper.")
        if (
            min(self.objects, self.joint_objects, self.batch, self.encoder_batch) < 1
            or min(self.encoder_iterations, self.flow_iterations) < 0
        ):
            raise ConfigError("objects, joint_objects and batches must be at least 1, and iterations not negative.")
        if not 160 <= self.tokens <= 5000:
            raise ConfigError(f"tokens is {self.tokens}; 160 are needed for twenty fragments, and an object has 5000.")

        if self.start_from and (self.encoder_iterations or not self.flow_iterations):
            raise ConfigError(
                "start_from keeps a model's encoder and learns a flow for it: it goes with encoder_iterations 0 and "
                "some flow_iterations."
            )

    @property
    def iterations(self) -> int:
        return self.encoder_iterations + self.flow_iterations


GARF = Learner(
    name="garf",
    summary="reassembly of broken objects: learns from objects it breaks itself",
    config=GarfConfig,
    training="fields.garf.training:GarfTraining",
    field="fields.garf.model:Garf",
    then="fields reassemble FRAGMENTS --model RUN",
)
