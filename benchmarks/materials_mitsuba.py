"""Pictures by Mitsuba 3 of what `fields.neumadiff` draws previews of, to compare them with."""

from __future__ import annotations

from typing import Any

import numpy as np
from fields.benchmarks.translucent.scene import environment_emitter

from fields.relighting.environment import Environment

HALF_WIDTH = 1.03
"""Of the picture, in radii of the sphere."""


def sphere(material: dict[str, Any], environment: Environment, pixels: int, samples: int, seed: int = 0) -> np.ndarray:
    """(pixels, pixels, 3) linear radiance, over black, of a sphere in distant light; its neighbourhood does not shine on it.

    The eye is far away at +Z, with x to the right and y up; rays are parallel. Pixels are means over their area.

    Args:
        material: a BSDF as `mi.load_dict` takes it: after `fields.neumadiff.mitsuba.register()` {"type": "nbrdf", "filename": …}.
        samples: per pixel.
    """
    import mitsuba as mi

    world_from_map = np.eye(4)
    world_from_map[:3, :3] = environment.world_from_map.numpy()
    turned = {"to_world": mi.ScalarTransform4f(world_from_map)}
    towards = mi.ScalarTransform4f().look_at(origin=[0, 0, 2], target=[0, 0, 0], up=[0, 1, 0])
    film = {"type": "hdrfilm", "width": pixels, "height": pixels, "pixel_format": "rgb", "rfilter": {"type": "box"}}
    scene = mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2, "hide_emitters": True},
            "sensor": {
                "type": "orthographic",
                "to_world": towards @ mi.ScalarTransform4f().scale([HALF_WIDTH, HALF_WIDTH, 1]),
                "film": film,
                "sampler": {"type": "independent", "sample_count": samples},
            },
            "light": environment_emitter(environment) | turned,
            "shape": {"type": "sphere", "material": material},
        }
    )
    return np.array(mi.render(scene, seed=seed))
