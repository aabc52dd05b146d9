"""``fields reassemble DIR``: puts the fragments of a broken object together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fields.apps.common import demo_fragments, parse
from tyro.conf import Positional


@dataclass
class Options:
    fragments: Annotated[Path | None, Positional] = None
    """Folder with a mesh or point cloud for each fragment (PLY, OBJ, STL, OFF, GLB), in any poses and any one unit; or one file with
    several meshes. Default: the embedded broken vase."""
    out: Path | None = None
    """Default: reassembled beside the fragments; runs/reassembled-demo for the demo."""
    model: Path | None = None
    """Run folder of `fields train garf`. Default: the model that comes with the package."""
    method: str = "garf"
    """garf, or registration: FPFH, RANSAC and ICP of Open3D on whole surfaces, to compare with (pip install '.[open3d]')."""
    seed: int = 0
    """Of the points that are looked at."""


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "fields reassemble", "Puts the fragments of a broken object together.")

    import sys

    from fields.errors import ConfigError
    from fields.garf.reading import load_fragments
    from fields.garf.reassembly import load_model, reassemble
    from fields.garf.report import errors_against, truth_beside, write_results
    from fields.garf.results import standing, told

    folder = options.fragments or demo_fragments()
    out = options.out or (
        Path("runs/reassembled-demo") if options.fragments is None else folder.with_suffix("") / "reassembled"
    )
    if out.resolve() == folder.resolve():
        raise ConfigError(f"--out {out}: the fragments are there, and what is written would be taken for more of them.")
    fragments = load_fragments(folder)
    truth = truth_beside(folder, fragments)
    print(f"{len(fragments)} fragments from {folder}", file=sys.stderr)
    if options.method == "garf":
        found = reassemble(fragments, load_model(options.model), seed=options.seed)
    elif options.method == "registration":
        from fields.garf.registration import reassemble_by_registration

        found = reassemble_by_registration(fragments, seed=options.seed)
    else:
        raise ConfigError(f"--method {options.method}: there are garf and registration.")
    write_results(out, found)
    for i in sorted(range(len(fragments)), key=lambda i: (found.group[i], -found.confidence[i])):
        print(f"  {fragments[i].name:<20} {standing(found, i)}")
    print(told(found))
    if truth is not None:
        errors = errors_against(truth, found)
        print(f"Against truth.json: {100 * errors['part_accuracy_strict']:.0f} % of parts right (strictly; "
              f"{100 * errors['part_accuracy']:.0f} % by the usual measure), rotations off by {errors['geodesic']:.2f}° on average")  # fmt: skip
    print(f"{out / 'assembled.glb'} shows it come together, {out / 'poses.json'} has the poses. "
          f"Look at {out / 'report.html'}, or: fields view {out}")  # fmt: skip
    return 0
