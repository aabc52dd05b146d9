"""Measuring an articulated field: on frames that were held out, and where it is known against the true joints and surfaces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.data.scene import Split
from fields.geometry.points import spread_over
from fields.geometry.rigid import move
from fields.geometry.surface import extract_mesh
from fields.io.atomic import read_json
from fields.io.reading import read_npz, reading
from fields.metrics import iou
from fields.reacto.field import ArticulatedField
from fields.reacto.kinds import Joint, joints_of
from fields.reacto.scene import VideoScene
from fields.reacto.screws import exponential, prismatic, revolute
from fields.reacto.skinned import SkinnedField
from fields.training.evaluation import Evaluation
from fields.training.evaluation import compare as compare_now
from fields.training.evaluation import evaluate as evaluate_images

SURFACE = math.log(2)
"""The density of a level set on its surface."""
_FRAMES = 10  # in which surfaces are compared
_SAMPLES = 100_000  # of all surfaces
_CELLS = 128


def compare(field: ArticulatedField | SkinnedField, scene: VideoScene, split: Split, i: int) -> tuple[dict, Tensor]:
    """Figures of image i at its moment, and a picture."""
    times = scene.test_times if split is scene.test else scene.times
    with field.in_state(field.states_at(float(times[i]))):
        score, picture = compare_now(field, scene, split, i)
    return score, picture


def evaluate(
    field: ArticulatedField | SkinnedField,
    scene: VideoScene,
    split: Split,
    folder: Path | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Renders every image of a split at its moment; and, where joints.json and truth.npz lie in the scene's folder, says how far joints
    and surfaces are off."""
    found = evaluate_images(field, scene, split, folder, watch, compare)
    if (truth := Truth.beside(scene)) is not None:
        if isinstance(field, ArticulatedField):
            found.results |= joint_errors(joints_of(field), truth)
        found.results |= surface_errors(field, truth)
    return found


# ---------------------------------------------------------------------------------------- the truth


@dataclass(frozen=True)
class Truth:
    """In the scene's frame, joints at zero."""

    joints: list[Joint]
    """One for each part but the first. Their states are of all frames of the video."""
    size: float
    points: Tensor
    """(P, 3) spread evenly over the surfaces."""
    normals: Tensor
    part: Tensor
    """(P,) int64."""
    seen: Tensor
    """(P,) bool: in at least one training frame."""

    @staticmethod
    def beside(scene: VideoScene) -> Truth | None:
        """What lies in the folder of a scene, if anything."""
        file = scene.path / "joints.json"
        if not file.is_file():
            return None
        similarity = scene.world_from_input.float()
        scale = float(similarity[:3, 0].norm())
        with reading(file, "the truth about a video, with truth.npz", "Remove it, or make the video again."):
            data, surface = read_json(file), read_npz(scene.path / "truth.npz")
            joints = [
                Joint(
                    one["type"], one["parent"], one["child"], torch.tensor(one["axis"], dtype=torch.float32),
                    torch.tensor(one["pivot"], dtype=torch.float32), torch.tensor(one["states"]), 0.0,
                ).transformed(similarity)
                for one in data["joints"]
            ]  # fmt: skip
            points = move(similarity, torch.from_numpy(surface["points"]).float())
            normals = torch.from_numpy(surface["normals"]).float() @ similarity[:3, :3].T / scale
            part, seen = torch.from_numpy(surface["part"]).long(), torch.from_numpy(surface["seen"])
            return Truth(joints, data["size"] * scale, points, normals, part, seen)

    def poses(self, frame: int) -> Tensor:
        """(B, 4, 4) of the true parts in a frame of the video."""
        poses = [torch.eye(4)] * (1 + len(self.joints))
        for joint in self.joints:
            twist = prismatic(joint.axis) if joint.kind == "prismatic" else revolute(joint.axis, joint.pivot)
            poses[joint.child] = poses[joint.parent] @ exponential(joint.states[frame] * twist)
        return torch.stack(poses)

    def joints_at(self, frame: int) -> list[Joint]:
        """The joints where they are in a frame of the video."""
        poses = self.poses(frame)[[joint.parent for joint in self.joints]]
        return [
            replace(joint, axis=pose[:3, :3] @ joint.axis, pivot=move(pose, joint.pivot))
            for joint, pose in zip(self.joints, poses, strict=True)
        ]


def joint_errors(found: list[Joint], truth: Truth) -> dict[str, float | None]:
    """Mean over the true joints, of the assignment that is best: degrees between axes, distance of axes that turn in hundredths of the
    object's size, and the part whose kind is right. A joint that was not found is off by 90 degrees, and of no kind."""
    joints = truth.joints_at(0)  # as ours are
    slots = [*found, *[None] * max(0, len(truth.joints) - len(found))]
    best = min(
        ([_joint_error(one, true, truth.size) for one, true in zip(chosen, joints, strict=True)]
         for chosen in itertools.permutations(slots, len(joints))),
        key=lambda errors: sum(angle + (pivot or 0.0) for angle, pivot, _ in errors),
    )  # fmt: skip
    pivots = [pivot for _, pivot, _ in best if pivot is not None]
    n = len(best)
    return {
        "axis": sum(angle for angle, _, _ in best) / n,
        "pivot": sum(pivots) / len(pivots) if pivots else None,
        "kind": sum(kind for _, _, kind in best) / n,
        "parts": 1.0 + len(found),
    }


