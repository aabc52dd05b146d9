"""Kills commands at random moments and at chosen calls to the system, runs each again, and compares what they leave with
what they leave when nobody disturbs them: python -m fields.benchmarks.kills [report.md]

Every command runs in a process that was forked from this one after all imports, but for `--devices 2`, which is started
as anybody would.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

SHORT = ["train", "tensorf-vm", "--iterations", "40", "--downscale", "8", "--views", "8", "--device", "cpu", "--rays", "256", "--voxels", "4096", "13824"]  # fmt: skip
SAVES = [*SHORT, "--checkpoint-seconds"]
SEED = 0


@dataclass
class Row:
    """Kills of one kind."""

    where: str
    kills: int = 0
    same: int = 0
    """Gave, when run again, what an undisturbed process gives, bit for bit."""
    half_written: int = 0
    """Left temporary files, …"""
    left: int = 0
    """… and had not removed them after they were run again."""
    lost: int = 0
    """Left a file that cannot be read, or less than was there before."""
    notes: list[str] = field(default_factory=list)

    def shown(self) -> str:
        notes = "; ".join(self.notes)
        return (
            f"| {self.where} | {self.kills} | {self.same} | {self.half_written} | {self.left} | {self.lost} | {notes} |"
        )


# ---------------------------------------------------------------------------------------- processes


def forked(arguments: list[str], log: Path, before: Callable[[], None] = lambda: None) -> int:
    """Starts `fields …` in a process of its own; returns its number."""
    from fields.apps import cli

    child = os.fork()
    if child:
        return child
    code = 1
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        before()
        code = cli.main(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """Its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_call(n: int | None, under: Path, count: Path | None = None) -> Callable[[], None]:
    """Has the process killed before its n-th call that makes, renames, links, removes or flushes a file in a folder; or
    counts these calls into a file."""

    def install() -> None:
        calls, fsync = itertools.count(1), os.fsync

        def call() -> None:
            number = next(calls)
            if number == n:
                os.kill(os.getpid(), signal.SIGKILL)
            if count is not None:
                descriptor = os.open(count, os.O_WRONLY | os.O_CREAT)
                os.write(descriptor, b"%d" % number)
                os.close(descriptor)

        def heard(event: str, arguments: tuple) -> None:
            if event == "open" and isinstance(arguments[2], int) and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
            if event in ("open", "os.rename", "os.link", "os.remove", "os.chmod") and str(arguments[0]).startswith(
                str(under)
            ):
                call()

        def flushed(descriptor: int) -> None:
            call()
            fsync(descriptor)

        os.fsync = flushed
        sys.addaudithook(heard)

    return install


def at_byte(n: int) -> Callable[[], None]:
    """Has the process killed (by SIGXFSZ, which nobody waits for) when a file gets longer than that."""

    def install() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

    return install


# ---------------------------------------------------------------------------------------- what is there


def half_written(folder: Path) -> list[str]:
    return [f.name for f in folder.rglob(".*.writing-*")]


def unreadable(folder: Path) -> list[str]:
    """Files under their own names that are not whole."""
    import imageio.v3 as iio
    import imageio_ffmpeg
    import numpy as np

    from fields.io.atomic import read_json, read_tensors
    from fields.slimmerf import container

    readers: dict[str, Callable[[Path], object]] = {
        ".safetensors": read_tensors,
        ".json": read_json,
        ".slim": lambda file: container.read(container.bytes_of(file)),
        ".npz": lambda file: [np.load(file)[name] for name in np.load(file).files],
        ".mp4": lambda file: imageio_ffmpeg.count_frames_and_secs(str(file)),
        ".png": iio.imread,
        ".tiff": iio.imread,
    }
    broken = []
    for file in folder.rglob("[!.]*"):
        if read := readers.get(file.suffix):
            try:
                read(file)
            except Exception as error:
                broken.append(f"{file.name}: {error}")
    return broken


def of_training(out: Path) -> tuple[bytes, object]:
    """The order of words in the header is any, so tensors are compared."""
    from fields.io.atomic import digest, read_json, read_tensors

    return digest(read_tensors(out / "model.safetensors")[0]), read_json(out / "metrics.json")["results"]


def of_exports(out: Path) -> dict[str, bytes]:
    return {str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file()}


