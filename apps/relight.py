"""``fields relight RUN``: an object under any light."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fields.apps.common import Progress, open_run, parse
from tyro.conf import Positional

Frame = Literal["yup", "zup", "mitsuba", "blender"]
Output = Literal["exr", "png", "mp4", "gbuffer", "parts"]


@dataclass
class Options:
    run: Annotated[Path, Positional]
    """Run folder that `fields train relighting` wrote."""
    light: str = "studio"
    """An environment map (.hdr, .exr), a list of lights (.json), const:R,G,B, or studio or sunset, which come along."""
    camera: str = "orbit:1"
    """test, train, orbit:N, or a nerfstudio camera path file."""
    rotate: str = "0"
    """Degrees to turn the light about the vertical, counter-clockwise from above; FIRST:LAST:STEP for one picture after the other."""
    frame: Frame = "yup"
    """Whose axes the map is in: ours (up is +Y), up is +Z, Mitsuba's rows, Blender's world texture."""
    ldr_ok: bool = False
    """Take a map of 8 bits, whose suns are cut off."""
    exposure: str = "auto"
    """Stops (EV); auto brings the 99th percentile of the object to 0.9, in the first picture, and says how."""
    tonemap: Literal["none", "srgb", "filmic", "log"] = "srgb"
    """Of the PNG and MP4: none clips linear values; filmic and log roll highlights off."""
    background: Literal["env", "black", "white", "alpha"] = "black"
    """Behind the object, in PNG and MP4."""
    write: tuple[Output, ...] = ("exr", "png")
    """exr: linear, half; parts: the same with layers for scattered, reflected and direct light, depth and normals; png, mp4: developed;
    gbuffer: the transfer itself, to light elsewhere."""
    solve: Path | None = None
    """A photograph of the object from the first camera: find the light it was taken in, and use that."""
    size: tuple[int, int] | None = None
    """Width and height, pixels; default that of the training images."""
    fps: float = 30.0
    """Of the video."""
    out: Path | None = None
    """Default: relit/LIGHT in the run folder."""
    data: Path | None = None
    """Scene folder for test and train, where it has moved."""
    device: str = "auto"
    """auto, cpu or cuda."""


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "fields relight", "Shows an object under any light.")

    import time

    from fields.errors import ConfigError
    from fields.io.atomic import write_json
    from fields.io.hdr import read_linear
    from fields.io.run import results_folder
    from fields.relighting.develop import auto_exposure, clipped
    from fields.relighting.field import TransferField
    from fields.relighting.image import TransferImage
    from fields.relighting.solve import solve
    from fields.relighting.sources import illumination
    from fields.relighting.transfer import Illumination

    config, field = open_run(options.run, options.device)
    if not isinstance(field, TransferField):
        raise ConfigError(
            f"{options.run}: a {config['method']} has its light baked in. `fields train relighting` makes runs to relight."
        )
    turns, cameras = _turns(options.rotate), _cameras(options, config, field)
    light = illumination(options.light, options.frame, options.ldr_ok).to(field.aabb.device)
    stops = None if options.exposure == "auto" else _number(options.exposure)
    out = options.out or results_folder(options.run) / "relit" / Path(options.light.replace(":", "-")).stem
    frames, count = [], max(len(turns), len(cameras))
    centre = (field.aabb[:3] + field.aabb[3:]) / 2
    image, at = None, -1
    with Progress("relight") as progress, _Writers(options, out) as writers:
        for k in range(count):
            if at != k % len(cameras):
                at, began = k % len(cameras), time.perf_counter()
                image = TransferImage.of(field, cameras, at)
                marching = time.perf_counter() - began
            if k == 0 and options.solve is not None:
                photograph = read_linear(options.solve)[..., :3].to(field.aabb.device)
                light = Illumination.of(solve(image, photograph))
            turned = light.turned(turns[k % len(turns)], centre, up=2 if options.frame in ("zup", "blender") else 1)
            began = time.perf_counter()
            parts = image.lit(turned)
            seconds = time.perf_counter() - began
            if stops is None:
                stops = auto_exposure(parts.total)
                progress.say(
                    f"exposure {stops:+.2f} EV (99th percentile of the object at 0.9); fix it with --exposure {stops:.2f}"
                )
            writers.write(k, image, parts, turned, stops)
            frames.append({"camera": at, "degrees": turns[k % len(turns)], "clipped": clipped(parts.total, stops),
                           "march_ms": round(1000 * marching, 2), "relight_ms": round(1000 * seconds, 2)})  # fmt: skip
            progress.step(k + 1, count)
    power = sum((e.power() for e in light.environments), start=field.aabb.new_zeros(3))
    facts = {"light": options.light, "frame": options.frame, "exposure_ev": stops, "tonemap": options.tonemap,
             "power": power.tolist(), "lights": [one.as_json() for one in light.lights],
             "lobes": light.strength(field.basis).tolist(), "frames": frames}  # fmt: skip
    write_json(out / "relight.json", facts)
    relighting = sorted(f["relight_ms"] for f in frames)[len(frames) // 2]
    print(f"{count} frames in {out}: {relighting:.0f} ms to relight a view, {frames[0]['march_ms']:.0f} ms to march it")
    print(f"Next: fields view {options.run}")
    return 0


class _Writers:
    """Writes what was asked for, frame by frame."""

    def __init__(self, options: Options, out: Path) -> None:
        from contextlib import ExitStack

        self.options, self.out, self.stack, self.append = options, out, ExitStack(), None

    def __enter__(self) -> _Writers:
        from fields.io.images import video_writer

        if "mp4" in self.options.write:
            self.append = self.stack.enter_context(video_writer(self.out / "relit.mp4", self.options.fps))
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.__exit__(*error)  # type: ignore[arg-type]

    def write(self, k: int, image, parts, light, stops: float) -> None:
        import torch

        from fields.io.hdr import write_exr
        from fields.io.images import write_image
        from fields.relighting.develop import develop

        asked, stem = self.options.write, f"{k:04d}"
        opacity = image.image(image.rays.opacity)
        radiance = image.image(parts.total)
        if "exr" in asked or "parts" in asked:
            layers = {"": torch.cat([radiance, opacity], -1)}
            if "parts" in asked:
                layers |= {name: image.image(getattr(parts, name)) for name in parts._fields}
                layers |= {"depth": image.image(image.rays.depth)[..., 0], "normal": image.image(image.rays.normal)}
            write_exr(self.out / f"{stem}.exr", layers)
        if "gbuffer" in asked:
            image.save(self.out / f"{stem}.safetensors")
        if {"png", "mp4"} & set(asked):
            colour = develop(radiance / opacity.clamp(min=1e-6), stops, self.options.tonemap)
            behind = {"black": 0.0, "white": 1.0, "alpha": 0.0}.get(self.options.background)
            if behind is None:
                behind = develop(light.seen(image.directions), stops, self.options.tonemap)
            picture = opacity * colour + (1 - opacity) * behind
            if "png" in asked:
                text = {"exposure_ev": f"{stops:.3f}", "tonemap": self.options.tonemap}
                alpha = torch.cat([colour, opacity], -1) if self.options.background == "alpha" else picture
                write_image(self.out / f"{stem}.png", alpha, text)
            if self.append is not None:
                self.append(picture)


def _number(text: str) -> float:
    from fields.errors import ConfigError

    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number.") from None


def _turns(text: str) -> list[float]:
    """The degrees of ``DEG`` or ``FIRST:LAST:STEP``, the last not included."""
    from fields.errors import ConfigError

    if ":" not in text:
        return [_number(text)]
    parts = [_number(part) for part in text.split(":")]
    if len(parts) != 3 or parts[2] == 0 or not 1 <= (parts[1] - parts[0]) / parts[2] <= 100_000:
        raise ConfigError(f"--rotate {text}: write degrees, or FIRST:LAST:STEP as 0:360:2.")
    first, last, step = parts
    return [first + k * step for k in range(round((last - first) / step))]


def _cameras(options: Options, config: dict, field):
    """Of the pictures."""
    from fields.apps.render import look_around

    from fields.errors import ConfigError
    from fields.io.run import scene_of
    from fields.paths import from_json, read_nerfstudio_path

    name, _, number = options.camera.partition(":")
    if name in ("test", "train"):
        return getattr(scene_of(options.run, config, options.data), name).cameras
    if name == "orbit":
        count = int(_number(number or "1"))
        if count < 1:
            raise ConfigError(f"--camera {options.camera}: an orbit has at least one camera.")
        return look_around(from_json(config.get("scene", {}).get("cameras", {})), field, count, options.size, "orbit")[
            0
        ]
    return read_nerfstudio_path(Path(options.camera))[0]
