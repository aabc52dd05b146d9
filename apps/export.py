"""``fields export RUN``: the surface of a run as a mesh, a point cloud, depth and normal maps, and its density as a grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from fields.apps.common import Progress, open_run, parse
from tyro.conf import Positional

_MESHES = (".glb", ".ply", ".obj", ".usda", ".usdc", ".usd")
_TEXTURED = 20_000  # triangles, where nothing else is said: to unwrap ten times as many takes minutes


@dataclass
class Options:
    run: Annotated[Path, Positional]
    """Run folder that `fields train` wrote, or a .slim file."""
    mesh: Path | None = None
    """Write the mesh here, as .glb, .ply, .obj, .usda, .usdc or .usd. Without any of --mesh, --points, --maps and --grid:
    exports/mesh.glb and exports/points.ply in the run folder."""
    points: Path | None = None
    """Write the point cloud here, as .ply."""
    maps: Path | None = None
    """Write what the training cameras see into this folder: depth as 32-bit TIFF, normals as PNG, and transforms.json."""
    grid: Path | None = None
    """Write the density and colour of a grid of points here, as .npz."""
    resolution: int = 256
    """Cells along the longest side of the box, for the mesh and the grid."""
    keep: float = 0.001
    """Drop loose parts of the mesh with less than this fraction of the area of the largest part."""
    faces: int | None = None
    """Simplify the mesh to about so many triangles. Needs fields[mesh]."""
    texture: int | None = None
    """Bake the colours into a picture of so many pixels a side, instead of one per vertex. Not for .ply. Needs
    fields[mesh]; without --faces, the mesh gets 20 000."""
    count: int = 200_000
    """Points at most."""
    frame: Literal["input", "scene"] = "input"
    """input: coordinates and units of the scene's files. scene: those the field was trained in."""
    device: str = "auto"
    """auto, cpu or cuda."""


def main(arguments: list[str]) -> int:
    about = "Writes the surface of a run as a mesh, a point cloud, depth maps; its density as a grid."
    options = parse(arguments, Options, "fields export", about)
    if not (options.mesh or options.points or options.maps or options.grid):
        from fields.io.run import results_folder

        folder = results_folder(options.run) / "exports"
        options.mesh, options.points = folder / "mesh.glb", folder / "points.ply"
    _require_ending(options.mesh, tuple(e for e in _MESHES if not (options.texture and e == ".ply")), "--mesh")
    _require_ending(options.points, (".ply",), "--points")
    _require_ending(options.grid, (".npz",), "--grid")

    from fields.errors import ConfigError
    from fields.paths import from_json
    from fields.radiance import RadianceField

    config, field = open_run(options.run, options.device)
    scene = config.get("scene", {})
    cameras = from_json(scene.get("cameras", {}))
    into_frame, facts = _frame(options, cameras)
    if not isinstance(field, RadianceField):
        raise ConfigError(f"{options.run}: a field of {config['method']} has no density to find a surface in.")
    for path, write in (
        (options.mesh, _write_mesh),
        (options.points, _write_points),
        (options.maps, _write_maps),
        (options.grid, _write_grid),
    ):
        if path:
            print(write(path, options, field, cameras, into_frame, facts))
    print(f"Coordinates: {facts['frame']}; {facts['units']}; up is {facts['up']}.\nNext: fields render {options.run}")
    return 0


def _require_ending(path: Path | None, endings: tuple[str, ...], option: str) -> None:
    from fields.errors import ConfigError

    if path and path.suffix.lower() not in endings:
        raise ConfigError(f"{option} {path}: cannot write {path.suffix or 'that'}. Use {', '.join(endings)}.")


