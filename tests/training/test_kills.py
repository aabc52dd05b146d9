"""Kills, flipped bits, full disks, second trainings and clocks that jump: what was written is there, and goes on the same."""

import errno
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fields.errors import CheckpointError, ConfigError, FieldsError
from fields.io import lock
from fields.io.atomic import read_tensors, write_atomically, write_tensors
from fields.io.lock import alone
from fields.training.events import event_log
from fields.training.loop import Loop, Silent
from tests.commands import run

SHORT = ["tensorf-vm", "--iterations", "40", "--downscale", "8", "--views", "8", "--device", "cpu", "--rays", "256", "--voxels", "4096", "13824"]  # fmt: skip


class Walk:
    """A training of one number, which says where it is."""

    shares = False

    def __init__(self) -> None:
        self.x, self.generator = torch.zeros(50), torch.Generator().manual_seed(3)

    def step(self, i: int) -> dict[str, torch.Tensor]:
        self.x += torch.randn(50, generator=self.generator)
        return {"x": self.x[0]}

    def state(self):
        return {"x": self.x, "generator": self.generator.get_state()}, {}

    @classmethod
    def resume(cls, tensors, plain) -> "Walk":
        walk = cls()
        walk.x = tensors["x"]
        walk.generator.set_state(tensors["generator"])
        return walk


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def walk(out: Path, until: int, resume: bool = False, every: float = 1e9) -> tuple[Walk, int, list[str]]:
    """The walk, where it began, and what was said; `every` so many seconds it is saved."""
    loop, heard = Loop("walk", {}, 0, "", out), Heard()
    training, start, spent = loop.begin(Walk, Walk.resume, resume)
    with event_log(out, start) as events:
        loop.run(training, until, start, spent, heard, every, events)
    return training, start, heard.lines


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


# ---------------------------------------------------------------------------------------- checkpoints


def test_every_flipped_bit_is_found(tmp_path):
    """Or changes nothing: in the header's own words for the checksum, and blanks."""
    file = tmp_path / "x.safetensors"
    tensors = {"x": torch.randn(5), "mask": torch.rand(40) < 0.5, "n": torch.tensor(7), "h": torch.ones(3).bfloat16()}
    write_tensors(file, tensors, {"a": [1, "b"]})
    whole, found = file.read_bytes(), 0
    bits = range(8 * len(whole))
    for bit in random.Random(0).sample(bits, 300):
        flip(file, bit)
        try:
            got, plain = read_tensors(file)
        except CheckpointError:
            found += 1
        else:
            assert plain == {"a": [1, "b"]} and got.keys() == tensors.keys(), bit
            assert all(torch.equal(got[k], v) for k, v in tensors.items()), bit
        file.write_bytes(whole)
    assert found > 250


