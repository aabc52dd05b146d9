"""``fields fracture MESH``: breaks a mesh into realistic fragments, and mixes them up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fields.apps.common import Progress, parse
from tyro.conf import Positional


@dataclass
class Options:
    mesh: Annotated[str, Positional]
    """A closed mesh (PLY, OBJ, STL, OFF, GLB), or a kind of thing to make and break: vase, bowl, plate, tube, eggshell, bone, stone."""
    pieces: int = 8
    """How many fragments."""
    out: Path | None = None
    """Default: fragments/NAME."""
    seed: int = 0
    """Of all random numbers: the same seed breaks the same way."""
    scatter: bool = True
    """Turn and move every fragment at random, as they would be found. truth.json says where they belong."""
    roughness: float | None = None
    """Of the break, as a share of the object's diagonal. Default: at random, 0.003 to 0.02."""
    bend: float | None = None
    """How far cracks swing, as a share of the diagonal. Default: at random, 0.008 to 0.12."""


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "fields fracture", "Breaks a mesh into fragments with rough break surfaces.")

    import dataclasses

    import numpy as np
    import roma
    import torch

    from fields.errors import ConfigError
    from fields.garf.fracturing import Style, fracture, solid_of
    from fields.garf.pictures import box_of, exploded, palette, picture
    from fields.garf.reading import load_mesh
    from fields.garf.solids import KINDS, random_solid
    from fields.garf.writing import write_fragment
    from fields.io.atomic import write_json
    from fields.io.images import side_by_side, write_image

    if not 2 <= options.pieces <= 100:
        raise ConfigError(f"--pieces {options.pieces}: an object breaks into 2 to 100.")
    rng = np.random.default_rng(options.seed)
    if options.mesh in KINDS:
        name, solid = random_solid(rng, options.mesh)
    else:
        mesh = load_mesh(Path(options.mesh))
        name, solid = mesh.name, solid_of(mesh.vertices, mesh.faces, options.mesh)
    style = Style.random(rng)
    for setting, most in (("roughness", 0.05), ("bend", 0.3)):
        if (value := getattr(options, setting)) is not None:
            if not 0 <= value <= most:
                raise ConfigError(f"--{setting} {value}: it is a share of the diagonal, 0 to {most}.")
            style = dataclasses.replace(style, **{setting: value})
    out = options.out or Path("fragments") / name
    if out.exists() and any(out.iterdir()):
        raise ConfigError(
            f"{out}: not empty, and fragments of two objects in one folder would be one. Choose another --out."
        )
    with Progress("fracture") as progress:
        pieces = fracture(solid, options.pieces, rng, style)
        if len(pieces) < options.pieces:
            progress.say(f"It broke into {len(pieces)} pieces; no further crack left each at least 2 % of its share.")
        reach = float(np.ptp(box_of(pieces), 0).max())
        torch.manual_seed(options.seed)
        poses = np.tile(np.eye(4), (len(pieces), 1, 1))
        if options.scatter:
            poses[:, :3, :3] = roma.random_rotmat(len(pieces)).double().numpy()
            poses[:, :3, 3] = rng.uniform(-1, 1, (len(pieces), 3)) * reach
        out.mkdir(parents=True, exist_ok=True)
        truth = {}
        for piece, pose in zip(pieces, poses, strict=True):
            write_fragment(out / f"{piece.name}.ply", piece.moved(pose))
            truth[piece.name] = np.linalg.inv(pose).tolist()
        write_json(
            out / "truth.json", {"world_from_fragment": truth, "seed": options.seed, "style": dataclasses.asdict(style)}
        )
        apart = exploded(pieces)
        ochre = np.array([0.93, 0.83, 0.35])
        colours = np.stack([palette(len(pieces)), np.tile(ochre, (len(pieces), 1))], 1)
        write_image(
            out / "preview.png", side_by_side(*(picture(v, colours, box=box_of(apart)) for v in (pieces, apart)))
        )
    print(
        f"{len(pieces)} fragments in {out}, where they belong in {out / 'truth.json'}, a picture in {out / 'preview.png'}"
    )
    print(f"Next: fields reassemble {out}")
    return 0
