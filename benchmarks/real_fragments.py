"""Fragments that others made: ``python -m fields.benchmarks.real_fragments OUT`` reads the sets in $FIELDS_DATA/fragments.

Sets whose files lie in their assembled places are turned and moved at random first, and measured; where the poses that GARF's authors
published lie beside them, those are measured in the same way. Every set leaves the files of `fields reassemble` in OUT.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from fields.benchmarks.reassembly import scattered

from fields.garf.fragment import Fragment
from fields.garf.reading import load_fragments
from fields.garf.reassembly import Reassembly, load_model, reassemble
from fields.garf.report import errors_against, write_results
from fields.io.atomic import read_json

UNKNOWN = ("tombstone_real",)
"""Sets of which nobody knows how they go together."""


def published(folder: Path, fragments: list[Fragment]) -> Reassembly | None:
    """The poses that GARF's authors show on their page; the files' own places are the truth."""
    file = folder / "garf_predicted_poses.json"
    if not file.exists():
        return None
    said = read_json(file)["pieces"]
    poses = np.array([said[f.name]["matrix"] for f in fragments])
    anchor = int(np.argmax([f.areas.sum() for f in fragments]))
    return Reassembly(fragments, anchor, np.linalg.inv(poses[anchor]) @ poses, [0] * len(poses), [], [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    root, model = Path(os.environ["FIELDS_DATA"]) / "fragments", load_model(arguments.model)
    print(
        "| set | fragments | together | parts right, strictly | loosely | geodesic | time | published: strictly | loosely | geodesic |"
    )
    for folder in sorted(f for f in root.iterdir() if f.is_dir() and (not arguments.sets or f.name in arguments.sets)):
        fragments = load_fragments(folder)
        given, truth = scattered(fragments, 0) if folder.name not in UNKNOWN else (fragments, None)
        found = reassemble(given, model)
        write_results(arguments.out / folder.name, found)
        cells = [folder.name, len(fragments), sum(group == 0 for group in found.group)]
        peer = published(folder, fragments)
        for one, true in ((found, truth), (peer, np.tile(np.eye(4), (len(fragments), 1, 1)))):
            if one is None or true is None:
                cells += ["", "", "", *([f"{found.seconds:.0f} s"] if one is found else [])]
                continue
            errors = errors_against(true, one)
            cells += [f"{100 * errors[name]:.0f} %" for name in ("part_accuracy_strict", "part_accuracy")] + [
                f"{errors['geodesic']:.1f}°"
            ]
            if one is found:
                cells.append(f"{found.seconds:.0f} s")
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
