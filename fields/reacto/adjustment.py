"""Bundle adjustment of one joint: its axis, its states and where points are, to the tracks that go along with it.

Levenberg and Marquardt's method on reprojection errors, points eliminated (Triggs et al.: Bundle Adjustment, a Modern Synthesis, 2000, section 6), with
the weights of Geman and McClure's loss, whose scale falls: what is far off ever more surely belongs to something else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fields.geometry.rigid import move
from fields.reacto.screws import exponential, left_jacobian, slides
from fields.reacto.tracks import Tracks

_SCALES = (8.0, 4.0, 2.0, 1.0)  # of the loss, in tolerances, one after the other
_SMOOTH = 1e-3  # weight of how velocities of the states change: it decides only where nothing is seen
_DAMPED = 1e-4  # of the diagonal at first


def adjust(tracks: Tracks, twist: Tensor, states: Tensor, tolerance: float, rounds: int) -> tuple[Tensor, Tensor]:
    """A twist (6,) and states (T,) that fit tracks, which are in the frame of the joint's parent; the twist turns by one radian, or slides by
    one unit, per unit. A twist that only slides stays one.

    Args:
        tolerance: pixels that tracks may be off by.
        rounds: steps at each scale.
    """
    problem = _Problem(tracks.double(), bool(slides(twist)))
    twist, states, damping = twist.double(), states.double(), _DAMPED
    for scale in _SCALES:
        loss = problem.loss(twist, states, scale * tolerance)
        for _ in range(rounds):
            hessian, gradient = problem.normal_equations(twist, states, scale * tolerance)
            held = hessian + torch.diag(damping * hessian.diagonal() + 1e-9)
            step = torch.linalg.solve(held, gradient)
            tried = problem.normalised(twist - step[:6], states - step[6:])
            if (after := problem.loss(*tried, scale * tolerance)) < loss:
                done = loss - after < 1e-6 * loss
                (twist, states), loss, damping = tried, after, damping / 5
                if done:
                    break
            else:
                damping *= 10
    return twist.to(tracks.origins), states.to(tracks.origins)


class _Problem:
    def __init__(self, tracks: Tracks, slides: bool) -> None:
        self.tracks, self.slides = tracks, slides
        self.share = tracks.seen / tracks.seen.sum(1, keepdim=True)  # of a sighting in its track

    def normalised(self, twist: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        size = (twist[3:] if self.slides else twist[:3]).norm()
        return twist / size, states * size

    def loss(self, twist: Tensor, states: Tensor, scale: float) -> float:
        square = self.tracks.misfit(exponential(states[:, None] * twist)).square()
        return float((square / (square + scale**2)).mean() + _SMOOTH * states.diff(n=2).square().mean())

    def normal_equations(self, twist: Tensor, states: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """(6 + T, 6 + T) and (6 + T,), of twist and states, for the best points."""
        tracks, t = self.tracks, len(states)
        poses = exponential(states[:, None] * twist)
        points, off = tracks.triangulate(poses)
        square = (off.square() * self.share).sum(1)
        weight = scale**2 / (square + scale**2).square()
        pose, frame = poses[tracks.frame], tracks.frame
        y = move(pose, points[:, None])
        away = y - tracks.origins
        along = (away * tracks.directions).sum(-1).clamp(min=1e-3)
        scaled = tracks.focal / along * (weight[:, None] * self.share / len(tracks)).sqrt()
        pushed = scaled[..., None] * tracks.directions
        residual = torch.linalg.cross(pushed, away)  # pixels, weighted

        # What moves y moves the residual: rows (N, J, …, 3) by axis, by its state, and by the point in its part.
        axis = states[:, None, None] * left_jacobian(states[:, None] * twist).mT
        if self.slides:
            axis = axis * twist.new_tensor([0, 0, 0, 1, 1, 1])[:, None]
        ways = torch.cat([axis, twist.expand(t, 1, 6)], 1)[frame]  # (N, J, 7, 6) twists of the pose
        moved = torch.linalg.cross(ways[..., :3], y[..., None, :]) + ways[..., 3:]
        moved = torch.cat([moved, pose[..., :3, :3].mT], -2)
        by = torch.linalg.cross(pushed[..., None, :].expand_as(moved), moved)
        by_twist, by_state, by_point = by[..., :6, :], by[..., 6, :], by[..., 7:, :]

        # Of points, and of points with everything else.
        rows = by_point.transpose(1, 2).flatten(2)  # (N, 3, 3 J)
        xx = rows @ rows.mT + 1e-12 * torch.eye(3).to(y)
        x = rows @ residual.flatten(1)[..., None]
        xp = torch.zeros(len(tracks), 3, 6 + t).to(y)
        xp[..., :6] = rows @ by_twist.transpose(1, 2).flatten(2).mT
        with_state = (by_point * by_state[..., None, :]).sum(-1).mT
        xp[..., 6:].scatter_add_(2, frame[:, None].expand(-1, 3, -1), with_state)
        # Of everything else.
        pp, p = torch.zeros(6 + t, 6 + t).to(y), torch.zeros(6 + t).to(y)
        flat = by_twist.flatten(0, 1).transpose(0, 1).flatten(1)  # (6, 3 N J)
        pp[:6, :6] = flat @ flat.mT
        mixed = (by_twist * by_state[..., None, :]).sum(-1)
        pp[:6, 6:] = torch.zeros(t, 6).to(y).index_add(0, frame.flatten(), mixed.flatten(0, 1)).mT
        pp[6:, :6] = pp[:6, 6:].mT
        pp[6:, 6:] = torch.diag(torch.zeros(t).to(y).index_add(0, frame.flatten(), by_state.square().sum(-1).flatten()))
        p[:6] = flat @ residual.flatten()
        p[6:].index_add_(0, frame.flatten(), (by_state * residual).sum(-1).flatten())
        # What points do about it is taken away.
        solution = torch.linalg.inv(xx)
        away_p, away_x = (solution @ xp).flatten(0, 1), (solution @ x).flatten()
        bends = torch.eye(t).to(y).diff(n=2, dim=0) * (_SMOOTH / max(1, t - 2)) ** 0.5
        hessian, gradient = pp - xp.flatten(0, 1).mT @ away_p, p - xp.flatten(0, 1).mT @ away_x
        hessian[6:, 6:] += bends.mT @ bends
        gradient[6:] += bends.mT @ (bends @ states)
        return hessian, gradient
