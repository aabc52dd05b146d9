"""nerfacc's name for where rays meet boxes and grids; here these are in `rays` and `march`."""

from fields.core.march import traverse_grids
from fields.core.rays import ray_aabb_intersect

__all__ = ["ray_aabb_intersect", "traverse_grids"]
