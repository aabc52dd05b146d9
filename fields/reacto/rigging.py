"""From parts and joints of tracks to parts that fill boxes: where each part is, and what of it the silhouettes allow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fields.data.scene import Split
from fields.errors import DataError
from fields.geometry.rigid import inverse, move
from fields.radiance import dilate
from fields.reacto.parts import Part, noise_of, poses_of
from fields.reacto.scene import VideoScene
from fields.reacto.tracks import Tracks
from fields.tensors import resolution_for
from fields.training.carving import visual_hull

_OUTSIDE = 0.005  # of a part's points to either side, that its box leaves out
_MARGIN = 0.06  # of the part's longest edge, around its points
_PIECE = 0.02  # of the points of a part, that a piece of it must have
_POINTS = 40  # that say where a part is
_CLEAR = 2.0  # cells before what is seen, that stay
_LED = 8  # sights through a cell, that it takes to be empty
_SIGHTS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Rig:
    """A part in its place; lengths are in scene units, where nothing else is said."""

    parent: int
    twist: Tensor
    """(6,), where all joints are at zero; lengths are radii of the scene's box, about its middle."""
    states: Tensor
    """(T,) in every training frame."""
    frame: Tensor
    """(4, 4) rigid: from the part's own frame, along its main axes, to the scene's."""
    aabb: Tensor
    """(6,) in its own frame."""
    points: Tensor
    """(P, 3) of its surface, in its own frame."""
    occupied: Tensor
    """Cells that silhouettes and sights allow."""


def rig(scene: VideoScene, tracks: Tracks, parts: list[Part], cells: int) -> list[Rig]:
    """The parts in their boxes.

    Raises:
        DataError: a part of which there is nothing to be seen.
    """
    frames = len(scene.train)
    middle, radius = scene.aabb.mean(0), (scene.aabb[1] - scene.aabb[0]).max() / 2
    poses = poses_of(parts, frames)
    placed = [_in_scene(pose, middle, radius) for pose in poses]
    misfit = torch.stack([tracks.misfit(pose) for pose in poses])
    tolerance = noise_of(tracks, frames)
    found = []
    for b, part in enumerate(parts):
        others = torch.cat([misfit[:b], misfit[b + 1 :]])
        surely = misfit[b] < 2 * tolerance
        if len(others):
            surely &= others.amin(0) > 2 * misfit[b].clamp(min=tolerance)
        points = tracks.select(surely.nonzero()[:, 0]).triangulate(poses[b])[0] * radius + middle
        points = points[(points - middle).norm(dim=-1) < 1.5 * radius]
        if len(points) < _POINTS:
            raise DataError(
                f"{scene.path}: part {b} is seen in {len(points)} tracks only. Ask for fewer parts with --parts."
            )
        frame, aabb, own = box_around(points)
        split = _as_seen_by(scene.train, placed[b] @ frame)
        hull = visual_hull(split, aabb, resolution_for(aabb.view(2, 3), cells))
        found.append(Rig(part.parent, part.twist, part.states, frame, aabb, own, hull))
    sights = _sights(tracks, poses, misfit, tolerance, middle, radius)
    found = [_seen_through(one, pose, sights) for one, pose in zip(found, placed, strict=True)]
    return [_apart(found, b, placed) for b in range(len(found))]


