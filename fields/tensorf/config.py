"""Settings of tensorf-vm and tensorf-cp. Defaults are the paper's for synthetic scenes; `configs/` holds the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fields.errors import ConfigError
from fields.methods import Method, Schedule


@dataclass
class TensorfConfig(Schedule):
    """A tensorial radiance field and how it is trained."""

    milestones: ClassVar[tuple[str, ...]] = ("upsample_at", "occupancy_at")

    layout: Literal["vm", "cp"] = "vm"
    """Decomposition: planes × lines (vm) or lines × lines × lines (cp)."""
    density_rank: int = 16
    """Components of the density grid, per mode."""
    appearance_rank: int = 48
    """Components of the appearance grid, per mode."""
    decoder: Literal["mlp", "sh", "rgb", "tcnn"] = "mlp"
    """Appearance features to colour: MLP with Fourier features, spherical harmonics, directly, or an MLP of tinycudann."""
    marching: Literal["fields", "nerfacc"] = "fields"
    """Whose code finds the samples of training rays; nerfacc, where it is installed, is there to compare."""
    feature_dim: int = 27
    """Width of the appearance features after the basis matrix."""
    hidden: int = 128
    """Width of the two hidden layers of the MLP."""
    frequencies: int = 2
    """Octaves of the Fourier encoding of features and view direction."""
    density_shift: float = -10.0
    """σ = softplus(f + shift): starts the field nearly empty."""
    distance_scale: float = 25.0
    """Optical depth per unit of σ and length."""
    step_ratio: float = 0.5
    """Marching step in units of the mean knot spacing."""
    shading_threshold: float = 1e-4
    """Samples of lower weight are not shaded."""

    iterations: int = 30_000
    """Training iterations. Every milestone below is given for the default and scales with it."""
    rays: int = 4096
    """Rays per iteration."""
    voxels: tuple[int, int] = (128**3, 300**3)
    """Cells at the start and at the end."""
    upsample_at: tuple[int, ...] = (2000, 3000, 4000, 5500, 7000)
    """Iterations at which the grids get finer, in equal steps of log(cells)."""
    occupancy_at: tuple[int, ...] = (2000, 4000)
    """Iterations at which empty cells are found; the first also shrinks the box."""
    occupancy_threshold: float = 1e-4
    """Cells of lower opacity over one step are empty."""
    carve: bool = False
    """Start from the visual hull of the transparent pixels instead of a full box, and train on rays that meet it."""
    rate_factors: float = 0.02
    """Adam learning rate of the factors."""
    rate_network: float = 1e-3
    """Adam learning rate of basis and decoder."""
    rate_decay: float = 0.1
    """Both rates fall exponentially to this fraction over the iterations."""
    restart_rate: bool = True
    """Return to the first learning rate at each upsampling, as the paper does."""
    l1: tuple[float, float] = (8e-5, 4e-5)
    """Weight of the mean absolute density factor, before and after the box shrinks."""
    tv_density: float = 0.0
    """Weight of the total variation of the density factors."""
    tv_appearance: float = 0.0
    """Weight of the total variation of the appearance factors."""
    background: Literal["auto", "white", "black", "random"] = "auto"
    """Colour behind the field while training; auto: what suits the scene."""

    def __post_init__(self) -> None:
        positive = ("density_rank", "appearance_rank", "feature_dim", "hidden", "iterations", "rays", "step_ratio")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive.")
        if min(self.voxels) < 8:
            raise ConfigError(f"voxels is {self.voxels}; a grid has at least 8 cells.")


VM = Method(
    name="tensorf-vm",
    summary="TensoRF, planes × lines: the best quality per minute",
    config=TensorfConfig,
    training="fields.tensorf.training:TensorfTraining",
    field="fields.tensorf.field:TensoRF",
)
CP = Method(
    name="tensorf-cp",
    summary="TensoRF, lines × lines × lines: the smallest files",
    config=TensorfConfig,
    training="fields.tensorf.training:TensorfTraining",
    field="fields.tensorf.field:TensoRF",
)
