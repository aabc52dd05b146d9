"""Settings of REACTO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fields.errors import ConfigError
from fields.methods import Method, Schedule


@dataclass
class VideoConfig(Schedule):
    """How parts and joints are found, and how shapes are learned."""

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
    """Cells of each shape at the start and at the end."""
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
    rate_motion: float = 1e-4
    """Adam learning rate of motion: radians, or box radii."""
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
    layout: ClassVar[str] = "vm"
    """Of the factors of every shape."""
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

    def shape(self, aabb: Any, resolution: Sequence[int]) -> dict[str, Any]:
        """Constructor arguments of a `fields.reacto.field.PartField` in a box (6,)."""
        names = ("density_rank", "appearance_rank", "feature_dim", "hidden", "step_ratio", "shading_threshold")
        fixed = {"near": 0.0, "far": math.inf, "density_shift": 0.0, "distance_scale": 1.0, "frequencies": 1}
        return {"aabb": aabb.tolist(), "resolution": list(resolution)} | fixed | {n: getattr(self, n) for n in names}

    def cells_after(self, done: int) -> float:
        """Of each shape, once it got finer after so many iterations."""
        first, last = map(math.log, self.voxels)
        return math.exp(first + (last - first) * (self.upsample_at.index(done) + 1) / len(self.upsample_at))


@dataclass
class ReactoConfig(VideoConfig):
    """Of rigid parts."""

    overlap: float = 0.5
    """Weight of how deep parts are in each other, knots."""


@dataclass
class QrbsConfig(VideoConfig):
    """Of quasi-rigid blend skinning. Where the paper's number could not be read, it is ours."""

    bones: int = 0
    """How many; 0: one inside each part."""
    blend: Literal["dual-quaternion", "linear", "hard"] = "dual-quaternion"
    """Of motions: as dual quaternions, as matrices, or that of the bone with the most weight only."""
    isotropic: bool = False
    """Bones are balls, not ellipsoids."""
    voxels: tuple[int, int] = (131_072, 1_048_576)
    gamma: tuple[float, float] = (1.0, 0.1)
    """Sharpness of skinning weights, the less the sharper, at the start and at the end."""
    gamma_at: tuple[int, int] = (600, 1800)
    """Iterations between which it falls exponentially."""
    sparse: float = 0.1
    """Weight of the loss that keeps places from bones that they are not assigned to."""
    sparse_at: tuple[int, int] = (300, 900)
    """Iterations between which it comes in."""
    eta: float = 0.1
    """A bone is clearly the nearest if it is by this part nearer than the second."""
    zeta: float = 0.1
    """Two bones meet where their ways differ by less than this part."""
    cycle: float = 0.05
    """Weight of how far places come back from where they were taken from, box radii."""
    change: float = 1e-3
    """Weight of the mean square of what the network does to skinning weights."""
    rate_bones: float = 3e-3
    """Adam learning rate of where bones are, their sizes, and that network."""
    proxy_every: int = 200
    """Iterations after which ways through the object are found anew."""
    milestones: ClassVar[tuple[str, ...]] = (*VideoConfig.milestones, "gamma_at", "sparse_at", "proxy_every")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bones < 0 or self.bones == 1:
            raise ConfigError(
                f"bones is {self.bones}; at least two move against each other, and 0 is one for each part."
            )
        if min(self.gamma) <= 0:
            raise ConfigError(f"gamma is {self.gamma}; both must be positive.")


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

QRBS = Method(
    name="qrbs",
    summary="reacto as published: one field, bent by bones almost rigidly",
    config=QrbsConfig,
    training="fields.reacto.skinning:QrbsTraining",
    field="fields.reacto.skinned:SkinnedField",
    data="fields.reacto.scene",
    evaluation="fields.reacto.evaluation",
    demo="demo-reacto",
)
