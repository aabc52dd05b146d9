"""``fields export RUN``: the surface of a run as a mesh and as a point cloud."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fields.apps.common import Progress, open_run, parse
from tyro.conf import Positional


@dataclass
class Options:
    run: Annotated[Path, Positional]
    """Run folder that `fields train` wrote, or a .slim file."""
    mesh: Path | None = None
    """Write the mesh here, as .glb or .ply. Without --mesh and --points: exports/mesh.glb and exports/points.ply in the run
    folder."""
    points: Path | None = None
    """Write the point cloud here, as .ply."""
    resolution: int = 256
    """Cells along the longest side of the box, for the mesh."""
    keep: float = 0.001
    """Drop loose parts of the mesh with less than this fraction of the area of the largest part."""
    count: int = 200_000
    """Points at most."""
    frame: Literal["input", "scene"] = "input"
    """input: coordinates and units of the scene's files. scene: those the field was trained in."""
    device: str = "auto"
    """auto, cpu or cuda."""


def main(arguments: list[str]) -> int:
    options = parse(arguments, Options, "fields export", "Writes the surface of a run as a mesh and as a point cloud.")
    if options.mesh is None and options.points is None:
        from fields.io.run import results_folder

        folder = results_folder(options.run) / "exports"
        options.mesh, options.points = folder / "mesh.glb", folder / "points.ply"
    _require_ending(options.mesh, (".glb", ".ply"), "--mesh")
    _require_ending(options.points, (".ply",), "--points")

    from fields.errors import ConfigError
    from fields.paths import from_json
    from fields.radiance import RadianceField

    config, field = open_run(options.run, options.device)
    scene = config.get("scene", {})
    into_frame, facts = _frame(options, scene)
    if not isinstance(field, RadianceField):
        raise ConfigError(f"{options.run}: a field of {config['method']} has no density to find a surface in.")
    cameras = from_json(scene.get("cameras", {}))
    if options.mesh:
        print(_write_mesh(options.mesh, options, field, cameras, into_frame, facts))
    if options.points:
        print(_write_points(options.points, options, field, cameras, into_frame, facts))
    print(f"Coordinates: {facts['frame']}; {facts['units']}.\nNext: fields render {options.run}")
    return 0


def _require_ending(path: Path | None, endings: tuple[str, ...], option: str) -> None:
    from fields.errors import ConfigError

    if path and path.suffix.lower() not in endings:
        raise ConfigError(f"{option} {path}: cannot write {path.suffix or 'that'}. Use {' or '.join(endings)}.")


def _frame(options: Options, scene: dict):
    """The similarity (4, 4) from the scene's frame to the one asked for, and what to tell of it in the files."""
    import numpy as np

    from fields.errors import CheckpointError

    if options.frame == "scene":
        return np.eye(4), {"frame": "scene", "units": "scene units", "axes": "those of the training scene"}
    try:
        world_from_input = np.array(scene["world_from_input"], dtype=np.float64)
        into_frame = np.linalg.inv(world_from_input)
        if into_frame.shape != (4, 4) or not np.isfinite(into_frame).all():
            raise ValueError(f"shape {into_frame.shape}")
    except (KeyError, TypeError, ValueError, np.linalg.LinAlgError) as error:
        raise CheckpointError(
            f"{options.run / 'config.json'}: world_from_input is missing or damaged ({error}). "
            "Restore it from a copy, or use --frame scene."
        ) from None
    return into_frame, {"frame": "input", "units": "units of the input", "axes": "those of the input"}


def _write_mesh(path: Path, options: Options, field, cameras, into_frame, facts) -> str:
    from fields.geometry import extract_mesh, stopping_density
    from fields.io.shapes import write_glb, write_ply

    level = stopping_density(field, cameras)
    with Progress("mesh") as progress:
        mesh = extract_mesh(field, level, resolution=options.resolution, keep=options.keep, watch=progress.step)
    write = write_glb if path.suffix.lower() == ".glb" else write_ply
    write(path, mesh.transformed(into_frame), facts)
    return f"{path}: {len(mesh.positions):,} vertices, {len(mesh.faces):,} triangles"


def _write_points(path: Path, options: Options, field, cameras, into_frame, facts) -> str:
    from fields.geometry import extract_points
    from fields.io.shapes import write_ply

    with Progress("points") as progress:
        points = extract_points(field, cameras, options.count, watch=progress.step)
    write_ply(path, points.transformed(into_frame), facts)
    return f"{path}: {len(points.positions):,} points"
