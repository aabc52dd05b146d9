"""Geometry of real captures, checked against what their own files or pixels know independently."""

import pytest
import torch

from fields.data import load_scene
from fields.data.colmap_files import read_model


@pytest.fixture
def scene_dir(data_dir):
    def find(name):
        folder = data_dir / "scenes" / name
        if not folder.is_dir():
            pytest.skip(f"{folder.name} is not among the scenes in FIELDS_DATA")
        return folder

    return find


def test_colmap_points_reproject_onto_their_keypoints(scene_dir):
    folder = scene_dir("can_colmap")
    s = load_scene(folder, test_every=0, downscale=2)
    model = read_model(folder / "sparse" / "0")
    row = {int(p): i for i, p in enumerate(model.point_ids)}
    records = {r.name: r for r in model.images}
    errors = []
    for i, name in enumerate(s.train.names):
        r = records[name]
        tracked = r.point_ids >= 0
        assert s.points is not None
        points = s.points[[row[int(p)] for p in r.point_ids[tracked]]]
        xy, depth = s.train.cameras.project(torch.full((len(points),), i), points)
        assert (depth > 0).all()
        errors.append((2 * xy - torch.from_numpy(r.keypoints[tracked]).float()).norm(dim=-1))
    error = torch.cat(errors)
    assert len(error) > 30_000 and error.median() < 0.7  # pixels of the full image; measured 0.644
    assert abs(float(error.mean()) - 0.8468) < 1e-3  # the mean that COLMAP itself stored with the points


def silhouette_agreement(s, resolution: int = 56) -> float:
    """Mean intersection over union of the test views' alpha with the visual hull of the training views'."""
    axes = [torch.linspace(float(s.aabb[0, a]), float(s.aabb[1, a]), resolution) for a in range(3)]
    grid = torch.cartesian_prod(*axes)

    def look(split, i):
        c = split.cameras
        xy, _ = c.project(torch.full((len(grid),), i), grid)
        x, y = xy.floor().long().unbind(-1)
        inside = (x >= 0) & (y >= 0) & (x < c.width[i]) & (y < c.height[i])
        return torch.where(inside, x, 0), torch.where(inside, y, 0), inside

    hull = torch.ones(len(grid), dtype=torch.bool)
    for i in range(0, len(s.train), 3):
        x, y, inside = look(s.train, i)
        hull &= (s.train.images.image(i)[y, x, 3] > 60) | ~inside
    scores = []
    for i in range(len(s.test)):
        x, y, inside = look(s.test, i)
        w, h = int(s.test.cameras.width[i]), int(s.test.cameras.height[i])
        drawn = torch.zeros(h, w)
        drawn[y[hull & inside], x[hull & inside]] = 1
        cell = float((s.aabb[1] - s.aabb[0]).max()) / resolution * float(s.test.cameras.fx[i]) / 4
        k = int(cell / 2) * 2 + 1
        drawn = torch.nn.functional.max_pool2d(drawn[None, None], k, 1, k // 2)[0, 0] > 0
        alpha = s.test.images.image(i)[..., 3] > 60
        scores.append(float((drawn & alpha).sum() / (drawn | alpha).sum()))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("name", ["lego_200", "mold_cape"])
def test_silhouettes_agree_with_the_visual_hull(scene_dir, name):
    s = load_scene(scene_dir(name), downscale=1 if name == "lego_200" else 2)
    assert s.alpha and not s.real
    # A hull on a coarse grid is a little fat; a wrong axis or principal point gives less than 0.6.
    assert silhouette_agreement(s) > 0.88


def test_downscaled_lego_equals_the_official_reduction(scene_dir):
    ours = load_scene(scene_dir("lego"), downscale=4, max_images=4).train.images.data.float()
    theirs = load_scene(scene_dir("lego_200"), max_images=4).train.images.data.float()
    a, b = (t[:, :3] * t[:, 3:] / 255 for t in (ours, theirs))
    assert (a - b).abs().max() <= 2 and (ours[:, 3] - theirs[:, 3]).abs().max() <= 1


def test_fox_is_photo_consistent(scene_dir):
    """Patches swept along their rays find themselves in other views; with OpenCV axes they find nothing."""
    s = load_scene(scene_dir("fox"), downscale=8, test_every=0)
    assert s.real and s.train.cameras.distortion.abs().max() > 0.05
    right = sweep_score(s, s.train.cameras)
    flipped = s.train.cameras[:]
    flipped.world_from_camera = flipped.world_from_camera.clone()
    flipped.world_from_camera[:, :3, 1:3] *= -1
    assert right > 0.9 and sweep_score(s, flipped) < 0.6  # measured at an eighth of the size


def sweep_score(s, cameras, i: int = 12, n: int = 60, radius: int = 4) -> float:
    """Median over patches of the best normalised correlation with the better two of six neighbouring
    views."""
    grey = [s.train.images.image(j)[..., :3].float().mean(-1) for j in range(len(s.train))]
    h, w = grey[i].shape
    gy, gx = torch.gradient(grey[i])
    energy = (gx**2 + gy**2)[12:-12, 12:-12]
    best = energy.flatten().topk(40 * n).indices[::40]
    cy, cx = best // energy.shape[1] + 12, best % energy.shape[1] + 12
    span = torch.arange(-radius, radius + 1)
    oy, ox = (t.reshape(-1) for t in torch.meshgrid(span, span, indexing="ij"))
    px, py = cx[:, None] + ox, cy[:, None] + oy

    def normalised(a):
        return (a - a.mean(-1, keepdim=True)) / (a.std(-1, keepdim=True) + 0.1)

    patch = normalised(grey[i][py, px])
    xy = torch.stack([px, py], -1).view(-1, 2) + 0.5
    o, d = cameras.rays(torch.full((len(xy),), i), xy)
    along = (d * cameras.forward[i]).sum(-1)
    apart = (cameras.centres - cameras.centres[i]).norm(dim=-1) - 3 * cameras.forward @ cameras.forward[i]
    neighbours = apart.argsort()[1:7].tolist()
    score = torch.full((n,), -1.0)
    for z in torch.logspace(0.3, 1.0, 60):
        found = []
        for j in neighbours:
            q, _ = cameras.project(torch.full((len(xy),), j), o + d * (z / along)[:, None])
            q = (q / torch.tensor([w, h]) * 2 - 1).nan_to_num(9)
            v = torch.nn.functional.grid_sample(grey[j][None, None], q.view(1, n, -1, 2), align_corners=False)[0, 0]
            ok = (q.abs() < 1).all(-1).view(n, -1).all(-1)
            found.append(torch.where(ok, (patch * normalised(v)).mean(-1), torch.tensor(-1.0)))
        score = torch.maximum(score, torch.stack(found).topk(2, 0).values.mean(0))
    return float(score.median())


def test_dtu_intrinsics_are_the_known_ones(scene_dir):
    c = load_scene(scene_dir("dtu_scan24_3view"), test_every=0).train.cameras
    expected = torch.tensor([2892.33, 2883.18, 823.2 + 0.5, 619.07 + 0.5]) / 2  # the rig's published calibration
    assert torch.allclose(torch.stack([c.fx[0], c.fy[0], c.cx[0], c.cy[0]]), expected, atol=0.01)
