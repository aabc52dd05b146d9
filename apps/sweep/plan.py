"""A sweep on paper: which scenes, with which methods, with which settings."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fields.apps import train

from fields.errors import ConfigError
from fields.methods import method, shipped

_OURS = ("data", "out", "device", "devices", "resume", "viewer", "port")
"""Options of `fields train` that the sweep decides by itself."""
_MOST = 10_000


@dataclass(frozen=True)
class Trial:
    """One training."""

    name: str
    """Of its run folder."""
    scene: str
    method: str
    varied: dict[str, Any]
    """Those of its settings that others of its method have another value of."""
    arguments: list[str]
    """Of `fields train`, all but where it writes."""


@dataclass(frozen=True)
class Sweep:
    trials: list[Trial]
    cpus: float = 1
    """Each takes so many cores, …"""
    gpus: float | None = None
    """… and such a part of a GPU; None: one, where there are any."""
    retries: int = 3
    """A trial whose worker died goes on so many times."""
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    """PSNR by a name, that says where it is from, and by scene, or of the `mean` alone: to be shown beside ours."""

    @classmethod
    def of(cls, file: Path, data: Path | None = None) -> Sweep:
        """The sweep that a YAML file describes, see configs/sweeps.

        Args:
            data: folder of the scenes; default: that of the file.

        Raises:
            ConfigError: not such a file, or one that asks for what there is not; nothing has been trained by then.
        """
        known = {"scenes", "methods", "settings", *(set(cls.__dataclass_fields__) - {"trials"})}
        plain = _read(file)
        if not isinstance(plain, dict) or not {"scenes", "methods"} <= plain.keys():
            raise ConfigError(f"{file}: must name scenes and methods, as {example()} does.")
        if unknown := sorted(map(str, plain.keys() - known)):
            raise ConfigError(f"{file}: unknown {unknown[0]!r}. Known: {', '.join(sorted(known))}.")
        rest = {key: plain[key] for key in plain.keys() - {"scenes", "methods", "settings"}}
        _require_numbers(file, rest)
        found, folder = [], data or file.parent
        for scene, one in itertools.product(_named(file, plain, "scenes"), _named(file, plain, "methods")):
            settings = _mapping(file, "settings", plain.get("settings")) | _mapping(file, one[0], one[1])
            found += _trials(file, scene, one[0], settings, folder, _MOST - len(found))
        if twice := _first_twice(trial.name for trial in found):
            raise ConfigError(f"{file}: two trials are called {twice}. Give scenes names of their own.")
        return cls(found, **rest)


def example() -> Path:
    """A sweep that comes with the package."""
    return shipped("configs") / "sweeps" / "demo.yaml"


def shipped_sweeps() -> dict[str, Path]:
    return {file.stem: file for file in sorted(example().parent.glob("*.yaml"))}


def _read(file: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigError("Sweeps need Ray and PyYAML: pip install 'fields[sweep]'.") from None
    try:
        return yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read ({error.strerror}). Give a YAML file, or one of: {', '.join(shipped_sweeps())}."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid YAML ({' '.join(str(error).split())}).") from None


def _named(file: Path, plain: Mapping, what: str) -> list[tuple[str, Any]]:
    """Names and what is said of each, of a list of names or a mapping."""
    given = plain[what]
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        given = {Path(one).name if what == "scenes" else one: one if what == "scenes" else None for one in given}
        if len(given) < len(plain[what]):
            raise ConfigError(f"{file}: {what} of the same name. Give them names of their own: {{name: folder}}.")
    if not isinstance(given, dict) or not given:
        raise ConfigError(f"{file}: {what} must be a list of names or a mapping from names.")
    return [(str(name), value) for name, value in given.items()]


def _mapping(file: Path, what: str, given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigError(f"{file}: {what} is {given!r}; it must say which settings have which values.")
    return {str(key).replace("-", "_"): value for key, value in given.items()}


def _require_numbers(file: Path, rest: dict[str, Any]) -> None:
    for key in ("cpus", "gpus", "retries"):
        value = rest.get(key, 1)
        whole = key == "retries" and not isinstance(value, int)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6 or whole:
            raise ConfigError(f"{file}: {key} is {value!r}; it must be a number.")
    if rest.get("gpus", 0) > 1:
        raise ConfigError(f"{file}: gpus is {rest['gpus']}; a trial trains on one, or a part of one.")
    for name, row in _mapping(file, "published", rest.get("published")).items():
        if not isinstance(row, dict) or not all(isinstance(value, int | float) for value in row.values()):
            raise ConfigError(f"{file}: published {name!r} must have a number for each scene.")


def _trials(
    file: Path, scene: tuple[str, Any], name: str, settings: dict[str, Any], folder: Path, most: int
) -> Iterator[Trial]:
    """One for each combination of values, `most` in all: settings that are lists are tried value by value."""
    chosen = method(name)
    if reserved := sorted(settings.keys() & set(_OURS)):
        raise ConfigError(f"{file}: {reserved[0]} is decided by the sweep. Remove it.")
    where = [] if scene[1] is None else ["--data", str(_folder(file, scene, folder))]
    axes = {key: value for key, value in settings.items() if isinstance(value, list) and len(value) > 1}
    choices = [value if isinstance(value, list) else [value] for value in settings.values()]
    if empty := [key for key, value in settings.items() if value == []]:
        raise ConfigError(f"{file}: {empty[0]} has no value.")
    if math.prod(map(len, choices)) > most:
        raise ConfigError(f"{file}: more than {_MOST} trials. Make several sweeps of it.")
    for values in itertools.product(*choices):
        tried = dict(zip(settings, values, strict=True))
        varied = {key: tried[key] for key in axes}
        flags = [flag for key, value in tried.items() for flag in _flag(key, value)]
        try:
            with contextlib.redirect_stderr(io.StringIO()) as complaint:
                train.require_known(chosen, flags)
        except SystemExit:
            reason = " ".join(re.sub(r"[^\x20-\x7e]", " ", complaint.getvalue()).split())
            raise ConfigError(f"{file}: {name} cannot be trained with {' '.join(flags)}: {reason}") from None
        suffix = "".join(f"-{key}={re.sub(r'[^A-Za-z0-9.+-]+', '_', str(value))}" for key, value in varied.items())
        yield Trial(f"{scene[0]}-{name}{suffix}", scene[0], name, varied, [name, *where, *flags])


def _folder(file: Path, scene: tuple[str, Any], folder: Path) -> Path:
    if not isinstance(scene[1], str) or not re.fullmatch(r"[\w.+-]+", scene[0]):
        raise ConfigError(f"{file}: the scene {scene[0]!r} must be a plain name of a folder.")
    path = (folder / os.path.expandvars(os.path.expanduser(scene[1]))).resolve()
    if not path.exists():
        raise ConfigError(f"{file}: the scene {scene[0]} is not at {path}. Say with --data where the scenes are.")
    return path


def _flag(key: str, value: Any) -> list[str]:
    """A setting as `fields train` takes it."""
    name = key.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{name}"]
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]


def _first_twice(names: Iterator[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
