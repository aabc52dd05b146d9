"""A TensoRF that shows only its first ranks, and cutting it there for good.

Yuan and Zhao: SlimmeRF: Slimmable Radiance Fields. 3DV 2024. One rank is a density component and `appearance_rank /
density_rank` appearance components of each of the three modes (section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fields.errors import ConfigError
from fields.tensorf.field import TensoRF


class SlimmeRF(TensoRF):
    """A TensoRF of which any number of ranks can be shown.

    Args: those of `fields.tensorf.field.TensoRF`.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.ranks = self.density_grid.channels // 3
        self.per_rank = self.appearance_grid.channels // self.density_grid.channels
        self.shown = self.ranks

    @contextmanager
    def showing(self, ranks: int) -> Iterator[None]:
        """Within, density and colour are those of the first so many ranks."""
        before, self.shown = self.shown, ranks
        try:
            yield
        finally:
            self.shown = before

    @property
    def density_shown(self) -> int | None:  # type: ignore[override]
        return None if self.shown == self.ranks else self.shown

    def colour(self, x: Tensor, directions: Tensor) -> Tensor:
        if self.shown == self.ranks:
            return super().colour(x, directions)
        products, basis = self._products(x)
        return self.decoder(products, directions, basis)

    def features(self, x: Tensor) -> Tensor:
        if self.shown == self.ranks:
            return super().features(x)
        products, basis = self._products(x)
        return products @ basis.T

    def _products(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the ranks that are shown, and their columns of the basis."""
        count = self.shown * self.per_rank
        weight = self.decoder.basis.weight
        basis = weight.index_select(1, first_columns(self.ranks * self.per_rank, count, weight.device))
        return self.appearance_grid(x, first=count), basis


def first_columns(of_all: int, count: int, device: torch.device | None = None) -> Tensor:
    """(3 · count,) int64: where the first `count` of `of_all` components of each mode are among the products.

    Products are concatenated mode by mode: these are not the first columns of the basis matrix.
    """
    return (torch.arange(3, device=device)[:, None] * of_all + torch.arange(count, device=device)).flatten()


@torch.no_grad()
def cut(field: TensoRF, density_rank: int, appearance_rank: int) -> TensoRF:
    """A field of the same class with the first so many components of every mode: planes, lines, and columns of the basis.

    Everything else stays as it is; where the given field shows what the ranks behind add, the cut one does not.

    Raises:
        ConfigError: not a VM field, or more components than it has.
    """
    arguments = field.constructor_arguments()
    have = arguments["density_rank"], arguments["appearance_rank"]
    if arguments["layout"] != "vm":
        raise ConfigError("Only fields of planes × lines can be cut; this one has the layout cp.")
    if not (1 <= density_rank <= have[0] and 1 <= appearance_rank <= have[1]):
        raise ConfigError(
            f"A cut to {density_rank} density and {appearance_rank} appearance components: the field has {have[0]} and {have[1]}."
        )
    smaller = type(field)(**arguments | {"density_rank": density_rank, "appearance_rank": appearance_rank})
    state = field.state_dict()
    for name, value in state.items():
        if name.startswith("density_grid."):
            state[name] = value[..., :density_rank].contiguous()
        if name.startswith("appearance_grid."):
            state[name] = value[..., :appearance_rank].contiguous()
    state["decoder.basis.weight"] = state["decoder.basis.weight"][
        :, first_columns(have[1], appearance_rank, field.aabb.device)
    ]
    smaller.load_state_dict(state)
    return smaller.to(field.aabb.device).train(field.training)