def _sights(
    tracks: Tracks, poses: list[Tensor], misfit: Tensor, tolerance: float, middle: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Frames (S,), cameras (S, 3) and what they see (S, 3), in scene units: nothing is between."""
    frames, eyes, seen = [], [], []
    for b, pose in enumerate(poses):
        own = tracks.select(((misfit.argmin(0) == b) & (misfit[b] < tolerance)).nonzero()[:, 0])
        points = own.triangulate(pose)[0][:, None].expand(-1, own.frame.shape[1], 3)[own.seen]
        frames.append(own.frame[own.seen])
        eyes.append(own.origins[own.seen])
        seen.append(move(pose[frames[-1]], points))
    return torch.cat(frames), torch.cat(eyes) * radius + middle, torch.cat(seen) * radius + middle


def _seen_through(rig: Rig, poses: Tensor, sights: tuple[Tensor, Tensor, Tensor]) -> Rig:
    """Without the cells that several sights lead through, but for those at its own surface, along which sights may lead. That a drawer is
    hollow, silhouettes cannot say."""
    low, high = rig.aabb.view(2, 3)
    size = torch.tensor(rig.occupied.shape, device=low.device)
    cell = float(((high - low) / size).max())
    back = torch.arange(
        _CLEAR * cell, float((high - low).norm()), cell, device=low.device
    )  # from what is seen towards the eye
    count = torch.zeros(rig.occupied.numel(), device=low.device)
    for frame, eye, seen in zip(*(one.split(_SIGHTS_AT_ONCE) for one in sights), strict=True):
        into = inverse(poses[frame] @ rig.frame)
        eye, seen = move(into, eye), move(into, seen)
        along = torch.nn.functional.normalize(seen - eye, dim=-1)
        places = seen[:, None] - back[:, None] * along[:, None]
        x, y, z = _cells(rig, places.flatten(0, 1)).unbind(-1)
        count += torch.bincount((x * size[1] + y) * size[2] + z, minlength=len(count))
    surface = torch.zeros_like(rig.occupied)
    surface[_cells(rig, rig.points).unbind(-1)] = True
    kept = rig.occupied & ((count.view(rig.occupied.shape) < _LED) | dilate(surface))
    return replace(rig, occupied=kept) if kept.any() else rig


def _apart(rigs: list[Rig], b: int, poses: list[Tensor]) -> Rig:
    """Part b without the cells that surfaces of other parts pass through, and what that leaves of the insides of these."""
    from scipy.ndimage import label

    rig = rigs[b]
    passed = torch.zeros_like(rig.occupied)
    for a, other in enumerate(rigs):
        if a != b:
            into = inverse(poses[b] @ rig.frame) @ poses[a] @ other.frame  # in every training frame
            cells = _cells(rig, move(into[:, None], other.points).flatten(0, 1))
            passed[cells.unbind(-1)] = True
    seen = _cells(rig, rig.points)
    passed[seen.unbind(-1)] = False
    pieces, _ = label((rig.occupied & ~passed).cpu().numpy())
    pieces = torch.from_numpy(pieces).to(rig.points.device)
    votes = torch.bincount(pieces[seen.unbind(-1)], minlength=int(pieces.max()) + 1)
    votes[0] = 0
    kept = (votes > _PIECE * votes.sum())[pieces.long()]
    return replace(rig, occupied=kept.to(rig.occupied.device)) if kept.any() else rig


def _cells(rig: Rig, points: Tensor) -> Tensor:
    """(M, 3) int64: which of its cells points (N, 3) in its own frame are in; of those outside nothing is said."""
    low, high = rig.aabb.view(2, 3)
    size = torch.tensor(rig.occupied.shape, device=points.device)
    cells = ((points - low) / (high - low) * size).floor().long()
    return cells[((cells >= 0) & (cells < size)).all(-1)]


def _in_scene(poses: Tensor, middle: Tensor, radius: Tensor) -> Tensor:
    """Poses whose lengths are radii about the middle, in scene units about the origin."""
    moved = poses.clone()
    moved[:, :3, 3] = radius * poses[:, :3, 3] + middle - (poses[:, :3, :3] @ middle)
    return moved


def box_around(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A frame (4, 4) along the main axes of points (P, 3), the box (6,) of most of them in it, with a margin, and the points in it."""
    middle = points.median(0).values
    _, _, axes = torch.linalg.svd(points - middle, full_matrices=False)
    rotation = axes.mT
    rotation = rotation * torch.linalg.det(rotation)  # of three columns: turned around if it mirrors
    frame = torch.eye(4, device=points.device)
    frame[:3, :3], frame[:3, 3] = rotation, middle
    own = (points - middle) @ rotation
    low, high = own.quantile(_OUTSIDE, 0), own.quantile(1 - _OUTSIDE, 0)
    margin = _MARGIN * (high - low).max()
    return frame, torch.cat([low - margin, high + margin]), own


def _as_seen_by(split: Split, poses: Tensor) -> Split:
    """The images as if the part with these poses (T, 4, 4) stood still and the cameras moved around it."""
    moved = inverse(poses) @ split.cameras.world_from_camera
    return Split(replace(split.cameras, world_from_camera=moved), split.images, split.names)
