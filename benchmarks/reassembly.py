"""How well broken objects that were never learned from are put together: ``python -m fields.benchmarks.reassembly OUT``.

Objects are numbers HELD_OUT and on, half of them worn, with 2 to 20 fragments turned and moved at random. Each row is a number of
fragments; ways of doing it are compared on the same objects. Results go to OUT/results.json as they come, so that a run can
be stopped and gone on with.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import roma
import torch

from fields.garf.clouds import Cloud
from fields.garf.confidence import RIGHT, displaced
from fields.garf.encoder import Seen
from fields.garf.fragment import Fragment
from fields.garf.metrics import mean_of
from fields.garf.objects import HELD_OUT, broken
from fields.garf.reassembly import Reassembly, load_model, reassemble
from fields.garf.report import errors_against
from fields.garf.results import COMPLETE
from fields.garf.sampling import reassemble_by_flow
from fields.garf.wear import Wear
from fields.io.atomic import read_json, write_json

COUNTS = (2, 3, 4, 5, 8, 10, 15, 20)


def scattered(fragments: list[Fragment], seed: int) -> tuple[list[Fragment], np.ndarray]:
    """Fragments turned and moved at random, and (P, 4, 4) where they came from."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(len(fragments), 4, generator=generator)
    poses = np.tile(np.eye(4), (len(fragments), 1, 1))
    poses[:, :3, :3] = roma.unitquat_to_rotmat(torch.nn.functional.normalize(q, dim=-1)).double().numpy()
    poses[:, :3, 3] = torch.randn(len(fragments), 3, generator=generator).double().numpy()
    return [f.moved(p) for f, p in zip(fragments, poses, strict=True)], np.linalg.inv(poses)


def strangers(whole: list[Fragment], seed: int, count: int) -> list[Fragment]:
    """The largest fragments of another object in as many, none as large as the largest of this one, for that is the anchor."""
    most = max(f.areas.sum() for f in whole)
    others = (broken(number, max(len(whole), count + 1))[1] for number in itertools.count(seed + 500))
    smaller = ([f for f in other if f.areas.sum() < most] for other in others)
    enough = next(some for some in smaller if len(some) >= count)
    return sorted(enough, key=lambda f: -f.areas.sum())[:count]


def without(whole: list[Fragment], seed: int, count: int) -> list[Fragment]:
    """An object of which so many fragments are missing, the largest not."""
    largest = int(np.argmax([f.areas.sum() for f in whole]))
    rest = [i for i in range(len(whole)) if i != largest]
    gone = np.random.default_rng(seed).choice(rest, min(count, len(rest) - 1), replace=False)
    return [f for i, f in enumerate(whole) if i not in gone]


def of_first(found: Reassembly, count: int) -> Reassembly:
    """What was found of the first `count` fragments, of which the anchor is one."""
    joints = [joint for joint in found.joints if max(joint.a, joint.b) < count]
    kept = sorted(set(found.group[:count]))
    return replace(
        found, fragments=found.fragments[:count], world_from_fragment=found.world_from_fragment[:count],
        group=[kept.index(group) for group in found.group[:count]], confidence=found.confidence[:count], joints=joints,
        broken=found.broken[:count], perhaps=[place._replace(group=kept.index(place.group)) for place in found.perhaps if place.group in kept],
    )  # fmt: skip


def identity(fragments: list[Fragment]) -> Reassembly:
    """Everything stays as it was given: what chance is worth."""
    anchor = int(np.argmax([f.areas.sum() for f in fragments]))
    poses = np.tile(np.eye(4), (len(fragments), 1, 1))
    middle = fragments[anchor].vertices.mean(0)
    for pose, fragment in zip(poses, fragments, strict=True):
        pose[:3, 3] = middle - fragment.vertices.mean(0)
    poses[anchor] = np.eye(4)
    return Reassembly(fragments, anchor, poses, [0] * len(fragments), [0.0] * len(fragments), [])


class Blind(torch.nn.Module):
    """In place of the encoder: takes all surface for break, and anything for what fits."""

    def forward(self, cloud: Cloud) -> Seen:
        noise = torch.nn.functional.normalize(torch.randn(2, len(cloud.points), 8), dim=-1)
        return Seen(noise[0], torch.ones(len(cloud.points)), *noise)


