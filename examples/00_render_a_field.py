"""Render a trained field from a circle of cameras, and save what it looks like.

python examples/00_render_a_field.py runs/tensorf-vm-demo
"""

import sys
from pathlib import Path

import fields
from fields.io.images import write_video

field = fields.load(sys.argv[1])
cameras = fields.orbit(30, radius=4.0, elevation=25.0, size=(160, 160))
write_video(Path("turn.mp4"), (image.rgb for image in fields.render_path(field, cameras)), fps=15)

image = fields.render(field, cameras, 0)
print(f"turn.mp4: 30 frames; the first covers {image.opacity.mean():.0%} of its pixels")
