"""One browser window: coarse while its camera moves, finer and finer while it rests."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
import torch
from fields.apps.viewer.frames import Frame, View, draw
from viser import transforms

if TYPE_CHECKING:
    import viser
    from fields.apps.viewer.viewer import Viewer

_REST = 0.15  # seconds without a new camera after which it rests
_LONG = 0.5  # seconds after which a picture may be given up for a new camera
_SHOW_EVERY = 0.35  # seconds between looks at an unfinished picture: each is compressed and sent
_QUALITY = {"moving": 60, "resting": 85}  # of the JPEG


class Session:
    """What one browser is shown."""

    def __init__(self, viewer: Viewer, client: viser.ClientHandle) -> None:
        self.viewer, self.client = viewer, client
        self.left = False
        self.view: View | None = None
        self.window = 0  # height in pixels
        self.changed = self.resumes = 0.0
        self._drawn = -1.0  # when what is shown was asked for
        self._last: Frame | None = None
        self._as_fine = False
        self._work: Generator[None, None, None] | None = None
        self._moving = False
        with viewer.entering, viewer.status_place:
            self.status = client.gui.add_markdown("")
        self.look(client.camera)
        client.camera.on_update(self._look)

    # ------------------------------------------------------------------------------------ what is asked for

    async def _look(self, camera: viser.CameraHandle) -> None:
        self.look(camera)

    def look(self, camera: viser.CameraHandle) -> None:
        """Takes over where the browser's camera is now."""
        view, height = View(pose_of(camera), camera.fov, camera.aspect), camera.image_height
        if self.view is None or not _same(view, self.view):
            self.view, self.window = view, height
            self.redraw()
        elif height != self.window:  # browsers without a GPU change their resolution all the time
            self.window = height
            if self._last is None or len(self._last.z) < height:
                self.redraw(as_fine=True)

    def redraw(self, as_fine: bool = False) -> None:
        """What is shown is no longer what is there. `as_fine`: do not begin again with a coarse picture."""
        if self.left:
            return
        self.changed, self._as_fine = time.monotonic(), as_fine
        if not self._moving:  # a coarse picture that has begun is finished: else a steady hand would never see one
            self._work = None
        self.viewer.stage.wake()

    # ------------------------------------------------------------------------------------ an actor

    def urgency(self) -> int:
        if self.left or self.view is None or time.monotonic() < self.resumes:
            return 0
        if self._work is None:
            return 2 if self._drawn < self.changed else 0
        return 2 if self._moving else 1

    def act(self) -> None:
        if self._work is None:
            self._work = self._pictures()
        try:
            next(self._work)
        except StopIteration:
            self._work = None

    def _pictures(self) -> Generator[None, None, None]:
        """Coarse, then each time twice as fine, until it fills the window."""
        viewer = self.viewer
        assert self.view is not None
        view, style, full, asked = self.view, viewer.style(), self.window, time.monotonic()
        self._drawn = asked
        eyes = viewer.eyes(view, style)
        scale = viewer.scale()
        finest = max(1, round(full * (scale or 1.0)))
        height = finest if scale else min(finest, viewer.pace.height(view.aspect))
        if self._as_fine and self._last is not None:
            height = max(height, min(finest, len(self._last.z)))
        first = draw(eyes, view, style, height, viewer.palette(style), self._last, viewer.device)
        self._moving = True
        frame = yield from self._watched(first, asked)
        self._moving = False
        viewer.pace.took(time.monotonic() - asked, height, view.aspect)
        viewer.keep_palette(style, frame.palette)
        self._show(frame, asked, "moving" if height < finest else "resting")
        if self.changed > asked:
            return
        self.resumes = self.changed + _REST
        yield
        while height < finest:
            height, began = min(2 * height, finest), time.monotonic()
            finer = draw(eyes, view, style, height, frame.palette, frame, viewer.device)
            frame = yield from self._watched(finer, began)
            self._show(frame, began, "resting")

    def _watched(self, picture: Generator[Frame | None, None, Frame], began: float) -> Generator[None, None, Frame]:
        """A picture, shown from time to time before it is whole."""
        shown = began
        while True:
            try:
                frame = next(picture)
            except StopIteration as end:
                return end.value
            now = time.monotonic()
            if now - began > _LONG:  # whoever locks a fine resolution waits, but not for a camera of the past
                self._moving = False
            if frame is not None and now - shown > _SHOW_EVERY:
                self._show(frame, began, "resting")
                shown = now
            yield

    def _show(self, frame: Frame, began: float, how: str) -> None:
        if self.left:
            return
        height, width = frame.z.shape
        self._last = frame if frame.whole else self._last
        seconds = time.monotonic() - began
        depth = None
        if self.viewer.wants_depth():
            depth = np.where(np.isfinite(frame.z), frame.z, 1e3)[..., None]
        with self.client.atomic():
            self.client.scene.set_background_image(
                frame.colours, format="jpeg", jpeg_quality=_QUALITY[how], depth=depth
            )
            full = self.window
            state = "moving" if how == "moving" else "sharp" if frame.whole and height >= full else "sharpening"
            lock = ", locked" if self.viewer.scale() else ""
            self.status.content = (
                f"**{width} × {height}** pixels of {round(full * frame.z.shape[1] / height)} × {full}{lock} · "
                f"{1000 * seconds:.0f} ms · {state}"
            )
        self.client.flush()


class Pace:
    """How many pixels can be drawn in the time that a moving picture has."""

    def __init__(self, frames_per_second: float) -> None:
        self.frames_per_second = frames_per_second
        self._rate = 0.0  # pixels per second

    def height(self, aspect: float) -> int:
        if not self._rate:
            return 96
        return max(48, round((self._rate / self.frames_per_second / aspect) ** 0.5))

    def took(self, seconds: float, height: int, aspect: float) -> None:
        rate = height * height * aspect / max(seconds, 1e-4)
        self._rate = rate if not self._rate else 0.7 * self._rate + 0.3 * rate


def pose_of(camera: viser.CameraHandle) -> torch.Tensor:
    """(4, 4) world from camera with OpenGL axes: viser's are OpenCV's."""
    pose = torch.eye(4)
    rotation = torch.from_numpy(transforms.SO3(camera.wxyz).as_matrix())
    pose[:3, :3] = rotation * torch.tensor([1.0, -1.0, -1.0])
    pose[:3, 3] = torch.from_numpy(camera.position)
    return pose


def wxyz_of(world_from_camera: torch.Tensor) -> np.ndarray:
    """Inverse of `pose_of`, of the rotation."""
    rotation = world_from_camera[:3, :3].double() * torch.tensor([1.0, -1.0, -1.0])
    return transforms.SO3.from_matrix(rotation.numpy()).wxyz


def _same(one: View, other: View) -> bool:
    """But for what whole pixels make of the aspect."""
    return (
        one.fov == other.fov
        and abs(one.aspect / other.aspect - 1) < 0.01
        and torch.equal(one.world_from_camera, other.world_from_camera)
    )
