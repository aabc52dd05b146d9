"""Camera paths: key frames that people set, a smooth flight through them, and its film."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import viser
from fields.apps.viewer.frames import View, draw
from fields.apps.viewer.session import pose_of, wxyz_of

from fields.data.cameras import Cameras
from fields.errors import DataError
from fields.io.images import video_writer
from fields.paths import interpolate, nerfstudio_path, parse_nerfstudio_path

if TYPE_CHECKING:
    from fields.apps.viewer.viewer import Viewer

_MOST_FRAMES = 20_000
_END = object()


class Journey:
    """The tab for camera paths."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.keys: list[View] = []
        self.drawn: list[viser.SceneNodeHandle] = []
        self.film: Film | None = None
        self.playing: Preview | None = None
        gui = viewer.server.gui
        add = gui.add_button("Add key frame", icon=viser.Icon.PLUS, hint="Where this browser's camera is now")
        edit = gui.add_button_group("Last one", ("remove", "replace"))
        clear = gui.add_button("Remove all")
        self.loop = gui.add_checkbox("Closed", False, hint="Go on from the last key frame to the first")
        self.seconds = gui.add_number("Seconds", 4.0, min=0.1, max=600.0, step=0.1)
        self.fps = gui.add_number("Images per second", 24, min=1, max=120, step=1)
        self.size = gui.add_vector2("Size", (640, 480), min=(16, 16), max=(4096, 4096), step=2)
        self.preview = gui.add_button("Preview", icon=viser.Icon.PLAYER_PLAY)
        self.render = gui.add_button("Render MP4", icon=viser.Icon.MOVIE)
        self.bar = gui.add_progress_bar(0.0, visible=False)
        self.last_film = b""
        self.fetch = gui.add_button("Download the last film", icon=viser.Icon.DOWNLOAD, visible=False)
        save = gui.add_button(
            "Save path", icon=viser.Icon.DOWNLOAD, hint="As nerfstudio's camera path, for fields render --path"
        )
        load = gui.add_upload_button("Load path", icon=viser.Icon.UPLOAD, mime_type="application/json")
        self.note = gui.add_markdown("No key frames yet.")

        add.on_click(lambda event: event.client and self._add(event.client))
        edit.on_click(lambda event: self._edit(event.target.value, event.client))
        clear.on_click(lambda _: self._set([]))
        self.loop.on_update(lambda _: self._set(self.keys))
        self.preview.on_click(lambda event: event.client and self._preview(event.client))
        self.render.on_click(lambda event: event.client and self._render(event.client))
        self.fetch.on_click(lambda event: event.client and self._send(event.client))
        save.on_click(lambda event: event.client and self._save(event.client))
        load.on_upload(lambda event: self._load(load.value))

    # ------------------------------------------------------------------------------------ key frames

    def _add(self, client: viser.ClientHandle) -> None:
        self._set([*self.keys, _view_of(client)])

    def _edit(self, how: str, client: viser.ClientHandle | None) -> None:
        rest = self.keys[:-1]
        if how == "remove":
            self._set(rest)
        elif client is not None and self.keys:
            self._set([*rest, _view_of(client)])

    def _set(self, keys: list[View], note: str = "") -> None:
        self.keys = keys
        self._draw()
        few = "one more makes a path" if len(keys) == 1 else ""
        self.note.content = note or f"{len(keys)} key frames{': ' + few if few else ''}."

    def _draw(self) -> None:
        """Key frames and the flight through them, in the scene."""
        for node in self.drawn:
            node.remove()
        scene, scale = self.viewer.server.scene, 0.05 * self.viewer.size
        self.drawn = [
            scene.add_camera_frustum(
                f"/path/{i}", fov=key.fov, aspect=key.aspect, scale=scale, color=(220, 90, 40), thickness=2.0,
                thickness_units="screen", wxyz=wxyz_of(key.world_from_camera), position=key.world_from_camera[:3, 3].numpy(),
            )
            for i, key in enumerate(self.keys)
        ]  # fmt: skip
        if len(self.keys) > 1:
            centres = interpolate(self._cameras(), 24 * len(self.keys), closed=self.loop.value).centres.numpy()
            ends = np.concatenate([centres, centres[:1]]) if self.loop.value else centres
            segments = np.stack([ends[:-1], ends[1:]], 1)
            self.drawn.append(scene.add_line_segments("/path/line", segments, colors=(220, 90, 40), line_width=2.0))

    def _cameras(self) -> Cameras:
        """The key frames, of the film's size."""
        w, h = (int(side) for side in self.size.value)
        return Cameras.cat([replace(key, aspect=w / h).camera(h) for key in self.keys])

    def frames(self) -> Cameras:
        """Every image of the film.

        Raises:
            DataError: fewer than two key frames, or too many images.
        """
        count = max(2, round(self.seconds.value * self.fps.value))
        if count > _MOST_FRAMES:
            raise DataError(f"{count} images are too many. Ask for fewer seconds, or fewer images per second.")
        if len(self.keys) < 2:
            raise DataError("A path needs two key frames. Move the camera and add some.")
        return interpolate(self._cameras(), count, closed=self.loop.value)

    # ------------------------------------------------------------------------------------ preview, film, file

    def _preview(self, client: viser.ClientHandle) -> None:
        if self.playing is not None:
            self._stop_preview()
            return
        if frames := self._frames_for(client):
            self.preview.label = "Stop"
            self.playing = Preview(self, client, frames, self.fps.value)
            self.viewer.stage.enter(self.playing)

    def _stop_preview(self) -> None:
        if self.playing is not None:
            self.viewer.stage.leave(self.playing)
            self.playing, self.preview.label = None, "Preview"

    def _render(self, client: viser.ClientHandle) -> None:
        if self.film is not None:
            self.film.stopped = True
        elif frames := self._frames_for(client):
            self.render.label, self.bar.visible, self.bar.value = "Stop rendering", True, 0.0
            self.film = Film(self, client, frames, self.fps.value)
            self.viewer.stage.enter(self.film)

    def _film_done(self, note: str, film: bytes = b"") -> None:
        self.film, self.render.label, self.bar.visible = None, "Render MP4", False
        self.note.content = note
        if film:  # whoever asked may have left: it stays here to be fetched
            self.last_film, self.fetch.visible = film, True

    def _send(self, client: viser.ClientHandle) -> None:
        client.send_file_download(f"{self.viewer.subject.name}.mp4", self.last_film, save_immediately=True)

    def _frames_for(self, client: viser.ClientHandle) -> Cameras | None:
        try:
            return self.frames()
        except DataError as error:
            client.add_notification("Camera path", str(error), color="red", auto_close_seconds=8)
            return None

    def _save(self, client: viser.ClientHandle) -> None:
        if frames := self._frames_for(client):
            path = nerfstudio_path(self._cameras(), frames, self.fps.value, closed=self.loop.value)
            client.send_file_download("camera_path.json", json.dumps(path).encode(), save_immediately=True)

    def _load(self, file: viser.UploadedFile) -> None:
        """From the bytes alone: the name of an uploaded file says nothing but what it is called."""
        name = Path(file.name).name
        try:
            head = json.loads(file.content)
            has_keys = isinstance(head, dict) and bool(head.get("keyframes"))
            cameras, _ = parse_nerfstudio_path(file.content, name, "keyframes" if has_keys else "camera_path")
        except (DataError, ValueError, RecursionError) as error:
            self.note.content = f"Not loaded. {error}"
            return
        if not has_keys and len(cameras) > 24:  # only frames: a person wants to hold some of them
            cameras = cameras[:: math.ceil(len(cameras) / 24)]
        self.loop.value = bool(head.get("is_cycle"))
        self.size.value = (int(cameras.width[0]), int(cameras.height[0]))
        keys = [View.of(cameras[i]) for i in range(len(cameras))]
        self._set(keys, f"{len(keys)} key frames of {name}.")


