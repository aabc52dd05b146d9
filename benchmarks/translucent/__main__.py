"""Renders a set: `python -m fields.benchmarks.translucent OUT`. Needs Mitsuba 3: `pip install mitsuba`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from fields.benchmarks.translucent import layout, tier_a, tier_b
from fields.benchmarks.translucent.shapes import shape
from fields.benchmarks.translucent.variant import choose_variant
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tyro.conf import Positional

from fields.errors import BackendError, ConfigError, DataError, FieldsError
from fields.io.atomic import read_json, write_atomically, write_json


@dataclass
class Options:
    out: Annotated[Path, Positional]
    """Folder to write. Pictures that it has are not rendered again."""
    tier: Literal["a", "b"] = "a"
    """a: single directional lights, nothing refracts. b: a smooth refracting boundary, lights are parts of the sphere."""
    shape: str = "creature"
    """creature, or a closed mesh: a file that trimesh reads."""
    material: Literal["wax", "jade", "opaque"] = "wax"
    """opaque scatters at its surface only, a control; tier a."""
    size: Literal["demo", "quick", "full"] = "full"
    """How many pictures, and how good. Minutes of one core: 13, 8 and 75 in tier a; 1, 3 and 13 in tier b."""
    seed: int = 0
    """Of which lights each camera has, and of the noise."""


def make(options: Options) -> None:
    """Renders what is missing of a set.

    Raises:
        FieldsError: the folder has another set; the mesh cannot be used; tier b without LLVM, or of opaque.
    """
    import mitsuba as mi

    out = options.out
    record = _begin(out, options)
    if options.tier == "b" and options.material == "opaque":
        raise ConfigError(
            "--tier b has what is scattered inside, and opaque has no inside.\nUse --material wax or jade."
        )
    variant = choose_variant()
    if options.tier == "b" and variant == "scalar_rgb":
        raise BackendError(
            "--tier b needs LLVM, and none was found that Mitsuba works with.\n"
            "Install version 17 or newer (Debian: apt-get install libllvm19); DRJIT_LIBLLVM_PATH names its library if it is not found."
        )
    surface = out / "surface.ply"
    if not surface.exists():
        mesh = shape(options.shape)
        write_atomically(surface, lambda file: mesh.export(file))
    write_json(out / "noise.json", record)
    module = tier_a if options.tier == "a" else tier_b
    tier = module.Tier(out, options.material, module.SIZES[options.size], options.seed)
    for camera in {p.camera for p in tier.pictures if p.group != layout.TRAIN}:
        layout.write_picture(out / "normals" / f"c{camera:02d}.exr", *tier.cameras.geometry(camera))
    began = time.perf_counter()
    try:
        with _progress() as bar:
            missing = [p for p in tier.pictures if not (out / p.file).exists()]
            task = bar.add_task("pictures", total=len(tier.pictures), completed=len(tier.pictures) - len(missing))
            for picture, image in tier.images(missing):
                layout.write_picture(out / picture.file, image, tier.cameras.geometry(picture.camera)[1])
                bar.advance(task)
            for kind, decibels in bar.track(tier.floors(record), description="how noisy they are"):
                record[kind] = round(decibels, 2)
                write_json(out / "noise.json", record)
    finally:
        record["seconds"] = round(record["seconds"] + time.perf_counter() - began)
        record |= {"spp": tier.size.samples, "variant": variant, "mitsuba": mi.__version__}
        write_json(out / "noise.json", record)
    layout.write_transforms(out, tier.cameras, tier.pictures)
    layout.write_overview(out, tier.pictures)
    layout.write_readme(out, tier.note, record["recipe"])


def _begin(out: Path, options: Options) -> dict[str, Any]:
    """What noise.json says so far.

    Raises:
        DataError: the folder has a set that was made otherwise.
    """
    recipe = {k: str(v) for k, v in vars(options).items() if k != "out"}
    file = out / "noise.json"
    record = read_json(file) if file.exists() else {"recipe": recipe, "seconds": 0}
    if record["recipe"] != recipe:
        made = " ".join(f"--{k} {v}" for k, v in record["recipe"].items())
        raise DataError(f"{out}: it holds another set ({made}).\nGive another folder, or empty this one.")
    return record


def _progress() -> Progress:
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
               TimeRemainingColumn()]  # fmt: skip
    return Progress(*columns, console=Console(stderr=True))


def main() -> int:
    options = tyro.cli(Options, prog="python -m fields.benchmarks.translucent", description=__doc__)
    try:
        make(options)
    except FieldsError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.out}: see overview.png, and noise.json for how noisy the pictures are.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
