"""Cameras of pictures that come without: structure from motion, by COLMAP.

What most features are of stands still in the result: the surroundings, or the object where only it was to be seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fields.data.colmap import mask_of
from fields.data.images import decode
from fields.data.llff import list_images
from fields.errors import DataError

_FEWEST = 0.5  # of the pictures, that must find their place


def prepare(
    source: Path,
    out: Path,
    masks: Path | None,
    every: int,
    longest: int,
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[int, int]:
    """Writes a scene in COLMAP's layout, images/, masks/ and sparse/0/; how many pictures there are, and how many found their place.

    Args:
        source: a folder of pictures in the order of their names, or a video.
        masks: a folder with a mask for each, of the same stem, or of the same number for a video; what is not black is of the object.
        every: takes each so many-th.
        longest: pixels, of the longer side of pictures that are larger.

    Raises:
        DataError: naming what is wrong.
    """
    try:
        import pycolmap
    except ImportError:
        raise DataError("To find cameras COLMAP is needed: pip install 'fields[video]'") from None
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise DataError(f"{out}: already there, and not an empty folder. Remove it, or give another --out.")
    try:
        with TemporaryDirectory(dir=_made(out.absolute().parent)) as folder:
            work = Path(folder, "scene")
            count = _write_pictures(source, work, masks, every, longest)
            if count < 3:
                raise DataError(f"{source}: {count} pictures. Structure from motion needs three or more.")
            found = _reconstruct(pycolmap, source, work, count, watch)
            os.replace(work, out)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror}). Free some space, or give another --out."
        ) from None
    return count, found


def _write_pictures(source: Path, work: Path, masks: Path | None, every: int, longest: int) -> int:
    from PIL import Image

    folder, count = _made(work / "images"), 0
    for stem, picture in _pictures(source, every):
        image = Image.fromarray(picture)
        factor = min(1.0, longest / max(image.size))
        size = round(factor * image.width), round(factor * image.height)
        image.resize(size, Image.Resampling.LANCZOS).save(folder / f"{stem}.jpg", quality=95)
        if masks is not None:
            mask = _mask(masks, stem, image.size).resize(size, Image.Resampling.BOX)
            mask.save(_made(work / "masks") / f"{stem}.png")
        count += 1
    return count


def _reconstruct(pycolmap, source: Path, work: Path, count: int, watch: Callable[[int, int], None]) -> int:
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    database, placed = work.parent / "database.db", [2]

    def next_image() -> None:
        placed[0] += 1
        watch(min(placed[0], count), count)

    pycolmap.extract_features(
        database, work / "images", camera_mode=pycolmap.CameraMode.SINGLE, device=pycolmap.Device.cpu
    )
    pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
    found = pycolmap.incremental_mapping(
        database, work / "images", _made(work.parent / "models"), next_image_callback=next_image
    )
    if not found:
        raise DataError(
            f"{source}: no camera was found. The pictures share too few features: take some with more overlap, of more texture."
        )
    best = max(found.values(), key=lambda model: model.num_reg_images())
    if best.num_reg_images() < _FEWEST * count:
        raise DataError(
            f"{source}: only {best.num_reg_images()} of {count} pictures found their place. Take every picture of a video (--every 1), or pictures with "
            "more overlap."
        )
    best.write(_made(work / "sparse" / "0"))
    return best.num_reg_images()


def _pictures(source: Path, every: int) -> Iterator[tuple[str, np.ndarray]]:
    """Their stems, and (H, W, 3) uint8."""
    import imageio.v3 as iio

    if source.is_dir():
        for file in list_images(source)[::every]:
            yield file.stem, decode(file, 3)
        return
    try:
        for k, frame in enumerate(iio.imiter(source, plugin="FFMPEG")):
            if k % every == 0:
                yield f"{k:05d}", frame
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
        raise DataError(f"{source}: neither a folder of pictures nor a video ({reason}).") from None


def _mask(folder: Path, stem: str, size: tuple[int, int]):
    from PIL import Image

    mask = mask_of(folder, f"{stem}.jpg")
    if mask is None:
        raise DataError(f"{folder}: no mask {stem}.png. Every picture needs one.")
    there = decode(mask.path, 3).any(-1)
    if there.shape[::-1] != size:
        raise DataError(
            f"{mask.path}: {there.shape[1]} × {there.shape[0]} pixels, but its picture has {size[0]} × {size[1]}."
        )
    return Image.fromarray(255 * there.astype(np.uint8))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
