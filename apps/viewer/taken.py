"""The cameras a run was trained with, and what they saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import viser
from fields.apps.viewer.session import wxyz_of

from fields.data.scene import Split
from fields.errors import FieldsError

if TYPE_CHECKING:
    from fields.apps.viewer.viewer import Viewer

_THUMBNAIL = 64  # pixels


class TrainingCameras:
    """Their tab, and their frusta in the scene."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer, self.cameras = viewer, viewer.subject.cameras
        self.images: Split | None = None
        self.frusta: list[viser.CameraFrustumHandle] = []
        self.entered: int | None = None  # whoever stands in a frustum would see nothing but its picture
        gui, last = viewer.server.gui, len(self.cameras) - 1
        self.shown = gui.add_checkbox("Show the training cameras", False, hint="Click one to fly there.")
        self.which = gui.add_slider("Number", 0, max(last, 1), 1, 0)
        there = gui.add_button("Fly there", icon=viser.Icon.PLANE)
        home = gui.add_button("Back to the start", icon=viser.Icon.HOME)
        self.shown.on_update(lambda _: self._show())
        there.on_click(lambda event: self._enter(event.client, min(int(self.which.value), last)))
        home.on_click(lambda event: self._enter(event.client, None))

    def load(self) -> None:
        """Their photographs. Where the scene has moved, everything else works without them."""
        assert self.viewer.photographs is not None
        try:
            self.images = self.viewer.photographs()
        except FieldsError as error:
            against = self.viewer.against
            against.options = tuple(name for name in against.options if name != "photograph")
            self.viewer.server.gui.add_markdown(f"No photographs: {error}")
            return
        for i, frustum in enumerate(self.frusta):
            frustum.image = self._thumbnail(i)
        self.viewer.redraw()

    def _show(self) -> None:
        if self.shown.value and not self.frusta:
            self._add()
        for i, frustum in enumerate(self.frusta):
            frustum.visible = self.shown.value and i != self.entered
        self.viewer.redraw()  # what lies behind the field is hidden by it

    def _enter(self, client: viser.ClientHandle | None, i: int | None) -> None:
        """Flies a browser to a camera, or back to the start."""
        if client is not None:
            self.entered = i
            self._show()
            self.viewer.fly(client, self.viewer.start() if i is None else self.cameras[i])

    def _add(self) -> None:
        for i in range(len(self.cameras)):
            one = self.cameras[i]
            frustum = self.viewer.server.scene.add_camera_frustum(
                f"/cameras/{i}", fov=float(one.fov_y), aspect=float(one.width / one.height),
                scale=0.06 * self.viewer.size, color=(60, 110, 150), thickness=1.5, thickness_units="screen",
                wxyz=wxyz_of(one.world_from_camera[0]), position=one.centres[0].numpy(), image=self._thumbnail(i),
            )  # fmt: skip
            frustum.on_click(lambda event, i=i: self._enter(event.client, i))
            self.frusta.append(frustum)

    def _thumbnail(self, i: int) -> np.ndarray | None:
        if self.images is None or i >= len(self.images):
            return None
        image = self.images.images.image(i)
        step = max(1, max(image.shape[:2]) // _THUMBNAIL)
        small = image[::step, ::step].float()
        if small.shape[-1] == 4:
            small = small[..., :3] * small[..., 3:] / 255 + 255 - small[..., 3:]
        return small.byte().numpy()
