"""The README's picture: held-out views of a run as ground truth, rendering, error and depth.

python docs/demo_picture.py runs/strivec-demo docs/demo.png r_000 r_004
"""

import sys
from pathlib import Path

import imageio.v3 as iio
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLUMNS = ("ground truth", "rendering", "error, 0 to 0.2", "depth")


def main(run: str, out: str, *views: str) -> None:
    figure, axes = plt.subplots(len(views), 4, figsize=(8.4, 2.1 * len(views) + 0.2), squeeze=False)
    for row, view in zip(axes, views, strict=True):
        strip = iio.imread(Path(run, "renders", f"{view}.png"))
        size = strip.shape[0]
        starts = [k * (strip.shape[1] - size) // 3 for k in range(4)]  # four squares, evenly spaced
        for axis, start in zip(row, starts, strict=True):
            axis.imshow(strip[:, start : start + size], interpolation="lanczos")
            axis.axis("off")
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=10)
    figure.tight_layout(pad=0.2)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:])
