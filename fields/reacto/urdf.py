"""The articulated object as robots' simulators read it: URDF with a mesh for every part.

Format: wiki.ros.org/urdf/XML. Lengths are those of the input, angles radians. All links have the axes of the input's frame, and stand on
the axes of their joints, where all joints are at zero.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fields.geometry.shapes import Mesh
from fields.geometry.surface import extract_mesh
from fields.io.atomic import write_atomically
from fields.io.shapes import write_obj
from fields.reacto.evaluation import SURFACE
from fields.reacto.field import ArticulatedField
from fields.reacto.kinds import joints_of

_EFFORT, _VELOCITY = 10.0, 1.0  # URDF wants them; nothing in a video says them


def part_meshes(field: ArticulatedField, resolution: int) -> list[Mesh]:
    """Of every part, closed, in the scene's frame, where all joints are at zero."""
    poses = field.poses(torch.zeros_like(field.states[:, 0])).detach()
    return [
        extract_mesh(part, SURFACE, resolution=resolution).transformed(pose.double().cpu().numpy())  # type: ignore[arg-type]
        for part, pose in zip(field.parts, poses, strict=True)
    ]


def write_urdf(
    folder: Path, name: str, field: ArticulatedField, input_from_world: np.ndarray, resolution: int = 128
) -> Path:
    """Writes NAME.urdf, and meshes/part_0.obj and so on beside it; returns the first."""
    joints = [joint.transformed(torch.from_numpy(input_from_world)) for joint in joints_of(field)]
    stands = {0: np.zeros(3)} | {joint.child: joint.pivot.double().cpu().numpy() for joint in joints}
    robot = ET.Element("robot", name=name)
    for b, mesh in enumerate(part_meshes(field, resolution)):
        mesh = mesh.transformed(input_from_world)
        mesh = replace(mesh, positions=mesh.positions - stands[b])
        write_obj(folder / "meshes" / f"part_{b}.obj", mesh, {"units": "units of the input"})
        link = ET.SubElement(robot, "link", name=f"part_{b}")
        for purpose in ("visual", "collision"):
            geometry = ET.SubElement(ET.SubElement(link, purpose), "geometry")
            ET.SubElement(geometry, "mesh", filename=f"meshes/part_{b}.obj")
    for joint in joints:
        # A screw both turns and slides, which URDF cannot say: what it turns by is kept.
        kind = "revolute" if joint.kind == "screw" else joint.kind
        element = ET.SubElement(robot, "joint", name=f"joint_{joint.child}", type=kind)
        ET.SubElement(element, "parent", link=f"part_{joint.parent}")
        ET.SubElement(element, "child", link=f"part_{joint.child}")
        ET.SubElement(element, "origin", xyz=_numbers(stands[joint.child] - stands[joint.parent]), rpy="0 0 0")
        ET.SubElement(element, "axis", xyz=_numbers(joint.axis.tolist()))
        low, high = joint.limits
        limit = {"lower": low, "upper": high, "effort": _EFFORT, "velocity": _VELOCITY}
        ET.SubElement(element, "limit", {k: f"{v:.9g}" for k, v in limit.items()})
    ET.indent(robot)
    text = ET.tostring(robot, encoding="unicode", xml_declaration=True) + "\n"
    file = folder / f"{name}.urdf"
    write_atomically(file, lambda path: path.write_text(text))
    return file


def _numbers(values) -> str:
    return " ".join(f"{v:.9g}" for v in values)
