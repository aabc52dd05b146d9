"""``fields brdf fit|synthesize|render|evaluate|convert``: measured materials, networks of them, and new ones."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fields.apps.common import Progress, parse, subcommand
from tyro.conf import Positional

if TYPE_CHECKING:
    from torch import Tensor

_MOST_TILES = 64
_COMMANDS = {
    "synthesize": "draw new materials: fields brdf synthesize --text 'red plastic' --count 8",
    "fit": "make networks of measured materials: fields brdf fit FILES",
    "render": "show materials on spheres: fields brdf render FILE",
    "evaluate": "say what materials are, and whether they keep the laws of physics: fields brdf evaluate FILE",
    "convert": "write a material in another format: fields brdf convert FILE OUT",
}


@dataclass
class SynthesizeOptions:
    text: str = ""
    """What they should be, as 'rough dark rubber'. Default: anything."""
    count: int = 8
    """How many."""
    category: str | None = None
    """A kind that the model knows, instead of text or beside it."""
    like: Path | None = None
    """A file with one material (.binary, .nbrdf.npz …) whose statistics they should have."""
    image: Path | None = None
    """A photograph of a material that they should look like (.png, .jpg, .exr …): what is opaque in it, or the square in its middle."""
    model: Path | None = None
    """Run folder of `fields train neumadiff`. Default: the model that comes with the package."""
    out: Path | None = None
    """Folder. Default: materials/TEXT."""
    seed: int = 0
    """Of the noise that they are drawn from."""
    guidance: float = 1.0
    """How much what is asked for is exaggerated; 0: not."""
    check: bool = True
    """Leave out what is not what the text says."""
    binary: bool = True
    """Write a MERL table, 35 MB, of each."""


@dataclass
class FitOptions:
    files: Annotated[tuple[Path, ...], Positional]
    """MERL tables (.binary), or networks of others (.h5, .npy, .npz, .pth)."""
    out: Path = Path("materials.nbrdf.npz")
    """Where the networks go."""
    dialect: Literal["reciprocal", "sztrajman", "m3ashy"] = "reciprocal"
    """Of the networks: ours is exactly reciprocal, and fits more closely."""
    begin: Literal["close", "spread"] = "spread"
    """Where all networks begin: spread fits more closely, close is for learning how weights are distributed."""
    iterations: int = 6000
    """Of Adam, for each network."""
    seed: int = 0
    """Of the angles."""


@dataclass
class RenderOptions:
    file: Annotated[Path, Positional]
    """Materials: .binary, .bsdf, or networks."""
    out: Path | None = None
    """Picture (.png, .exr). Default: FILE.png."""
    environment: Path | None = None
    """Map (.hdr, .exr) that they are lit by. Default: a studio."""
    shape: Literal["sphere", "knob"] = "sphere"
    """What they are on."""
    size: int = 256
    """Pixels of each picture."""
    stops: float = 0.0
    """Brighter, or darker, by powers of two."""


@dataclass
class EvaluateOptions:
    file: Annotated[Path, Positional]
    """Materials: .binary, .bsdf, or networks."""
    against: Path | None = None
    """Others, that they are compared with as a set: MMD, coverage, 1-NNA."""


@dataclass
class ConvertOptions:
    file: Annotated[Path, Positional]
    """Materials: .binary, .bsdf, or networks."""
    out: Annotated[Path, Positional]
    """.binary, .bsdf (for Mitsuba's `measured` and pbrt) or .nbrdf.npz."""
    index: int = 0
    """Which of the file's materials."""


def main(arguments: list[str]) -> int:
    usage = "\n".join(
        ["usage: fields brdf COMMAND …", "", *(f"  {name:<11} {what}" for name, what in _COMMANDS.items())]
    )
    commands = {"synthesize": _synthesize, "fit": _fit, "render": _render, "evaluate": _evaluate, "convert": _convert}
    return subcommand(arguments, "fields brdf", usage, commands)


def _synthesize(arguments: list[str]) -> int:
    options = parse(arguments, SynthesizeOptions, "fields brdf synthesize", _COMMANDS["synthesize"])

    from fields.errors import ConfigError
    from fields.io.atomic import write_json
    from fields.io.images import write_image
    from fields.neumadiff.files import read_materials, write_material
    from fields.neumadiff.nbrdf import write_networks
    from fields.neumadiff.pictures import photograph
    from fields.neumadiff.statistics import statistics
    from fields.neumadiff.synthesis import as_plain, load_model, synthesize

    if not 1 <= options.count <= 1000:
        raise ConfigError(f"--count {options.count}: 1 to 1000 are drawn at once.")
    model = load_model(options.model)
    like = statistics(read_materials(options.like)[0]) if options.like else None
    image = photograph(options.image) if options.image else None
    found = synthesize(
        options.text, options.count, model, category=options.category, like=like, image=image, seed=options.seed,
        guidance=options.guidance, check=options.check,
    )  # fmt: skip
    pictured = options.image.stem if options.image else "materials"
    title = "-".join((options.text or options.category or pictured).lower().split()).replace("/", "-")
    out = options.out or Path("materials") / title
    out.mkdir(parents=True, exist_ok=True)
    names = [f"{title}-{k}" for k in range(options.count)]
    facts = [as_plain(found.statistics, k) for k in range(options.count)]
    write_networks(
        out / "materials.nbrdf.npz",
        found.networks,
        names,
        {"text": options.text, "statistics": facts, "scale": model.scale},
    )
    write_json(out / "materials.json", {"text": options.text, "drawn": found.drawn, "materials": dict(zip(names, facts, strict=True))})  # fmt: skip
    write_image(out / "sheet.png", _sheet(found.networks, names, scale=model.scale))
    if options.binary:
        with Progress("MERL tables") as progress:
            for k, name in enumerate(names):
                write_material(out / f"{name}.binary", found.networks[k], name)
                progress.step(k + 1, options.count)
    print(f"{out}: {options.count} materials of {found.drawn} drawn. See {out / 'sheet.png'}")
    print(f"Next: fields brdf render {shlex.quote(str(out / 'materials.nbrdf.npz'))} --shape knob")
    return 0


def _fit(arguments: list[str]) -> int:
    options = parse(arguments, FitOptions, "fields brdf fit", _COMMANDS["fit"])

    import torch

    from fields.errors import ConfigError
    from fields.neumadiff.files import read_materials
    from fields.neumadiff.fitting import errors, fit, spread_angles
    from fields.neumadiff.nbrdf import write_networks
    from fields.neumadiff.network import dialect

    if not options.files or options.iterations < 1:
        raise ConfigError("Give at least one file of materials, and at least one iteration.")
    known = [read_materials(file) for file in options.files]
    names = [name for _, own in known for name in own]

    def all_of_them(angles: Tensor) -> Tensor:
        return torch.cat([materials(angles) for materials, _ in known])

    with Progress("Fitting") as progress:
        networks = fit(
            all_of_them, len(names), dialect=dialect(options.dialect), begin=options.begin, iterations=options.iterations,
            seed=options.seed, watch=progress.step,
        )  # fmt: skip
    angles = spread_angles(20_000, torch.Generator().manual_seed(options.seed + 1))
    off = errors(networks, all_of_them, angles)
    write_networks(options.out, networks, names, {"error": off.tolist(), "from": [file.name for file in options.files]})
    worst = int(off.argmax())
    print(f"{options.out}: {len(names)} networks, log error {off.median():.4f} (median), {off.mean():.4f} (mean), {off[worst]:.4f} ({names[worst]})")  # fmt: skip
    print(f"Next: fields brdf render {shlex.quote(str(options.out))}")
    return 0


def _render(arguments: list[str]) -> int:
    options = parse(arguments, RenderOptions, "fields brdf render", _COMMANDS["render"])

    from fields.errors import ConfigError
    from fields.io.images import write_image
    from fields.neumadiff.files import read_materials, scale_of
    from fields.neumadiff.preview import light_of, studio
    from fields.relighting.environment import Environment

    if not 16 <= options.size <= 2048:
        raise ConfigError(f"--size {options.size}: pictures are 16 to 2048 pixels wide.")
    materials, names = read_materials(options.file)
    light = light_of(Environment.load(options.environment)) if options.environment else studio
    stem = options.file.name.removesuffix(".nbrdf.npz").removesuffix(options.file.suffix)
    out = options.out or options.file.with_name(f"{stem}.png")
    if len(names) > _MOST_TILES:
        print(f"The first {_MOST_TILES} of {len(names)}.", file=sys.stderr)
        materials, names = materials[:_MOST_TILES], names[:_MOST_TILES]
    write_image(
        out,
        _sheet(
            materials,
            names,
            light=light,
            shape=options.shape,
            size=options.size,
            stops=options.stops,
            scale=scale_of(options.file),
        ),
    )
    print(out)
    return 0


def _evaluate(arguments: list[str]) -> int:
    options = parse(arguments, EvaluateOptions, "fields brdf evaluate", _COMMANDS["evaluate"])

    from rich.console import Console
    from rich.table import Table

    from fields.neumadiff.energy import albedo
    from fields.neumadiff.files import read_materials
    from fields.neumadiff.metrics import compare, measuring_angles, reflectance_distances
    from fields.neumadiff.statistics import reciprocity_error, statistics
    from fields.neumadiff.words import colour_of, gloss_of

    materials, names = read_materials(options.file)
    found, most, swapped = statistics(materials), albedo(materials).amax((1, 2)), reciprocity_error(materials)
    table = Table("material", "looks", "albedo", "most", "half width", "reciprocity")
    for k, name in enumerate(names):
        looks = [colour_of(found.albedo[k]).name, gloss_of(float(found.half_width[k]))]
        shares = " ".join(f"{v:.2f}" for v in found.albedo[k])
        table.add_row(
            name, ", ".join(looks), shares, f"{most[k]:.3f}", f"{found.half_width[k]:.1f}°", f"{swapped[k]:.1e}"
        )
    Console().print(table)
    if options.against:
        values = materials(measuring_angles()), read_materials(options.against)[0](measuring_angles())
        (own, others), apart = values, reflectance_distances
        print(compare(apart(others, others), apart(others, own), apart(own, own)))
    return 0


def _convert(arguments: list[str]) -> int:
    options = parse(arguments, ConvertOptions, "fields brdf convert", _COMMANDS["convert"])

    from fields.errors import ConfigError
    from fields.neumadiff.files import read_materials, write_material

    materials, names = read_materials(options.file)
    if not 0 <= options.index < len(names):
        raise ConfigError(f"--index {options.index}: {options.file} has {len(names)} materials, from 0.")
    one = materials if len(names) == 1 else materials[options.index]
    write_material(options.out, one, names[options.index])
    print(options.out)
    return 0


def _sheet(materials, names, *, light=None, shape="sphere", size=256, stops=0.0, scale="merl") -> Tensor:
    """(…, …, 3) sRGB: a picture of each material, above its name."""
    import torch

    from fields.io.images import contact_sheet
    from fields.neumadiff.preview import preview, studio
    from fields.neumadiff.statistics import SCALES
    from fields.relighting.develop import develop

    radiance = preview(materials, light=light or studio, shape=shape, size=size, backdrop=0.02) / SCALES[scale]
    return contact_sheet(torch.stack([develop(one, stops) for one in radiance]), names)
