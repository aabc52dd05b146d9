"""Factorised grids as modules: what is learned of a tensorial field."""

from fields.tensors.factorised import FactorisedGrid, resolution_for

__all__ = ["FactorisedGrid", "resolution_for"]
