"""``fields articulate RUN``: parts and joints of an articulated object, as a URDF, and its motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fields.apps.common import Progress, open_run, parse
from tyro.conf import Positional


@dataclass
class Options:
    run: Annotated[Path, Positional]
    """Run folder that `fields train reacto` wrote."""
    resolution: int = 128
    """Cells along the longest side of each part's mesh."""
    fps: float = 10.0
    """Of the video and the animation."""
    density: float = 1000.0
    """Of the parts, for their masses and inertias: kilograms per cubic metre where the scene is in metres."""
    out: Path | None = None
    """Default: articulated in the run folder."""
    data: Path | None = None
    """Scene folder, where it has moved."""
    device: str = "auto"
    """auto, cpu or cuda."""


def main(arguments: list[str]) -> int:
    options = parse(
        arguments, Options, "fields articulate", "Writes an articulated object as URDF, and shows its motion."
    )

    import numpy as np
    import torch

    from fields.errors import ConfigError
    from fields.io.atomic import write_json
    from fields.io.images import side_by_side, video_writer
    from fields.io.run import results_folder, scene_of, world_from_input
    from fields.reacto.field import ArticulatedField
    from fields.reacto.urdf import assembled, write_animation, write_urdf
    from fields.rendering import render
    from fields.training.pixels import composite

    config, field = open_run(options.run, options.device)
    if not isinstance(field, ArticulatedField):
        raise ConfigError(
            f"{options.run}: a {config['method']} has no joints. `fields train reacto` makes runs that have."
        )
    if not 8 <= options.resolution <= 1024:
        raise ConfigError(f"--resolution {options.resolution}: a mesh has 8 to 1024 cells along its longest side.")
    if not 0 < options.density < float("inf"):
        raise ConfigError(f"--density {options.density}: a mass per volume is positive.")
    scene = scene_of(options.run, config, options.data).to(field.aabb.device)
    out = options.out or results_folder(options.run) / "articulated"
    input_from_world = torch.linalg.inv(world_from_input(options.run))
    with Progress("articulate") as progress:
        assembly = assembled(scene.name, field, input_from_world.numpy(), options.resolution)
        file, joints = write_urdf(out, assembly, options.density), assembly.joints
        moments = (np.array(field.times) - field.times[0]) / options.fps
        write_animation(out / "motion.glb", assembly, moments)
        described = [
            {"type": j.kind, "parent": j.parent, "child": j.child, "axis": j.axis.tolist(), "pivot": j.pivot.tolist(),
             "limits": j.limits, "pitch": j.pitch, "states": j.states.tolist()}
            for j in joints
        ]  # fmt: skip
        write_json(out / "joints.json", {"times": field.times, "joints": described})
        with video_writer(out / "motion.mp4", options.fps) as append, torch.no_grad():
            white = torch.ones(3, device=field.aabb.device)
            for i, time in enumerate(field.times):
                with field.in_state(field.states_at(time)):
                    picture = render(field, scene.train.cameras, i, white)
                    with field.coloured_by_part():
                        parts = render(field, scene.train.cameras, i, white)
                append(side_by_side(composite(scene.train.images.image(i), white), picture.rgb, parts.rgb))
                progress.step(i + 1, len(field.times))
    for joint in joints:
        print(joint.in_words())
    print(f"{file} and {out / 'joints.json'}; {out / 'motion.glb'}: its parts as they move; {out / 'motion.mp4'}: the video, "
          "what was learned of it, and its parts")  # fmt: skip
    print(f"Next: fields view {options.run}")
    return 0
