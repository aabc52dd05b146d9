"""What is asked of a model that draws materials: words, and what they are like."""

from __future__ import annotations

import math

import torch
import viser
from fields.apps.viewer.wall import Material

from fields.io.hdr import decode_srgb
from fields.neumadiff.model import MaterialModel
from fields.neumadiff.principled import Principled
from fields.neumadiff.statistics import SCALES, Statistics, statistics
from fields.neumadiff.synthesis import synthesize

_ANYTHING, _CHOSEN, _SET = "anything", "the large one", "what is set here"
_HALF = math.sqrt(math.sqrt(2) - 1)
"""Sine of the half vector, in widths of a lobe of `Principled`, at which it has half its height."""


class Drawing:
    """The controls, and what they say."""

    def __init__(self, gui: viser.GuiApi, model: MaterialModel) -> None:
        self.model = model
        self.text = gui.add_text("Text", "", hint="As 'rough dark rubber'. Anything, where it is empty.")
        self.like = gui.add_dropdown("Like", (_ANYTHING, _CHOSEN, _SET), hint="Whose statistics they should have.")
        with gui.add_folder("Set here"):
            self.colour = gui.add_rgb("Colour", (190, 60, 40), hint="Of the albedo.")
            self.width = gui.add_slider("Highlight, °", 0.5, 30.0, 0.5, 6.0, hint="Its half width.")
            self.metal = gui.add_checkbox("Metal", False, hint="All of the albedo is highlight.")
        self.count = gui.add_slider("How many", 1, 16, 1, 4)
        self.guidance = gui.add_slider("Guidance", 0.0, 5.0, 0.1, 1.0, hint="Exaggerates what is asked for.")
        self.seed = gui.add_number("Seed", 0, min=0, step=1)
        self.button = gui.add_button("Draw", icon=viser.Icon.SPARKLES)
        for control in (self.colour, self.width, self.metal):
            control.on_update(lambda _: setattr(self.like, "value", _SET))  # type: ignore[attr-defined]

    def draw(self, chosen: Material | None) -> tuple[list[Material], int]:
        """New materials, and how many were drawn to find them; another seed is set for the next.

        Raises:
            ConfigError: words that say nothing, or nothing of what was drawn is what they say.
        """
        text, count, seed = self.text.value.strip(), int(self.count.value), int(self.seed.value)
        found = synthesize(text, count, self.model, like=self.wanted(chosen), seed=seed, guidance=self.guidance.value)
        self.seed.value = seed + 1
        name = text or "material"
        drawn = [Material(f"{name} {seed}.{k}", found.networks[k], self.model.scale) for k in range(count)]
        return drawn, found.drawn

    def wanted(self, chosen: Material | None) -> Statistics | None:
        """Those of the chosen one; or of an analytic material that is as it is set, so that they agree with each other."""
        if self.like.value == _SET:
            of, scale = _as_set(self.colour.value, self.width.value, self.metal.value), "physical"
        elif self.like.value == _CHOSEN and chosen is not None:
            of, scale = chosen.reflectance, chosen.scale
        else:
            return None
        times = SCALES[self.model.scale] / SCALES[scale]
        return statistics(lambda angles: times * of(angles))


def _as_set(colour: tuple[int, int, int], degrees: float, metal: bool) -> Principled:
    """A material of about this albedo, sRGB, with one highlight of this half width."""
    albedo = decode_srgb(torch.tensor([colour]) / 255)
    nothing = torch.zeros_like(albedo)
    base, lobe = (nothing, albedo) if metal else (albedo, torch.full_like(albedo, 0.04))
    width = math.sin(math.radians(degrees)) / _HALF
    return Principled(base, torch.tensor([0.5]), torch.stack([lobe, nothing], 1), torch.full((1, 2), width), nothing)
