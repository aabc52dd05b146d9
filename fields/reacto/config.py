"""Settings of REACTO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fields.errors import ConfigError
from fields.methods import Method, Schedule


@dataclass
class ReactoConfig(Schedule):
    """How parts and joints are found, and how their shapes are learned."""

    parts: int = 0
    """How many, the still one included; 0: as many as the motion says, up to six."""
    tracks: int = 300
    """Pixels of each frame that are followed to find joints."""
    density_rank: int = 8
    """Density components per mode."""
    appearance_rank: int = 12
    """Appearance components per mode."""
    feature_dim: int = 12
    """Features that colour is decoded from."""
    hidden: int = 32
    """Width of the decoder."""
    voxels: tuple[int, int] = (32_768, 262_144)
    """Cells of each part at the start and at the end."""
    upsample_at: tuple[int, ...] = (800, 1600)
    """Iterations at which the grids get finer, in equal steps of log(cells)."""
    occupancy_at: tuple[int, ...] = (300, 900, 1700)
    """Iterations at which empty cells are found."""
    iterations: int = 3000
    rays: int = 2048
    """Per iteration."""
    step_ratio: float = 0.7
    """Marching step in knots."""
    shading_threshold: float = 1e-3
    """Samples of lower weight are not coloured."""
    rate_shape: float = 0.05
    """Adam learning rate of the density factors."""
    rate_factors: float = 0.02
    """Adam learning rate of the appearance factors."""
    rate_network: float = 3e-3
    """Adam learning rate of the decoders."""
    rate_motion: float = 3e-4
    """Adam learning rate of joints and their states: radians, or box radii."""
    rate_decay: float = 0.1
    """All rates fall exponentially to this fraction over the iterations."""
    steepness: float = 4.0
    """What the density feature rises by within a knot of the finest grid: how thick the surface is while it is learned."""
    sharpen: float = 4.0
    """How many times as steep it is in the end."""
    mask: float = 0.2
    """Weight of the cross-entropy of opacity and mask."""
    eikonal: float = 0.1
    """Weight of the relative error of the density's slope."""
    smooth: float = 0.03
    """Weight of how the slope differs from that a knot away."""
    overlap: float = 0.5
    """Weight of how deep parts are in each other, knots."""
    layout: ClassVar[str] = "vm"
    """Of the factors of every part."""
    milestones: ClassVar[tuple[str, ...]] = ("upsample_at", "occupancy_at")

    def __post_init__(self) -> None:
        for name in ("tracks", "density_rank", "appearance_rank", "feature_dim", "hidden", "iterations", "rays", "step_ratio",
                     "steepness", "sharpen"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive.")
        if self.parts < 0 or self.parts == 1:
            raise ConfigError(
                f"parts is {self.parts}; an articulated object has at least two, and 0 leaves it to the motion."
            )


REACTO = Method(
    name="reacto",
    summary="articulated objects from one video: parts, joints, shapes",
    config=ReactoConfig,
    training="fields.reacto.training:ReactoTraining",
    field="fields.reacto.field:ArticulatedField",
    data="fields.reacto.scene",
    evaluation="fields.reacto.evaluation",
    demo="demo-reacto",
)
