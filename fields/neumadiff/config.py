"""Settings of the material model, and what is registered of it."""

from __future__ import annotations

from dataclasses import dataclass

from fields.errors import ConfigError
from fields.methods import Learner

TEXTS = ("words", "minilm", "clip")
"""How text may be read, see `fields.neumadiff.encoders`."""


@dataclass(frozen=True)
class NeumadiffConfig:
    """Defaults are those of the shipped model, which trains on two CPU cores."""

    measured: str | None = None
    """Networks of measured materials to learn from, see `fields brdf fit`. Default: materials made up at random."""
    source: str = "merl"
    """Of measured materials that come of several databases, those of this one are taken: their scales differ."""
    materials: int = 2000
    """To make up."""
    blends: int = 300
    """Of measured materials, two and two."""
    fit_iterations: int = 7000
    """For the networks of all materials, together."""
    size: str = "cpu"
    """cpu: a perceptron of 5 million parameters; small: a transformer of 14; paper: the published one of 86, schedule and sampler, for a GPU."""
    text: str = "words"
    """How text is read: words knows some hundred words of materials; minilm, an optional package, understands others, and so does clip, of weights in a folder that FIELDS_CLIP names."""
    picture_iterations: int = 1200
    """For the encoder of pictures. 0: the model knows no pictures."""
    iterations: int = 20_000
    rate: float = 1e-3
    """AdamW learning rate; falls to nothing along half a cosine."""
    batch: int = 64
    """Materials per iteration."""

    def __post_init__(self) -> None:
        if self.size not in ("cpu", "small", "paper"):
            raise ConfigError(f"size is {self.size!r}; there are cpu, small and paper.")
        if self.text not in TEXTS:
            raise ConfigError(f"text is {self.text!r}; there are {', '.join(TEXTS)}.")
        if (
            min(self.materials, self.fit_iterations, self.iterations, self.batch) < 1
            or min(self.blends, self.picture_iterations) < 0
        ):
            raise ConfigError("materials, fit_iterations, iterations and batch must be at least 1, blends and picture_iterations not negative.")  # fmt: skip


NEUMADIFF = Learner(
    name="neumadiff",
    summary="material synthesis: learns how the weights of neural reflectances are distributed",
    config=NeumadiffConfig,
    training="fields.neumadiff.training:MaterialTraining",
    field="fields.neumadiff.model:MaterialModel",
    then="fields brdf synthesize --text 'red plastic' --model RUN",
)
