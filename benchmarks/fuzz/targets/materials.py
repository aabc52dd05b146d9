"""Measured and neural materials."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fields.benchmarks.fuzz.targets.sample import INFLATED, SMALL, Target


def _network() -> Any:
    import torch

    from fields.neumadiff.network import DIALECTS, Networks

    return Networks(torch.randn(2, 675, generator=torch.Generator().manual_seed(0)), DIALECTS["sztrajman"])


def _layers() -> list[np.ndarray]:
    shapes = ((21, 6), (21,), (21, 21), (21,), (3, 21), (3,))
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _materials(suffix: str, folder: Path) -> None:
    file = folder / f"a{suffix}"
    if suffix == ".npz":
        from fields.neumadiff.nbrdf import write_networks

        write_networks(folder / "a.nbrdf.npz", _network(), ["gold", "red"], {"scale": "merl"})
    elif suffix == ".h5":
        import h5py

        with h5py.File(file, "w") as h5:
            names, parts = ("dense_1", "dense_2", "dense_3"), iter(_layers())
            h5.attrs["layer_names"] = [name.encode() for name in names]
            for name in names:
                layer = h5.create_group(name)
                layer.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
                layer[f"{name}/kernel:0"], layer[f"{name}/bias:0"] = next(parts).T, next(parts)
    elif suffix == ".npy":
        np.save(file, _network().weights.numpy())
    elif suffix == "_fc1.npy":
        for name, part in zip(("fc1", "b1", "fc2", "b2", "fc3", "b3"), _layers(), strict=True):
            np.save(folder / f"a_{name}.npy", part.T)
    elif suffix == ".pth":
        import torch

        names = [f"fc{k}.{part}" for k in (1, 2, 3) for part in ("weight", "bias")]
        torch.save({name: torch.from_numpy(part) for name, part in zip(names, _layers(), strict=True)}, file)
    elif suffix == ".bsdf":
        from fields.neumadiff.tensor_file import write_tensor_file

        ones = np.ones((2, 2), np.float32)
        write_tensor_file(file, {"theta_i": np.array([0, 1], np.float32), "phi_i": np.zeros(1, np.float32), "sigma": ones, "ndf": ones,
                                 "vndf": np.ones((1, 2, 2, 2), np.float32), "rgb": np.ones((1, 2, 3, 2, 2), np.float32),
                                 "jacobian": np.ones(1, np.uint8)})  # fmt: skip
    else:
        import torch

        from fields.neumadiff.merl import Table, write_merl

        write_merl(file, Table(torch.ones(3, 90, 90, 180, dtype=torch.float64)))


def _read_materials(suffix: str, folder: Path) -> None:
    from fields.neumadiff.files import read_materials, scale_of

    file = folder / ("a.nbrdf.npz" if suffix == ".npz" else f"a{suffix}")
    read_materials(file)
    scale_of(file)


def _fits(folder: Path) -> None:
    colour = "[0.1, 0.2, 0.3]"
    lines = (f"{name} = Aggregate(Lambertian(albedo = {colour}), LowCookTorrance(albedo = {colour}, roughness = 0.02, eta = 1.5))\n"
             for name in ("gold", "red"))  # fmt: skip
    (folder / "a.fit").write_text("".join(lines))


def _read_fits(folder: Path) -> None:
    from fields.neumadiff.fits import read_fits

    read_fits(folder / "a.fit")


TARGETS: dict[str, Target] = {
    **{f"material{s}": Target(partial(_materials, s), partial(_read_materials, s), "*", INFLATED if s in (".npz", ".h5", ".pth") else SMALL)
       for s in (".binary", ".bsdf", ".npz", ".h5", ".npy", "_fc1.npy", ".pth")},
    "material.fit": Target(_fits, _read_fits),
}  # fmt: skip
