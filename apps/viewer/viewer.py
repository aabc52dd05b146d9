"""The server and the controls that every run has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import viser
from fields.apps.render import look_around
from fields.apps.viewer.crop import CropBox
from fields.apps.viewer.frames import Eye, Style, View, field_eye, nearest_photograph, photograph_eye
from fields.apps.viewer.journey import Journey
from fields.apps.viewer.panels import Panel, panels_for
from fields.apps.viewer.serving import Server
from fields.apps.viewer.session import Pace, Session, wxyz_of
from fields.apps.viewer.stage import Stage
from fields.apps.viewer.taken import TrainingCameras

from fields.data.cameras import Cameras
from fields.data.scene import Split
from fields.outputs import Palette, outputs_of
from fields.paths import up_of
from fields.rendering import Field

_COLOURS = ("turbo", "viridis", "magma", "inferno", "cividis", "gray")
_BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "grey": (0.5, 0.5, 0.5)}
_RESOLUTIONS = {"automatic": None, "full": 1.0, "half": 0.5, "quarter": 0.25, "eighth": 0.125}


@dataclass
class Subject:
    """What is looked at."""

    name: str
    field: Field
    config: dict[str, Any]
    """As of `fields.io.run.load_config`."""
    cameras: Cameras
    """Those it was trained with."""
    path: Path | None = None
    """The run folder or file."""
    facts: str = ""
    """A line for the top of the window."""


@dataclass
class Viewer:
    """Serves one subject, until `stop`, to any number of browsers.

    Controls are shared: whoever connects, or connects again, finds them as they were left. Each browser has its own camera.

    Args:
        compare: a second subject, to see beside the first.
        photographs: gives the training images; called in the background, as it may take long.
        frames_per_second: to aim for while a camera moves.
        panels: further tabs, before those that suit the subject.
        own_thread: whether to draw in a thread of its own; if not, somebody calls `stage.run_for`.

        port: if it is taken, the next that is free.

    Raises:
        ConfigError: no address to listen on.
    """

    subject: Subject
    compare: Subject | None = None
    photographs: Callable[[], Split] | None = None
    host: str = "127.0.0.1"
    port: int = 7007
    frames_per_second: float = 10.0
    own_thread: bool = True
    panels: Sequence[type[Panel]] = ()
    stage: Stage = field(default_factory=Stage)
    sessions: dict[int, Session] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = Server(self.subject.name, self.host, self.port)
        self.pace = Pace(self.frames_per_second)
        self._features: tuple[Field, Palette] | None = None
        self._lay_out()
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._disconnected)
        if self.photographs is not None:
            threading.Thread(target=self.taken.load, daemon=True).start()
        if self.own_thread:
            threading.Thread(target=self.stage.run, daemon=True).start()

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def device(self) -> torch.device:
        return self.subject.field.aabb.device

    def stop(self) -> None:
        self.stage.stop()
        self.server.stop()

    def redraw(self, *_: object, as_fine: bool = False) -> None:
        """Draws again for everybody: the field or the controls have changed. `as_fine`: not coarse first."""
        for session in list(self.sessions.values()):
            session.redraw(as_fine)

    # ------------------------------------------------------------------------------------ browsers

    def _connected(self, client: viser.ClientHandle) -> None:
        self.sessions[client.client_id] = session = Session(self, client)
        self.stage.enter(session)

    def _disconnected(self, client: viser.ClientHandle) -> None:
        if session := self.sessions.pop(client.client_id, None):
            session.left = True
            self.stage.leave(session)

    # ------------------------------------------------------------------------------------ controls

    def _lay_out(self) -> None:
        gui, scene = self.server.gui, self.server.scene
        scene.set_up_direction(tuple(up_of(self.subject.cameras).tolist()))
        first, start = self.start(), self.server.initial_camera
        self.size = float((self.subject.field.aabb[3:] - self.subject.field.aabb[:3]).norm())
        start.position = tuple(first.centres[0].tolist())
        start.look_at = tuple(self._middle().tolist())
        start.fov = float(first.fov_y[0])
        start.near, start.far = 1e-3 * self.size, 1e3 * self.size

        gui.add_markdown(f"### {self.subject.name}\n{self.subject.facts}")
        self.status_place = gui.add_folder("Picture")
        self.entering = threading.Lock()  # windows may open at the same moment, and one at a time may add to a folder
        self.tabs = gui.add_tab_group()
        with self.tabs.add_tab("View", viser.Icon.EYE):
            self._view_tab()
        with self.tabs.add_tab("Cameras", viser.Icon.CAMERA):
            self.taken = TrainingCameras(self)
        with self.tabs.add_tab("Path", viser.Icon.ROUTE):
            self.journey = Journey(self)
        self.tabs_shown: list[Panel] = []
        for kind in (*self.panels, *panels_for(self.subject)):
            with self.tabs.add_tab(kind.title):
                self.tabs_shown.append(kind(self))

    def _view_tab(self) -> None:
        gui = self.server.gui
        self.output = gui.add_dropdown("Show", outputs_of(self.subject.field), initial_value="rgb")
        self.resolution = gui.add_dropdown(
            "Resolution", tuple(_RESOLUTIONS), initial_value="automatic",
            hint="Automatic: coarse while the camera moves, then sharper until it fills the window. Others stay as they are.",
        )  # fmt: skip
        self.speed = gui.add_slider(
            "Frames per second", 1, 60, 1, self.frames_per_second, hint="To aim for while moving"
        )
        self.background = gui.add_dropdown("Background", tuple(_BACKGROUNDS), initial_value="white")
        with gui.add_folder("Colours", expand_by_default=False):
            self.colours = gui.add_dropdown("Map", _COLOURS, initial_value="turbo")
            self.fit = gui.add_checkbox("Fit to the picture", True)
            self.low = gui.add_number("First colour at", 0.0, step=0.01, disabled=True)
            self.high = gui.add_number("Last colour at", 1.0, step=0.01, disabled=True)
        with gui.add_folder("Compare", expand_by_default=self.compare is not None):
            others = ["nothing"]
            others += [self.compare.name] if self.compare else []
            others += ["photograph"] if self.photographs else []
            self.against = gui.add_dropdown(
                "With", tuple(others), initial_value=others[1] if self.compare else "nothing"
            )
            self.split = gui.add_slider("Split", 0.0, 1.0, 0.01, 0.5)
        with gui.add_folder("Crop", expand_by_default=False):
            self.crop_box = CropBox(self)
        for control in (self.output, self.resolution, self.background, self.colours, self.low, self.high, self.against,
                        self.split):  # fmt: skip
            control.on_update(self.redraw)

        @self.speed.on_update
        def _(_: object) -> None:
            self.pace.frames_per_second = self.speed.value

        @self.fit.on_update
        def _(_: object) -> None:
            self.low.disabled = self.high.disabled = self.fit.value
            self.redraw()

    # ------------------------------------------------------------------------------------ what sessions ask

    def style(self) -> Style:
        """The controls as they are now."""
        return Style(
            output=self.output.value,
            colours=self.colours.value,
            span=None if self.fit.value else (self.low.value, self.high.value),
            background=_BACKGROUNDS[self.background.value],
            crop=self.crop_box.crop(),
            split=self.split.value,
        )

    def scale(self) -> float | None:
        """The part of the window's resolution that is locked, if it is."""
        return _RESOLUTIONS[self.resolution.value]

    def eyes(self, view: View, style: Style) -> tuple[Eye, Eye | None]:
        one, against = field_eye(self.subject.field, style), self.against.value
        if self.compare is not None and against == self.compare.name:
            return one, field_eye(self.compare.field, style)
        if against == "photograph" and (images := self.taken.images) is not None:
            nearest = nearest_photograph(images, view, 1e-3 * self.size)
            if nearest is not None:
                return one, photograph_eye(images, nearest)
        return one, None

    def palette(self, style: Style) -> Palette | None:
        """What turns values into colours; None where the picture decides."""
        if style.output == "features" and self._features and self._features[0] is self.subject.field:
            return self._features[1]  # main components of another picture would be other colours
        return style.palette()

    def keep_palette(self, style: Style, palette: Palette) -> None:
        if style.output == "features" == palette.output:
            self._features = self.subject.field, palette

    def wants_depth(self) -> bool:
        """Whether something stands in the scene that the field may hide."""
        return self.taken.shown.value or self.crop_box.shown.value or any(panel.in_scene for panel in self.tabs_shown)

    # ------------------------------------------------------------------------------------ moving about

    def fly(self, client: viser.ClientHandle, camera: Cameras) -> None:
        """Puts a browser's camera where another one is."""
        pose = camera.world_from_camera[0].cpu()
        with client.atomic():
            client.camera.wxyz = wxyz_of(pose)
            client.camera.position = pose[:3, 3].numpy()
            client.camera.fov = float(camera.fov_y[0])
        client.flush()

    def _middle(self) -> torch.Tensor:
        box = self.subject.field.aabb.cpu()
        return (box[:3] + box[3:]) / 2

    def start(self) -> Cameras:
        """From where the run's own video begins."""
        return look_around(self.subject.cameras, self.subject.field, 1, None)[0]