def _frame(options: Options, cameras):
    """The similarity (4, 4) from the scene's frame to the one asked for, and what to tell of it in the files."""
    import numpy as np

    from fields.io.run import world_from_input
    from fields.paths import up_of

    up = up_of(cameras).double().numpy()
    if options.frame == "scene":
        into_frame = np.eye(4)
        facts = {"frame": "scene", "units": "scene units", "axes": "those of the training scene"}
    else:
        into_frame = np.linalg.inv(world_from_input(options.run).numpy())
        facts = {"frame": "input", "units": "units of the input", "axes": "those of the input"}
    up = into_frame[:3, :3] @ up
    up /= np.linalg.norm(up)
    axis = int(np.abs(up).argmax())
    named = f"{'+' if up[axis] > 0 else '-'}{'XYZ'[axis]}"
    return into_frame, facts | {"up": named if abs(up[axis]) > 0.95 else " ".join(f"{v:.3f}" for v in up)}


def _scale(into_frame) -> float:
    """Units of the frame to one of the scene."""
    import numpy as np

    return float(np.cbrt(abs(np.linalg.det(into_frame[:3, :3]))))


def _write_mesh(path: Path, options: Options, field, cameras, into_frame, facts) -> str:
    from fields.geometry import bake, extract_mesh, stopping_density
    from fields.io.shapes import write_glb, write_obj, write_ply
    from fields.io.usd import write_usd

    level = stopping_density(field, cameras)
    faces = options.faces or (_TEXTURED if options.texture else None)
    with Progress("mesh") as progress:
        mesh = extract_mesh(
            field, level, cameras, resolution=options.resolution, keep=options.keep, faces=faces, watch=progress.step
        )
    if options.texture:
        mesh = bake(field, mesh, options.texture)
    writers = {".glb": write_glb, ".ply": write_ply, ".obj": write_obj}
    writers.get(path.suffix.lower(), write_usd)(path, mesh.transformed(into_frame), facts)
    size = f", texture {mesh.texture.shape[1]} × {mesh.texture.shape[0]}" if options.texture else ""  # type: ignore[attr-defined]
    return f"{path}: {len(mesh.positions):,} vertices, {len(mesh.faces):,} triangles{size}"


def _write_points(path: Path, options: Options, field, cameras, into_frame, facts) -> str:
    from fields.geometry import extract_points
    from fields.io.shapes import write_ply

    with Progress("points") as progress:
        points = extract_points(field, cameras, options.count, watch=progress.step)
    write_ply(path, points.transformed(into_frame), facts)
    return f"{path}: {len(points.positions):,} points"


def _write_maps(folder: Path, options: Options, field, cameras, into_frame, facts) -> str:
    import torch

    from fields.conventions import save_nerfstudio
    from fields.geometry import depth_and_normals
    from fields.io.images import write_image, write_numbers

    names = [f"normal/{i:04d}.png" for i in range(len(cameras))]
    scale = _scale(into_frame)
    turn = torch.from_numpy(into_frame[:3, :3] / scale).float()
    with Progress("maps") as progress:
        for i, name in enumerate(names):
            depth, normals = (t.cpu() for t in depth_and_normals(field, cameras, i))
            write_numbers(folder / "depth" / f"{i:04d}.tiff", depth * scale)
            write_image(folder / name, (normals @ turn.T + 1) / 2)
            progress.step(i + 1, len(cameras))
    pose = torch.from_numpy(into_frame).float() @ cameras.world_from_camera
    pose[:, :3, :3] /= scale
    save_nerfstudio(folder / "transforms.json", replace(cameras, world_from_camera=pose), names)
    return f"{folder}: {len(names)} maps of depth along the viewing axis (0: nothing there) and of normals"


def _write_grid(path: Path, options: Options, field, cameras, into_frame, facts) -> str:
    import numpy as np

    from fields.geometry import sample_grid
    from fields.io.atomic import write_atomically

    with Progress("grid") as progress:
        density, rgb, world_from_grid = sample_grid(field, options.resolution, watch=progress.step)
    values = {
        "density": density / _scale(into_frame),
        "rgb": rgb,
        "frame_from_grid": into_frame @ world_from_grid,
        **{name: np.array(fact) for name, fact in facts.items()},
    }
    write_atomically(path, lambda file: np.savez_compressed(file, **values))
    return f"{path}: {' × '.join(map(str, density.shape))} points"
