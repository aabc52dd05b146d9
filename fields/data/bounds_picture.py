"""The picture of `fields data check`: do the cameras look at the box, and is what they show inside it?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fields.data.scene import Scene

_TRAIN, _TEST, _BOX, _POINTS = "#1f6fb4", "#e07b00", "#c0222b", "#606060"


def draw(scene: Scene, path: Path) -> Path:
    """Three orthogonal views with equal scales. Arrows are cameras, a third of their distance to the box's
    centre long."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(15, 5.6), dpi=100)
    FigureCanvasAgg(figure)
    box = scene.aabb.double().numpy()
    points = np.zeros((0, 3)) if scene.points is None else scene.points[:: max(1, len(scene.points) // 6000)].numpy()
    seen = [box]
    if len(points):
        seen.append(np.percentile(points, [2, 98], axis=0))
    seen += [s.cameras.centres.cpu().numpy() for s in (scene.train, scene.test) if len(s)]
    extent = np.concatenate(seen)
    lo, hi = extent.min(0), extent.max(0)
    margin = 0.08 * float((hi - lo).max())
    for k, (a, b, title) in enumerate(((0, 1, "from above"), (0, 2, "from the front"), (1, 2, "from the side"))):
        axes = figure.add_subplot(1, 3, k + 1)
        axes.scatter(points[:, a], points[:, b], s=1.5, c=_POINTS, alpha=0.35, linewidths=0, label="sparse points")
        for split, colour, label in ((scene.train, _TRAIN, "train"), (scene.test, _TEST, "test")):
            if not len(split):
                continue
            o, d = split.cameras.centres.cpu().numpy(), split.cameras.forward.cpu().numpy()
            length = 0.33 * np.median(np.linalg.norm(o - box.mean(0), axis=-1))
            axes.quiver(
                o[:, a], o[:, b], d[:, a] * length, d[:, b] * length, color=colour, angles="xy",
                scale_units="xy", scale=1, width=0.003, label=f"{len(split)} {label} cameras",
            )  # fmt: skip
            axes.scatter(o[:, a], o[:, b], s=8, c=colour)
        size = box[1] - box[0]
        axes.add_patch(Rectangle((box[0, a], box[0, b]), size[a], size[b], fill=False, ec=_BOX, lw=2, label="box"))
        axes.set_xlim(lo[a] - margin, hi[a] + margin)
        axes.set_ylim(lo[b] - margin, hi[b] + margin)
        axes.set_aspect("equal")
        axes.set_xlabel("xyz"[a])
        axes.set_ylabel("xyz"[b])
        axes.set_title(title)
        axes.grid(alpha=0.25)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    shown = [(h, x) for h, x in zip(handles, labels, strict=True) if x != "sparse points" or len(points)]
    figure.legend([h for h, _ in shown], [x for _, x in shown], loc="lower center", ncol=len(shown), frameon=False)
    figure.suptitle(f"{scene.name}: {scene.notes[-1]}" if scene.notes else scene.name, fontsize=10)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path)
    return path
