"""What is told to Mitsuba: materials and lights; and what it renders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fields.benchmarks.translucent.cameras import sensor

from fields.relighting import equirectangular
from fields.relighting.environment import Environment

if TYPE_CHECKING:
    import mitsuba as mi

_PASS = 256  # samples per pixel rendered at once, which bounds memory


@dataclass(frozen=True)
class Medium:
    """What is inside."""

    mean_free_path: float
    """World units."""
    albedo: tuple[float, float, float]
    g: float
    """Mean cosine of the angle that light is scattered by."""

    def record(self) -> dict[str, Any]:
        phase = {"type": "hg", "g": self.g} if self.g else {"type": "isotropic"}
        # A medium takes no extinction above one, but a scale.
        return {
            "type": "homogeneous",
            "sigma_t": 1.0,
            "scale": 1 / self.mean_free_path,
            "albedo": {"type": "rgb", "value": list(self.albedo)},
            "phase": phase,
        }


MEDIA = {"wax": Medium(0.1, (0.95, 0.85, 0.70), 0.0), "jade": Medium(0.04, (0.90, 0.97, 0.92), 0.5)}


def coated(material: str) -> dict[str, Any]:
    """Boundary and inside of tier A's materials.

    Of wax and jade 8 % of the light is reflected in a rough lobe, and the rest enters without being bent: so single lights are seen
    from everywhere inside, which behind a refracting boundary they are not, and noise is low. "opaque" scatters at its surface only.
    """
    if material == "opaque":
        colour = {"type": "rgb", "value": [0.60, 0.42, 0.26]}
        plastic = {"type": "roughplastic", "distribution": "ggx", "alpha": 0.15, "diffuse_reflectance": colour}
        return {"bsdf": plastic}
    gloss = {"type": "roughconductor", "material": "none", "distribution": "ggx", "alpha": 0.15}
    coat = {"type": "mask", "opacity": 0.08, "coat": {"type": "twosided", "gloss": gloss}}
    return {"bsdf": coat, "interior": MEDIA[material].record()}


def load_shape(surface: Path, look: dict[str, Any]) -> mi.Shape:
    """The mesh of a .ply that looks so."""
    import mitsuba as mi

    return mi.load_dict({"type": "ply", "filename": str(surface)} | look)


# --- lights -----------------------------------------------------------------------------------------------------


def emitter(light: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Of a light as frames describe it; `folder` is what names of maps are relative to."""
    if light["type"] == "directional":
        irradiance = {"type": "rgb", "value": list(light["rgb"])}
        return {"type": "directional", "direction": [-v for v in light["direction"]], "irradiance": irradiance}
    return environment_emitter(Environment.load(folder / light["file"]))


def environment_emitter(environment: Environment) -> dict[str, Any]:
    """A map for Mitsuba, whose rows lie at θ = π r / (rows − 1), the first on the zenith.

    With 2H + 1 rows every other one is at the centres of ours, so that what it interpolates is what `Environment.sample` does.
    """
    import mitsuba as mi

    height = environment.height
    theta = torch.linspace(0, torch.pi, 2 * height + 1, dtype=torch.float64)
    at = torch.meshgrid(theta, equirectangular.centres(2 * height, 2 * torch.pi), indexing="ij")
    pixels = equirectangular.padded(environment.radiance).flatten(0, 1)
    radiance = equirectangular.sample(pixels, height, at[0].flatten(), at[1].flatten()).view(2 * height + 1, -1, 3)
    return {"type": "envmap", "bitmap": mi.Bitmap(radiance.contiguous().numpy())}


# --- pictures ---------------------------------------------------------------------------------------------------


def lit(shape: mi.Shape, light: dict[str, Any]) -> mi.Scene:
    """A shape in an emitter of Mitsuba's."""
    import mitsuba as mi

    integrator = {"type": "volpath", "hide_emitters": True}  # of any depth: 32 would keep 1.3 % of the green in jade
    return mi.load_dict({"type": "scene", "integrator": integrator, "shape": shape, "light": light})


def photograph(scene: mi.Scene, eye: np.ndarray, pixels: int, samples: int, seed: tuple[int, ...]) -> np.ndarray:
    """(pixels, pixels, 3) linear over black, of so many samples per pixel; different seeds are independent."""
    import mitsuba as mi

    image = np.zeros((pixels, pixels, 3))
    parts = [min(_PASS, samples - done) for done in range(0, samples, _PASS)]
    for part, number in zip(parts, np.random.SeedSequence(seed).generate_state(len(parts)), strict=True):
        camera = sensor(eye, pixels, "independent", part)
        image += part / samples * np.array(mi.render(scene, sensor=camera, seed=int(number)))[..., :3]
    return image
