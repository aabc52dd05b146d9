"""Settings of strivec. `configs/strivec.toml` holds the paper's; the defaults here are ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from fields.errors import ConfigError
from fields.methods import Method, Schedule


@dataclass
class StrivecConfig(Schedule):
    """A cloud of boxes on the scene's surface, each with a CP tensor of its own, and how it is trained."""

    milestones: ClassVar[tuple[str, ...]] = ("upsample_at", "replace_at")

    spacing: tuple[float, ...] = (0.2, 0.1)
    """Distance of box centres, per scale, coarse to fine; see `spacing_unit`."""
    spacing_unit: Literal["geometry", "scene"] = "geometry"
    """What spacings are multiples of: scene units; or the longest edge of the box around the geometry, at a budget of a
    million parameters, and by the square root less or more at others, so that half of a change of the budget goes into
    the number of boxes and half into their resolution."""
    overlap: tuple[float, ...] = (1.5,)
    """Edge of a box in spacings, for all scales or per scale: with 1.5 a point lies in one or two boxes along each axis."""
    density_rank: tuple[int, ...] = (16, 8)
    """Components of a box's density tensor, per scale."""
    appearance_rank: tuple[int, ...] = (16, 16)
    """Components of a box's appearance tensor, per scale."""
    cells: tuple[int, ...] = ()
    """Cells along a vector at the end, per scale. Empty: what `parameters` allows."""
    cells_start: tuple[int, ...] = ()
    """Cells along a vector at the start, per scale. Empty: a third of the end."""
    parameters: str = "1M"
    """Trainable numbers at most, as 250k or 2M; the resolution of the boxes follows from it, unless `cells` gives it."""
    weights: Literal["window", "inverse"] = "window"
    """How overlapping boxes are blended: by windows without seams, or by inverse distance as in the paper."""
    nearest: int = 8
    """At most so many boxes of a scale contribute to a point."""
    average_density: bool = False
    """Divide the density feature by the number of scales at a point, instead of adding up."""
    average_appearance: bool = False
    """The same for appearance."""
    clamp_weights: bool = False
    """Divide inverse weights by no less than 1, as the paper's code does."""
    feature_dim: int = 27
    """Width of the appearance features after the basis matrices."""
    hidden: int = 64
    """Width of the two hidden layers of the decoder."""
    frequencies: int = 2
    """Octaves of the Fourier encoding of features and view direction."""
    density_shift: float = -5.0
    """σ = softplus(f + shift): starts the field nearly empty."""
    distance_scale: float = 25.0
    """Optical depth per unit of σ and length."""
    step_ratio: float = 0.8
    """Marching step in units of the knot spacing of the coarsest scale."""
    shading_threshold: float = 1e-3
    """Samples of lower weight are not shaded."""

    geometry: str = "auto"
    """Where boxes go: auto (a short coarse training, from silhouettes where there are any), points (the scene's), or a
    PLY file of points or vertices in scene coordinates."""
    geometry_iterations: int = 200
    """Length of the coarse training. It does not scale with `iterations`."""
    geometry_cells: int = 128**3
    """Cells of the grid in which geometry and occupancy are kept."""
    geometry_weight: float = 0.001
    """Boxes go where some training ray gets at least this weight after the coarse training."""
    imitate: bool = True
    """Start from the density of the coarse training, instead of noise as the paper does."""
    visible_weight: float = 0.01
    """Later, cells in which no training ray gets this weight are dropped."""
    iterations: int = 1500
    """Training iterations. Every milestone below is given for the default and scales with it."""
    rays: int = 2048
    """Rays per iteration."""
    upsample_at: tuple[int, ...] = (180, 360, 540)
    """Iterations at which the vectors get finer."""
    replace_at: tuple[int, ...] = (400, 800)
    """Iterations at which empty cells and their boxes are dropped."""
    initial: tuple[float, float] = (0.4, 0.5)
    """Standard deviation of the noise that density and appearance vectors start from."""
    rate_factors: float = 0.06
    """Adam learning rate of the vectors."""
    rate_network: float = 2e-3
    """Adam learning rate of basis and decoder."""
    rate_decay: float = 0.1
    """Both rates fall exponentially to this fraction over the iterations."""
    restart_rate: bool = False
    """Return to the first learning rate at each upsampling, as the paper does."""
    l1: float = 0.0
    """Weight of the mean absolute density vector."""
    jitter: bool = True
    """Shift the samples of each training ray by a random part of a step; the paper does not."""
    background: Literal["auto", "white", "black", "random"] = "auto"
    """Colour behind the field while training; auto: what suits the scene."""

    def __post_init__(self) -> None:
        for name in ("feature_dim", "hidden", "iterations", "rays", "step_ratio", "geometry_cells"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive.")
        scales = len(self.spacing)
        if not 1 <= scales <= 4:
            raise ConfigError(f"spacing is {self.spacing}; a cloud has one to four scales.")
        for name in ("density_rank", "appearance_rank", "cells", "cells_start"):
            values = getattr(self, name)
            if len(values) != scales and (values or name.endswith("rank")):
                raise ConfigError(f"{name} is {values}; spacing names {scales} scales, so it needs as many numbers.")
        if len(self.overlap) not in (1, scales):
            raise ConfigError(
                f"overlap is {self.overlap}; give one number, or {scales} for as many scales as spacing names."
            )
        most, why = (2, "windows need") if self.weights == "window" else (3, "boxes need")
        if not all(1 < v <= most for v in self.overlap):
            raise ConfigError(f"overlap is {self.overlap}; {why} more than 1 and at most {most}.")
        self.budget()

    def budget(self) -> int:
        """`parameters` as a number."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKmM]?)", self.parameters.strip())
        if not found:
            raise ConfigError(f"parameters is {self.parameters!r}; write a number, 250k or 2M.")
        return round(float(found[1]) * {"": 1, "k": 1e3, "m": 1e6}[found[2].lower()])


STRIVEC = Method(
    name="strivec",
    summary="Strivec: small CP tensors where the surface is; the best quality per parameter",
    config=StrivecConfig,
    training="fields.strivec.training:StrivecTraining",
    field="fields.strivec.field:Strivec",
)