@pytest.mark.parametrize("damage", ["flipped", "cut off", "missing"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    want, _, _ = walk(tmp_path / "whole", 60)
    out = tmp_path / "hit"
    walk(out, 20)
    walk(out, 40, resume=True)
    last, previous = (out / "checkpoints" / f"{name}.safetensors" for name in ("last", "previous"))
    if damage == "flipped":
        flip(last, 8 * last.stat().st_size - 50)
    elif damage == "cut off":
        last.write_bytes(last.read_bytes()[:-5])
    else:
        last.unlink()
    got, start, said = walk(out, 60, resume=True)
    assert start == 20 and torch.equal(got.x, want.x)
    assert said == ["The last checkpoint is damaged: going on from the one before it, of 20 iterations."]
    assert [read_tensors(f)[1]["iteration"] for f in (last, previous)] == [60, 20]  # the damaged one did not stay
    flip(last, 8 * last.stat().st_size - 50)
    flip(previous, 8 * last.stat().st_size - 50)
    before = last.read_bytes(), previous.read_bytes()
    with pytest.raises(CheckpointError, match=r"last.safetensors: damaged .* previous.safetensors, is damaged too"):
        walk(out, 60, resume=True)
    assert before == (last.read_bytes(), previous.read_bytes())


def test_a_new_training_has_no_previous_checkpoint_of_another(tmp_path):
    walk(tmp_path, 20)
    walk(tmp_path, 40, resume=True)
    walk(tmp_path, 10)
    assert os.listdir(tmp_path / "checkpoints") == ["last.safetensors"]


@pytest.mark.parametrize("links", [True, False])
def test_killed_anywhere_in_saving_it_goes_on(tmp_path, monkeypatch, links):
    """A process ends at each call to the system in turn: one of the two checkpoints is there then, and leads to the same end."""
    walk(tmp_path / "begun", 20)
    walk(tmp_path / "begun", 30, resume=True)
    want, _, _ = walk(tmp_path / "whole", 40)

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "not here")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    starts = []
    for n in itertools.count():
        out = tmp_path / str(n)
        shutil.copytree(tmp_path / "begun", out)
        child = os.fork()
        if not child:
            loop, calls = Loop("walk", {}, 0, "", out), itertools.count()
            training, _, _ = loop.begin(Walk, Walk.resume, True)
            training.step(30)

            def call(event: str, _: tuple, calls=calls, n=n) -> None:
                if event in ("open", "os.rename", "os.link", "os.remove", "os.chmod") and next(calls) == n:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(call)
            loop._save(training, 31, 0.0)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
        assert (out / "checkpoints/last.safetensors").exists() or not links
        got, start, _ = walk(out, 40, resume=True)
        assert torch.equal(got.x, want.x)
        assert set(os.listdir(out / "checkpoints")) == {"last.safetensors", "previous.safetensors"}
        starts.append(start)
    assert starts[0] == 30 and starts[-1] == 31 and set(starts) <= {30, 31}


def test_events_hold_no_step_twice(tmp_path, monkeypatch):
    real, passed = time.time, itertools.count(0, 2)  # the names of logs have seconds

    def trained(*arguments: Any, **more: Any) -> None:
        later = next(passed)
        monkeypatch.setattr(time, "time", lambda: real() + later)
        walk(tmp_path, *arguments, **more)

    trained(60)
    checkpoint = (tmp_path / "checkpoints/last.safetensors").read_bytes()
    trained(100, resume=True)  # as if it was killed before it saved
    (tmp_path / "checkpoints/last.safetensors").write_bytes(checkpoint)
    trained(120, resume=True)
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("train/x")
    assert [event.step for event in shown] == [20, 40, 60, 80, 100, 120]


# ---------------------------------------------------------------------------------------- files half written


def test_what_the_dead_left_goes_and_what_the_living_write_stays(tmp_path):
    child = os.fork()
    if not child:
        write_atomically(tmp_path / "dead.bin", lambda file: os.kill(os.getpid(), signal.SIGKILL))
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob(".dead.bin.*"))) == 1
    (tmp_path / ".settings.12345678.json").touch()  # somebody's own

    def write(file: Path) -> None:
        assert {f.name for f in tmp_path.iterdir()} == {".settings.12345678.json", file.name}
        write_atomically(tmp_path / "other.bin", lambda other: other.write_bytes(b"b"))
        assert file.exists()
        file.write_bytes(b"a")

    write_atomically(tmp_path / "one.bin", write)
    assert {f.name for f in tmp_path.iterdir()} == {".settings.12345678.json", "one.bin", "other.bin"}
    assert (tmp_path / "one.bin").read_bytes() == b"a"


# ---------------------------------------------------------------------------------------- one training per folder


def test_what_a_finished_training_left_goes_though_it_has_nothing_to_save(tmp_path):
    """It was killed as it saved its end once more."""
    walk(tmp_path, 3)
    left = tmp_path / "checkpoints" / ".last.safetensors.writing-abc.safetensors"
    left.write_bytes(b"half")
    written = (tmp_path / "checkpoints" / "last.safetensors").stat().st_mtime_ns
    assert walk(tmp_path, 3, resume=True)[1] == 3 and not left.exists()
    assert (tmp_path / "checkpoints" / "last.safetensors").stat().st_mtime_ns == written


def test_one_process_has_a_folder_until_it_ends(tmp_path):
    code = "import sys, time\nfrom pathlib import Path\nfrom fields.io.lock import alone\nwith alone(Path(sys.argv[1])):\n    print('has it', flush=True)\n    time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "has it\n"
    with pytest.raises(ConfigError, match=rf"process {process.pid} on .* trains into it"), alone(tmp_path):
        pass
    process.kill()
    process.communicate()
    with alone(tmp_path):
        assert os.listdir(tmp_path) == [lock.NAME]
    assert not os.listdir(tmp_path)


