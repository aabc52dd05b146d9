"""The articulated object as others read it: URDF with a mesh for every part, for robots' simulators, and its motion as binary glTF.

Format: wiki.ros.org/urdf/XML. Lengths are those of the input, angles radians. All links have the axes of the input's frame, and stand on
the axes of their joints, where all joints are at zero.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fields.geometry.shapes import Mesh
from fields.geometry.surface import extract_mesh
from fields.io.atomic import write_atomically
from fields.io.shapes import Moving, write_animated_glb, write_obj
from fields.reacto.evaluation import SURFACE
from fields.reacto.field import ArticulatedField
from fields.reacto.kinds import Joint, joints_of

_EFFORT, _VELOCITY = 10.0, 1.0  # URDF wants them; nothing in a video says them


@dataclass(frozen=True)
class Assembly:
    """Links and joints in the frame of the input."""

    name: str
    meshes: list[Mesh]
    """Of every part, closed; each about the point that it stands on."""
    stands: np.ndarray
    """(B, 3) those points, where all joints are at zero."""
    joints: list[Joint]
    """Of all parts but the first."""


def assembled(name: str, field: ArticulatedField, input_from_world: np.ndarray, resolution: int = 128) -> Assembly:
    """The parts of a field as meshes, `resolution` cells along their longest sides."""
    joints = [joint.transformed(torch.from_numpy(input_from_world)) for joint in joints_of(field)]
    stands = np.zeros((len(field.parts), 3))
    for joint in joints:
        stands[joint.child] = joint.pivot.double().cpu().numpy()
    poses = field.poses(torch.zeros_like(field.states[:, 0])).detach().double().cpu().numpy()
    meshes = []
    for part, pose, stand in zip(field.parts, poses, stands, strict=True):
        mesh = extract_mesh(part, SURFACE, resolution=resolution).transformed(input_from_world @ pose)  # type: ignore[arg-type]
        meshes.append(replace(mesh, positions=mesh.positions - stand))
    return Assembly(name, meshes, stands, joints)


def write_urdf(folder: Path, assembly: Assembly, density: float) -> Path:
    """Writes NAME.urdf, and meshes/part_0.obj and so on beside it; returns the first.

    Args:
        density: of all parts, mass per cubed unit of the input: their masses and inertias are those of solid bodies.
    """
    robot = ET.Element("robot", name=assembly.name)
    for b, mesh in enumerate(assembly.meshes):
        write_obj(folder / "meshes" / f"part_{b}.obj", mesh, {"units": "units of the input"})
        link = ET.SubElement(robot, "link", name=f"part_{b}")
        _add_inertia(link, mesh, density)
        for purpose in ("visual", "collision"):
            geometry = ET.SubElement(ET.SubElement(link, purpose), "geometry")
            ET.SubElement(geometry, "mesh", filename=f"meshes/part_{b}.obj")
    for joint in assembly.joints:
        # A screw both turns and slides, which URDF cannot say: what it turns by is kept.
        kind = "revolute" if joint.kind == "screw" else joint.kind
        element = ET.SubElement(robot, "joint", name=f"joint_{joint.child}", type=kind)
        ET.SubElement(element, "parent", link=f"part_{joint.parent}")
        ET.SubElement(element, "child", link=f"part_{joint.child}")
        ET.SubElement(
            element, "origin", xyz=_numbers(assembly.stands[joint.child] - assembly.stands[joint.parent]), rpy="0 0 0"
        )
        ET.SubElement(element, "axis", xyz=_numbers(joint.axis.tolist()))
        low, high = joint.limits
        limit = {"lower": low, "upper": high, "effort": _EFFORT, "velocity": _VELOCITY}
        ET.SubElement(element, "limit", {k: f"{v:.9g}" for k, v in limit.items()})
    ET.indent(robot)
    text = ET.tostring(robot, encoding="unicode", xml_declaration=True) + "\n"
    file = folder / f"{assembly.name}.urdf"
    write_atomically(file, lambda path: path.write_text(text))
    return file


def _add_inertia(link: ET.Element, mesh: Mesh, density: float) -> None:
    from trimesh import Trimesh

    body = Trimesh(mesh.positions, mesh.faces, process=False)
    body.density = density
    inertial = ET.SubElement(link, "inertial")
    ET.SubElement(inertial, "origin", xyz=_numbers(body.center_mass), rpy="0 0 0")
    ET.SubElement(inertial, "mass", value=f"{body.mass:.9g}")
    about = body.moment_inertia  # about its middle, along the axes of the link
    pairs = {f"i{'xyz'[i]}{'xyz'[j]}": f"{about[i, j]:.9g}" for i in range(3) for j in range(i, 3)}
    ET.SubElement(inertial, "inertia", pairs)


def write_animation(file: Path, assembly: Assembly, times: np.ndarray) -> None:
    """The motion as binary glTF: a node for every part, on that of its parent; times (T,) are seconds."""
    still = np.tile([0.0, 0.0, 0.0, 1.0], (len(times), 1))
    parts = [Moving(assembly.meshes[0], "part_0", -1, np.tile(assembly.stands[0], (len(times), 1)), still)]
    for joint in assembly.joints:
        axis, states = joint.axis.double().cpu().numpy(), joint.states.double().cpu().numpy()[:, None]
        slides = joint.kind == "prismatic"
        stand = assembly.stands[joint.child] - assembly.stands[joint.parent]
        translations = stand + axis * states * (1 if slides else joint.pitch if joint.kind == "screw" else 0)
        turned = np.concatenate([np.sin(states / 2) * axis, np.cos(states / 2)], 1)
        parts.append(
            Moving(
                assembly.meshes[joint.child],
                f"part_{joint.child}",
                joint.parent,
                translations,
                still if slides else turned,
            )
        )
    write_animated_glb(file, parts, times, {"name": assembly.name, "units": "units of the input"})


def _numbers(values) -> str:
    return " ".join(f"{v:.9g}" for v in values)
