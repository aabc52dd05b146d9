"""A reassembly as files that programs read, and back: poses, the object as one mesh, and the fragments themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fields.errors import DataError
from fields.garf.assembly import Place
from fields.garf.clouds import hopeless
from fields.garf.confidence import Calibration
from fields.garf.fragment import Fragment
from fields.garf.pictures import box_of, palette
from fields.garf.reassembly import Joint, Reassembly
from fields.garf.writing import coloured
from fields.geometry.shapes import Mesh
from fields.io.atomic import read_json, read_tensors, write_json, write_tensors
from fields.io.reading import reading
from fields.io.shapes import write_ply

MANY = 30
"""Fragments up to which most of an object may be expected to come together."""
_FAR = 1000
"""Sizes of the anchor from the origin."""
COMPLETE = 0.8
"""Share of break with a counterpart from which on an object may be whole: of what is complete, worn or not, nine tenths have more."""


def write_poses(out: Path, found: Reassembly) -> None:
    """poses.json and assembled.ply, in a folder. Where `origin` is not 0, a comment in the mesh says what is to be added to it."""
    write_json(out / "poses.json", as_json(found))
    near = origin(found)
    parts = zip(moved_by(found.assembled(), -near), palette(len(found.fragments)), found.group, strict=True)
    facts = {"origin": " ".join(f"{x:.0f}" for x in near)} if near.any() else {}
    write_ply(out / "assembled.ply", _one([coloured(f, colour) for f, colour, group in parts if group == 0]), facts)


def origin(found: Reassembly) -> np.ndarray:
    """(3,) what is to be taken from coordinates before they are written in single precision: 0, but of what stands far away, as scans of a site do."""
    anchor = found.fragments[found.anchor]
    far = np.abs(anchor.middle).max() > _FAR * np.ptp(anchor.vertices, 0).max()
    return np.round(anchor.middle) if far else np.zeros(3)


def moved_by(fragments: list[Fragment], by: np.ndarray) -> list[Fragment]:
    return [replace(f, vertices=f.vertices + by) for f in fragments]


def write_fragments(out: Path, found: Reassembly) -> None:
    """fragments.safetensors: the fragments as they were read, so that the folder needs no others."""
    tensors = {}
    for i, fragment in enumerate(found.fragments):
        tensors[f"{i}/vertices"] = torch.from_numpy(fragment.vertices)
        tensors[f"{i}/faces"] = torch.from_numpy(fragment.faces.astype(np.int32))
        if found.broken:
            tensors[f"{i}/broken"] = torch.from_numpy(found.broken[i]).half()
    write_tensors(out / "fragments.safetensors", tensors, {"names": [f.name for f in found.fragments]})


def read_results(out: Path) -> Reassembly:
    """What `fields.garf.report.write_results` left in a folder.

    Raises:
        DataError: files are missing, damaged, or of different fragments.
        CheckpointError: they are of another kind.
    """
    poses, stored = out / "poses.json", out / "fragments.safetensors"
    for file in (poses, stored):
        if not file.is_file():
            raise DataError(f"{file}: no such file. `fields reassemble` writes it; run it again.")
    said, (tensors, plain) = read_json(poses), read_tensors(stored)
    with reading(out, "poses of the fragments beside them", "Run `fields reassemble` again."):
        return _reassembly(said, tensors, plain["names"])


def as_json(found: Reassembly) -> dict:
    names = [f.name for f in found.fragments]
    return {
        "anchor": names[found.anchor],
        "world_from_fragment": {n: p.tolist() for n, p in zip(names, found.world_from_fragment, strict=True)},
        "group": dict(zip(names, found.group, strict=True)),
        "confidence": {n: round(c, 4) for n, c in zip(names, found.confidence, strict=True)},
        "joints": [
            {"a": names[j.a], "b": names[j.b], "confidence": round(j.confidence, 4), "overlap": None if math.isnan(j.overlap) else j.overlap}
            for j in found.joints
        ],
        "met": round(found.met, 4),
        "calibration": found.calibration,
        "perhaps": [{"group": p.group, "pose": p.pose.tolist(), "confidence": round(p.confidence, 4)} for p in found.perhaps],
        "seconds": round(found.seconds, 2),
    }  # fmt: skip


def laid_out(found: Reassembly) -> Reassembly:
    """Groups that do not hang together with the anchor stand beside it, one after the other."""
    placed, poses = found.assembled(), found.world_from_fragment.copy()
    whole = box_of([f for f, group in zip(placed, found.group, strict=True) if group == 0])
    edge, gap = whole[1, 0], 0.15 * float(np.ptp(whole, 0).max())
    for number in range(1, max(found.group) + 1):
        members = [i for i, group in enumerate(found.group) if group == number]
        box = box_of([placed[i] for i in members])
        poses[members, :3, 3] += [edge + gap - box[0, 0], *(whole.mean(0) - box.mean(0))[1:]]
        edge += gap + float(np.ptp(box, 0)[0])
    return replace(found, world_from_fragment=poses)


def standing(found: Reassembly, i: int) -> str:
    """What is to be said of a fragment, in a few words."""
    if i == found.anchor:
        return "stays where it is"
    sure = f"confidence {found.confidence[i]:.2f}"
    if not (group := found.group[i]):
        return sure
    if found.group.count(group) > 1:
        return f"in group {group}, {sure}"
    why = hopeless(found.fragments).get(i)
    return f"fits nowhere ({why})" if why else "fits nowhere"


def told(found: Reassembly) -> str:
    """How much hangs together, and what is to be made of that: a sentence or a few."""
    count, together = len(found.fragments), found.group.count(0)
    said = [f"{together} of {count} fragments put together in {found.seconds:.0f} s."]
    if found.met:
        share = f"{100 * found.met:.0f} % of the break of what hangs together has found its counterpart"
        said.append(share + (": something may be missing." if found.met < COMPLETE else "."))
    if found.broken and not any((broken > 0.5).any() for broken in found.broken):
        said.append("No break was found on any of them: they are not broken, or too coarse to show it.")
    others = count - 1 - len(hopeless(found.fragments))
    right = sum(found.confidence[i] for i, group in enumerate(found.group) if group == 0 and i != found.anchor)
    if right < others / 2:
        said.append(
            f"Little is sure: about {right:.0f} of {others} beside the anchor may be expected to be where they belong."
        )
        if count > MANY:
            said.append(f"Up to {MANY} at a time do better: sort them by what they look like first.")
    return " ".join(said)


def _reassembly(said: dict[str, Any], tensors: dict[str, torch.Tensor], names: list[str]) -> Reassembly:
    """Raises KeyError, TypeError, ValueError or AttributeError for what is not of these fragments."""
    fragments, broken = [], []
    for i, name in enumerate(names):
        vertices, faces = tensors[f"{i}/vertices"].double().numpy(), tensors[f"{i}/faces"].long().numpy()
        if vertices.shape[1:] != (3,) or faces.shape[1:] != (3,) or not 0 <= faces.min() <= faces.max() < len(vertices):
            raise ValueError(name)
        fragments.append(Fragment(name, vertices, faces))
        if f"{i}/broken" in tensors:
            broken.append(tensors[f"{i}/broken"].float().numpy().reshape(len(faces)))
    world_from_fragment = np.array([said["world_from_fragment"][name] for name in names], np.float64)
    group = [int(said["group"][name]) for name in names]
    if (
        len(said["world_from_fragment"]) != len(names)
        or world_from_fragment.shape[1:] != (4, 4)
        or not np.isfinite(world_from_fragment).all()
        or sorted(set(group)) != list(range(max(group) + 1))
    ):
        raise ValueError(names)
    joints = [
        Joint(
            names.index(j["a"]), names.index(j["b"]), float(j["confidence"]),
            math.nan if j["overlap"] is None else float(j["overlap"]),
        )
        for j in said["joints"]
    ]  # fmt: skip
    confidence = [float(said["confidence"][name]) for name in names]
    return Reassembly(
        fragments, names.index(said["anchor"]), world_from_fragment, group, confidence, joints, float(said["seconds"]),
        broken, float(said["met"]), [_place(p) for p in said["perhaps"]], Calibration(*map(float, said["calibration"])),
    )  # fmt: skip


def _place(said: dict[str, Any]) -> Place:
    pose = np.array(said["pose"], np.float64)
    if pose.shape != (4, 4):
        raise ValueError(said)
    return Place(int(said["group"]), pose, float(said["confidence"]))


def _one(meshes: list[Mesh]) -> Mesh:
    starts = np.cumsum([0, *(len(m.positions) for m in meshes)])
    faces = [m.faces + start for m, start in zip(meshes, starts, strict=False)]
    positions, normals, colours = (
        np.concatenate([getattr(m, name) for m in meshes]) for name in ("positions", "normals", "colours")
    )
    return Mesh(positions, normals, colours, np.concatenate(faces).astype(np.int32))