def _joint_error(found: Joint | None, true: Joint, size: float) -> tuple[float, float | None, bool]:
    if found is None:
        return 90.0, None, False
    angle = math.degrees(math.acos(min(1.0, abs(float(found.axis @ true.axis)))))
    if "prismatic" in (found.kind, true.kind):
        return angle, None, found.kind == true.kind
    apart, across = found.pivot - true.pivot, torch.linalg.cross(found.axis, true.axis)
    crossing = float(across.norm())
    if crossing < 1e-3:  # parallel: from a point to a line
        distance = float(torch.linalg.cross(apart, true.axis).norm())
    else:
        distance = abs(float(apart @ across)) / crossing
    return angle, 100 * distance / size, found.kind == true.kind


@torch.no_grad()
def surface_errors(field: ArticulatedField | SkinnedField, truth: Truth) -> dict[str, float]:
    """Means over some frames. "chamfer": distances from surface to surface, both ways, added, in hundredths of the object's size;
    "f1": the harmonic mean of the parts that are off by less than one such; "part_iou": of the true surface, by nearest part. The same with
    "_seen" is of what a training frame shows: where parts touch, nothing says which of them is the nearest.

    Distances are to the tangent plane at the nearest of many points, so that their spacing is no floor.
    """
    surface = (_parts_surface if isinstance(field, ArticulatedField) else _skinned_surface)(field)  # type: ignore[arg-type]
    return errors_at_times(lambda frame: surface(field.states_at(float(frame))), truth)


def errors_at_times(surface: Callable[[int], tuple[Tensor, Tensor, Tensor]], truth: Truth) -> dict[str, float]:
    """Of a surface that is, in a frame of the video, points (N, 3), normals (N, 3) and parts (N,)."""
    last = len(truth.joints[0].states) - 1
    results = []
    for frame in np.linspace(0, last, _FRAMES).round().astype(int).tolist():
        results.append(_errors(*surface(frame), truth, truth.poses(frame)))
    return {name: float(np.mean([one[name] for one in results])) for name in results[0]}


Surface = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Of a state: points (N, 3), normals (N, 3), and which part or bone each is of (N,)."""


def _parts_surface(field: ArticulatedField) -> Surface:
    points, normals, label = spread_evenly(list(field.parts))

    def at(states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pose = field.poses(states)[label]
        return move(pose, points), (pose[:, :3, :3] @ normals[..., None])[..., 0], label

    return at


def _skinned_surface(field: SkinnedField) -> Surface:
    points, normals, _ = spread_evenly([field.shape])
    label = field.bones.skin(points, field.sharpness).weights.argmax(1)
    which = torch.zeros_like(label)

    def at(states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moved, _ = field.forward(states[None], which, points)
        return field.middle + field.radius * moved, (states[label, :3, :3] @ normals[..., None])[..., 0], label

    return at


def _errors(ours: Tensor, normals: Tensor, label: Tensor, truth: Truth, poses: Tensor) -> dict[str, float]:
    """At one moment, where points (N, 3) of our surface are labelled (N,) and the true parts have poses (B, 4, 4)."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial import cKDTree

    theirs = move(poses[truth.part], truth.points)
    turned = (poses[truth.part][:, :3, :3] @ truth.normals[..., None])[..., 0]
    back, there = (torch.from_numpy(cKDTree(a).query(b)[1]) for a, b in ((theirs, ours), (ours, theirs)))
    from_ours = ((ours - theirs[back]) * turned[back]).sum(-1).abs() / truth.size
    from_theirs = ((theirs - ours[there]) * normals[there]).sum(-1).abs() / truth.size
    said, n, m = label[there], int(label.max()) + 1, len(poses)
    results: dict[str, float] = {}
    for name, some in (("", torch.ones_like(truth.seen)), ("_seen", truth.seen)):
        off = from_ours[some[back]], from_theirs[some]
        right = [float((d < 0.01).float().mean()) for d in off]
        table = np.array([[iou(said[some] == b, truth.part[some] == k) for k in range(m)] for b in range(n)])
        rows, columns = linear_sum_assignment(-table)
        results |= {
            f"chamfer{name}": 100 * float(off[0].mean() + off[1].mean()),
            f"f1{name}": 2 * right[0] * right[1] / max(sum(right), 1e-9),
            f"part_iou{name}": float(table[rows, columns].sum()) / m,
        }
    return results


def spread_evenly(parts: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Points (N, 3) over the surfaces of parts, as many wherever there is as much of them, each in its part's frame; their normals, and the parts (N,)."""
    meshes = [extract_mesh(part, SURFACE, resolution=_CELLS) for part in parts]
    corners = [torch.from_numpy(mesh.positions[mesh.faces]).float() for mesh in meshes]
    points, triangles = spread_over(torch.cat(corners), _SAMPLES, torch.Generator().manual_seed(0))
    chosen = torch.cat(corners)[triangles]
    sides = chosen[:, 1:] - chosen[:, :1]
    label = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(own) for own in corners]))[triangles]
    return points, torch.nn.functional.normalize(torch.linalg.cross(sides[:, 0], sides[:, 1]), dim=-1), label
