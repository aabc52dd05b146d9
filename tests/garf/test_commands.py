"""The commands people run, on the embedded vase and on things of their own."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
import trimesh

from fields.errors import CheckpointError, ConfigError
from fields.garf.config import GarfConfig
from fields.garf.fragment import Fragment
from fields.garf.objects import broken, prepare
from fields.garf.reading import load_fragments
from fields.garf.reassembly import load_model, reassemble
from fields.garf.report import errors_against
from fields.garf.results import standing, told, write_poses
from fields.garf.snapping import Settler
from fields.garf.training import GarfTraining
from fields.methods import shipped
from tests.commands import run

DEMO = shipped("assets") / "demo-garf"


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def vase(tmp_path_factory):
    out = tmp_path_factory.mktemp("vase")
    assert run("reassemble", DEMO, "--out", out) == 0
    return out


def test_the_vase_is_whole(vase, capfd):
    said = json.loads((vase / "poses.json").read_text())
    assert set(said["group"].values()) == {0} and min(said["confidence"].values()) > 0.9
    truth = json.loads((DEMO / "truth.json").read_text())["world_from_fragment"]
    home = np.linalg.inv(truth[said["anchor"]])
    for name, pose in said["world_from_fragment"].items():
        off = np.linalg.inv(home @ truth[name]) @ pose
        assert np.degrees(np.arccos(min(1.0, (np.trace(off[:3, :3]) - 1) / 2))) < 1.0
    # None is in another: TOLERATED is 1e-4 of the smaller one.
    assert max(joint["overlap"] for joint in said["joints"]) < 1e-3
    whole = trimesh.load(vase / "assembled.ply")
    assert np.ptp(whole.vertices, 0).max() < 1.3 and len(whole.faces) == sum(len(f.faces) for f in load_fragments(DEMO))
    nodes = trimesh.load_scene(vase / "assembled.glb").graph.nodes_geometry
    assert len(nodes) == 7
    page = (vase / "report.html").read_text()
    assert page.count("<img") == 4 and "piece_6" in page and "http" not in page


def test_it_does_not_care_for_order_frame_or_unit(model):
    """The same vase, its fragments in another order, turned, moved, and in millimetres."""
    torch.manual_seed(0)
    given = load_fragments(DEMO)
    truth = json.loads((DEMO / "truth.json").read_text())["world_from_fragment"]
    order = [3, 0, 6, 2, 5, 1, 4]
    other, home = [], []
    for i in order:
        pose = np.eye(4)
        pose[:3, :3] = 1000 * roma.random_rotmat(1)[0].double().numpy()
        pose[:3, 3] = 500 * torch.randn(3).double().numpy()
        turned = Fragment(given[i].name, given[i].vertices @ pose[:3, :3].T + pose[:3, 3], given[i].faces)
        other.append(turned)
        back = np.array(truth[given[i].name]) @ np.linalg.inv(pose)
        back[:3] *= 1000  # the world in millimetres too
        home.append(back)
    found = reassemble(other, model)
    errors = errors_against(np.array(home), found)
    assert errors["solved"] == 1 and errors["geodesic"] < 1 and found.fragments[found.anchor].name == "piece_0"


def test_the_same_seed_gives_the_same_poses(model):
    _, pieces, _ = broken(2_000_000, 3, "bowl")
    one, two = (reassemble(pieces, model, seed=4).world_from_fragment for _ in range(2))
    assert np.array_equal(one, two)


def test_what_does_not_belong_is_not_placed(model):
    _, pieces, _ = broken(2_000_001, 3, "vase")
    _, foreign, _ = broken(2_000_002, 4, "stone")
    turn = np.eye(4)
    turn[:3, 3] = 3.0
    found = reassemble([*pieces, foreign[1].moved(turn)], model)
    assert found.group[:3] == [0, 0, 0] and found.group[3] != 0
    # Where it may belong is told, as unlikely; to guess moves it there, rigidly, and nothing else.
    assert all(place.group == 1 and place.confidence < 0.2 for place in found.perhaps)
    guessed = found.guessed()
    assert np.array_equal(guessed[:3], found.world_from_fragment[:3])
    assert not np.allclose(guessed[3], found.world_from_fragment[3])
    assert np.allclose(guessed[3, :3, :3] @ guessed[3, :3, :3].T, np.eye(3), atol=1e-5)


def test_what_is_missing_is_noticed(vase, model, capfd):
    """Of the vase without one of its larger pieces less break has its counterpart, and that is said."""
    whole = json.loads((vase / "poses.json").read_text())["met"]
    fragments = load_fragments(DEMO)
    found = reassemble([f for f in fragments if f.name != "piece_2"], model)
    assert whole > 0.8 and found.met < whole - 0.1
    assert "missing" in told(found)


def test_crumbs_and_copies_are_left_out_and_told(model):
    """Neither is tried; what is in another unit is a crumb. The rest comes together as if they were not there."""
    _, pieces, _ = broken(2_000_003, 3, "tube")
    ball = trimesh.creation.icosphere(1, 0.004)
    crumb = Fragment("crumb", np.array(ball.vertices), np.array(ball.faces))
    found = reassemble([*pieces, crumb, replace(pieces[1], name="again")], model)
    assert found.group[:3] == [0, 0, 0] and 0 not in found.group[3:]
    assert "too small" in standing(found, 3) and f"the same as {pieces[1].name}" in standing(found, 4)
    assert not found.perhaps and "Little is sure" not in told(found)


def test_what_is_not_broken_is_not_said_to_be_complete(model):
    balls = [trimesh.creation.icosphere(3, radius) for radius in (1.0, 0.8)]
    found = reassemble([Fragment(str(k), np.array(b.vertices), np.array(b.faces)) for k, b in enumerate(balls)], model)
    assert found.group == [0, 1] and not found.met
    assert "No break was found" in told(found) and "Little is sure" in told(found)


def test_a_site_far_from_the_origin_of_its_map(model, tmp_path):
    """Half a million sizes away: in single precision nothing would be left of the fragments, in poses nor in files."""
    _, pieces, _ = broken(2_000_003, 3, "tube")
    away = np.array([500_000.0, 500_000.0, 400.0])
    found = reassemble([replace(p, vertices=p.vertices + away) for p in pieces], model)
    errors = errors_against(np.tile(np.eye(4), (3, 1, 1)), found)
    assert errors["solved"] == 1
    write_poses(tmp_path, found)
    assert "comment origin: " in (tmp_path / "assembled.ply").read_bytes()[:200].decode("latin1")
    whole = trimesh.load(tmp_path / "assembled.ply")
    assert np.abs(whole.bounds).max() < 2  # the object is about 1 large, its origin rounded to 1
    # A fragment settles there as well.
    settled = Settler.of(found.fragments, model).snap(found, 1)
    near = np.linalg.inv(settled.world_from_fragment[0]) @ settled.world_from_fragment[1]
    moved = near[:3, :3] @ found.fragments[1].middle + near[:3, 3] - found.fragments[1].middle
    assert np.linalg.norm(moved) < 0.01  # where it was; single precision alone would leave it 0.03 off


def test_open_and_repeated_meshes_are_put_together_as_well(model):
    """Every triangle with corners of its own, and a hole in the largest: nothing is closed."""
    _, pieces, _ = broken(2_000_003, 3, "tube")
    loose = [Fragment(p.name, p.corners.reshape(-1, 3), np.arange(3 * len(p.faces)).reshape(-1, 3)) for p in pieces]
    loose[0] = Fragment("holed", loose[0].vertices, loose[0].faces[50:])
    found = reassemble(loose, model)
    assert errors_against(np.tile(np.eye(4), (3, 1, 1)), found)["solved"] == 1
    assert math.isnan(found.joints[0].overlap)


def test_breaking_and_putting_together(tmp_path, capfd):
    trimesh.creation.torus(1.0, 0.3, 64, 32).export(tmp_path / "ring.obj")
    assert run("fracture", tmp_path / "ring.obj", "--pieces", 4, "--seed", 1, "--out", tmp_path / "sherds") == 0
    assert sorted(p.name for p in (tmp_path / "sherds").iterdir()) == [
        *(f"piece_{k}.ply" for k in range(4)),
        "preview.png",
        "truth.json",
    ]
    assert run("reassemble", tmp_path / "sherds") == 0
    assert "100 % of parts right (strictly" in capfd.readouterr().out
    assert (tmp_path / "sherds" / "reassembled" / "report.html").is_file()


BAD = {
    "missing mesh": (["fracture", "nowhere.ply"], "no such file"),
    "one piece": (["fracture", "vase", "--pieces", "1"], "2 to 100"),
    "rough beyond reason": (["fracture", "vase", "--roughness", "-1"], "share of the diagonal"),
    "open mesh": (["fracture", "{open}"], "not a closed surface"),
    "missing folder": (["reassemble", "nowhere"], "no such folder"),
    "unknown method": (["reassemble", "--method", "glue"], "registration"),
    "no model": (["reassemble", "--model", "nowhere"], "no such file"),
    "out among the fragments": (["reassemble", "{used}", "--out", "{used}"], "taken for more of them"),
    "damaged truth": (["reassemble", "{pair}"], "where each of these fragments belongs"),
    "folder in use": (["fracture", "vase", "--out", "{used}"], "not empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_get_one_line(case, tmp_path, capfd):
    box = trimesh.creation.box()
    box.update_faces(np.arange(len(box.faces)) > 0)
    box.export(tmp_path / "open.ply")
    pair = tmp_path / "pair"
    pair.mkdir()
    for name in "ab":
        box.export(pair / f"{name}.ply")
    (pair / "truth.json").write_text("{")
    arguments, said = BAD[case]
    assert run(*(a.format(open=tmp_path / "open.ply", used=tmp_path, pair=pair) for a in arguments)) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert said in error and error.startswith("error: ")


@pytest.fixture(scope="module")
def clouds(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("objects"), 3, lambda done, total: None)


KEPT = {"encoder_iterations": 0, "start_from": str(shipped("assets") / "garf")}


@pytest.mark.parametrize("encoder", [{"encoder_iterations": 6}, KEPT])
def test_a_resumed_training_goes_on_as_one_that_was_not_interrupted(encoder, clouds, model):
    """Bit for bit, within the encoder's part and within the flow's; and where the encoder is another model's, it stays so."""
    config = GarfConfig(objects=3, joint_objects=2, flow_iterations=6, batch=2, tokens=200, **encoder)
    training = GarfTraining(config, clouds, 0)
    others = []
    for i in range(config.iterations):
        if i in (3, 9):
            tensors, plain = training.state()
            others.append(GarfTraining.resume(config, clouds, 0, {k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(plain))))  # fmt: skip
        for other in others:
            other.step(i)
        training.step(i)
    for other in (training, *others):
        other.finish()
        mine, theirs = training.model.state_dict(), other.model.state_dict()
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
    kept = model.state_dict()
    assert all(torch.equal(mine[k], kept[k]) for k in kept) is bool(config.start_from)


