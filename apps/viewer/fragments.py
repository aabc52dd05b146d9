"""Fragments that `fields reassemble` put together: to look at, to take apart, and to put by hand."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import viser
from fields.apps.viewer.serving import Server
from viser import transforms

from fields.errors import FieldsError
from fields.garf.clouds import object_scale
from fields.garf.fragment import Fragment
from fields.garf.pictures import box_of, palette
from fields.garf.reassembly import Joint, Reassembly, load_model
from fields.garf.results import laid_out, read_results, standing, write_poses
from fields.garf.snapping import Settler, put
from fields.geometry.shapes import eight_bits
from fields.io.images import colour_map

_BANDS = 5
"""Triangles are told apart by how likely they are break in so many steps: a band is a mesh, and has one colour."""
_GREY, _STONE, _ORANGE = (150, 150, 150), (205, 200, 190), (225, 95, 20)
_NOTHING = "–"


class Piece:
    """A fragment in the scene, about its own middle, in sizes of the object."""

    def __init__(self, scene: viser.SceneApi, i: int, fragment: Fragment, broken: np.ndarray, size: float) -> None:
        self.middle = fragment.middle
        self.frame = scene.add_frame(f"/fragments/{i}", show_axes=False)
        self.meshes = {}
        band = np.minimum((broken * _BANDS).astype(int), _BANDS - 1)
        for k in np.unique(band).tolist():
            used, faces = np.unique(fragment.faces[band == k], return_inverse=True)
            self.meshes[k] = scene.add_mesh_simple(
                f"/fragments/{i}/{k}", (fragment.vertices[used] - self.middle) / size, faces.reshape(-1, 3),
                flat_shading=True, side="double",
            )  # fmt: skip

    def paint(self, colours: np.ndarray, faint: bool) -> None:
        """Colours (_BANDS, 3) uint8."""
        for k, mesh in self.meshes.items():
            mesh.color = tuple(colours[k].tolist())
            mesh.opacity = 0.12 if faint else None


@dataclass
class FragmentsViewer:
    """Serves the folder of a reassembly, until `stop`, to any number of browsers, which share all but their cameras.

    Args:
        port: if it is taken, the next that is free.

    Raises:
        DataError: not such a folder.
        ConfigError: no address to listen on.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 7007

    def __post_init__(self) -> None:
        self.found = laid_out(read_results(self.folder))
        self.past: list[Reassembly] = []
        self.chosen: int | None = None
        self.pointed: Joint | None = None
        self.settler: Settler | None = None
        self.busy = threading.Lock()
        fragments = self.found.fragments
        self.names = [f.name for f in fragments]
        self.size = object_scale(fragments)
        self.box = box_of(self.found.assembled())
        self.server = Server(self.folder.resolve().name, self.host, self.port)
        unknown = [np.zeros(len(f.faces)) for f in fragments]
        self.pieces = [
            Piece(self.server.scene, i, *both, self.size)
            for i, both in enumerate(zip(fragments, self.found.broken or unknown, strict=True))
        ]
        for i, piece in enumerate(self.pieces):
            for mesh in piece.meshes.values():
                mesh.on_click(lambda _, i=i: self.choose(None if i == self.chosen else i))
        self._lay_out()
        self._show()
        self.choose(None)

    @property
    def url(self) -> str:
        return self.server.url

    def stop(self) -> None:
        self.server.stop()

    # ------------------------------------------------------------------------------------ controls

    def _lay_out(self) -> None:
        gui, scene, start = self.server.gui, self.server.scene, self.server.initial_camera
        reach = float(np.linalg.norm(np.ptp(self.box, 0))) / self.size
        scene.set_up_direction("+z")
        start.position, start.look_at = (0.7 * reach, -0.5 * reach, 0.4 * reach), (0.0, 0.0, 0.0)
        self.handle = scene.add_transform_controls("/handle", scale=0.4, depth_test=False, visible=False)
        self.handle.on_update(lambda event: self.drag(event.phase == "end"))
        self.title = gui.add_markdown("")
        self.explode = gui.add_slider("Explode", 0.0, 2.0, 0.02, 0.0)
        kinds = ("piece", "confidence", "break") if self.found.broken else ("piece", "confidence")
        self.colours = gui.add_dropdown(
            "Colours", kinds, hint="Confidence: red to green, grey where it fits nowhere. Break: orange."
        )
        tabs = gui.add_tab_group()
        with tabs.add_tab("Move", viser.Icon.ARROWS_MOVE):
            self.picker = gui.add_dropdown("Fragment", (_NOTHING, *self.names), hint="Or click on one.")
            self.message = gui.add_markdown("")
            self.snap_button = gui.add_button("Snap", icon=viser.Icon.MAGNET, hint="Lets it settle where it fits.")
            self.undo_button = gui.add_button("Undo", icon=viser.Icon.ARROW_BACK_UP)
            self.save_button = gui.add_button(
                "Save poses", icon=viser.Icon.DEVICE_FLOPPY, hint="Writes poses.json and assembled.ply again."
            )
        self.joints_tab = tabs.add_tab("Joints", viser.Icon.LINK)
        self.joint_buttons: list[viser.GuiButtonHandle] = []
        with tabs.add_tab("Fragments", viser.Icon.EYE):
            everything = gui.add_button_group("Show", ("all", "none"))
            self.shown = [gui.add_checkbox(name, True) for name in self.names]
        self.explode.on_update(lambda _: self._place())
        self.colours.on_update(lambda _: self._paint())
        self.picker.on_update(lambda _: self._picked())
        self.snap_button.on_click(lambda _: self.snap())
        self.undo_button.on_click(lambda _: self.undo())
        self.save_button.on_click(lambda _: self.save())
        for box, piece in zip(self.shown, self.pieces, strict=True):
            box.on_update(lambda _, box=box, piece=piece: setattr(piece.frame, "visible", box.value))

        @everything.on_click
        def _(_: Any) -> None:
            for box in self.shown:
                box.value = everything.value == "all"

    def choose(self, i: int | None, joint: Joint | None = None) -> None:
        """Fragment `i` gets the handle; what has no part in `joint` fades."""
        self.chosen, self.pointed = i, joint
        self.picker.value = _NOTHING if i is None else self.names[i]
        said = "Click on a fragment, drag it to about where it belongs, and snap."
        if i is not None:
            said = f"**{self.names[i]}**: {standing(self.found, i)}."
        self.message.content = said if joint is None else f"{self._title(joint)}."
        self._place()
        self._paint()

    def drag(self, let_go: bool) -> None:
        """The chosen fragment goes where the handle is; let go, it has left its neighbours."""
        if (i := self.chosen) is None:
            return
        self.pieces[i].frame.position, self.pieces[i].frame.wxyz = self.handle.position, self.handle.wxyz
        pose = self._pose(i)
        if let_go and not np.allclose(pose, self.found.world_from_fragment[i], 0, 1e-9 * self.size):
            self._change(put(self.found, i, pose))
            self.message.content = f"**{self.names[i]}** is loose. Snap lets it settle where it fits."

    def snap(self) -> None:
        """Lets the chosen fragment settle; the first time, fragments have to be looked at before."""
        with self.busy:
            if (i := self.chosen) is None or i == self.found.anchor:
                return
            self.handle.visible = False  # whoever drags it on would drag it out of what is being worked out
            try:
                if self.settler is None:
                    self.message.content = "Looking at the breaks; the next time this is quicker …"
                    self.settler = Settler.of(self.found.fragments, load_model())
                self.message.content = f"**{self.names[i]}** settles …"
                self._change(self.settler.snap(self.found, i))
            except FieldsError as error:
                self.message.content = str(error)
                self._place()
                return
            mates = sorted((j for j in self.found.joints if i in (j.a, j.b)), key=lambda j: -j.confidence)
            self.message.content = (
                f"**{self.names[i]}** fits nothing there. Drag it nearer, or turn it, and snap again."
            )
            if mates:
                rows = (f"- {self.names[j.a + j.b - i]}: confidence **{j.confidence:.2f}**" for j in mates)
                self.message.content = "\n".join([f"**{self.names[i]}** settled on", *rows])

    def undo(self) -> None:
        with self.busy:
            if self.past:
                self.found = self.past.pop()
                self.message.content = "Undone."
                self._show()

    def save(self) -> None:
        with self.busy:
            try:
                write_poses(self.folder, self.found)
                self.message.content = (
                    "Saved: poses.json, assembled.ply. The report still shows what was found at first."
                )
            except FieldsError as error:
                self.message.content = str(error)

    def _picked(self) -> None:
        i = None if self.picker.value == _NOTHING else self.names.index(self.picker.value)
        if i != self.chosen:
            self.choose(i)

    # ------------------------------------------------------------------------------------ what is seen

    def _change(self, found: Reassembly) -> None:
        self.past.append(self.found)
        self.found, self.pointed = found, None
        self._show()

    def _show(self) -> None:
        together = self.found.group.count(0)
        self.title.content = f"### {self.folder.resolve().name}\n{together} of {len(self.names)} fragments put together"
        for i, box in enumerate(self.shown):
            box.hint = standing(self.found, i)
        self._list_joints()
        self._place()
        self._paint()

    def _list_joints(self) -> None:
        """The least certain first: these are to be looked at."""
        for button in self.joint_buttons:
            button.remove()
        self.joint_buttons = []
        for joint in sorted(self.found.joints, key=lambda joint: joint.confidence):
            with self.joints_tab:
                colour = tuple(_red_to_green([joint.confidence])[0].tolist())
                button = self.server.gui.add_button(self._title(joint), color=colour)
            button.on_click(lambda _, joint=joint: self._point_at(joint))
            self.joint_buttons.append(button)

    def _title(self, joint: Joint) -> str:
        return f"{self.names[joint.a]} – {self.names[joint.b]}: {joint.confidence:.2f}"

    def _point_at(self, joint: Joint) -> None:
        """Chooses of its fragments the one that is less certain, and can be moved."""
        sure = {k: (k == self.found.anchor, self.found.confidence[k]) for k in (joint.a, joint.b)}
        self.choose(min(sure, key=lambda k: sure[k]), joint)

    def _place(self) -> None:
        for i, piece in enumerate(self.pieces):
            pose = self.found.world_from_fragment[i]
            away = pose[:3, :3] @ piece.middle + pose[:3, 3] - self.box.mean(0)
            piece.frame.position = (1 + self.explode.value) * away / self.size
            piece.frame.wxyz = transforms.SO3.from_matrix(pose[:3, :3]).wxyz
        i = self.chosen
        fixed = i is None or i == self.found.anchor
        if i is not None:
            self.handle.position, self.handle.wxyz = self.pieces[i].frame.position, self.pieces[i].frame.wxyz
        self.handle.visible = not fixed
        self.snap_button.disabled, self.undo_button.disabled = fixed, not self.past

    def _pose(self, i: int) -> np.ndarray:
        """(4, 4) of a fragment where it is seen: the inverse of `_place`, exploded or not."""
        piece, pose = self.pieces[i], np.eye(4)
        pose[:3, :3] = transforms.SO3(piece.frame.wxyz).as_matrix()
        away = self.size * np.asarray(piece.frame.position) / (1 + self.explode.value)
        pose[:3, 3] = away + self.box.mean(0) - pose[:3, :3] @ piece.middle
        return pose

    def _paint(self) -> None:
        count = len(self.pieces)
        if self.colours.value == "piece":
            colours = eight_bits(palette(count))[:, None].repeat(_BANDS, 1)
        elif self.colours.value == "confidence":
            sure = _red_to_green(self.found.confidence)
            alone = [group > 0 and self.found.group.count(group) == 1 for group in self.found.group]
            colours = np.where(np.array(alone)[:, None], _GREY, sure)[:, None].repeat(_BANDS, 1)
        else:
            colours = np.linspace(_STONE, _ORANGE, _BANDS).astype(np.uint8)[None].repeat(count, 0)
        lit = range(count) if self.pointed is None else (self.pointed.a, self.pointed.b)
        for i, piece in enumerate(self.pieces):
            piece.paint(colours[i], faint=i not in lit)


def _red_to_green(shares: list[float]) -> np.ndarray:
    """(N, 3) uint8."""
    return eight_bits(colour_map(torch.tensor([shares]), 0, 1, "RdYlGn")[0].numpy())
