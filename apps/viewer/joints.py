"""The tabs of fields that move: when in the video it is, where joints are, and what moves what."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, cast

import roma
import torch
from torch import Tensor

from fields.geometry.rigid import inverse
from fields.reacto.field import COLOURS, ArticulatedField
from fields.reacto.kinds import joints_of
from fields.reacto.skinned import SkinnedField

if TYPE_CHECKING:
    from fields.apps.viewer.viewer import Subject, Viewer

_BEYOND = 0.25  # of a joint's range, that its slider goes on to either side
_LONG = 0.3  # of the box: half an axis


class MotionPanel:
    """A moment of the video. What the scene shows besides has poses of its own."""

    title: ClassVar[str]
    shown: ClassVar[str]
    """What may be drawn in the scene."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.field: Any = viewer.subject.field
        gui, first = viewer.server.gui, self.field.times[0]
        self.time = gui.add_slider("Time", first, self.field.times[-1], 0.1, first, hint="In frames of the video.")
        self.parts = gui.add_checkbox("Parts in colours", False)
        self.drawn = gui.add_checkbox(self.shown, False)
        self.handles = self.draw()
        self.time.on_update(lambda _: self.at_time())
        for control in (self.parts, self.drawn):
            control.on_update(lambda _: self.changed())

    @property
    def in_scene(self) -> bool:
        return self.drawn.value

    def draw(self) -> list[Any]:
        """Handles of what is drawn."""
        raise NotImplementedError

    def at_time(self) -> None:
        """The moment is another."""
        self.changed()

    def state(self) -> tuple[Tensor, Tensor]:
        """What the field is posed by, and poses (N, 4, 4) of what is drawn."""
        raise NotImplementedError

    @torch.no_grad()
    def changed(self) -> None:
        self.field.posed, poses = self.state()
        self.field.labelled = self.parts.value
        for handle, pose in zip(self.handles, poses.cpu(), strict=True):
            handle.visible = self.drawn.value
            handle.wxyz = roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(pose[:3, :3])).numpy()
            handle.position = pose[:3, 3].numpy()
        self.viewer.redraw()


class JointsPanel(MotionPanel):
    """Joints may leave what they are at that moment."""

    title = "Joints"
    shown = "Axes"

    @staticmethod
    def suits(subject: Subject) -> bool:
        return isinstance(subject.field, ArticulatedField)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.field: ArticulatedField = cast(ArticulatedField, self.field)
        self.sliders, self.rates = [], []
        for joint in joints_of(self.field):
            unit = 1.0 if joint.kind == "prismatic" else math.degrees(1)
            low, high = (unit * v for v in joint.limits)
            more = _BEYOND * (high - low)
            step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9) / 100))
            least, most = step * math.floor((low - more) / step), step * math.ceil((high + more) / step)
            label = f"Part {joint.child}, {'units' if joint.kind == 'prismatic' else 'degrees'}"
            hint = f"{joint.kind.capitalize()}, on part {joint.parent}; {low:.4g} to {high:.4g} in the video."
            self.sliders.append(
                viewer.server.gui.add_slider(label, least, most, step, min(max(0.0, least), most), hint=hint)
            )
            own = self.field.states[joint.child].detach()
            self.rates.append(unit * float(joint.states.norm() / own.norm().clamp(min=1e-12)))
        self.following = False
        for slider in self.sliders:
            slider.on_update(lambda _: None if self.following else self.changed())
        self.at_time()

    def draw(self) -> list[Any]:
        size = float((self.field.aabb[3:] - self.field.aabb[:3]).max())
        handles = []
        for joint in joints_of(self.field):
            ends = torch.stack([joint.pivot - _LONG * size * joint.axis, joint.pivot + _LONG * size * joint.axis])
            colour = tuple(round(255 * v) for v in COLOURS[joint.child % len(COLOURS)])
            handles.append(
                self.viewer.server.scene.add_line_segments(
                    f"/joints/{joint.child}", ends[None].cpu().numpy(), colors=colour, line_width=4.0, visible=False
                )
            )
        return handles

    def at_time(self) -> None:
        states = self.field.states_at(self.time.value)
        self.following = True  # the sliders are moved: that is one change, not many
        for slider, rate, state in zip(self.sliders, self.rates, states[1:].tolist(), strict=True):
            slider.value = min(max(rate * state, slider.min), slider.max)
        self.following = False
        self.changed()

    def state(self) -> tuple[Tensor, Tensor]:
        states = self.field.states[:, 0].detach().clone()
        for b, (slider, rate) in enumerate(zip(self.sliders, self.rates, strict=True), 1):
            states[b] = slider.value / rate
        poses = self.field.poses(states)
        parents = self.field.parents[1:]
        return poses, poses[parents] @ inverse(self.field.frames[parents])


class BonesPanel(MotionPanel):
    """Bones as ellipsoids of twice their standard deviations, for there their parts end."""

    title = "Bones"
    shown = "Bones"

    @staticmethod
    def suits(subject: Subject) -> bool:
        return isinstance(subject.field, SkinnedField)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.at_time()

    def draw(self) -> list[Any]:
        field = cast(SkinnedField, self.field)
        sizes = 2 * field.radius * field.bones.log_scale.detach().exp().expand(-1, 3)
        return [
            self.viewer.server.scene.add_icosphere(
                f"/bones/{b}", 1.0, tuple(round(255 * v) for v in COLOURS[b % len(COLOURS)]),
                scale=tuple(size), wireframe=True, visible=False,
            )
            for b, size in enumerate(sizes.tolist())
        ]  # fmt: skip

    def state(self) -> tuple[Tensor, Tensor]:
        field = cast(SkinnedField, self.field)
        states = field.states_at(self.time.value)
        poses = states @ field.bones.rest()
        poses[:, :3, 3] = field.middle + field.radius * poses[:, :3, 3]
        return states, poses
