"""The surface of a radiance field: meshes and point clouds."""

from fields.geometry.points import extract_points, stopping_density
from fields.geometry.shapes import Mesh, PointCloud
from fields.geometry.surface import extract_mesh

__all__ = ["Mesh", "PointCloud", "extract_mesh", "extract_points", "stopping_density"]
