"""Take the surface out of a trained field, and ask the field about points of it.

python examples/04_surfaces_and_points.py runs/strivec-demo
"""

import sys
from pathlib import Path

import torch

import fields
from fields.geometry import depth_and_normals, extract_mesh, stopping_density
from fields.io.run import load_config
from fields.io.shapes import write_glb
from fields.paths import from_json

run = sys.argv[1]
field = fields.load(run)
cameras = from_json(load_config(run)["scene"]["cameras"])  # those it was trained with

# Where rays of these cameras stop; what none of them sees is filled.
level = stopping_density(field, cameras)
mesh = extract_mesh(field, level, cameras, resolution=96)
into_files = fields.world_from_input(run).inverse().numpy()
write_glb(Path("surface.glb"), mesh.transformed(into_files), {"frame": "input"})

# The field at the mesh's own vertices: they lie where its density is the level, half of it a little further out.
points = torch.from_numpy(mesh.positions).float()
outward = torch.from_numpy(mesh.normals) * field.step_size
here, above = (fields.query(field, points + k * outward).density.median() for k in (0, 1))
print(
    f"surface.glb: {len(mesh.faces)} triangles; density {here:.0f} on it, {above:.1f} a step above, level {level:.0f}"
)

depth, normals = depth_and_normals(field, cameras, 0)
seen = depth[depth > 0]
print(
    f"camera 0 sees it from {seen.min():.2f} to {seen.max():.2f} units away, on {(depth > 0).float().mean():.0%} of its pixels"
)
