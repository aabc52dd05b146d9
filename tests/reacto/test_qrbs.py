"""`fields train qrbs`: one field that bones bend, on the demo; and what it shares with `fields train reacto`."""

import json
from pathlib import Path

import pytest
import torch
from fields.apps.common import open_run
from fields.apps.viewer.joints import BonesPanel
from fields.apps.viewer.viewer import Subject, Viewer
from scipy.spatial.transform import Rotation

from fields.geometry.rigid import move
from fields.io.run import scene_of
from fields.methods import method
from tests.commands import run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("qrbs") / "laptop"
    assert run("train", "qrbs", "--out", out, "--iterations", 80, "--device", "cpu") == 0
    return out


@pytest.mark.timeout(600)
def test_bones_learn_the_parts(trained, capsys):
    results = json.loads((trained / "metrics.json").read_text())["results"]
    assert results["part_iou"] > 0.7 and results["psnr"] > 22
    capsys.readouterr()
    assert run("eval", trained, "--device", "cpu") == 0
    assert f"PSNR {results['psnr']:.4g}" in capsys.readouterr().out
    assert run("articulate", trained, "--device", "cpu") == 2
    assert "a qrbs has no joints" in capsys.readouterr().err


def test_the_viewer_shows_bones(trained):
    config, field = open_run(trained, "cpu")
    cameras = scene_of(trained, config, None).train.cameras
    viewer = Viewer(Subject("laptop", field, config, cameras), port=7393, own_thread=False)
    try:
        (panel,) = (tab for tab in viewer.tabs_shown if isinstance(tab, BonesPanel))
        panel.time.value = field.times[12]
        torch.testing.assert_close(field.posed, field.motions().detach()[12], atol=1e-4, rtol=0)
        panel.drawn.value = True
        assert panel.in_scene and all(handle.visible for handle in panel.handles)
        rest = field.bones.rest().detach()
        for b, handle in enumerate(panel.handles):
            w, x, y, z = handle.wxyz
            there = field.middle + field.radius * move(field.posed[b] @ rest[b], torch.tensor([0.1, 0.2, 0.3]))
            by_handle = (
                Rotation.from_quat([x, y, z, w]).apply(float(field.radius) * torch.tensor([0.1, 0.2, 0.3]))
                + handle.position
            )
            torch.testing.assert_close(torch.from_numpy(by_handle).float(), there, atol=1e-4, rtol=0)
    finally:
        viewer.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["reacto", "qrbs"])
def test_a_resumed_training_goes_on_as_one_that_was_not_interrupted(name):
    """Bit for bit, from between two milestones."""
    chosen = method(name)
    changes = {
        "iterations": 14,
        "rays": 256,
        "tracks": 60,
        "voxels": (4096, 16384),
        "occupancy_at": (3,),
        "upsample_at": (5, 11),
    }
    if name == "qrbs":
        changes |= {"sparse_at": (2, 6), "gamma_at": (2, 10), "proxy_every": 5}
    config, scene = chosen.config(**changes), chosen.load_scene()
    training = chosen.load_training()(config, scene, seed=0)
    for i in range(8):
        training.step(i)
    tensors, plain = training.state()
    tensors = {k: v.clone() for k, v in tensors.items()}
    other = type(training).resume(config, scene, tensors, json.loads(json.dumps(plain)))
    for i in range(8, 14):
        training.step(i)
        other.step(i)
    mine, theirs = training.field.state_dict(), other.field.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