class Preview:
    """Moves one browser's camera along a path; it is drawn for as for any camera that moves."""

    left = False

    def __init__(self, journey: Journey, client: viser.ClientHandle, frames: Cameras, fps: float) -> None:
        self.journey, self.client, self.frames, self.fps = journey, client, frames, fps
        self.began, self.shown = time.monotonic(), -1

    def urgency(self) -> int:
        return 3 if self._now() > self.shown else 0

    def _now(self) -> int:
        return int((time.monotonic() - self.began) * self.fps)

    def act(self) -> None:
        self.shown = self._now()
        if self.shown >= len(self.frames):
            self.journey._stop_preview()
        else:
            self.journey.viewer.fly(self.client, self.frames[self.shown])


class Film:
    """Renders every image of a path, whenever nobody needs a picture, and sends the film to the browser that asked."""

    left = False  # whoever connects next can fetch it

    def __init__(self, journey: Journey, client: viser.ClientHandle, frames: Cameras, fps: float) -> None:
        self.journey, self.client = journey, client
        self.stopped = False
        self._work = self._render(frames, fps)

    def urgency(self) -> int:
        return 1

    def act(self) -> None:
        if self.stopped:
            self._work.close()
            self.journey.viewer.stage.leave(self)
            self.journey._film_done("Stopped; there is no film.")
            return
        try:
            ended = next(self._work, _END) is _END
        except Exception as error:
            self.journey._film_done(f"The film failed: {error}")
            raise
        if ended:
            self.journey.viewer.stage.leave(self)

    def _render(self, frames: Cameras, fps: float) -> Generator[object, None, None]:
        viewer, style = self.journey.viewer, self.journey.viewer.style()
        palette = viewer.palette(style)
        with tempfile.TemporaryDirectory(prefix="fields-film-") as folder:
            file = Path(folder) / "film.mp4"
            with video_writer(file, fps) as append:
                for i in range(len(frames)):
                    view, height = View.of(frames[i]), int(frames.height[i])
                    eyes = viewer.eyes(view, style)
                    frame = yield from draw(eyes, view, style, height, palette, device=viewer.device)
                    palette = frame.palette  # one scale for the whole film, from its first image
                    append(torch.from_numpy(frame.colours) / 255)
                    self.journey.bar.value = 100 * (i + 1) / len(frames)
            film = file.read_bytes()
        self.journey._film_done(f"{len(frames)} images, {len(film) / 1e6:.1f} MB.", film)
        self.journey._send(self.client)


def _view_of(client: viser.ClientHandle) -> View:
    return View(pose_of(client.camera), client.camera.fov, client.camera.aspect)
