"""Images and videos as people look at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

from fields.io.atomic import replacing, write_atomically

_PART = 1 << 20  # numbers of an image that are worked on at once


def to_bytes(image: Tensor) -> np.ndarray:
    """(H, W, C) in [0, 1] to uint8, rounded."""
    image, shown = image.detach(), np.empty(image.shape, np.uint8)
    rows = max(_PART * len(image) // max(image.numel(), 1), 1)
    for start in range(0, len(image), rows):
        part = image[start : start + rows].clamp(0, 1)
        shown[start : start + rows] = (part * 255 + 0.5).to(torch.uint8).cpu().numpy()
    return shown


def write_image(path: Path, image: Tensor, text: Mapping[str, str] | None = None) -> None:
    """PNG of an sRGB image (H, W, 3 or 4) in [0, 1]; `text` is kept in it, beside the pixels."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    write_atomically(path, lambda file: iio.imwrite(file, to_bytes(image), pnginfo=info))


def write_numbers(path: Path, values: Tensor) -> None:
    """TIFF of (H, W) numbers, 32-bit floats."""
    write_atomically(path, lambda file: iio.imwrite(file, values.detach().cpu().float().numpy(), compression="zlib"))


def png(image: Tensor) -> bytes:
    """An sRGB image (H, W, 3) in [0, 1] as the bytes of a PNG."""
    return png_of_bytes(to_bytes(image))


def png_of_bytes(image: np.ndarray) -> bytes:
    """The same of one (H, W, 3) uint8."""
    return iio.imwrite("<bytes>", image, extension=".png")


def colour_map(values: Tensor, low: float, high: float, name: str = "turbo") -> Tensor:
    """(H, W) to colours (H, W, 3); `low` is the first colour of the map and `high` the last."""
    from matplotlib import colormaps

    scaled = ((values - low) / max(high - low, 1e-12)).clamp(0, 1).detach().cpu()
    colours = torch.empty(*values.shape, 3)
    for part, shown in zip(scaled.reshape(-1).split(_PART), colours.view(-1, 3).split(_PART), strict=True):
        shown.copy_(torch.from_numpy(colormaps[name](part.numpy())[:, :3]))  # made in double precision
    return colours


def colour_depth(depth: Tensor, opacity: Tensor, low: float, high: float) -> Tensor:
    """Expected distance, near bright and far dark, faded to white where nothing was hit."""
    distance = depth / opacity.clamp(min=1e-6)
    colours = colour_map(-distance, -high, -low, "magma").to(depth.device)
    return colours * opacity[..., None] + 1 - opacity[..., None]


def side_by_side(*images: Tensor, gap: int = 4) -> Tensor:
    """Images (H, W, 3) of one height in a row on white."""
    white = torch.ones(images[0].shape[0], gap, 3)
    row = [part for image in images for part in (image.cpu(), white)]
    return torch.cat(row[:-1], dim=1)


def contact_sheet(images: Tensor, captions: Sequence[str], columns: int = 4, gap: int = 8) -> Tensor:
    """sRGB images (N, H, W, 3) in rows, each above its caption, light on dark; captions that are too long end in …, and where none
    has any letters there is no room for them.

    Returns:
        One sRGB image (…, …, 3).
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    count, height, width = images.shape[:3]
    columns = min(columns, count)
    letters = max(10, height // 16)
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", letters)
    down, across = height + (2 * letters if any(captions) else 0) + gap, width + gap
    sheet = Image.new("RGB", (columns * across + gap, -(-count // columns) * down + gap), (32, 32, 32))
    draw = ImageDraw.Draw(sheet)
    for i, (tile, caption) in enumerate(zip(to_bytes(images), captions, strict=True)):
        x, y = gap + i % columns * across, gap + i // columns * down
        sheet.paste(Image.fromarray(tile), (x, y))
        kept = caption
        while kept and draw.textlength(caption, font) > width:
            kept = kept[:-1]
            caption = f"{kept.rstrip()}…"
        draw.text((x + width / 2, y + height + letters), caption, (220, 220, 220), font, anchor="mm")
    return torch.from_numpy(np.asarray(sheet).copy()).float() / 255


@contextmanager
def video_writer(path: Path, fps: int = 30) -> Iterator:
    """Gives a function that appends (H, W, 3) frames in [0, 1] to an MP4 (H.264, plays everywhere)."""
    import imageio.v2

    def even(frame: np.ndarray) -> np.ndarray:  # the codec wants even sides
        h, w = frame.shape[:2]
        return np.pad(frame, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")

    frames = 0
    with replacing(path) as temporary:
        with imageio.v2.get_writer(temporary, fps=fps, codec="libx264", quality=8, macro_block_size=1) as writer:

            def append(frame: Tensor) -> None:
                nonlocal frames
                writer.append_data(even(to_bytes(frame)))  # type: ignore[attr-defined]
                frames += 1

            yield append
        _require_frames(temporary, frames)


def _require_frames(video: Path, count: int) -> None:
    """Raises OSError where a video has not as many: its encoder ends without a word where the disk is full."""
    import imageio_ffmpeg

    try:
        found, _ = imageio_ffmpeg.count_frames_and_secs(str(video))
    except RuntimeError:
        found = 0
    if found != count:
        raise OSError(f"{found} of {count} frames arrived: is the disk full?")


def write_video(path: Path, frames: Iterable[Tensor], fps: int = 30) -> None:
    with video_writer(path, fps) as append:
        for frame in frames:
            append(frame)
