"""The sparse tri-vector radiance field.

Gao, Xu, Su et al.: Strivec: Sparse Tri-Vector Radiance Fields. ICCV 2023. Equation numbers are the paper's.

Marching, volume rendering and decoder are those of TensoRF, which it follows; its one grid over one box has become a cloud
of small boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fields.core.boxes import BoxIndex
from fields.radiance import RadianceField
from fields.tensors.cloud import TriVectorCloud
from fields.tensors.colour import ColourDecoder


class Strivec(RadianceField):
    """Density and appearance as clouds of tri-vectors, decoded to colour.

    Args:
        aabb: box that is marched through, six numbers in scene units.
        near, far: distances along the unit ray between which is marched.
        low: corner of the lattices, scene units.
        spacing, half_edge: per scale, distance of the centres and half the edge of the boxes, scene units.
        boxes, knots, density_rank, appearance_rank: per scale.
        occupancy_resolution: cells along x, y, z of the grid of occupied cells.
        initial: standard deviation of the noise that density and appearance vectors start from.
        The rest: see `fields.strivec.config.StrivecConfig`.
    """

    def __init__(
        self,
        *,
        aabb: list[float],
        near: float,
        far: float,
        low: list[float],
        spacing: list[float],
        half_edge: list[float],
        boxes: list[int],
        knots: list[int],
        density_rank: list[int],
        appearance_rank: list[int],
        occupancy_resolution: list[int],
        initial: tuple[float, float] = (0.2, 0.2),
        weights: str = "window",
        nearest: int = 8,
        average_density: bool = False,
        average_appearance: bool = False,
        clamp_weights: bool = False,
        feature_dim: int = 27,
        hidden: int = 64,
        frequencies: int = 2,
        density_shift: float = -10.0,
        distance_scale: float = 25.0,
        step_ratio: float = 0.8,
        shading_threshold: float = 1e-3,
    ) -> None:
        super().__init__(
            aabb=aabb, near=near, far=far, occupancy_resolution=occupancy_resolution, density_shift=density_shift,
            distance_scale=distance_scale, step_ratio=step_ratio, shading_threshold=shading_threshold,
        )  # fmt: skip
        self.low, self.spacing, self.half_edge = low, spacing, half_edge
        self.arguments = {
            "near": near, "far": far, "low": low, "spacing": spacing, "half_edge": half_edge,
            "density_rank": list(density_rank), "appearance_rank": list(appearance_rank),
            "weights": weights, "nearest": nearest, "average_density": average_density,
            "average_appearance": average_appearance, "clamp_weights": clamp_weights,
            "feature_dim": feature_dim, "hidden": hidden, "frequencies": frequencies, "density_shift": density_shift,
            "distance_scale": distance_scale, "step_ratio": step_ratio, "shading_threshold": shading_threshold,
        }  # fmt: skip
        for s, b in enumerate(boxes):
            self.register_buffer(f"cells_{s}", torch.zeros(b, 3, dtype=torch.int32))
        self._index: tuple[list[tuple[Tensor, int]], list[BoxIndex]] | None = None
        sampling = {"weights": weights, "nearest": nearest, "clamp_weights": clamp_weights}
        self.density_cloud = TriVectorCloud(boxes, knots, density_rank, initial[0], average=average_density, **sampling)
        self.appearance_cloud = TriVectorCloud(
            boxes, knots, appearance_rank, initial[1], average=average_appearance, **sampling
        )
        # The paper's one matrix per scale, side by side: their outputs are added up (eq. 17).
        self.decoder = ColourDecoder(sum(appearance_rank), "mlp", feature_dim, hidden, frequencies)

    def constructor_arguments(self) -> dict:
        """Plain data from which `Strivec(**…)` makes a field that this one's tensors fit into."""
        shape = {"boxes": [len(c) for c in self.cells], "knots": self.knots}
        shape["occupancy_resolution"] = list(self.occupied.shape)
        return {"aabb": self.aabb.tolist(), **shape, **self.arguments}

    # ------------------------------------------------------------------------------------ boxes

    @property
    def cells(self) -> list[Tensor]:
        """Per scale (B, 3) int32: the cell of the lattice that each box is centred on."""
        return [getattr(self, f"cells_{s}") for s in range(len(self.spacing))]

    @property
    def knots(self) -> list[int]:
        return [v.shape[2] for v in self.density_cloud.vectors]

    @property
    def boxes(self) -> list[BoxIndex]:
        """The look-up of the boxes of each scale, made again when cells were replaced or written to."""
        now = [(c, -1 if c.is_inference() else c._version) for c in self.cells]
        known = self._index[0] if self._index else []
        if len(known) != len(now) or any(
            a is not b or v != w or v < 0 for (a, v), (b, w) in zip(now, known, strict=True)
        ):
            index = [
                BoxIndex.on_lattice(cells.long(), self.low, spacing, half)
                for cells, spacing, half in zip(self.cells, self.spacing, self.half_edge, strict=True)
            ]
            self._index = now, index
        return self._index[1]  # type: ignore[index]

    @property
    def step_size(self) -> float:
        """Marching step in scene units: `step_ratio` of the knot spacing of the coarsest scale."""
        return self.step_ratio * 2 * self.half_edge[0] / (self.knots[0] - 1)

    # ------------------------------------------------------------------------------------ the field itself

    def density_feature(self, x: Tensor) -> Tensor:
        """(N,) at normalised positions (N, 3): eq. 6, 11 and 16."""
        return self.density_cloud(self.denormalise(x), self.boxes, "sum")

    def colour(self, x: Tensor, directions: Tensor) -> Tensor:
        """sRGB (N, 3) at normalised positions (N, 3) seen along unit directions (N, 3).

        The products of each scale are averaged over boxes before the matrices (eq. 10), which add the scales up.
        """
        return self.decoder(self.appearance_cloud(self.denormalise(x), self.boxes), directions)

    def features(self, x: Tensor) -> Tensor:
        return self.decoder.basis(self.appearance_cloud(self.denormalise(x), self.boxes))

    # ------------------------------------------------------------------------------------ change of shape

    @torch.no_grad()
    def upsample(self, knots: list[int]) -> None:
        self.density_cloud.resample(knots)
        self.appearance_cloud.resample(knots)

    @torch.no_grad()
    def keep_boxes(self, kept: list[Tensor]) -> None:
        """Drops all boxes but those of the masks (B,), per scale."""
        for s, mask in enumerate(kept):
            setattr(self, f"cells_{s}", self.cells[s][mask])
        self.density_cloud.keep(kept)
        self.appearance_cloud.keep(kept)
