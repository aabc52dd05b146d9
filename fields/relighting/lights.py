"""Lights as captures and lists of lights describe them: directional, point, spherical Gaussian, or a map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fields.errors import DataError
from fields.io.reading import parse_json
from fields.relighting.environment import Environment, Frame

Kind = Literal["directional", "point", "sg", "env"]
Vector = tuple[float, ...]  # of three
Rotation = tuple[Vector, ...]  # of three rows

IDENTITY: Rotation = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Light:
    """One light; equal to another that says the same."""

    kind: Kind
    rgb: Vector = (1.0, 1.0, 1.0)
    """directional: irradiance on a plane that faces it; point: radiant intensity; sg: peak radiance; env: a factor for the map."""
    direction: Vector | None = None
    """Unit, world, from the object towards the light: of directional and sg."""
    position: Vector | None = None
    """World: of point."""
    kappa: float | None = None
    """Sharpness of sg: radiance is rgb · exp(kappa · (w·direction − 1))."""
    file: Path | None = None
    """The map of env."""
    frame: Frame = "yup"
    """Whose axes that is in."""
    rotation: Rotation = IDENTITY
    """What turns it after that."""

    @staticmethod
    def parse(record: Any, folder: Path, where: str) -> Light:
        """From a JSON object {"type": "directional" | "point" | "sg" | "env", …} with the fields above as keys.

        Args:
            folder: that files are relative to.
            where: names the object in messages: a file and a place in it.

        Raises:
            DataError: a key is missing or does not mean anything.
        """
        kind: Any = record.get("type") if isinstance(record, dict) else None
        if kind not in get_args(Kind):
            raise DataError(f'{where}: a light of type {kind!r}.\n"type" is one of {", ".join(get_args(Kind))}.')
        rgb = _numbers(record, "rgb", 3, where) if kind != "env" or "rgb" in record else (1.0, 1.0, 1.0)
        if min(rgb) < 0:
            raise DataError(
                f'{where}: "rgb" of this light is negative: {list(rgb)}.\nLight is 0 or more in every channel.'
            )
        if kind == "directional":
            return Light(kind, rgb, direction=_unit(record, where))
        if kind == "point":
            return Light(kind, rgb, position=_numbers(record, "position", 3, where))
        if kind == "sg":
            (kappa,) = _numbers(record, "kappa", 1, where)
            if kappa <= 0:
                raise DataError(f'{where}: "kappa" of this light is {kappa}.\nThe sharpness of a Gaussian is above 0.')
            return Light(kind, rgb, direction=_unit(record, where), kappa=kappa)
        name, frame = record.get("file"), record.get("frame", "yup")
        if not isinstance(name, str) or not name:
            raise DataError(f'{where}: this light is a map and has no "file".\nName an .hdr or .exr.')
        if frame not in get_args(Frame):
            raise DataError(
                f'{where}: {frame!r} is no frame of a map.\n"frame" is one of {", ".join(get_args(Frame))}.'
            )
        file = (folder / name).absolute()
        if not file.is_file():
            raise DataError(f"{where}: the map {file} does not exist.\nPut it there, or correct its name.")
        return Light(kind, rgb, file=file, frame=frame, rotation=_rotation(record.get("rotation", IDENTITY), where))

    def as_json(self) -> dict[str, Any]:
        """What `parse` reads."""
        record: dict[str, Any] = {"type": self.kind, "rgb": list(self.rgb)}
        for key in ("direction", "position"):
            if (value := getattr(self, key)) is not None:
                record[key] = list(value)
        if self.kappa is not None:
            record["kappa"] = self.kappa
        if self.file is not None:
            record |= {"file": self.file.as_posix(), "frame": self.frame}
        if self.rotation != IDENTITY:
            record["rotation"] = [list(row) for row in self.rotation]
        return record

    def moved(self, world_from_input: Tensor) -> Light:
        """In other coordinates, where everything looks the same: a point light is brighter as the square of the scale.

        Args:
            world_from_input: (4, 4) similarity without reflection, from those it is in.
        """
        similarity = world_from_input.double().cpu()
        scale = float(similarity[:3, :3].det()) ** (1 / 3)
        rotation = similarity[:3, :3] / scale
        if self.kind == "env":
            turned = rotation @ torch.tensor(self.rotation, dtype=torch.float64)
            return replace(self, rotation=tuple(tuple(row) for row in turned.tolist()))
        if self.kind == "point":
            position = similarity[:3, :3] @ _column(self.position) + similarity[:3, 3]
            return replace(self, position=tuple(position.tolist()), rgb=tuple(scale**2 * v for v in self.rgb))
        return replace(self, direction=tuple((rotation @ _column(self.direction)).tolist()))

    def environment(self) -> Environment:
        """The map of an sg or env light; it is read.

        Raises:
            DataError: the map is damaged.
        """
        if self.kind == "sg":
            assert self.direction is not None and self.kappa is not None
            return Environment.spherical_gaussians([(self.direction, self.kappa, self.rgb)])
        assert self.file is not None, f"a {self.kind} light is no map"
        environment = Environment.load(self.file, self.frame)
        coloured = replace(environment, radiance=environment.radiance * torch.tensor(self.rgb))
        return coloured.moved(torch.tensor(self.rotation, dtype=torch.float64))


def load_lights(path: Path) -> list[Light]:
    """All lights of a JSON list of such objects.

    Raises:
        DataError: names the file, the light and what to do.
    """
    try:
        records = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: this file does not exist.\nCheck the path.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not valid JSON ({error}).\nCorrect it, or write the file again.") from error
    if not isinstance(records, list) or not records:
        raise DataError(
            f'{path}: not a list of lights.\nWrite [{{"type": "directional", "direction": […], "rgb": […]}}, …].'
        )
    return [Light.parse(record, path.parent, f"{path}: light {i}") for i, record in enumerate(records)]


def _numbers(record: dict[str, Any], key: str, count: int, where: str) -> Any:
    """A tuple of `count` finite numbers."""
    if key not in record:
        raise DataError(f'{where}: this light ({record["type"]}) has no "{key}".\nAdd it.')
    values = [record[key]] if count == 1 else record[key]
    if not isinstance(values, Sequence) or len(values) != count or not all(_is_number(v) for v in values):
        wanted = "a finite number" if count == 1 else f"{count} finite numbers"
        raise DataError(f'{where}: "{key}" of this light is {str(record[key])[:80]}.\nIt must be {wanted}.')
    return tuple(float(v) for v in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e38


def _unit(record: dict[str, Any], where: str) -> Any:
    direction = _numbers(record, "direction", 3, where)
    length = math.hypot(*direction)
    if abs(length - 1) > 1e-3:  # a direction written with four digits passes
        raise DataError(
            f'{where}: "direction" of this light has length {length:.4g}.\nIt must be a unit vector, from the object towards the light.'
        )
    return tuple(v / length for v in direction)


def _rotation(value: Any, where: str) -> Any:
    rows = value if isinstance(value, Sequence) else ()
    if [len(row) if isinstance(row, Sequence) else 0 for row in rows] == [3, 3, 3] and all(
        _is_number(v) for row in rows for v in row
    ):
        matrix = torch.tensor([list(row) for row in rows], dtype=torch.float64)
        if (matrix @ matrix.T - torch.eye(3)).abs().max() < 1e-4 and matrix.det() > 0:
            return tuple(tuple(float(v) for v in row) for row in rows)
    raise DataError(
        f'{where}: "rotation" of this light is not a rotation.\nWrite three rows of three numbers, or leave it out.'
    )


def _column(vector: Vector | None) -> Tensor:
    assert vector is not None
    return torch.tensor(vector, dtype=torch.float64)
