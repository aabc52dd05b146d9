"""Tensorial neural fields and 3D vision on one shared core, on CPUs and NVIDIA GPUs.

    import fields
    field = fields.load("runs/lego")
    image = fields.render(field, camera)                    # .rgb (H, W, 3) .depth .opacity
    frames = fields.render_path(field, fields.orbit(60))
    seen = fields.query(field, points)                      # .density (N,) .rgb .normal
    lit = fields.relight(field, "studio.hdr")               # a relighting run in another light
    found = fields.reassemble("sherds/")                    # a broken thing: .world_from_fragment (P, 4, 4) .confidence
    cameras, names = fields.load_cameras("capture/")        # COLMAP, nerfstudio, Blender …; more in fields.conventions

Importing this package imports neither torch nor any kernel; the names below do so when first used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fields.api import train as train
    from fields.conventions import load_cameras as load_cameras
    from fields.data import Cameras as Cameras
    from fields.data import load_scene as load_scene
    from fields.garf.reassembly import reassemble as reassemble
    from fields.geometry.query import Query as Query
    from fields.geometry.query import query as query
    from fields.io.run import load as load
    from fields.io.run import world_from_input as world_from_input
    from fields.relighting.sources import relight as relight
    from fields.rendering import Rendering as Rendering
    from fields.rendering import orbit as orbit
    from fields.rendering import render as render
    from fields.rendering import render_path as render_path

# Installed, apps/ configs/ assets/ benchmarks/ lie in this package; in a checkout, beside it.
if not (Path(__file__).parent / "apps").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

_HOME = {
    "load": "fields.io.run",
    "train": "fields.api",
    "render": "fields.rendering",
    "render_path": "fields.rendering",
    "orbit": "fields.rendering",
    "Rendering": "fields.rendering",
    "Cameras": "fields.data",
    "load_scene": "fields.data",
    "load_cameras": "fields.conventions",
    "query": "fields.geometry.query",
    "Query": "fields.geometry.query",
    "world_from_input": "fields.io.run",
    "relight": "fields.relighting.sources",
    "reassemble": "fields.garf.reassembly",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'fields' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
