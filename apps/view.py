"""``fields view RUN``: look at a run, at reassembled fragments, or at materials, in a browser."""

from __future__ import annotations

import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fields.apps.common import open_run, parse
from tyro.conf import Positional

if TYPE_CHECKING:
    from fields.apps.viewer.fragments import FragmentsViewer
    from fields.apps.viewer.materials import MaterialsViewer
    from fields.apps.viewer.viewer import Viewer


@dataclass
class Options:
    run: Annotated[Path, Positional]
    """Folder that `fields train`, `fields reassemble` or `fields brdf synthesize` wrote, a .slim file, a file of materials
    (.nbrdf.npz, .binary …), or `neumadiff`: the model of materials that comes with the package."""
    compare: Path | None = None
    """A second run, to see beside the first."""
    data: Path | None = None
    """Scene folder, for its photographs, where it is no longer where it was trained from."""
    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 lets everybody on the network look, and use the controls."""
    port: int = 7007
    """If it is taken, the next that is free."""
    fps: float | None = None
    """Images per second to aim for while the camera moves. Default: 10 on a CPU, 30 on a GPU."""
    device: str = "auto"
    """auto, cpu or cuda."""
    open: bool = False
    """Also open a browser."""


def main(arguments: list[str]) -> int:
    options = parse(
        arguments, Options, "fields view", "Shows a run, reassembled fragments, or materials, in a browser."
    )
    other = other_viewer(options)
    viewer = other or run_viewer(options)
    print(f"{viewer.url}  shows {options.run}; Ctrl-C ends it.", flush=True)
    if options.open:
        webbrowser.open(viewer.url)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        viewer.stop()
        if other is None:
            print(f"\nNext: fields render {options.run}", file=sys.stderr)
    return 0


def run_viewer(options: Options) -> Viewer:
    from fields.apps.viewer.viewer import Viewer

    from fields.errors import ConfigError

    if options.fps is not None and not 1 <= options.fps <= 60:
        raise ConfigError(f"--fps is {options.fps:g}; it can be 1 to 60.")
    subject = subject_of(options.run, options.device)
    other = None if options.compare is None else subject_of(options.compare, options.device)
    on_gpu = subject.field.aabb.is_cuda
    return Viewer(
        subject, other, photographs=lambda: photographs_of(options.run, subject.config, options.data), host=options.host,
        port=options.port, frames_per_second=options.fps or (30.0 if on_gpu else 10.0),
    )  # fmt: skip


def other_viewer(options: Options) -> FragmentsViewer | MaterialsViewer | None:
    """Of what is no run of a field."""
    from fields.apps.viewer.fragments import FragmentsViewer
    from fields.apps.viewer.materials import MaterialsViewer, is_materials

    from fields.errors import ConfigError

    shipped = options.run == Path("neumadiff") and not options.run.exists()
    fragments = (options.run / "poses.json").is_file()
    if not (fragments or shipped or is_materials(options.run)):
        return None
    if options.compare or options.data or options.fps:
        what = "fragments" if fragments else "materials"
        raise ConfigError(f"{options.run} has {what}: --compare, --data and --fps are for runs of a field.")
    if fragments:
        return FragmentsViewer(options.run, options.host, options.port)
    return MaterialsViewer(None if shipped else options.run, options.host, options.port)


def subject_of(run: Path, device: str):
    """What the viewer needs of a run."""
    from fields.apps.viewer.viewer import Subject

    from fields.io.atomic import read_json
    from fields.paths import from_json

    config, field = open_run(run, device)
    count = sum(p.numel() for p in field.parameters())
    facts = f"{config['method']} · {count / 1e6:.2f} M parameters"
    metrics = run / "metrics.json"
    if metrics.is_file():
        figures = read_json(metrics)
        if isinstance(figures, dict) and isinstance(psnr := figures.get("results", {}).get("psnr"), float):
            facts += f" · {psnr:.2f} dB on {figures.get('split', 'test')} images"
    cameras = from_json(config.get("scene", {}).get("cameras", {}))
    return Subject(run.resolve().name, field, config, cameras, run, facts)


def photographs_of(run: Path, config: dict, data: Path | None):
    """The images a run was trained with, in the order of its cameras."""
    from fields.io.run import scene_of

    scene = scene_of(run, config, data)
    names = config["scene"].get("images", scene.train.names)
    place = {name: i for i, name in enumerate(scene.train.names)}
    return scene.train.select([place[name] for name in names if name in place])
