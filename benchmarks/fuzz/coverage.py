"""The same targets, guided by which lines of this package an input reaches: atheris, of libFuzzer."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from random import Random

from fields.benchmarks.fuzz.mutations import mutate
from fields.benchmarks.fuzz.targets import TARGETS

from fields.errors import ConfigError, FieldsError


def search(name: str, seconds: float, out: Path) -> None:
    """Searches for so many seconds, or until the first input that is not answered by one clear error, which is kept in `out`; ends the process.

    An input is the number of a file of the sample, one byte, and what is to be in it.

    Raises:
        ConfigError: atheris is not installed.
    """
    try:
        import atheris
    except ImportError:
        raise ConfigError("A search guided by coverage needs atheris: pip install atheris.") from None
    target = TARGETS[name]
    folder = Path(tempfile.mkdtemp())
    sample, corpus, found = folder / "sample", folder / "corpus", out / name
    for one in (sample, corpus, found):
        one.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["fields"], exclude=["fields.benchmarks"]):
        target.build(sample)
        target.read(sample)  # imports, and so instruments, whatever it needs
    files = sorted(f for f in sample.rglob(target.damaged) if f.is_file())
    for i, file in enumerate(files[:256]):
        (corpus / str(i)).write_bytes(bytes([i]) + file.read_bytes())

    def once(data: bytes) -> None:
        file = files[data[0] % len(files)] if data else files[0]
        before = file.read_bytes()
        file.write_bytes(data[1:])
        try:
            target.read(sample)
        except FieldsError:
            pass
        finally:
            file.write_bytes(before)

    def another(data: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)
        if not data or rng.random() < 0.5:
            return atheris.Mutate(data, most)
        return (data[:1] + mutate(data[1:], files[data[0] % len(files)].suffix, rng))[:most]

    largest = max(1 << 16, 2 * max(f.stat().st_size for f in files))
    options = (f"-max_total_time={int(seconds)}", f"-artifact_prefix={found}/", f"-max_len={largest}", "-timeout=20", "-rss_limit_mb=4096",
               "-print_final_stats=1", "-verbosity=0")  # fmt: skip
    os.environ["TERM"] = "dumb"
    atheris.Setup([sys.argv[0], *options, str(corpus)], once, custom_mutator=another)
    atheris.Fuzz()
