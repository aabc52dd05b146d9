"""The real commands on the embedded demo, a few iterations of it."""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from fields.apps import cli
from safetensors.torch import load_file, save_file

import fields
from fields.io.atomic import read_tensors, write_tensors
from tests.commands import run

SHORT = ["--iterations", "200", "--downscale", "4", "--device", "cpu"]  # where two runs have the same bits


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert run("train", "tensorf-vm", "--out", out, *SHORT) == 0
    return out


def test_train_leaves_a_complete_run_folder(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["schema"] == 1 and metrics["iterations"] == 200 and len(metrics["per_image"]) == 12
    assert metrics["results"]["psnr"] > 15  # a white image has 13 dB
    assert len(list((trained / "renders").glob("*.png"))) == 12
    assert (trained / "renders" / "orbit" / "rgb.mp4").stat().st_size > 1000
    assert list(trained.glob("events*")) and (trained / "checkpoints" / "last.safetensors").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_trains_alike_and_resumes(trained, tmp_path):
    """The same schedule from the same seed; random numbers and the order of sums differ, so PSNR agrees to half a dB."""
    on_gpu = [*SHORT[:-1], "cuda", "--config", "fast", "--out", tmp_path]
    assert run("train", "tensorf-vm", *on_gpu) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    want = json.loads((trained / "metrics.json").read_text())["results"]["psnr"]
    assert metrics["backend"].startswith("cuda-sm_") and metrics["results"]["psnr"] == pytest.approx(want, abs=0.5)
    tensors, header = read_tensors(tmp_path / "checkpoints" / "last.safetensors")
    write_tensors(tmp_path / "checkpoints" / "last.safetensors", tensors, header | {"iteration": 190})
    assert run("train", "tensorf-vm", *on_gpu, "--resume") == 0
    assert run("render", tmp_path, "--frames", 2, "--size", 32, 24, "--out", tmp_path / "look") == 0


def test_eval_measures_the_same(trained, capsys):
    before = json.loads((trained / "metrics.json").read_text())["results"]
    assert run("eval", trained) == 0
    after = json.loads((trained / "metrics.json").read_text())["results"]
    assert after["psnr"] == pytest.approx(before["psnr"], abs=1e-6)


@pytest.mark.parametrize("path", ["orbit", "spiral", "interpolate"])
def test_render_writes_videos_and_images(trained, tmp_path, path):
    assert run("render", trained, "--path", path, "--frames", 3, "--size", 32, 24, "--out", tmp_path) == 0
    assert (tmp_path / "rgb.mp4").exists() and len(list((tmp_path / "depth").glob("*.png"))) == 3
    again = ["--path", tmp_path / "camera_path.json", "--out", tmp_path / "again"]
    assert run("render", trained, *again) == 0
    first, second = (iio.imread(folder / "rgb" / "0002.png") for folder in (tmp_path, tmp_path / "again"))
    assert np.abs(first.astype(int) - second).max() <= 2  # degrees of the field of view, and back


def test_render_reads_a_nerfstudio_path(trained, tmp_path):
    pose = torch.eye(4)
    pose[2, 3] = 4.0
    frame = {"camera_to_world": pose.flatten().tolist(), "fov": 40.0, "aspect": 1.0}
    file = tmp_path / "path.json"
    file.write_text(json.dumps({"camera_type": "perspective", "render_height": 20, "render_width": 30, "fps": 24, "seconds": 1,
                                "camera_path": [frame, frame]}))  # fmt: skip
    assert run("render", trained, "--path", file, "--out", tmp_path / "o") == 0
    assert len(list((tmp_path / "o" / "rgb").glob("*.png"))) == 2


def test_python_api(trained):
    field = fields.load(trained)
    image = fields.render(field, fields.orbit(2, size=(24, 16)))
    assert image.rgb.shape == (16, 24, 3) and image.depth.shape == (16, 24)
    assert len(list(fields.render_path(field, fields.orbit(2, size=(8, 8))))) == 2


# ---------------------------------------------------------------------------------------- stopping and going on


def train_in_another_process(out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "fields.apps.cli", "train", "tensorf-vm", "--out", str(out), *SHORT, *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_interrupted_and_resumed_is_bit_for_bit_the_same(trained, tmp_path):
    process = train_in_another_process(tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if "tensorf-vm: 80/200" in line:  # some way in, before the last milestone
            process.send_signal(signal.SIGTERM)
            break
    process.stderr.read()
    assert process.wait(60) == 130 and not (tmp_path / "model.safetensors").exists()
    assert run("train", "tensorf-vm", "--out", tmp_path, *SHORT, "--resume") == 0
    want, got = load_file(trained / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert want.keys() == got.keys() and all(torch.equal(want[k], got[k]) for k in want)


def test_killed_while_saving_and_resumed_is_bit_for_bit_the_same(trained, tmp_path):
    process = train_in_another_process(tmp_path, "--checkpoint-seconds", "0.3")
    folder = tmp_path / "checkpoints"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # until a second checkpoint is being written beside the first
        names = os.listdir(folder) if folder.exists() else []
        if "last.safetensors" in names and any(name.startswith(".") for name in names):
            process.kill()
            break
    assert process.wait(60) == -signal.SIGKILL
    process.stderr.close()
    left = {f.name for f in folder.iterdir()}
    assert "last.safetensors" in left and not (tmp_path / "model.safetensors").exists()
    assert run("train", "tensorf-vm", "--out", tmp_path, *SHORT, "--resume") == 0
    assert {f.name for f in folder.iterdir()} == {"last.safetensors", "previous.safetensors"}
    want, got = load_file(trained / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert want.keys() == got.keys() and all(torch.equal(want[k], got[k]) for k in want)
    results = [json.loads((run / "metrics.json").read_text())["results"] for run in (trained, tmp_path)]
    assert results[0] == results[1]


def test_bench_writes_rows_and_a_plot(tmp_path):
    file = tmp_path / "core.json"
    assert run("bench", "core", "--only", "march", "--rounds", 1, "--json", file) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row["name"] == "march_composite"
    assert row["ratio"] == pytest.approx(row["reference_seconds"] / row["ours_seconds"], rel=0.01)
    assert file.with_suffix(".png").stat().st_size > 1000


def test_the_installed_package_is_whole(tmp_path):
    """Every verb answers --help and the demo is found from a folder where there is no checkout."""
    for verb in cli.VERBS:
        done = subprocess.run(
            [sys.executable, "-m", "fields.apps.cli", verb, "--help"], cwd=tmp_path, capture_output=True
        )
        assert done.returncode == 0, verb
    code = "from fields.methods import shipped; import fields.benchmarks.core; print(len(list((shipped('assets') / 'demo').glob('t*/*.png'))))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "72", done.stderr


# ---------------------------------------------------------------------------------------- bad input


def complaint(capsys) -> str:
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1, error
    return error[0]


def test_folders_that_are_not_runs(tmp_path, capsys):
    assert run("eval", tmp_path) == 2
    assert "config.json" in complaint(capsys)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing", "other", "nan"])
def test_damaged_models(trained, tmp_path, capsys, damage):
    (tmp_path / "config.json").write_text((trained / "config.json").read_text())
    model = (trained / "model.safetensors").read_bytes()
    if damage == "truncated":
        (tmp_path / "model.safetensors").write_bytes(model[: len(model) // 2])
    elif damage == "foreign":
        save_file({"x": torch.zeros(3)}, tmp_path / "model.safetensors")
    elif damage == "nan":
        tensors, _ = read_tensors(trained / "model.safetensors")
        tensors["decoder.basis.weight"][0, 0] = torch.nan
        write_tensors(tmp_path / "model.safetensors", tensors, {})
    elif damage == "other":
        (tmp_path / "model.safetensors").write_bytes(b"\x80\x04pickle")
    assert run("render", tmp_path, "--frames", 1) == 2
    assert "model.safetensors" in complaint(capsys)


@pytest.mark.parametrize(
    "damage", ["truncated", "foreign", "list", "no settings", "no step", "no tensor", "wrong shape"]
)
def test_damaged_checkpoints(trained, tmp_path, capsys, damage):
    file = tmp_path / "checkpoints" / "last.safetensors"
    whole = trained / "checkpoints" / "last.safetensors"
    tensors, header = read_tensors(whole)
    if damage == "no settings":
        del header["settings"]
    elif damage == "no step":
        del header["iteration"]
    elif damage == "no tensor":
        del tensors["generator"]
    elif damage == "wrong shape":
        tensors["field.decoder.basis.weight"] = tensors["field.decoder.basis.weight"][:5]
    write_tensors(file, tensors, [1] if damage == "list" else header)
    if damage == "truncated":
        file.write_bytes(whole.read_bytes()[:-9])
    elif damage == "foreign":
        save_file({"x": torch.zeros(3)}, file)
    before = file.read_bytes()
    assert run("train", "tensorf-vm", "--out", tmp_path, *SHORT, "--resume") == 2
    assert "last.safetensors" in complaint(capsys)
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["checkpoints"]


def test_unknown_schema(trained, tmp_path, capsys):
    config = json.loads((trained / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"schema": 99}))
    assert run("eval", tmp_path) == 2
    assert "99" in complaint(capsys)


def test_unknown_setting_is_named_with_a_guess(tmp_path, capsys):
    file = tmp_path / "my.toml"
    file.write_text("density_rnak = 8\n")
    assert run("train", "tensorf-vm", "--config", file, "--out", tmp_path / "o") == 2
    assert "density_rank" in complaint(capsys) and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "arguments", [["paint"], ["train", "tensorf-xx"], ["train", "tensorf-vm", "--data", "/nowhere"]]
)
def test_unknown_words(arguments, capsys):
    assert run(*arguments) == 2
    complaint(capsys)


def test_resuming_with_other_settings_or_without_checkpoint(trained, tmp_path, capsys):
    assert run("train", "tensorf-vm", "--out", trained, *SHORT, "--resume", "--rays", 64) == 2
    assert "rays" in complaint(capsys)
    assert run("train", "tensorf-vm", "--out", tmp_path, *SHORT, "--resume") == 2


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """The limit on file sizes stands in for a full disk: writes fail in the middle in just the same way."""
    code = """
import resource, signal, sys, torch
from pathlib import Path
from fields.errors import FieldsError
from fields.io.atomic import read_tensors, write_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = Path(sys.argv[1]) / "model.safetensors"
write_tensors(file, {"x": torch.ones(10)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_tensors(file, {"x": torch.ones(10**6)}, {})
except FieldsError as error:
    print(error)
assert read_tensors(file)[0]["x"].shape == (10,)
assert [f.name for f in file.parent.iterdir()] == [file.name]
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "intact" in done.stdout


# ---------------------------------------------------------------------------------------- export

COARSE = ["--resolution", "48", "--count", "2000", "--device", "cpu"]


def a_run(trained: Path, out: Path, scene: dict | None = None, **arguments) -> Path:
    """A copy of a run with another scene or other constructor arguments in its config."""
    config = json.loads((trained / "config.json").read_text())
    config["scene"] |= scene or {}
    config["field"] |= arguments
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config))
    (out / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    return out


def test_export_writes_a_mesh_and_points(trained, tmp_path, capsys):
    copy = a_run(trained, tmp_path / "copy")
    assert run("export", copy, *COARSE) == 0
    said = capsys.readouterr().out
    (mesh,) = trimesh.load(copy / "exports" / "mesh.glb", process=False).geometry.values()
    points = trimesh.load(copy / "exports" / "points.ply")
    assert mesh.is_watertight and mesh.volume > 0 and 0 < len(points.vertices) <= 2000
    assert mesh.metadata["frame"] == "input" and f"{len(mesh.faces):,} triangles" in said and "Next: fields" in said
    field = fields.load(trained)
    low, high = field.aabb[:3].numpy() - 1e-5, field.aabb[3:].numpy() + 1e-5
    assert all(((v >= low) & (v <= high)).all() for v in (mesh.vertices, points.vertices))
    assert sorted(os.listdir(copy / "exports")) == ["mesh.glb", "points.ply"]


def test_export_is_in_the_frame_of_the_input(trained, tmp_path):
    """The same run as if its files had been turned, halved and moved: a mesh of the input follows, one of the scene stays."""
    turned = [[0, -0.5, 0, 3], [0.5, 0, 0, -2], [0, 0, 0.5, 1], [0, 0, 0, 1]]
    copy = a_run(trained, tmp_path / "copy", {"world_from_input": turned})
    scene, moved = (tmp_path / f"{frame}.ply" for frame in ("scene", "input"))
    for file in (scene, moved):
        assert run("export", copy, "--mesh", file, "--frame", file.stem, *COARSE) == 0
        assert f"comment frame: {file.stem}\n".encode() in file.read_bytes()
    a, b = (trimesh.load(file, process=False) for file in (scene, moved))
    x, y, z = a.vertices.T
    want = np.stack([(y + 2) / 0.5, -(x - 3) / 0.5, (z - 1) / 0.5], -1)
    np.testing.assert_allclose(b.vertices, want, atol=1e-5)
    assert b.volume == pytest.approx(8 * a.volume, rel=1e-4) and not (tmp_path / "copy" / "exports").exists()


@pytest.mark.parametrize(
    ("arguments", "complains"),
    [(["--mesh", "a.stl"], ".glb, .ply, .obj"), (["--points", "a.glb"], ".ply"), (["--mesh", "bare"], ".glb, .ply, .obj"),
     (["--mesh", "a.glb", "--resolution", "1"], "resolution"), (["--points", "a.ply", "--count", "0"], "--count")],
)  # fmt: skip
def test_export_refuses_what_it_cannot_write(trained, tmp_path, capsys, monkeypatch, arguments, complains):
    monkeypatch.chdir(tmp_path)
    assert run("export", trained, *arguments) == 2
    assert complains in complaint(capsys) and not os.listdir(tmp_path)


@pytest.mark.parametrize("similarity", [None, [], "x", [[1.0, 0, 0, 0]] * 4, [[0.0] * 4] * 4, [[math.nan] * 4] * 4])
def test_export_of_damaged_frames(trained, tmp_path, capsys, similarity):
    copy = a_run(trained, tmp_path / "copy", {"world_from_input": similarity})
    assert run("export", copy, *COARSE) == 2
    assert "world_from_input" in complaint(capsys) and not (copy / "exports").exists()


def test_export_of_broken_runs_and_of_fog(trained, tmp_path, capsys):
    assert run("export", tmp_path) == 2
    assert "config.json" in complaint(capsys)
    assert run("export", a_run(trained, tmp_path / "blind", {"cameras": {"fx": "?"}}), *COARSE) == 2
    assert "cameras" in complaint(capsys)
    assert run("export", a_run(trained, tmp_path / "fog", density_shift=-40.0), *COARSE) == 2
    assert "no surface" in complaint(capsys)


# ---------------------------------------------------------------------------------------- quick to answer


def test_help_is_instant_and_imports_no_torch():
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "fields.apps.cli", "--help"], capture_output=True, text=True
        )
        times.append(time.perf_counter() - began)
    assert done.returncode == 0 and "train" in done.stdout and "| torch" not in done.stderr
    assert statistics.median(times) < 0.5


def test_doctor(capsys):
    assert run("doctor") == 0
    assert "backend" in capsys.readouterr().out
