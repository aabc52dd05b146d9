"""The geometry of a radiance field: meshes, textures, point clouds, maps, grids, and what it is at points."""

from fields.geometry.maps import depth_and_normals
from fields.geometry.points import extract_points, stopping_density
from fields.geometry.query import Query, query, sample_grid
from fields.geometry.shapes import Mesh, PointCloud, TexturedMesh
from fields.geometry.surface import extract_mesh
from fields.geometry.texture import bake

__all__ = [
    "Mesh",
    "PointCloud",
    "Query",
    "TexturedMesh",
    "bake",
    "depth_and_normals",
    "extract_mesh",
    "extract_points",
    "query",
    "sample_grid",
    "stopping_density",
]
