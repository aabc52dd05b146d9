"""The tab of fields that can be relit: where the light comes from, and how it is looked at.

What a tile shows before there is light is kept, so that another light costs no marching.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_args

import numpy as np
import torch
from torch import Tensor

from fields.errors import FieldsError
from fields.relighting.develop import Tonemap
from fields.relighting.field import TransferField
from fields.relighting.lights import Light
from fields.relighting.sources import illumination
from fields.relighting.transfer import Illumination, Parts, Transfer

if TYPE_CHECKING:
    from fields.apps.viewer.viewer import Subject, Viewer

_KEPT = 1 << 20  # rays whose transfer is remembered: some 350 MB
_STUDIOS = ("studio", "sunset", "const:1,1,1")
_LARGEST = 64 << 20  # bytes of a map that a browser may send


class LightPanel:
    """The light, and its handle in the scene."""

    title: ClassVar[str] = "Light"

    @staticmethod
    def suits(subject: Subject) -> bool:
        return isinstance(subject.field, TransferField)

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        field = cast(TransferField, viewer.subject.field)
        viewer.subject.field = self.field = remembering(field)
        self.maps: dict[str, Illumination] = {}
        self.middle = ((field.aabb[:3] + field.aabb[3:]) / 2).cpu()
        self.reach = float((field.aabb[3:] - field.aabb[:3]).norm())
        gui, scene = viewer.server.gui, viewer.server.scene
        self.map = gui.add_dropdown("Map", ("none", *_STUDIOS), initial_value="studio")
        self.upload = gui.add_upload_button("Another map (.hdr, .exr)", mime_type=".hdr,.exr")
        self.message = gui.add_markdown("")
        self.turn = gui.add_slider(
            "Turn", 0, 360, 1, 0, hint="Degrees about the vertical, counter-clockwise from above."
        )
        self.strength = gui.add_slider("Map, EV", -6.0, 6.0, 0.1, 0.0)
        with gui.add_folder("A light to drag"):
            self.on = gui.add_checkbox("On", False)
            self.colour = gui.add_rgb("Colour", (255, 240, 220))
            self.power = gui.add_slider("Light, EV", -6.0, 6.0, 0.1, 0.0)
        with gui.add_folder("Picture"):
            self.exposure = gui.add_slider("Exposure, EV", -8.0, 8.0, 0.1, 0.0)
            self.tonemap = gui.add_dropdown("Tone map", get_args(Tonemap), initial_value="srgb")
            self.layers = [gui.add_checkbox(name.capitalize(), True) for name in Parts._fields]
        start = self.middle + self.reach * torch.tensor([0.4, 0.5, 0.4])
        self.handle = scene.add_transform_controls(
            "/light",
            scale=0.2 * self.reach,
            position=start.numpy(),
            visible=False,
            disable_rotations=True,
            depth_test=False,
        )
        self.bulb = scene.add_icosphere("/light/bulb", 0.02 * self.reach, color=(255, 220, 120), visible=False)
        for control in (self.map, self.turn, self.strength, self.on, self.colour, self.power, self.exposure, self.tonemap,
                        self.handle, *self.layers):  # fmt: skip
            control.on_update(lambda _: self._changed())  # type: ignore[attr-defined]
        self.upload.on_upload(lambda _: self._uploaded())
        self._changed()

    @property
    def in_scene(self) -> bool:
        return bool(self.on.value)

    def _changed(self) -> None:
        self.handle.visible = self.bulb.visible = self.on.value
        field = self.field
        field.illumination = self.light().to(field.aabb.device)
        field.exposure = 2.0**self.exposure.value
        field.tonemap = cast(Tonemap, self.tonemap.value)
        field.shown = [name for name, box in zip(Parts._fields, self.layers, strict=True) if box.value]
        self.viewer.redraw(as_fine=True)

    def light(self) -> Illumination:
        """What the controls say."""
        sources: list[Any] = []
        if self.map.value != "none":
            if self.map.value not in self.maps:
                self.maps[self.map.value] = illumination(self.map.value)
            turned = self.maps[self.map.value].turned(self.turn.value, self.middle, self._up())
            sources.extend(turned.scaled(2.0**self.strength.value).environments)
        if self.on.value:
            away = torch.from_numpy(np.asarray(self.handle.position)).float() - self.middle
            direction = (away / away.norm().clamp(min=1e-6)).tolist()
            colour = [math.pi * 2.0**self.power.value * (v / 255) ** 2.2 for v in self.colour.value]
            sources.append(Light("directional", tuple(colour), direction=tuple(direction)))
        return Illumination.of(*sources)

    def _up(self) -> int:
        from fields.paths import up_of

        return int(up_of(self.viewer.subject.cameras).abs().argmax())

    def _uploaded(self) -> None:
        """Takes a map from the browser: by its last name only, into a folder of its own."""
        sent = self.upload.value
        name = Path(sent.name.replace("\\", "/")).name
        try:
            if len(sent.content) > _LARGEST:
                raise FieldsError(f"{name}: larger than {_LARGEST >> 20} MB.")
            with TemporaryDirectory() as folder:
                file = Path(folder, "map").with_suffix(Path(name).suffix)
                file.write_bytes(sent.content)
                self.maps[name] = illumination(file)
        except FieldsError as error:
            self.message.content = str(error).replace("\n", " ")
            return
        self.message.content = ""
        self.map.options = tuple(dict.fromkeys((*self.map.options, name)))
        self.map.value = name


def remembering(field: TransferField) -> TransferField:
    """The same field, which knows of rays it has met before what they showed."""
    known: OrderedDict[tuple, Transfer] = OrderedDict()
    find: Callable[..., Transfer] = field.transfer

    def transfer(origins: Tensor, directions: Tensor, jitter: Tensor | None = None, around: bool = True) -> Transfer:
        ends = torch.stack([origins[0], origins[-1], directions[0], directions[len(directions) // 2], directions[-1]])
        key = (len(origins), around, field.crop, *ends.flatten().tolist())
        if key in known:
            known.move_to_end(key)
            return known[key]
        known[key] = found = find(origins, directions, jitter, around)
        while sum(map(len, known.values())) > _KEPT:
            known.popitem(last=False)
        return found

    twin = copy.copy(field)
    twin.transfer = transfer  # type: ignore[method-assign]
    return twin
