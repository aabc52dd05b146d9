"""Several processes train what one does: every method and model on two of them, and the real command."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fields.apps import launching
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from fields.errors import ConfigError, FieldsError, ProcessError
from fields.garf.config import GarfConfig
from fields.garf.training import GarfTraining
from fields.methods import methods, models
from fields.training import processes
from fields.training.radiance import RadianceTraining
from tests.commands import run
from tests.training.together import leave, trained, work

NAMES = [*methods(), *models()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def alone(folder):
    """What one process makes of each."""
    return {name: trained(name, folder, resume=False) for name in NAMES}


def spawn(what: Callable[..., None], *arguments: Any) -> None:
    """Calls it in two processes, with the number of each, and 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])  # after what is installed
        torch.multiprocessing.spawn(what, (2, *arguments), nprocs=2)


@pytest.fixture(scope="module")
def together(folder, alone):
    """What two make of each: some begin anew, the others from the checkpoint of the one."""
    spawn(work, folder, NAMES)
    return {name: [torch.load(folder / f"{name}-{rank}.pt") for rank in range(2)] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(name, alone, together):
    """The first gradients are the same up to the order of sums: they differ by 2e-6 of the largest at most (relighting), most by 5e-7.
    Losses differ by 2.5e-7 in 16 iterations; both were measured on two cores of an AMD EPYC."""
    (first, last, losses), (one, other) = alone[name], together[name]
    assert one[1].keys() == other[1].keys() == last.keys()
    assert all(torch.equal(one[1][k], other[1][k]) for k in last)  # the processes have the same bits
    gradients = [k for k in first if k.endswith("exp_avg")]  # a tenth of them, after one step of Adam
    assert gradients
    for k in gradients:
        torch.testing.assert_close(one[0][k], first[k], rtol=0, atol=1e-5 * float(first[k].abs().max()), msg=k)
    assert one[2] == other[2] == pytest.approx(losses, rel=1e-5)
    for k, value in last.items():
        assert value.shape == one[1][k].shape  # they found the same boxes, occupied cells and ranks
        if value.dtype in (torch.bool, torch.int32):
            assert torch.equal(value, one[1][k]), k
        if value.dtype is torch.uint8:  # shares of light, rounded: numbers this close may lie on two sides of a half
            assert (value.int() - one[1][k].int()).abs().max() <= 1, k


def test_what_processes_exchange(folder, together):
    """By hand: gradients (1, 0) and (1, 10); none and (6, 2); four boxes of which nobody has a gradient of the second."""
    for rank in range(2):
        said = torch.load(folder / f"exchanged-{rank}.pt")
        both, one, none, boxes = said["gradients"]
        assert both.tolist() == [1, 5] and one.tolist() == [3, 1] and none is None
        assert boxes.flatten().tolist() == [4, 0, 3, 3]
        assert said["share"].tolist() == [[0, 2, 4], [1, 3, 5]][rank]
        assert [m.tolist() for m in said["mean"]] == [1.5, [1, 0.5]]
        assert [w.tolist() for w in said["weights"]] == [[0.5], [1.5]][rank]  # one and three things, two in the mean
        assert said["greatest"].tolist() == [1, 1] and said["agreed"] == [True, False]
        assert said["writer"] is (rank == 0)
        assert "have come to differ" in said["said"]  # of 0 and −0


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the threads")
def test_no_thread_of_the_meeting_is_left(tmp_path):
    """One that was aborted one process in forty as it ended, and all others with it."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    spawn(leave, tmp_path, port)
    for rank in range(2):
        threads = json.loads((tmp_path / f"threads-{rank}.json").read_text())
        assert not [name for name in threads if "gloo" in name], threads


def test_one_process_exchanges_nothing():
    batch = torch.rand(3, 2)
    assert processes.share(batch) is batch and processes.greatest(batch) is batch
    assert processes.mean(batch)[0] is batch and processes.weights(torch.tensor(7)) == [1]
    assert processes.writer() and processes.count() == 1 and processes.agreed(True, False) == [True, False]


def test_a_batch_that_cannot_be_shared_alike_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "count", lambda: 3)
    with pytest.raises(ConfigError, match=r"3 processes cannot share a batch of 4 alike. Make it .* a multiple of 3"):
        processes.share(torch.zeros(4))
    with pytest.raises(ConfigError, match="a batch of 1 alike"):  # before anything is broken
        GarfTraining.gather(GarfConfig(), tmp_path / "objects", print)


# ---------------------------------------------------------------------------------------- the command

SHORT = ["--iterations", "60", "--downscale", "8", "--views", "8", "--device", "cpu", "--rays", "256", "--voxels", "4096", "13824"]  # fmt: skip
TWO = [sys.executable, "-m", "fields.apps.cli", "train", "tensorf-vm", *SHORT, "--devices", "2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "fields.apps.cli", "train", "tensorf-vm", *SHORT]  # fmt: skip


def started(command: list[str], out: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen([*command, "--out", str(out), *more], stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip


def wait_for(process: subprocess.Popen, text: str) -> None:
    assert process.stderr is not None
    assert any(text in line for line in process.stderr), f"ended without saying {text!r}"


@pytest.fixture(scope="module")
def of_two(tmp_path_factory) -> tuple[Path, str]:
    """The run folder that two processes left, and what they said."""
    out = tmp_path_factory.mktemp("two")
    process = started(TWO, out)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    return out, said


def test_the_command_leaves_what_one_process_leaves(of_two, tmp_path):
    """PSNR is the same to 0.05 dB, for rounding grows (to 0.005 dB in 500 iterations); each file is written once."""
    out, said = of_two
    assert run("train", "tensorf-vm", *SHORT, "--out", tmp_path) == 0
    mine, theirs = (json.loads((f / "metrics.json").read_text()) for f in (tmp_path, out))
    assert mine.pop("processes") == 1 and theirs.pop("processes") == 2
    assert (
        theirs["results"]["psnr"] == pytest.approx(mine["results"]["psnr"], abs=0.05) and mine["results"]["psnr"] > 12
    )
    assert mine.keys() == theirs.keys() and mine["parameters"] == theirs["parameters"]

    def names(folder: Path) -> list[str]:
        written = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
        return [name if "tfevents" not in name else "events" for name in written]

    # Several begin from a checkpoint of the first, and that is the one before the last.
    assert names(out) == sorted([*names(tmp_path), "checkpoints/previous.safetensors"])
    assert said.count("2 processes, each with its share of the rays") == said.count("tensorf-vm: 12/60") == 1


def test_stopped_it_goes_on_with_torchrun_to_the_same_bits(of_two, tmp_path):
    process = started(TWO, tmp_path)
    wait_for(process, "tensorf-vm: 30/60")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130 and not (tmp_path / "model.safetensors").exists()
    assert said.count("--devices 2") == said.count("--resume\n") == 1 and "Traceback" not in said
    process = started(TORCHRUN, tmp_path, "--resume")
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    want, got = load_file(of_two[0] / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert want.keys() == got.keys() and all(torch.equal(want[k], got[k]) for k in want)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the processes")
def test_a_killed_process_ends_all_with_one_line(tmp_path):
    process = started(TWO, tmp_path)
    wait_for(process, "tensorf-vm: 12/60")
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 2 and "Traceback" not in said
    (line,) = (line for line in said.splitlines() if "error" in line.lower())
    assert "was killed (SIGKILL)" in line and "--resume" in line
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the processes")
def test_without_their_launcher_they_save_and_end(tmp_path):
    process = started(TWO, tmp_path)
    wait_for(process, "tensorf-vm: 12/60")
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    _, said = process.communicate(timeout=100)  # until the last of them has let go of it
    assert len(workers) == 2 and "Traceback" not in said
    assert (tmp_path / "checkpoints" / "last.safetensors").exists() and not (tmp_path / ".lock").exists()
    assert not (tmp_path / "model.safetensors").exists()


def test_what_ended_them_is_said(tmp_path):
    """Of several that ended, that which made the others end: they have exit code 3, or the launcher's SIGTERM."""

    def failure(code: int, message: str = "") -> ProcessFailure:
        file = tmp_path / "error.json"
        file.write_text(json.dumps({"message": {"message": message, "extraInfo": {"timestamp": 0}}}))
        return ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file=str(file))

    complaint, left, stopped = (
        failure(2, "ConfigError: rays: 5 is odd."),
        failure(3, "ProcessError: left"),
        failure(-15),
    )
    with pytest.raises(FieldsError, match=r"^rays: 5 is odd\.$"):
        launching._ended({0: left, 1: complaint, 2: stopped})
    with pytest.raises(ProcessError, match=r"Process 2 was killed \(SIGKILL\).*--resume"):
        launching._ended({0: left, 1: stopped, 2: failure(-9)})
    with pytest.raises(ProcessError, match="Process 1 ended with exit code 1"):
        launching._ended({0: left, 1: failure(1, "ValueError: x")})
    assert launching._ended({0: failure(130), 1: failure(130)}) == 130


def test_devices_that_make_no_sense_are_refused(tmp_path, capfd):
    assert run("train", "tensorf-vm", "--devices", 0, "--out", tmp_path) == 2
    assert "devices is 0; it must be at least 1" in capfd.readouterr().err


def test_a_training_that_does_not_share_is_refused(tmp_path, capfd, monkeypatch):
    """As one that somebody registered who does not know of several processes."""
    monkeypatch.setattr(RadianceTraining, "shares", False)
    assert run("train", "tensorf-vm", "--devices", 2, "--out", tmp_path) == 2
    assert "tensorf-vm trains in one process only. Leave out --devices." in capfd.readouterr().err
