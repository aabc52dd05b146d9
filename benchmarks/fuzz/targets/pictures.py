"""Pictures, and flow that is stored in one."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import numpy as np
from fields.benchmarks.fuzz.targets.sample import INFLATED, SMALL, H, Target, W, image


def _picture(suffix: str, folder: Path) -> None:
    image(1, alpha=suffix in (".png", ".webp", ".tif")).save(folder / f"a{suffix}")


def _read_picture(suffix: str, folder: Path) -> None:
    from fields.data.images import decode, read_header

    header = read_header(folder / f"a{suffix}")
    decode(folder / f"a{suffix}", 4 if header.has_alpha else 3)


def write_linear(suffix: str, folder: Path) -> None:
    import torch

    from fields.io import png16
    from fields.io.hdr import write_exr

    file, pixels = folder / f"a{suffix}", np.random.default_rng(0).random((H, W, 3)).astype(np.float32)
    if suffix == ".exr":
        write_exr(file, {"": torch.from_numpy(pixels)})
    elif suffix == ".npy":
        np.save(file, pixels)
    elif suffix == ".hdr":
        rows = (255 * np.concatenate([pixels, np.full((H, W, 1), 0.5, np.float32)], 2)).astype(np.uint8)
        runs = b"".join(bytes([2, 2, 0, W]) + b"".join(bytes([W]) + c.tobytes() for c in row.T) for row in rows)
        file.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\nEXPOSURE=1.0\n\n-Y %d +X %d\n" % (H, W) + runs)
    elif suffix == ".jpg":
        image(1).save(file)
    else:
        file.write_bytes(png16.encode((65_535 * pixels).astype(np.uint16)))


def _read_linear(suffix: str, folder: Path) -> None:
    from fields.errors import DataError
    from fields.io.hdr import has_eight_bits, read_linear, read_vectors

    file = folder / f"a{suffix}"
    if suffix in (".npy", ".exr"):
        read_vectors(file)
    with contextlib.suppress(DataError):
        has_eight_bits(file)
    read_linear(file)


def _flow(folder: Path) -> None:
    from fields.reacto.flow import write_flow

    write_flow(folder / "a.png", np.random.default_rng(0).normal(size=(H, W, 2)), np.ones((H, W), bool))


def _read_flow(folder: Path) -> None:
    from fields.reacto.flow import read_flow

    read_flow(folder / "a.png")


TARGETS: dict[str, Target] = {
    **{f"picture{s}": Target(partial(_picture, s), partial(_read_picture, s), "*", INFLATED)
       for s in (".png", ".jpg", ".webp", ".tif", ".bmp")},
    **{f"linear{s}": Target(partial(write_linear, s), partial(_read_linear, s), "*", INFLATED if s in (".exr", ".png", ".jpg") else SMALL * 4)
       for s in (".exr", ".hdr", ".png", ".npy", ".jpg")},
    "flow": Target(_flow, _read_flow, "*", INFLATED),
}  # fmt: skip
