"""Materials: all of them small, one of them large, in one light; and new ones, drawn by a model as they are asked for.

The light belongs to the eye: turning a mesh turns it under the light. So how bright a point is depends on its normal alone, as the eye sees it,
and a material is lit once, on a sphere, where every shape looks up what it shows (see `fields.neumadiff.preview`).
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
import viser
from fields.apps.viewer.drawing import Drawing
from fields.apps.viewer.serving import Server
from fields.apps.viewer.stage import Stage
from fields.apps.viewer.wall import BACKDROP, Look, Material, Window
from torch import Tensor

from fields.errors import DataError, FieldsError
from fields.garf.reading import load_mesh
from fields.geometry.shapes import Mesh, unit
from fields.io.run import load_config
from fields.neumadiff.files import read_materials, scale_of
from fields.neumadiff.model import MaterialModel
from fields.neumadiff.nbrdf import SUFFIXES, write_networks
from fields.neumadiff.network import Networks
from fields.neumadiff.preview import Light, LitSpheres, light_of, picture, preview, studio
from fields.neumadiff.statistics import SCALES, statistics
from fields.neumadiff.synthesis import as_plain, load_model
from fields.neumadiff.words import colour_of, gloss_of
from fields.relighting.environment import STUDIOS, Environment

_MOST, _AT_ONCE = 64, 8
"""Materials shown, and lit at a time."""
_TILE, _LARGE, _ROWS = 128, 512, 384
"""Pixels of small pictures and of the large one, and rows of the lit sphere where it looks them up."""
_LARGEST, _MOST_FACES = 64 << 20, 400_000
"""Of what a browser may send: bytes, and triangles."""


def is_materials(path: Path) -> bool:
    """Whether something is a file of materials, a folder with one, or what `fields train neumadiff` wrote."""
    if path.suffix in (".binary", ".bsdf", *SUFFIXES) or (path / "materials.nbrdf.npz").is_file():
        return True
    return (path / "config.json").is_file() and load_config(path)["method"] == "neumadiff"


@dataclass
class MaterialsViewer:
    """Serves materials, until `stop`, to any number of browsers, which share all but their cameras.

    Args:
        path: a file of materials, a folder with one, or a run folder of `fields train neumadiff`; if None, the model that comes with the package
            draws, and nothing is there before.
        port: if it is taken, the next that is free.

    Raises:
        DataError, CheckpointError: none of these, or damaged.
        ConfigError: no address to listen on.
    """

    path: Path | None
    host: str = "127.0.0.1"
    port: int = 7007
    stage: Stage = field(default_factory=Stage)
    windows: dict[int, Window] = field(default_factory=dict)
    left: bool = False

    def __post_init__(self) -> None:
        model: MaterialModel | FieldsError
        self.materials: list[Material] = []
        if self.path is None or (self.path / "config.json").is_file():
            folder, model = Path("materials"), load_model(self.path)
        else:
            file = self.path / "materials.nbrdf.npz" if self.path.is_dir() else self.path
            folder, self.materials = file.parent, _of_file(file)
            try:
                model = load_model()
            except FieldsError as error:
                model = error
        names = (f"chosen-{k}" if k else "chosen" for k in range(10_000))
        self.out = next(out for name in names if not (out := folder / f"{name}.nbrdf.npz").exists())
        self.chosen = self.materials[0] if self.materials else None
        self.sharp: tuple[Material, Look, LitSpheres, Tensor] | None = None
        self.lights: dict[str, Light] = {"studio": studio, "sunset": light_of(STUDIOS["sunset"]())}
        self.meshes: dict[str, Mesh] = {}
        self.busy = threading.Lock()
        name = "materials" if self.path is None else self.path.resolve().name
        self.server = Server(name, self.host, self.port)
        self._lay_out(model)
        self.choose(self.chosen)
        self.stage.enter(self)
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._disconnected)
        self.server.scene.on_click()(self._clicked)
        threading.Thread(target=self.stage.run, daemon=True).start()

    @property
    def url(self) -> str:
        return self.server.url

    def stop(self) -> None:
        self.stage.stop()
        self.server.stop()

    # ------------------------------------------------------------------------------------ controls

    def _lay_out(self, model: MaterialModel | FieldsError) -> None:
        gui, scene, start = self.server.gui, self.server.scene, self.server.initial_camera
        scene.set_up_direction("+y")
        start.position, start.look_at, start.fov = (0.0, 0.8, 5.0), (0.0, 0.0, 0.0), math.radians(35)
        self.title = gui.add_markdown("")
        self.keep = gui.add_checkbox("Keep", False, hint="Marks the large one, to be saved.")
        save = gui.add_button("Save what is kept", icon=viser.Icon.DEVICE_FLOPPY)
        self.message = gui.add_markdown("")
        tabs = gui.add_tab_group()
        with tabs.add_tab("Look", viser.Icon.EYE):
            self.shape = gui.add_dropdown("Shape", ("sphere", "knob"))
            mesh = gui.add_upload_button("A mesh (.ply, .obj, .stl, .glb)", mime_type=".ply,.obj,.stl,.glb")
            self.light = gui.add_dropdown("Light", tuple(self.lights))
            light = gui.add_upload_button("A map (.hdr, .exr)", mime_type=".hdr,.exr")
            self.exposure = gui.add_slider("Exposure, EV", -5.0, 5.0, 0.1, 0.0)
        with tabs.add_tab("Draw", viser.Icon.SPARKLES):
            self.drawing = Drawing(gui, model) if isinstance(model, MaterialModel) else None
            if self.drawing is None:
                gui.add_markdown(f"No model to draw with: {_plain(model)}")
            else:
                self.drawing.button.on_click(lambda _: self.draw())
        self.keep.on_update(lambda _: self._keep())
        save.on_click(lambda _: self.save())
        for control in (self.shape, self.light, self.exposure):
            control.on_update(lambda _: self.redraw())  # type: ignore[attr-defined]
        mesh.on_upload(lambda _: self.take(mesh.value, self.meshes, self.shape, _placed))
        light.on_upload(lambda _: self.take(light.value, self.lights, self.light, _light_in))

    def choose(self, material: Material | None) -> None:
        """It is shown large."""
        self.chosen = material
        self.keep.disabled, self.keep.value = material is None, material is not None and material.kept
        self.title.content = "### Nothing drawn yet"
        if material is not None:
            found = statistics(material.reflectance)
            white = SCALES["physical"] / SCALES[material.scale]
            colour, degrees = colour_of(white * found.albedo[0]), float(found.half_width[0])
            looks = f"{gloss_of(degrees)}, {colour.shade} {colour.name}".replace(",  ", ", ")
            self.title.content = f"### {_plain(material.name[:60])}\n{looks} · highlight {degrees:.1f}°"
        self.redraw()

    def _keep(self) -> None:
        if self.chosen is not None:
            self.chosen.kept = self.keep.value
            self.redraw()

    @contextmanager
    def _one_thing(self, doing: str) -> Iterator[None]:
        """At a time; what goes wrong with it is said in a line."""
        with self.busy:
            self.message.content = doing
            try:
                yield
            except (FieldsError, OSError) as error:
                self.message.content = _plain(error)

    def draw(self) -> None:
        """New materials: where there is no room for all, they take that of the oldest which are not kept."""
        with self._one_thing("Drawing …"):
            assert self.drawing is not None
            drawn, tried = self.drawing.draw(self.chosen)
            kept, others = ([m for m in self.materials if m.kept is wanted] for wanted in (True, False))
            self.materials = [*kept, *drawn, *others][:_MOST]
            self.message.content = f"{len(drawn)} of {tried} that were drawn."
            self.choose(drawn[0])

    def save(self) -> None:
        """All networks that are kept, to one file: the same each time, and not there before the first."""
        with self._one_thing(""):
            kept = [m for m in self.materials if m.kept]
            if not kept:
                raise DataError("Nothing is kept yet: click a material, and tick Keep.")
            networks = [m.reflectance for m in kept if isinstance(m.reflectance, Networks)]
            if (
                len(networks) < len(kept)
                or len({(n.dialect, m.scale) for n, m in zip(networks, kept, strict=True)}) > 1
            ):
                raise DataError("Not saved: a file holds networks alone, of one dialect and on one scale. Keep fewer.")
            together = Networks(torch.cat([n.weights for n in networks]), networks[0].dialect)
            found = statistics(together)
            facts = {"scale": kept[0].scale, "statistics": [as_plain(found, k) for k in range(len(kept))]}
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_networks(self.out, together, [m.name for m in kept], facts)
            self.message.content = f"Saved {len(kept)} to {_plain(self.out)}."

    def take(self, sent: Any, into: dict[str, Any], choice: Any, read: Callable[[Path], Any]) -> None:
        """A file from a browser: by its last name only, through a folder of its own."""
        name = Path(sent.name.replace("\\", "/")).name
        with self._one_thing(f"Reading {_plain(name)} …"), TemporaryDirectory() as folder:
            if len(sent.content) > _LARGEST:
                raise DataError(f"{name}: larger than {_LARGEST >> 20} MB.")
            file = Path(folder, name)
            try:
                file.write_bytes(sent.content)
                into[name] = read(file)
            except (FieldsError, OSError, ValueError) as error:  # the last two of names that no file can have
                raise DataError(str(error).replace(f"{folder}/", "")) from None
            choice.options = tuple(dict.fromkeys((*choice.options, name)))
            choice.value, self.message.content = name, ""
            self.redraw()

    # ------------------------------------------------------------------------------------ lit, one after the other

    @property
    def look(self) -> Look:
        """Of pictures. Beside a mesh there are spheres."""
        return self.lights[self.light.value], "knob" if self.shape.value == "knob" else "sphere"

    @property
    def mesh(self) -> Mesh | None:
        return self.meshes.get(self.shape.value)

    def large(self) -> tuple[LitSpheres, Tensor] | None:
        """The chosen one lit, and its picture: once it is as it should be."""
        sharp = self.sharp
        return sharp[2:] if sharp is not None and sharp[:2] == (self.chosen, self.look) else None

    def _unlit(self) -> list[Material]:
        """Small ones, of one scale; the chosen one before the others."""
        missing = [m for m in self.materials if m.tile is None or m.tile[0] != self.look]
        if self.chosen in missing:
            return [self.chosen]
        return [m for m in missing if m.scale == missing[0].scale][:_AT_ONCE]

    def urgency(self) -> int:
        return int(bool(self._unlit()) or (self.chosen is not None and self.large() is None))

    def act(self) -> None:
        look, chosen, some = self.look, self.chosen, self._unlit()
        if chosen is not None and chosen not in some and self.large() is None:
            lit = LitSpheres(chosen.reflectance, look[0], _ROWS)
            times = SCALES[chosen.scale]
            self.sharp = chosen, look, lit, picture(lit, look[1], _LARGE, BACKDROP * times)[0] / times
        elif some:
            times = SCALES[some[0].scale]
            pictures = preview(
                lambda angles: torch.cat([m.reflectance(angles) for m in some]), size=_TILE, light=look[0],
                shape=look[1], backdrop=BACKDROP * times,
            )  # fmt: skip
            for material, tile in zip(some, pictures / times, strict=True):
                material.tile = look, tile
        self.redraw()

    # ------------------------------------------------------------------------------------ browsers

    def redraw(self) -> None:
        for window in list(self.windows.values()):
            window.redraw()
        self.stage.wake()

    def _connected(self, client: viser.ClientHandle) -> None:
        self.windows[client.client_id] = window = Window(self, client)
        self.stage.enter(window)

    def _disconnected(self, client: viser.ClientHandle) -> None:
        if window := self.windows.pop(client.client_id, None):
            window.left = True
            self.stage.leave(window)

    def _clicked(self, event: viser.SceneClickEvent) -> None:
        window = self.windows.get(event.client_id)
        at = window and window.wall.index(*event.screen_pos)
        if at is not None and at < len(self.materials):
            self.choose(self.materials[at])


def _of_file(path: Path) -> list[Material]:
    """The first of a file's materials."""
    found, names = read_materials(path)
    scale = scale_of(path)
    each = [found] if len(names) == 1 else [cast(Networks, found)[k] for k in range(min(len(names), _MOST))]
    return [Material(name, one, scale) for name, one in zip(names, each, strict=False)]


def _placed(path: Path) -> Mesh:
    """Of a file, about the origin and in its sphere of one."""
    found = load_mesh(path)
    if not 0 < len(found.faces) <= _MOST_FACES:
        raise DataError(f"{path}: {len(found.faces)} triangles; 1 to {_MOST_FACES} are shown. Simplify it.")
    away = found.vertices - (found.vertices.min(0) + found.vertices.max(0)) / 2
    normals = np.zeros_like(away)
    for corner in range(3):
        np.add.at(normals, found.faces[:, corner], found.normals * found.areas[:, None])
    size = max(float(np.linalg.norm(away, axis=1).max()), 1e-12)
    return Mesh(away / size, unit(normals), np.zeros_like(away, np.uint8), found.faces)


def _light_in(path: Path) -> Light:
    return light_of(Environment.load(path))


def _plain(text: object) -> str:
    """One line that a browser shows as it is: what files say is no Markdown, and no HTML."""
    return re.sub(r"([^\w\s.,:;/°–…'\"()-])", r"\\\1", " ".join(str(text).split())[:300])
