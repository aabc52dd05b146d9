"""What a reassembly leaves: its files (see results.py), an animation, and a page to look at; and how far off it is."""

from __future__ import annotations

import base64
import html
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fields.errors import CheckpointError, DataError
from fields.garf.fragment import Fragment, sample
from fields.garf.metrics import reassembly_errors
from fields.garf.pictures import box_of, exploded, palette, picture
from fields.garf.reassembly import Reassembly
from fields.garf.results import as_json, laid_out, moved_by, origin, standing, told, write_fragments, write_poses
from fields.garf.writing import write_coming_together
from fields.io.atomic import read_json, write_atomically
from fields.io.images import colour_map, png


def write_results(out: Path, found: Reassembly) -> None:
    """poses.json, assembled.ply, fragments.safetensors, assembled.glb and report.html, in a folder."""
    write_poses(out, found)
    write_fragments(out, found)
    colours = palette(len(found.fragments))
    shown = moved_by(laid_out(found).assembled(), -origin(found))
    apart = exploded(shown, 0.8)
    away = np.array([a.vertices[0] - b.vertices[0] for a, b in zip(apart, shown, strict=True)])
    write_coming_together(out / "assembled.glb", shown, colours, away)
    page = _page(found, shown, colours)
    write_atomically(out / "report.html", lambda file: file.write_text(page))


def truth_beside(folder: Path, fragments: list[Fragment]) -> np.ndarray | None:
    """(P, 4, 4) where fragments belong, in any one world, if a truth.json as `fields fracture` writes it lies beside them.

    Raises:
        DataError: a truth.json of other fragments.
    """
    file = folder / "truth.json"
    if not file.is_file():
        return None
    try:
        truth = np.array([read_json(file)["world_from_fragment"][f.name] for f in fragments], np.float64)
        np.linalg.inv(truth.reshape(len(fragments), 4, 4))
    except (KeyError, TypeError, ValueError, CheckpointError):  # a LinAlgError is a ValueError
        raise DataError(
            f"{file}: does not say where each of these fragments belongs. Remove it, or write it anew."
        ) from None
    return truth


def errors_against(truth: np.ndarray, found: Reassembly) -> dict[str, float]:
    """See `reassembly_errors`; truth (P, 4, 4) is from the fragments to any one world. What hangs together with nothing is scored where
    it is."""
    relative = np.linalg.inv(truth[found.anchor]) @ truth
    size = float(np.ptp(box_of([f.moved(p) for f, p in zip(found.fragments, truth, strict=True)]), 0).max())
    samples = sample(found.fragments, 5000, np.random.default_rng(0))
    points = [torch.from_numpy(samples.points[samples.of(i)] / size) for i in range(len(found.fragments))]
    # About the middle of the anchor: an object may lie far from the origin of its file.
    middle = points[found.anchor].mean(0).numpy() * size
    poses = []
    for pose in (found.world_from_fragment, relative):
        moved = pose.copy()
        moved[:, :3, 3] = (moved[:, :3, 3] - middle) / size
        poses.append(torch.from_numpy(moved))
    return reassembly_errors(points, poses[0], poses[1], found.anchor)


def _page(found: Reassembly, shown: list[Fragment], colours: np.ndarray) -> str:
    apart = exploded(shown, 0.6)
    box, wide = box_of(shown), box_of(apart)
    sure = colour_map(torch.tensor([found.confidence]), 0, 1, "RdYlGn")[0].numpy()
    ochre = np.tile([0.93, 0.83, 0.35], (len(shown), 1))
    likely = [Fragment(f.name, f.vertices, f.faces, np.where(b > 0.5, 0, -1)) for f, b in zip(apart, found.broken, strict=True)] if found.broken else apart  # fmt: skip
    views = {
        "Assembled": picture(shown, colours, box=box),
        "From behind": picture(shown, colours, box=box, azimuth=0.6 + math.pi),
        "Apart; ochre: taken for break": picture(likely, np.stack([colours, ochre], 1), box=wide),
        "Confidence, red to green": picture(shown, sure, box=box),
    }
    if any(found.group):
        guess = replace(found, world_from_fragment=found.guessed()).assembled()
        views["All of it, where it may belong at best"] = picture(guess, colours, box=box_of(guess))
    figures = "".join(
        f'<figure><img src="data:image/png;base64,{base64.b64encode(png(image)).decode()}"><figcaption>{title}</figcaption></figure>'
        for title, image in views.items()
    )
    rows = "".join(
        f'<tr><td style="background:rgb({", ".join(str(int(255 * v)) for v in colours[i])})">&emsp;</td><td>{html.escape(f.name)}</td>'
        f"<td>{standing(found, i)}</td></tr>"
        for i, f in enumerate(found.fragments)
    )
    joints = "".join(
        f"<tr><td>{html.escape(found.fragments[j.a].name)}</td><td>{html.escape(found.fragments[j.b].name)}</td><td>{j.confidence:.2f}</td>"
        f"<td>{'not closed' if math.isnan(j.overlap) else f'{j.overlap:.1e}'}</td></tr>"
        for j in found.joints
    )
    perhaps = "".join(
        f"<tr><td>{html.escape(', '.join(f.name for f, g in zip(found.fragments, found.group, strict=True) if g == place.group))}</td>"
        f"<td>{place.confidence:.3f}</td></tr>"
        for place in found.perhaps
    )
    data = json.dumps(as_json(found)).replace("</", "<\\/")  # a name cannot end the script
    style = "body{font:15px sans-serif;max-width:900px;margin:2em auto}figure{display:inline-block;margin:4px}figcaption{text-align:center}td,th{padding:2px 12px;text-align:left}"  # fmt: skip
    return (
        f"<!doctype html><meta charset=utf-8><title>Reassembly</title><style>{style}</style><h1>Reassembly</h1>"
        f"<p>{told(found)}</p>{figures}"
        f"<h2>Fragments</h2><table><tr><th></th><th>fragment</th><th></th></tr>{rows}</table>"
        f"<h2>Joints</h2><table><tr><th colspan=2>between</th><th>confidence</th><th>overlap, of the smaller</th></tr>{joints}</table>"
        + (f"<h2>Perhaps</h2><p>Places of what fits nowhere for sure.</p><table>{perhaps}</table>" if perhaps else "")
        + f"<script type='application/json' id='poses'>{data}</script>\n"
    )
