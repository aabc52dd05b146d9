"""Fragments, points on them, and what a reassembly leaves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from fields.benchmarks.fuzz.targets.sample import INFLATED, Target


def _meshes(suffix: str, folder: Path) -> None:
    import trimesh

    for i in range(2):
        mesh = trimesh.creation.icosphere(1, radius=1 + i)
        mesh.export(folder / f"a{i}{suffix}")
        if suffix == ".gltf":  # each has buffers of its own
            parts = trimesh.exchange.gltf.export_gltf(trimesh.Scene(mesh))
            parts = {(f"{i}_{n}" if n != "model.gltf" else f"a{i}.gltf"): body for n, body in parts.items()}
            for name, body in parts.items():
                (folder / name).write_bytes(body.replace(b'"gltf_buffer', b'"%d_gltf_buffer' % i))


def _read_fragments(folder: Path) -> None:
    from fields.garf.reading import load_fragments

    load_fragments(folder)


def _hdf5(folder: Path) -> None:
    import trimesh

    from fields.garf.fragment import Fragment
    from fields.garf.hdf5 import write_objects

    box = trimesh.creation.box()
    pieces = [Fragment(f"piece_{i}", box.vertices + [i, 0, 0], np.asarray(box.faces)) for i in range(3)]
    write_objects(folder / "a.hdf5", iter([("artifact/a/b", "train", pieces), ("artifact/c/d", "val", pieces[:2])]))


def _read_hdf5(folder: Path) -> None:
    from fields.garf.hdf5 import object_names, read_object

    for name in object_names(folder / "a.hdf5", "train", 20) + object_names(folder / "a.hdf5"):
        read_object(folder / "a.hdf5", name)


def _cloud(folder: Path) -> None:
    import torch

    from fields.garf.clouds import Cloud

    which = torch.tensor([0, 0, 1, 1])
    Cloud(torch.ones(4, 3), torch.ones(4, 3), which, torch.ones(4, 5), which, 1.0).save(folder / "a.npz")


def _read_cloud(folder: Path) -> None:
    from fields.garf.clouds import Cloud

    Cloud.load(folder / "a.npz")


def _reassembly(folder: Path) -> None:
    import trimesh

    from fields.garf.assembly import Place
    from fields.garf.confidence import Calibration
    from fields.garf.fragment import Fragment
    from fields.garf.reassembly import Joint, Reassembly
    from fields.garf.results import write_fragments, write_poses

    box = trimesh.creation.box()
    pieces = [Fragment(name, np.array(box.vertices), np.array(box.faces)) for name in "ab"]
    found = Reassembly(pieces, 0, np.stack([np.eye(4)] * 2), [0, 1], [1.0, 0.5], [Joint(0, 1, 0.5)], 1.0,
                       [np.zeros(12)] * 2, 0.5, [Place(1, np.eye(4), 0.5)], Calibration(0.1, 0.2))  # fmt: skip
    write_poses(folder, found)
    write_fragments(folder, found)


def _read_reassembly(folder: Path) -> None:
    from fields.garf.results import laid_out, read_results, told

    found = read_results(folder)
    laid_out(found)
    told(found)


TARGETS: dict[str, Target] = {
    **{f"fragments{s}": Target(partial(_meshes, s), _read_fragments) for s in (".ply", ".obj", ".stl", ".off", ".glb", ".gltf")},
    "fragments.hdf5": Target(_hdf5, _read_hdf5, "*", INFLATED),
    "fragments.npz": Target(_cloud, _read_cloud, "*", INFLATED),
    "reassembly": Target(_reassembly, _read_reassembly, "*.[js][sa]*"),
}  # fmt: skip
