"""A training that people watch: it draws for them between its iterations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import viser
from fields.apps.common import Progress
from fields.apps.viewer.viewer import Subject, Viewer
from viser import uplot

from fields.data.scene import Scene
from fields.training.trainer import Training

_REFRESH = 2.0  # seconds after which a picture is no longer what the field looks like
_POINTS = 400  # of the curve


class Audience:
    """Watches a training for a terminal and for browsers.

    Drawing takes turns with training in one thread: nobody ever sees a half-updated field, and the training is the same,
    bit for bit, as without an audience.
    """

    def __init__(self, progress: Progress, name: str, config: dict[str, Any], scene: Scene, port: int) -> None:
        self.progress, self.name, self.config, self.scene, self.port = progress, name, config, scene, port
        self.numbers: list[tuple[int, float]] = []

    def begin(self, training: Training, stop: Callable[[], bool]) -> None:
        self.stop = stop
        cameras = self.scene.train.cameras.to("cpu")
        subject = Subject(self.name, training.field, self.config, cameras, None, f"{self.config['method']} · training")
        images = self.scene.train.to("cpu")
        self.viewer = Viewer(
            subject, photographs=lambda: images, port=self.port, own_thread=False, panels=(TrainingPanel,)
        )
        self.panel = next(tab for tab in self.viewer.tabs_shown if isinstance(tab, TrainingPanel))
        self.progress.say(f"{self.viewer.url} shows it while it trains")
        self.refreshed = self.stepped = time.monotonic()

    def step(self, i: int, total: int, numbers: Mapping[str, Any]) -> None:
        self.progress.step(i, total, numbers)
        panel = self.panel
        if i % 10 == 0 or i == total:
            self.numbers.append((i, float(numbers["psnr"])))
            panel.tell(i, total, self.numbers)
        now = time.monotonic()
        if self.viewer.sessions and now - self.refreshed > _REFRESH:
            self.refreshed = now
            self.viewer.redraw(as_fine=True)
        share = panel.share.value / 100
        self.viewer.stage.run_for((now - self.stepped) * share / max(1 - share, 0.05))
        while panel.paused and not self.stop():
            if not self.viewer.stage.turn():
                time.sleep(0.01)
        self.stepped = time.monotonic()
        if i == total:
            self.viewer.stop()

    def say(self, line: str) -> None:
        self.progress.say(line)


class TrainingPanel:
    """Pause, how much time goes into pictures, and the curve."""

    title: ClassVar[str] = "Training"
    in_scene = False

    def __init__(self, viewer: Viewer) -> None:
        gui = viewer.server.gui
        self.paused = False
        self.pause = gui.add_button("Pause", icon=viser.Icon.PLAYER_PAUSE)
        self.share = gui.add_slider("Time for pictures, %", 5, 90, 5, 30, hint="The rest goes into the training")
        self.bar = gui.add_progress_bar(0.0)
        self.state = gui.add_markdown("")
        self.curve = gui.add_uplot(
            (np.zeros(1), np.zeros(1)),
            (uplot.Series(label="iteration"), uplot.Series(label="PSNR, dB", stroke="#2a6f97", width=2)),
            scales={"x": uplot.Scale(time=False)}, aspect=1.6,
        )  # fmt: skip

        @self.pause.on_click
        def _(_: object) -> None:
            self.paused = not self.paused
            self.pause.label = "Go on" if self.paused else "Pause"

    def tell(self, i: int, total: int, numbers: list[tuple[int, float]]) -> None:
        """What a training has come to."""
        self.bar.value = 100 * i / total
        self.state.content = (
            f"{i} of {total} iterations, {np.mean([v for _, v in numbers[-10:]]):.2f} dB on training rays"
        )
        if i % 20 == 0 or i == total:
            shown = np.array(numbers[:: -(-len(numbers) // _POINTS)])
            self.curve.data = (shown[:, 0], shown[:, 1])