# ---------------------------------------------------------------------------------------- kills


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.draw = folder, random.Random(SEED)
        self.numbers = itertools.count()
        self.rows: list[Row] = []

    def row(self, where: str) -> Row:
        self.rows.append(Row(where))
        print(where, file=sys.stderr, flush=True)
        return self.rows[-1]

    def again(self, row: Row, arguments: list[str], out: Path, want: object, look: Callable[[Path], object]) -> None:
        """After a kill: looks, runs the same command once more, and compares."""
        row.kills += 1
        row.half_written += bool(half_written(out))
        if broken := unreadable(out):
            row.lost += 1
            row.notes += broken
        log = self.folder / "again.log"
        resumable = arguments[0] == "train" and any((out / "checkpoints").glob("[!.]*"))
        if "--devices" in arguments:
            code, said = by_command([*arguments, *["--resume"] * resumable])
            log.write_text(said)
        else:
            code = ended(forked([*arguments, *["--resume"] * resumable], log))
        if code:
            row.notes.append(f"run again: {' '.join(log.read_text().split())[-200:]}")
        elif look(out) == want:
            row.same += 1
        row.left += any(out.rglob(".*"))  # the lock of the killed one, too
        shutil.rmtree(out)

    def fresh(self) -> Path:
        return self.folder / f"killed-{next(self.numbers)}"

    def training(self) -> None:
        log, whole, counts = self.folder / "whole.log", self.folder / "whole", self.folder / "counts"
        began = time.monotonic()
        if ended(forked([*SAVES, "0", "--out", str(whole)], log, at_call(None, whole, counts))):
            sys.exit(log.read_text())
        length, calls = time.monotonic() - began, int(counts.read_text())
        want, size = of_training(whole), (whole / "checkpoints" / "last.safetensors").stat().st_size

        row = self.row(f"training, at random moments of its {length:.0f} s")
        for _ in range(12):
            out = self.fresh()
            arguments = [*SAVES, "0.1", "--out", str(out)]
            child = forked(arguments, log)
            time.sleep(self.draw.uniform(0.05, 0.95) * length)
            os.kill(child, signal.SIGKILL)
            if ended(child) == 0:
                row.notes.append("one had ended")
            self.again(row, arguments, out, want, of_training)

        row = self.row(f"saving after every iteration, before a random one of {calls} calls to the system")
        for n in self.draw.sample(range(2, calls), 16):
            out = self.fresh()
            arguments = [*SAVES, "0", "--out", str(out)]
            if ended(forked(arguments, log, at_call(n, out))) != -signal.SIGKILL:
                row.notes.append(f"call {n} did not come")
            self.again(row, arguments, out, want, of_training)

        row = self.row("saving, in the middle of a checkpoint's bytes (SIGXFSZ)")
        for _ in range(4):
            out = self.fresh()
            arguments = [*SAVES, "0.1", "--out", str(out)]
            if ended(forked(arguments, log, at_byte(self.draw.randrange(size // 4, size)))) != -signal.SIGXFSZ:
                row.notes.append("one had ended")
            self.again(row, arguments, out, want, of_training)

    def exports(self) -> None:
        """Over files that a former run of the command has left, of other settings."""
        whole = self.folder / "whole"
        for verb, old, new in (
            ("slim", lambda out: ["--rank", "2", "--out", f"{out}/a.slim"], lambda out: ["--curve", "--out", f"{out}/a.slim"]),
            ("export", lambda out: ["--grid", f"{out}/g.npz", "--resolution", "16"],
             lambda out: ["--grid", f"{out}/g.npz", "--maps", f"{out}/maps", "--resolution", "24", "--device", "cpu"]),
        ):  # fmt: skip
            log, done, before = (self.folder / f"{verb}-{name}" for name in ("log", "done", "before"))
            counts = self.folder / f"{verb}-counts"
            if ended(forked([verb, str(whole), *old(before)], log)):
                sys.exit(log.read_text())
            shutil.copytree(before, done)
            began = time.monotonic()
            if ended(forked([verb, str(whole), *new(done)], log, at_call(None, done, counts))):
                sys.exit(log.read_text())
            length, calls = time.monotonic() - began, int(counts.read_text())
            want, were = of_exports(done), of_exports(before)
            row = self.row(f"`fields {verb}`, at random moments and before random calls of {calls}")
            for i in range(8 if verb == "slim" else 6):
                out = self.fresh()
                shutil.copytree(before, out)
                arguments = [verb, str(whole), *new(out)]
                if i % 2:
                    child = forked(arguments, log)
                    time.sleep(self.draw.uniform(0.1, 0.9) * length)
                    os.kill(child, signal.SIGKILL)
                else:
                    child = forked(arguments, log, at_call(self.draw.randint(1, calls), out))
                ended(child)
                there = of_exports(out)
                row.lost += any(there.get(name) not in (data, want[name]) for name, data in were.items())
                self.again(row, arguments, out, want, of_exports)

    def together(self) -> None:
        whole = self.folder / "of-two"
        arguments = [*SAVES, "0.1", "--devices", "2", "--out"]
        code, said = by_command([*arguments, str(whole)])
        if code:
            sys.exit(said)
        want = of_training(whole)
        for who, kills in (("one of the two", 4), ("all", 4)):
            row = self.row(f"`--devices 2`, {who} at a random moment")
            for _ in range(kills):
                out = self.fresh()
                process = command([*arguments, str(out)])
                assert process.stderr is not None
                after = self.draw.randrange(0, 40, 4)
                for line in process.stderr:
                    if f"{after}/40" in line or (not after and "2 processes" in line):
                        break
                time.sleep(self.draw.uniform(0, 0.5))
                workers = [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
                victims = [self.draw.choice(workers)] if who != "all" else [process.pid, *workers]
                for victim in victims:
                    os.kill(victim, signal.SIGKILL)
                process.communicate()
                self.again(row, [*arguments, str(out)], out, want, of_training)


def command(arguments: Iterable[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "fields.apps.cli", *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )  # fmt: skip


def by_command(arguments: Iterable[str]) -> tuple[int, str]:
    process = command(arguments)
    said = process.communicate()[1]
    return process.returncode, said


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts any: they would not be in a fork
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import fields.apps.export
    import fields.apps.slim
    import fields.apps.train
    import torch.utils.tensorboard  # noqa: F401

    import fields.slimmerf.slim
    import fields.tensorf.training
    import fields.training.trainer  # noqa: F401

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        bench.training()
        bench.exports()
        bench.together()
    total = Row("**all**")
    for row in bench.rows:
        for key in ("kills", "same", "half_written", "left", "lost"):
            setattr(total, key, getattr(total, key) + getattr(row, key))
    table = [
        "| killed | kills | then the same, bit for bit | left half a file | that is still there | lost something | |",
        "|---|---:|---:|---:|---:|---:|---|",
        *(row.shown() for row in [*bench.rows, total]),
    ]
    text = "\n".join(table) + "\n"
    print(text)
    print(f"{(time.monotonic() - began) / 60:.1f} min", file=sys.stderr)
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(text)


if __name__ == "__main__":
    main()
