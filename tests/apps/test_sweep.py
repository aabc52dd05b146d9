"""`fields sweep`: files that describe one, and a small one whose worker is killed."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
from fields.apps.sweep import report
from fields.apps.sweep.engine import Standing
from fields.apps.sweep.plan import Sweep, shipped_sweeps

from fields.errors import ConfigError
from tests.commands import run

HEAD = "scenes: {demo: }\nmethods: [tensorf-vm]\n"


def sweep(tmp_path, text):
    (tmp_path / "sweep.yaml").write_text(text)
    return tmp_path / "sweep.yaml"


def test_every_combination_is_a_trial(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    text = "scenes: [a, b]\nmethods: {strivec: {parameters: [250000, 500000]}, tensorf-vm: }\nsettings: {seed: [0, 1, 2], config: fast}\n"
    trials = Sweep.of(sweep(tmp_path, text)).trials
    assert len(trials) == 2 * (3 * 2 + 3) == len({trial.name for trial in trials})
    one = next(trial for trial in trials if trial.name == "b-strivec-seed=2-parameters=500000")
    assert one.varied == {"seed": 2, "parameters": 500000}
    assert one.arguments == ["strivec", "--data", str(tmp_path / "b"), "--seed", "2", "--config", "fast", "--parameters", "500000"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("scenes: [", "not valid YAML"),
        ("- 1", "scenes and methods"),
        ("scenes: {demo: }\nmethods: [nerf]", "no method 'nerf'"),
        ("scenes: [nowhere]\nmethods: [tensorf-vm]", "--data"),
        ("scenes: [a/x, b/x]\nmethods: [tensorf-vm]", "same name"),
        ("scenes: {../up: a}\nmethods: [tensorf-vm]", "plain name"),
        (HEAD + "settings: {iteration: 3}", "iteration"),
        (HEAD + "settings: {iterations: many}", "iterations"),
        (HEAD + "settings: {config: swift}", "no such preset"),
        (HEAD + "settings: {out: here}", "decided by the sweep"),
        (HEAD + "settings: {seed: []}", "no value"),
        (HEAD + "settings: 3", "settings is 3"),
        (HEAD + f"settings: {{seed: {list(range(10_001))}}}", "more than"),
        (HEAD + "gpus: 4", "gpus is 4"),
        (HEAD + "retries: 0.5", "retries is 0.5"),
        (HEAD + "colour: red", "unknown 'colour'"),
        (HEAD + "published: {x: 3}", "published 'x'"),
        ("[" * 100_000, "not valid YAML"),
        ("a: &a !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is(tmp_path, text, complaint):
    with pytest.raises(ConfigError) as error:
        Sweep.of(sweep(tmp_path, text))
    assert complaint in str(error.value)
    assert len(str(error.value)) < 2000


def test_there_is_no_such_file(tmp_path, capsys):
    assert run("sweep", tmp_path / "none.yaml") == 2
    assert "none.yaml" in (said := capsys.readouterr().err) and "demo" in said


def test_shipped_sweeps_ask_for_what_there_is(tmp_path):
    for file in shipped_sweeps().values():
        import yaml

        for scene in yaml.safe_load(file.read_text())["scenes"]:
            (tmp_path / str(scene)).mkdir(exist_ok=True)
        assert Sweep.of(file, tmp_path).trials


def test_published_figures_stand_beside_what_was_not_trained(tmp_path):
    text = "scenes: {a: , b: }\nmethods: [tensorf-vm]\npublished: {one: {a: 20, b: 30}, a mean: {mean: 26.7}, a part: {a: 1}}\n"
    planned = Sweep.of(sweep(tmp_path, text))
    rows = report.rows_of(planned, tmp_path, {t.name: Standing("failed", reason="no <room>") for t in planned.trials})
    report.write(planned, tmp_path, rows, "title")
    said = (tmp_path / "results.md").read_text()
    assert "| one | 20.00 | 30.00 | 25.00 |" in said and "| a mean | – | – | 26.70 |" in said
    assert "| a part | 1.00 | – | – |" in said and "* a-tensorf-vm: no <room>" in said
    assert "no &lt;room&gt;" in (tmp_path / "report.html").read_text()


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    file = sweep(tmp_path, HEAD + "settings: {config: fast, iterations: 80, downscale: 8, checkpoint_seconds: 0.2, seed: [0, 1]}\n")  # fmt: skip
    out = tmp_path / "out"
    command = [sys.executable, "-m", "fields.apps.cli", "sweep", str(file), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed = "demo-tensorf-vm-seed=1"
    checkpoint = out / killed / "checkpoints" / "last.safetensors"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.02)
    (events,) = (out / killed).glob("events*")  # whose name ends in the process and a count
    os.kill(int(events.name.split(".")[-2]), signal.SIGKILL)
    said, complaint = process.communicate(timeout=200)
    assert process.returncode == 0, complaint
    assert "taken up again after" in complaint and "2 of 2 trained" in said
    rows = {row["trial"]: row for row in csv.DictReader((out / "results.csv").open())}
    assert (rows[killed]["starts"], rows["demo-tensorf-vm-seed=0"]["starts"]) == ("2", "1")
    assert all(row["state"] == "done" and float(row["psnr"]) > 5 for row in rows.values())
    assert f'src="{killed}/renders/' in (out / "report.html").read_text()

    written = {path: path.stat().st_mtime_ns for path in out.glob("*/metrics.json")}
    assert run("sweep", file, "--out", out) == 0  # nothing is left to train
    assert written == {path: path.stat().st_mtime_ns for path in out.glob("*/metrics.json")}
    file.write_text(file.read_text().replace("80", "90"))
    assert run("sweep", file, "--out", out) == 2  # the folder is another sweep's