def test_without_locks_the_process_named_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with alone(tmp_path):
        mine = (tmp_path / lock.NAME).read_text()
    for owner, free in ((mine, True), (mine.replace(str(os.getpid()), str(other.pid), 1), False), ("", True)):
        (tmp_path / lock.NAME).write_text(owner)
        if free:
            with alone(tmp_path):
                pass
        else:
            with pytest.raises(ConfigError, match=f"process {other.pid}"), alone(tmp_path):
                pass
    other.communicate(b"\n")
    (tmp_path / lock.NAME).write_text(mine.replace(str(os.getpid()), str(other.pid), 1))
    with alone(tmp_path):  # it has ended
        write_atomically(tmp_path / "a", lambda file: file.write_text("a"))
    assert os.listdir(tmp_path) == ["a"]


# ---------------------------------------------------------------------------------------- clocks


def test_clocks_that_jump_change_nothing(tmp_path, monkeypatch):
    """Neither when checkpoints are due, nor how long it took."""
    want, _, _ = walk(tmp_path / "steady", 40)
    draw, real = random.Random(1), time.time
    monkeypatch.setattr(time, "time", lambda: max(0.0, real() + draw.uniform(-1e9, 1e9)))
    saved: list[int] = []
    save = Loop._save
    monkeypatch.setattr(Loop, "_save", lambda self, training, done, *more: (saved.append(done), save(self, training, done, *more)))  # fmt: skip
    got, _, _ = walk(tmp_path / "jumping", 40, every=1000.0)
    assert saved == [40] and torch.equal(got.x, want.x)
    assert 0 <= read_tensors(tmp_path / "jumping/checkpoints/last.safetensors")[1]["seconds"] < 100


# ---------------------------------------------------------------------------------------- full and read-only disks


@pytest.fixture(params=["full", "read-only"])
def disk(request, tmp_path):
    """A function that makes a folder of its own disk so."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("may not mount")

    def spoil() -> None:
        if request.param == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        else:
            with pytest.raises(OSError, match="No space"):  # at the end of what there is
                (folder / "filler").write_bytes(bytes(4_000_000))

    yield folder, spoil
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_spoilt_disk_ends_a_training_with_one_error_and_keeps_what_was(disk, capsys):
    folder, spoil = disk
    out = folder / "run"
    walk(out, 20)
    spoil()
    before = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    assert run("train", *SHORT, "--out", out) == 2
    said = capsys.readouterr().err
    assert len(re.findall("^error: ", said, re.M)) == 1 and "Traceback" not in said
    with pytest.raises(FieldsError, match=r"written|saved"):
        walk(out, 40, resume=True)
    assert "Traceback" not in capsys.readouterr().err
    assert before == {f: f.read_bytes() for f in before}


def test_a_spoilt_disk_leaves_the_old_video(disk):
    from fields.io.images import write_video

    folder, spoil = disk
    frames = torch.rand(8, 64, 64, 3)
    write_video(folder / "a.mp4", frames)
    before = (folder / "a.mp4").read_bytes()
    spoil()
    with pytest.raises(FieldsError, match=r"a.mp4: c.* written|a.mp4: could not be saved"):
        write_video(folder / "a.mp4", frames)
    assert (folder / "a.mp4").read_bytes() == before
    assert {f.name for f in folder.iterdir()} <= {"a.mp4", "filler"}


# ---------------------------------------------------------------------------------------- the command


def test_killed_and_a_second_one_in_the_folder(tmp_path, capsys):
    """One training is killed; while another is at it, a third is refused; it gives what one that is left alone gives."""
    command = [sys.executable, "-m", "fields.apps.cli", "train", *SHORT, "--checkpoint-seconds", "0.1", "--out", str(tmp_path)]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stderr is not None and any("tensorf-vm: 20/40" in line for line in process.stderr)
    process.send_signal(signal.SIGSTOP)  # it is at it for as long as it takes to look
    before = sorted(tmp_path.rglob("*"))
    assert run("train", *SHORT, "--out", tmp_path, "--resume") == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1 and f"process {process.pid} on" in said
    assert sorted(tmp_path.rglob("*")) == before
    process.kill()
    process.communicate()
    assert run("train", *SHORT, "--out", tmp_path, "--resume") == 0
    assert run("train", *SHORT, "--out", tmp_path / "whole") == 0
    want, got = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", tmp_path))
    assert want.keys() == got.keys() and all(torch.equal(want[k], got[k]) for k in want)
    figures = [json.loads((f / "metrics.json").read_text())["results"] for f in (tmp_path / "whole", tmp_path)]
    assert figures[0] == figures[1]
    assert not [f for f in tmp_path.rglob(".*")]
