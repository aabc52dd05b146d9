"""Settings of relighting. Defaults are for a GPU; `configs/` holds those for two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fields.errors import ConfigError
from fields.methods import Method, Schedule


@dataclass
class RelightingConfig(Schedule):
    """A radiance transfer field and how it is trained."""

    milestones: ClassVar[tuple[str, ...]] = ("upsample_at", "occupancy_at", "mean_until")

    layout: Literal["vm", "cp"] = "vm"
    """Decomposition: planes × lines (vm) or lines × lines × lines (cp), for small files."""
    density_rank: int = 16
    """Components of the density grid, per mode."""
    appearance_rank: int = 48
    """Components of the appearance grid, per mode."""
    feature_dim: int = 27
    """Width of the features that transfer is decoded from."""
    hidden: int = 128
    """Width of the hidden layers of its networks."""
    rank: int = 24
    """Soft lights that what is scattered responds to: 8 for small files, 32 for quality."""
    lobes: int = 64
    """Spherical Gaussians that soft lights are made of."""
    sharpness: float = 8.0
    """Of the lobes. Above a quarter of their number there are gaps; lower lets neighbouring lights teach each other."""
    reflect: bool = True
    """Whether the surface mirrors light in a rough lobe."""
    diffuse: bool = False
    """Whether it also reflects diffusely, with marched shadows: for opaque objects."""
    interior: bool = True
    """Whether light is also followed through the inside of the shape, as a medium; else all scattering is learned."""
    cells: int = 3000
    """Cells of the interior for light that is scattered there, each giving to every other; eight times as many for light that comes in."""
    density_shift: float = -10.0
    """σ = softplus(f + shift): starts the field nearly empty."""
    step_ratio: float = 0.5
    """Marching step in units of the mean knot spacing."""
    shading_threshold: float = 1e-4
    """Samples of lower weight have no say in the transfer."""

    iterations: int = 30_000
    """Training iterations. Every milestone below is given for the default and scales with it."""
    mean_until: int = 5000
    """Until then only the means over the lights are learned from: they show the shape best."""
    rays: int = 2048
    """Rays per iteration, three of four at pixels of the object, each learning from its photographs under all lights."""
    lights: int = 48
    """At most so many photographs of a pixel per iteration."""
    mixtures: int = 8
    """Random mixtures of lights per ray and iteration, beside the lights themselves."""
    voxels: tuple[int, int] = (128**3, 300**3)
    """Cells at the start and at the end."""
    upsample_at: tuple[int, ...] = (3000, 6000, 9000, 12_000)
    """Iterations at which the grids get finer, in equal steps of log(cells)."""
    occupancy_at: tuple[int, ...] = (1000, 4000, 10_000)
    """Iterations at which empty cells are found; the first also shrinks the box."""
    occupancy_threshold: float = 1e-3
    """Cells of lower opacity over one step are empty."""
    carve: bool = True
    """Start from the visual hull of the masks."""
    visibility_every: int = 2000
    """Iterations after which it is marched again which lights every pixel sees, and what of them leaves the interior there."""
    rate_factors: float = 0.02
    """Adam learning rate of the factors."""
    rate_shape: float = 0.1
    """Adam learning rate of those of the density."""
    rate_network: float = 3e-3
    """Adam learning rate of the networks and the soft lights."""
    rate_decay: float = 0.1
    """Both rates fall exponentially to this fraction over the iterations."""
    restart_rate: bool = False
    """Return to the first learning rate at each upsampling."""
    steepness: float = 4.0
    """What the density feature rises by within a knot of the finest grid: how thick the surface is while it is learned."""
    sharpen: float = 4.0
    """How many times as steep it is in the end, when nothing has to be learned through it any more."""
    eikonal: float = 0.1
    """Weight of the relative error of that."""
    smooth: float = 0.03
    """Weight of how the slope differs from that a knot away."""
    tv_appearance: float = 0.005
    """Weight of the total variation of the appearance factors."""
    mask: float = 0.2
    """Weight of the cross-entropy of opacity and mask."""
    opaque: float = 1e-3
    """Weight of the entropy of opacity inside the mask."""
    compact: float = 1e-2
    """Weight of how far the samples of a ray lie apart, in knots: a surface is thin."""
    tie: float = 0.1
    """Weight that holds normals to the slope of the density."""
    facing: float = 1e-2
    """Weight of normals that face away from the eye."""
    dim: float = 5e-4
    """Weight of what the surface mirrors: without it, gloss would explain what scattering can."""

    def __post_init__(self) -> None:
        positive = ("density_rank", "appearance_rank", "feature_dim", "hidden", "rank", "lobes", "sharpness", "iterations",
                    "rays", "lights", "step_ratio", "visibility_every", "cells", "steepness", "sharpen")  # fmt: skip
        for name in positive:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive.")
        if self.mixtures < 0:
            raise ConfigError(f"mixtures is {self.mixtures}; it can be 0 or more.")
        if min(self.voxels) < 8:
            raise ConfigError(f"voxels is {self.voxels}; a grid has at least 8 cells.")


RELIGHTING = Method(
    name="relighting",
    summary="radiance transfer: objects under any light, from photographs under many",
    config=RelightingConfig,
    training="fields.relighting.training:RelightingTraining",
    field="fields.relighting.field:TransferField",
    data="fields.relighting.scene",
    evaluation="fields.relighting.evaluation",
    demo="demo-relighting",
)
