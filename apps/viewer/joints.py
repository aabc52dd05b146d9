"""The tab of articulated fields: when in the video it is, and where its joints are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, cast

import torch

from fields.reacto.field import ArticulatedField
from fields.reacto.kinds import joints_of

if TYPE_CHECKING:
    from fields.apps.viewer.viewer import Subject, Viewer

_BEYOND = 0.25  # of a joint's range, that its slider goes on to either side


class JointsPanel:
    """A moment of the video, which joints may leave."""

    title: ClassVar[str] = "Joints"
    in_scene = False

    @staticmethod
    def suits(subject: Subject) -> bool:
        return isinstance(subject.field, ArticulatedField)

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.field = cast(ArticulatedField, viewer.subject.field)
        gui, first = viewer.server.gui, self.field.times[0]
        self.time = gui.add_slider("Time", first, self.field.times[-1], 0.1, first, hint="In frames of the video.")
        self.parts = gui.add_checkbox("Parts in colours", False)
        self.sliders, self.rates = [], []
        for joint in joints_of(self.field):
            unit = 1.0 if joint.kind == "prismatic" else math.degrees(1)
            low, high = (unit * v for v in joint.limits)
            more = _BEYOND * (high - low)
            step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9) / 100))
            least, most = step * math.floor((low - more) / step), step * math.ceil((high + more) / step)
            label = f"Part {joint.child}, {'units' if joint.kind == 'prismatic' else 'degrees'}"
            hint = f"{joint.kind.capitalize()}, on part {joint.parent}; {low:.4g} to {high:.4g} in the video."
            self.sliders.append(gui.add_slider(label, least, most, step, min(max(0.0, least), most), hint=hint))
            own = self.field.states[joint.child].detach()
            self.rates.append(unit * float(joint.states.norm() / own.norm().clamp(min=1e-12)))
        self.following = False
        self.time.on_update(lambda _: self._at_time())
        for control in (self.parts, *self.sliders):
            control.on_update(lambda _: self._changed())
        self._at_time()

    def _at_time(self) -> None:
        states = self.field.states_at(self.time.value)
        self.following = True  # the sliders are moved: that is one change, not many
        for slider, rate, state in zip(self.sliders, self.rates, states[1:].tolist(), strict=True):
            slider.value = min(max(rate * state, slider.min), slider.max)
        self.following = False
        self._changed()

    def _changed(self) -> None:
        if self.following:
            return
        states = self.field.states[:, 0].detach().clone()
        for b, (slider, rate) in enumerate(zip(self.sliders, self.rates, strict=True), 1):
            states[b] = slider.value / rate
        with torch.no_grad():
            self.field.posed = self.field.poses(states)
        self.field.labelled = self.parts.value
        self.viewer.redraw()