def test_a_flow_for_a_model_needs_that_model(tmp_path):
    flow_only = KEPT | {"flow_iterations": 1}
    with pytest.raises(ConfigError, match="size is cpu, not paper"):
        GarfTraining(GarfConfig(size="paper", **flow_only), [], 0)
    with pytest.raises(CheckpointError, match="no such file"):
        GarfTraining(GarfConfig(**flow_only | {"start_from": str(tmp_path)}), [], 0)
    with pytest.raises(CheckpointError, match="no such file"):  # before anything is broken
        GarfTraining.gather(GarfConfig(**flow_only | {"start_from": str(tmp_path)}), tmp_path / "objects", print)
    assert not (tmp_path / "objects").exists()


def test_training_by_the_command(tmp_path, capfd):
    short = ["--objects", 2, "--encoder-iterations", 2, "--flow-iterations", 0, "--joint-objects", 2]
    assert run("train", "garf", *short, "--out", tmp_path / "run") == 0
    assert load_model(tmp_path / "run").verifier.linear.weight.any()
    assert run("train", "garf", *short, "--out", tmp_path / "run", "--resume", "--fit", 0.1) == 2
    assert "another fit" in capfd.readouterr().err


def test_crumbs_far_away_do_not_matter(model):
    """A scan's stray triangle, a hundred sizes away: what is looked up stays small, and the rest fits as before."""
    _, pieces, _ = broken(2_000_003, 3, "tube")
    far = pieces[0].vertices.mean(0) + [[100, 100, 100], [100.01, 100, 100], [100, 100.01, 100]]
    count = len(pieces[0].vertices)
    spoilt = Fragment("spoilt", np.concatenate([pieces[0].vertices, far]), np.concatenate([pieces[0].faces, [[count, count + 1, count + 2]]]))  # fmt: skip
    found = reassemble([spoilt, *pieces[1:]], model)
    assert found.group == [0, 0, 0]


@pytest.mark.parametrize(
    "setting",
    [["--size", "huge"], ["--objects", 0], ["--tokens", 3], ["--flow-iterations", -1], ["--start-from", DEMO]],
)
def test_settings_without_sense_are_refused(setting, tmp_path, capfd):
    assert run("train", "garf", *setting, "--out", tmp_path / "run") != 0
    assert "Traceback" not in capfd.readouterr().err and not (tmp_path / "run").exists()