def ways(model: Path | None) -> dict[str, Callable[[list[Fragment]], Reassembly]]:
    from fields.garf.registration import reassemble_by_registration

    trained, blind = load_model(model), load_model(model)
    blind.encoder = Blind()
    flow = partial(reassemble_by_flow, model=trained)
    return {
        "ours": lambda fragments: reassemble(fragments, trained),
        "without pretraining": lambda fragments: reassemble(fragments, blind),
        "flow": flow,
        "flow, no preassembly": partial(flow, preassembly=False),
        "flow + settling": partial(flow, settling=True),
        "registration": reassemble_by_registration,
        "as given": identity,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--objects", type=int, default=25, help="for each number of fragments")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--ways", nargs="+", default=["ours", "registration", "as given"])
    parser.add_argument("--strangers", type=int, default=0, help="fragments of another object among them")
    parser.add_argument("--missing", type=int, default=0, help="fragments that are left away")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    chosen = ways(arguments.model)
    file = arguments.out / "results.json"
    results = read_json(file) if file.exists() else {}
    for count in arguments.counts:
        for number in range(arguments.objects):
            missing = [way for way in arguments.ways if f"{way}/{count}/{number}" not in results]
            if not missing:
                continue
            seed = HELD_OUT + 1000 * count + number
            kind, whole, _ = broken(
                seed, count, wear=Wear.random(np.random.default_rng(seed)) if number % 2 else Wear()
            )
            whole = without(whole, seed, arguments.missing)
            own = len(whole)
            if arguments.strangers:
                whole = whole + strangers(whole, seed, arguments.strangers)
            fragments, truth = scattered(whole, seed)
            for way in missing:
                began = time.perf_counter()
                found = chosen[way](fragments)
                seconds = time.perf_counter() - began
                strangers_out = [group != 0 for group in found.group[own:]]
                found = of_first(found, own)
                row = errors_against(truth[:own], found) | {"seconds": seconds} | beyond(truth[:own], found)
                results[f"{way}/{count}/{number}"] = row | {
                    "kind": kind,
                    "worn": bool(number % 2),
                    "pieces": own,
                    "strangers_out": strangers_out,
                    "own_out": [group != 0 for i, group in enumerate(found.group) if i != found.anchor],
                }
                write_json(file, results)
        for way in arguments.ways:
            rows = [results[f"{way}/{count}/{number}"] for number in range(arguments.objects)]
            print(line(way, count, rows), belonging(rows), flush=True)
    print()
    for way in arguments.ways:
        rows = [row for name, row in results.items() if name.startswith(f"{way}/")]
        print(way, reliability(rows))
        print(way, belonging(rows))
        if whole := [row["met"] for row in rows if row["met"] and row["together"] == row["part_accuracy"] == 1]:
            print(
                f"{way}: of {len(whole)} whole objects nine tenths have met more than {np.quantile(whole, 0.1):.2f} of their break"
            )
    for way in arguments.ways:
        rows = [row for name, row in results.items() if name.startswith(f"{way}/")]
        for worn in (False, True):
            print(line(f"{way}, {'worn' if worn else 'fresh'}", 0, [row for row in rows if row["worn"] is worn]))


def beyond(truth: np.ndarray, found: Reassembly) -> dict:
    """What else there is to say of one object: how many fragments hang together, how well parts are placed where even what fits nowhere is
    put somewhere, as in published figures, how sure it was of each fragment and whether it was right, and how well breaks were told."""
    row: dict = {"together": float(np.mean([group == 0 for group in found.group])), "met": found.met}
    placed = replace(found, world_from_fragment=found.guessed())
    row["part_accuracy_placed"] = errors_against(truth, placed)["part_accuracy"]
    relative = np.linalg.inv(truth[found.anchor]) @ truth
    size = float(np.ptp(np.concatenate([f.moved(p).vertices for f, p in zip(found.fragments, relative, strict=True)]), 0).max())  # fmt: skip
    row["sure"] = [
        [confidence, displaced(f, pose, true) < RIGHT * size]
        for i, (f, confidence, pose, true) in enumerate(
            zip(found.fragments, found.confidence, found.world_from_fragment, relative, strict=True)
        )
        if i != found.anchor and found.group[i] == 0
    ]
    if found.broken:
        areas = np.concatenate([f.areas for f in found.fragments])
        said = np.concatenate(found.broken) > 0.5
        true = np.concatenate([f.partner for f in found.fragments if f.partner is not None]) >= 0
        row["break_iou"] = float((areas * (said & true)).sum() / (areas * (said | true)).sum())
    return row


def reliability(rows: list[dict]) -> str:
    """How often what it was sure of to some degree was right, and by how much the two differ in the mean."""
    sure = np.array([one for row in rows for one in row["sure"]])
    if not len(sure):
        return "nothing placed"
    bins = np.minimum((10 * sure[:, 0]).astype(int), 9)
    told = [(sure[bins == k, 0].mean(), sure[bins == k, 1].mean(), int((bins == k).sum())) for k in sorted(set(bins))]
    error = sum(n * abs(said - right) for said, right, n in told) / len(sure)
    return f"calibration error {error:.3f}: " + ", ".join(
        f"{said:.2f} said, {right:.2f} right ({n})" for said, right, n in told
    )


def belonging(rows: list[dict]) -> str:
    """How often what does not belong is left out, and what belongs; and how often it says that something is missing."""
    strangers, own = ([out for row in rows for out in row[name]] for name in ("strangers_out", "own_out"))
    missed = [row["met"] < COMPLETE for row in rows]
    return (
        f"left out: {sum(strangers)} of {len(strangers)} strangers, {sum(own)} of {len(own)} others; "
        f"of {sum(missed)} of {len(missed)} objects it says that something may be missing"
    )


def line(way: str, count: int, rows: list[dict]) -> str:
    mean = mean_of({k: v for k, v in row.items() if isinstance(v, float)} for row in rows)
    return (
        f"| {way} | {count or 'all'} | {100 * mean['part_accuracy']:.1f} % | {100 * mean['part_accuracy_placed']:.1f} % | {100 * mean['part_accuracy_strict']:.1f} % | "
        f"{100 * mean['part_accuracy_strict_rest']:.1f} % | {100 * mean['solved']:.0f} % | {mean['rmse_r']:.2f}° | {mean['geodesic']:.2f}° | "
        f"{100 * mean['rmse_t']:.2f} | {1000 * mean['chamfer']:.2f} | {mean['seconds']:.1f} s |"
        + (f" {mean['break_iou']:.3f} |" if "break_iou" in mean else "")
    )


if __name__ == "__main__":
    main()
