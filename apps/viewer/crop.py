"""The box that crops what is seen, and can be moved, turned and sized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from viser import transforms

from fields.radiance import Crop

if TYPE_CHECKING:
    from fields.apps.viewer.viewer import Viewer


class CropBox:
    """Its controls, and its handle in the scene."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        gui, scene, box = viewer.server.gui, viewer.server.scene, viewer.subject.field.aabb.cpu()
        self._middle = tuple(((box[:3] + box[3:]) / 2).tolist())
        self._extent = tuple((box[3:] - box[:3]).tolist())
        longest = max(self._extent)
        self.shown = gui.add_checkbox("Show only what is in a box", False)
        self.size = gui.add_vector3("Size", self._extent, min=(1e-6,) * 3, step=longest / 100)
        again = gui.add_button("Whole box again")
        self.handle = scene.add_transform_controls(
            "/crop", scale=0.3 * longest, position=self._middle, visible=False, depth_test=False
        )
        self.outline = scene.add_box(
            "/crop/box", dimensions=self._extent, wireframe=True, color=(230, 120, 20), visible=False
        )
        for control in (self.shown, self.size, self.handle):
            control.on_update(lambda _: self._changed())  # type: ignore[attr-defined]
        again.on_click(lambda _: self._reset())

    def _changed(self) -> None:
        self.handle.visible = self.outline.visible = self.shown.value
        self.outline.dimensions = self.size.value
        self.viewer.redraw()

    def _reset(self) -> None:
        self.handle.position, self.handle.wxyz = self._middle, (1.0, 0.0, 0.0, 0.0)
        self.size.value = self._extent
        self._changed()

    def crop(self) -> Crop | None:
        """What the renderer is to crop to, if anything."""
        if not self.shown.value:
            return None
        pose = torch.eye(4)
        pose[:3, :3] = torch.from_numpy(transforms.SO3(self.handle.wxyz).as_matrix())
        pose[:3, 3] = torch.from_numpy(self.handle.position)
        device = self.viewer.device
        return Crop(pose.to(device), torch.tensor(self.size.value, device=device))
