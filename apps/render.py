"""``fields render RUN``: images and videos of a run along a camera path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fields.apps.common import Progress, open_run, parse
from tyro.conf import Positional


@dataclass
class Options:
    run: Annotated[Path, Positional]
    """Run folder that `fields train` wrote, or a .slim file."""
    path: str = "auto"
    """orbit, spiral, interpolate (through the training cameras), test, train, or a nerfstudio camera path file.
    auto: orbit where the cameras stood all around, else spiral."""
    frames: int = 90
    """Images along the path."""
    fps: float = 30.0
    """Of the videos."""
    size: tuple[int, int] | None = None
    """Width and height, pixels; default that of the training images."""
    out: Path | None = None
    """Default: renders/PATH in the run folder."""
    data: Path | None = None
    """Scene folder for test and train, where it has moved."""
    images: bool = True
    """Also write every frame as PNG."""
    device: str = "auto"
    """auto, cpu or cuda."""


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "fields render", "Renders images and videos of a run along a camera path.")

    from fields.io.run import results_folder

    config, field = open_run(options.run, options.device)
    cameras, fps, name = _cameras(options, config, field)
    out = options.out or results_folder(options.run) / "renders" / name
    write_path(field, cameras, out, fps, options.images)
    _save_path(cameras, out, fps)
    print(
        f"{len(cameras)} frames: {out / 'rgb.mp4'}, {out / 'depth.mp4'}"
        + (f", {out}/rgb/*.png" if options.images else "")
    )
    print(f"Next: fields eval {options.run}")
    return 0


def _save_path(cameras, out: Path, fps: float) -> None:
    """The path, for nerfstudio, Blender's add-ons and `--path`; not of lenses or sizes that its format cannot say."""
    from fields.data.lenses import Lens
    from fields.io.atomic import write_json
    from fields.paths import nerfstudio_path

    alike = len(cameras.width.unique()) == len(cameras.height.unique()) == 1
    if alike and bool((cameras.model == Lens.PINHOLE).all()):
        write_json(out / "camera_path.json", nerfstudio_path(cameras, cameras, fps))


def _cameras(options: Options, config: dict, field):
    """The cameras, frames per second, and the name of the path."""
    from fields.errors import ConfigError
    from fields.io.run import scene_of
    from fields.paths import from_json, interpolate, read_nerfstudio_path

    if options.frames < 1 or options.fps <= 0 or (options.size and min(options.size) < 1):
        raise ConfigError("--frames, --fps and --size must be positive.")
    if options.path in ("test", "train"):
        scene = scene_of(options.run, config, options.data)
        return getattr(scene, options.path).cameras, options.fps, options.path
    if options.path not in ("auto", "orbit", "spiral", "interpolate"):
        return *read_nerfstudio_path(Path(options.path)), Path(options.path).stem
    training = from_json(config.get("scene", {}).get("cameras", {}))
    if options.path == "interpolate":
        return interpolate(training, options.frames, options.size), options.fps, options.path
    cameras, name = look_around(training, field, options.frames, options.size, options.path)
    return cameras, options.fps, name


def look_around(training, field, frames: int, size: tuple[int, int] | None, path: str = "auto"):
    """An orbit or a spiral, whichever suits the training cameras, and which it is."""
    from fields.paths import orbit_around, spiral, surround

    name = path if path != "auto" else "orbit" if surround(training) else "spiral"
    lay = orbit_around if name == "orbit" else spiral
    return lay(training, field.aabb, frames, size=size), name


def write_path(field, cameras, out: Path, fps: float, images: bool, title: str = "render") -> None:
    """rgb.mp4 and depth.mp4, and with `images` every frame as PNG, into `out`."""
    from contextlib import ExitStack

    from fields.io.images import colour_depth, video_writer, write_image
    from fields.rendering import render_path

    nearest = farthest = None
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(title))
        rgb, depth = (stack.enter_context(video_writer(out / f"{name}.mp4", fps)) for name in ("rgb", "depth"))
        for i, image in enumerate(render_path(field, cameras)):
            if nearest is None:  # one scale for the whole path, from its first frame
                seen = (image.depth / image.opacity.clamp(min=1e-6))[image.opacity > 0.5]
                spread = seen.sort().values if len(seen) else image.depth.new_tensor([0.0, 1.0])
                nearest, farthest = float(spread[len(spread) // 50]), float(spread[-1 - len(spread) // 50])
            coloured = colour_depth(image.depth, image.opacity, 0.9 * nearest, 1.1 * farthest)
            rgb(image.rgb)
            depth(coloured)
            if images:
                write_image(out / "rgb" / f"{i:04d}.png", image.rgb)
                write_image(out / "depth" / f"{i:04d}.png", coloured)
            progress.step(i + 1, len(cameras))
