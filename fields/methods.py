"""The registry: every entry point of the group ``fields.methods`` is a `Method`, of ``fields.models`` a `Learner`.

A package adds one by an entry point in its own pyproject.toml; nothing here changes. This module and the objects it
finds import no torch, so that ``fields --help`` is instant.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import fields
from fields.errors import ConfigError

T = TypeVar("T")


class Schedule:
    """Settings of a training that goes through milestones: what a method's dataclass inherits."""

    iterations: int
    milestones: ClassVar[tuple[str, ...]] = ()
    """Names of the settings that are iterations, or tuples of them."""

    def scaled(self, iterations: int) -> Self:
        """The same schedule in another number of iterations: every milestone moves in proportion."""
        ratio = iterations / self.iterations

        def moved(at: Any) -> Any:
            return tuple(map(moved, at)) if isinstance(at, tuple) else max(1, round(at * ratio))

        changes = {name: moved(getattr(self, name)) for name in self.milestones}
        return dataclasses.replace(self, iterations=iterations, **changes)  # type: ignore[type-var]


@dataclass(frozen=True)
class Learner:
    """What the commands need to know of whatever is trained; classes are named, not imported, until they are used."""

    name: str
    summary: str
    config: type
    """Dataclass of the settings, each with its meaning as docstring."""
    training: str
    """``module:Class`` of the training: see `fields.training.loop.Steps`."""
    field: str
    """``module:Class`` of what it results in."""
    then: str = ""
    """The command that makes use of it, for a run folder RUN."""

    def load_training(self) -> type:
        return _load(self.training)

    def load_field(self) -> type:
        return _load(self.field)

    def presets(self) -> dict[str, Any]:
        """The shipped presets: configs/METHOD.toml is "paper", configs/METHOD-NAME.toml is "NAME"."""
        found = {}
        for file in shipped("configs").iterdir():
            if file.name == f"{self.name}.toml":
                found["paper"] = file
            elif file.name.startswith(f"{self.name}-") and file.name.endswith(".toml"):
                found[file.name[len(self.name) + 1 : -5]] = file
        return found

    def configure(self, preset: str | Path, real: bool = False) -> Any:
        """The settings of a preset, by its name or as a TOML file.

        The table ``[photographs]`` of a preset replaces settings for real photographs (`real`).

        Raises:
            ConfigError: no such preset, a file that is not TOML, or an unknown key.
        """
        presets = self.presets()
        source = presets.get(str(preset), Path(preset))
        try:
            table = tomllib.loads(source.read_text())
        except FileNotFoundError:
            raise ConfigError(
                f"{preset}: no such preset or file. {self.name} has the presets {', '.join(sorted(presets))}."
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{source}: not valid TOML ({error}).") from None
        photographs = table.pop("photographs", {})
        return from_dict(self.config, table | (photographs if real else {}), str(source))


@dataclass(frozen=True)
class Method(Learner):
    """A field that is trained on one scene: see `fields.training.trainer.Training` and `fields.rendering.Field`."""

    data: str = "fields.data"
    """Module whose `load_scene` reads what it trains on."""
    evaluation: str = "fields.training.evaluation"
    """Module whose `compare` and `evaluate` measure it."""
    demo: str = "demo"
    """Folder of `assets` that it trains on where no data are given."""

    def load_scene(self, path: str | Path | None = None, **options: Any) -> Any:
        """The scene in a folder; without one, the embedded demo."""
        return import_module(self.data).load_scene(path or shipped("assets") / self.demo, **options)

    def load_evaluation(self) -> Any:
        return import_module(self.evaluation)


def from_dict(config: type, values: dict[str, Any], source: str) -> Any:
    """A dataclass from plain data, refusing what it does not know."""
    known = {f.name for f in dataclasses.fields(config)}
    if unknown := sorted(values.keys() - known):
        import difflib

        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f" Did you mean {close[0]}?" if close else f" Known: {', '.join(sorted(known))}."
        raise ConfigError(f"{source}: unknown setting {unknown[0]!r}.{hint}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    defaults = config()
    for name, value in values.items():
        expected = type(getattr(defaults, name))
        if not isinstance(value, (int, float) if expected is float else expected):
            raise ConfigError(
                f"{source}: {name} is {value!r}; it must be {expected.__name__}, like {getattr(defaults, name)!r}."
            )
    return config(**values)


def shipped(folder: str) -> Path:
    """A folder of data files that comes with the package, wherever it runs from."""
    return next(place for path in fields.__path__ if (place := Path(path) / folder).is_dir())


def _load(target: str) -> type:
    module, name = target.split(":")
    return getattr(import_module(module), name)


def methods() -> dict[str, Method]:
    """Every installed method by name."""
    return {entry.name: entry.load() for entry in sorted(entry_points(group="fields.methods"), key=lambda e: e.name)}


def models() -> dict[str, Learner]:
    """Every installed model that learns from many objects, by name."""
    return {entry.name: entry.load() for entry in sorted(entry_points(group="fields.models"), key=lambda e: e.name)}


def method(name: str) -> Method:
    """Raises ConfigError where no installed package has a method of this name."""
    return _named(name, methods())


def learner(name: str) -> Learner:
    """A method or a model. Raises ConfigError where no installed package has one of this name."""
    return _named(name, {**methods(), **models()})


def _named(name: str, found: dict[str, T]) -> T:
    if name not in found:
        raise ConfigError(f"There is no method {name!r}. Installed: {', '.join(found)}.")
    return found[name]
