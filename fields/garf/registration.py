"""What can be done without learning: every two fragments are registered on their whole surfaces (FPFH, RANSAC, ICP), and the
likeliest joints span a tree.

Open3D does the work, as published pipelines do; it is here to be compared with.
"""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np

from fields.errors import FieldsError
from fields.garf.clouds import object_scale
from fields.garf.fragment import Fragment, sample
from fields.garf.reassembly import Joint, Reassembly

_POINTS = 40_000
_VOXEL = 0.012
"""In sizes of the object; features look at six of them, and points within one and a half are mates."""


def reassemble_by_registration(fragments: list[Fragment], seed: int = 0) -> Reassembly:
    """
    Raises:
        FieldsError: Open3D is not installed.
    """
    try:
        import open3d as o3d
    except ImportError:
        raise FieldsError("--method registration needs Open3D: pip install 'fields[open3d]'.") from None
    began = time.perf_counter()
    o3d.utility.random.seed(seed)
    o3d.utility.set_verbosity_level(o3d.utility.VerbosityLevel.Error)
    scale = object_scale(fragments)
    samples = sample(fragments, _POINTS, np.random.default_rng(seed), least=200)
    registration = o3d.pipelines.registration
    clouds, features = [], []
    for side in (1, -1):  # a mate is the same surface seen from behind
        for i in range(len(fragments)):
            at = samples.of(i)
            cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(samples.points[at] / scale))
            cloud.normals = o3d.utility.Vector3dVector(side * samples.normals[at])
            cloud = cloud.voxel_down_sample(_VOXEL)
            cloud.normalize_normals()
            clouds.append(cloud)
            around = o3d.geometry.KDTreeSearchParamHybrid(6 * _VOXEL, 100)
            features.append(registration.compute_fpfh_feature(cloud, around))  # type: ignore[call-arg]
    count = len(fragments)
    joints: dict[tuple[int, int], tuple[int, np.ndarray]] = {}
    plane = registration.TransformationEstimationPointToPlane()
    for a, b in combinations(range(count), 2):
        found = registration.registration_ransac_based_on_feature_matching(
            clouds[count + b], clouds[a], features[count + b], features[a], True, 1.5 * _VOXEL,
            registration.TransformationEstimationPointToPoint(False), 3,
            [registration.CorrespondenceCheckerBasedOnEdgeLength(0.9), registration.CorrespondenceCheckerBasedOnDistance(1.5 * _VOXEL),
             registration.CorrespondenceCheckerBasedOnNormal(0.5)],
            registration.RANSACConvergenceCriteria(60_000, 0.999),
        )  # fmt: skip
        pose = found.transformation
        for reach in (1.5, 0.7):
            found = registration.registration_icp(clouds[count + b], clouds[a], reach * _VOXEL, pose, plane)
            pose = found.transformation
        joints[a, b] = len(found.correspondence_set), pose
    anchor = int(np.argmax([f.areas.sum() for f in fragments]))
    poses, placed, kept = np.tile(np.eye(4), (count, 1, 1)), {anchor}, []
    while len(placed) < count:  # the spanning tree of most mates (Prim)
        a, b = max((pair for pair in joints if len(placed & set(pair)) == 1), key=lambda pair: joints[pair][0])
        pose = joints[a, b][1]
        new = b if a in placed else a
        poses[new] = poses[a] @ pose if new == b else poses[b] @ np.linalg.inv(pose)
        placed.add(new)
        kept.append(Joint(a, b, 0.0))
    poses[:, :3, 3] *= scale
    return Reassembly(fragments, anchor, poses, [0] * count, [0.0] * count, kept, time.perf_counter() - began)
