"""``fields train METHOD``: pictures in, a trained field out."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from fields.apps.common import Progress, choose_device, parse, watching

from fields.methods import Method, learner, methods, models


@dataclass
class Options:
    data: Path | None = None
    """Scene folder; its format is found by looking. Without it: the embedded demo."""
    out: Path | None = None
    """Run folder. Default: runs/METHOD-SCENE."""
    device: str = "auto"
    """auto (the GPU, where there is one that kernels can be compiled for), cpu or cuda."""
    devices: int = 1
    """Train in so many processes, each with a GPU of its own, or a part of the CPU. The result is that of one."""
    config: str = "auto"
    """Preset (paper, fast, …) or TOML file. auto: fast on a CPU where the method has it, paper on a GPU."""
    seed: int = 0
    """Of all random numbers."""
    downscale: int = 1
    """Reduce the images by this factor before training."""
    format: str = "auto"
    """Scene format: by default its files are looked at; else blender, transforms, colmap, nsvf, llff or dtu."""
    views: int | None = None
    """Train on so many of the images only, evenly spaced."""
    checkpoint_seconds: float = 60.0
    """Save this often, to go on from with --resume."""
    resume: bool = False
    """Go on from the last checkpoint in the run folder."""
    viewer: bool = False
    """Show the scene in a browser while it trains."""
    port: int = 7007
    """Of the viewer; if it is taken, the next that is free."""


def main(arguments: list[str], watching: Callable[[str], AbstractContextManager[Any]] = watching) -> int:
    """
    Args:
        watching: gives what watches (`fields.training.loop.Watcher`) a piece of work of some title.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: fields train METHOD [options]\n\nMethods:")
        for name, one in (methods() | models()).items():
            print(f"  {name:<12}  {one.summary}")
        print("\nfields train METHOD --help lists its options.")
        return 0 if arguments else 2
    chosen, rest = learner(arguments[0]), arguments[1:]
    if not isinstance(chosen, Method):
        from fields.apps.learn import main as learn

        return learn(chosen, rest)
    prog = f"fields train {chosen.name}"
    if {"-h", "--help"} & set(rest):
        require_known(chosen, rest)
        return 0

    from fields.training import processes

    # First the options that decide which settings the others override.
    options = _peek(rest)
    device = choose_device(options.device)
    if options.devices != 1 and not processes.launched():
        from fields.apps.launching import launch

        require_known(chosen, rest)  # what is wrong is said once
        return launch(chosen, options.devices, arguments)
    with processes.joined(chosen, device):
        with watching("Reading images") as progress:
            scene = chosen.load_scene(options.data, format=options.format, downscale=options.downscale)
            for note in scene.notes:
                progress.say(note)
        if options.views is not None:
            scene = scene.with_views(options.views)
        settings = chosen.configure(_preset(chosen, options.config, device.type), real=scene.real)
        length = settings.iterations
        options = parse(rest, _with_settings(chosen, settings), prog, chosen.summary)
        settings = options.settings
        if settings.iterations != length:  # milestones are those of the preset's length
            settings = replace(settings, iterations=length).scaled(settings.iterations)
        return train(chosen, settings, scene.to(device), options, arguments, watching)


def require_known(chosen: Method, arguments: list[str]) -> None:
    """Ends the program where the command does not take these arguments; no scene is read for that.

    Raises:
        ConfigError: there is no such preset.
    """
    chosen.configure(_preset(chosen, _peek(arguments).config, "cpu"))
    parse(arguments, _with_settings(chosen, chosen.config()), f"fields train {chosen.name}", chosen.summary)


def train(chosen: Method, settings, scene, options: Options, arguments: list[str], watching) -> int:
    from fields.training import processes

    out = options.out or Path("runs") / f"{chosen.name}-{scene.name}"
    with processes.alone(out):
        return _train(chosen, settings, scene, out, options, arguments, watching)


def _train(chosen: Method, settings, scene, out: Path, options: Options, arguments: list[str], watching) -> int:
    from fields.apps.render import look_around, write_path

    from fields.core import _backend
    from fields.io.run import load
    from fields.training import processes
    from fields.training.loop import Interrupted
    from fields.training.trainer import run

    with watching(chosen.name) as progress:
        progress.say(f"{scene.format} scene {scene.path}: {len(scene.train)} train and {len(scene.test)} test images")
        progress.say(f"backend {_backend.backend_name(scene.aabb.device)}, run folder {out}")
        if processes.count() > 1:
            progress.say(f"{processes.count()} processes, each with its share of the rays")
        watcher = progress
        if options.viewer and processes.writer():
            watcher = _with_viewer(progress, chosen, settings, scene, out, options.port)
        try:
            result = run(chosen, settings, scene, out, seed=options.seed, resume=options.resume, watcher=watcher,
                         downscale=options.downscale, checkpoint_seconds=options.checkpoint_seconds)  # fmt: skip
        except Interrupted as stop:
            progress.say(str(stop))
            if processes.writer():
                print(f"fields train {shlex.join(a for a in arguments if a != '--resume')} --resume", file=sys.stderr)
            return 130
    if result is None:  # of the first process
        return 0
    field = load(out, scene.aabb.device)
    widest = max(int(scene.train.cameras.width[0]), int(scene.train.cameras.height[0]))
    shrink = min(1.0, 240 / widest)  # a look from all sides, not a film: that is `fields render`
    size = tuple(
        max(1, round(int(side[0]) * shrink)) for side in (scene.train.cameras.width, scene.train.cameras.height)
    )
    if len(scene.train) > 1:  # from one camera there is nothing around it to see
        cameras, name = look_around(scene.train.cameras.to("cpu"), field, 60, size)
        write_path(field, cameras, out / "renders" / name, 30, images=False, title=name)
    figures = "  ".join(f"{name.upper()} {value:.4g}" for name, value in result.results.items() if value is not None)
    print(f"{figures}   (test images in {out / 'renders'}, figures in {out / 'metrics.json'})")
    print(f"Next: fields render {shlex.quote(str(out))}")
    return 0


def _with_viewer(progress: Progress, chosen: Method, settings, scene, out: Path, port: int):
    """A watcher that also shows the field in a browser."""
    from fields.apps.viewer.audience import Audience

    config = {"method": chosen.name, "settings": dataclasses.asdict(settings)}
    return Audience(progress, out.name, config, scene, port)


def _preset(chosen: Method, asked: str, device: str) -> str:
    if asked != "auto":
        return asked
    return "fast" if device == "cpu" and "fast" in chosen.presets() else "paper"


def _with_settings(chosen: Method, settings) -> type:
    """The options of the command followed by the settings of the method, as one flat list of flags."""
    import tyro

    flat = Annotated[chosen.config, tyro.conf.arg(name="")]  # type: ignore[name-defined]
    return make_dataclass(
        "TrainOptions", [("settings", flat, dataclasses.field(default_factory=lambda: settings))], bases=(Options,)
    )


def _peek(arguments: list[str]) -> Options:
    """The command's own options, whatever else is on the line."""
    import argparse

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog="fields train")
    for name, kind in (
        ("data", Path),
        ("device", str),
        ("devices", int),
        ("config", str),
        ("downscale", int),
        ("views", int),
        ("format", str),
    ):
        parser.add_argument(f"--{name}", type=kind, default=getattr(Options, name))
    known, _ = parser.parse_known_args(arguments)
    return Options(**vars(known))
