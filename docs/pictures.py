"""The pictures of the documentation, made again: `python docs/pictures.py runs/strivec-demo runs/reassembled-demo`.

docs/demo.png       held-out views as ground truth, rendering, error and depth
docs/example.png    what the README's Python example shows
docs/viewer-*.png   the viewer in Chromium, which needs playwright and a Chromium on the path
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio.v3 as iio
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

DOCS = Path(__file__).parent
COLUMNS = ("ground truth", "rendering", "error, 0 to 0.2", "depth")
SOFTWARE = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader"]  # fmt: skip


def held_out(run: Path, views: tuple[str, ...] = ("r_000", "r_004")) -> None:
    figure, axes = plt.subplots(len(views), 4, figsize=(8.4, 2.1 * len(views) + 0.2), squeeze=False)
    for row, view in zip(axes, views, strict=True):
        strip = iio.imread(run / "renders" / f"{view}.png")
        size = strip.shape[0]
        starts = [k * (strip.shape[1] - size) // 3 for k in range(4)]  # four squares, evenly spaced
        for axis, start in zip(row, starts, strict=True):
            axis.imshow(strip[:, start : start + size], interpolation="lanczos")
            axis.axis("off")
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=10)
    figure.tight_layout(pad=0.2)
    figure.savefig(DOCS / "demo.png", dpi=120)


def example(run: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (DOCS.parent / "README.md").read_text(), re.S)[1]
    found: dict = {}
    exec(code.replace("runs/strivec-demo", str(run)), found)
    (DOCS / "example.png").write_bytes(found["image"]._repr_png_())


def viewer(run: Path) -> None:
    with window(run) as page:
        settled(page)
        shot(page, "viewer-view")
        choose(page, "Show", "normal")
        settled(page)
        shot(page, "viewer-normal")
        choose(page, "Show", "rgb")
        page.get_by_role("tab", name="Boxes").click()
        page.get_by_label("Scale 1", exact=False).first.click()
        settled(page)
        shot(page, "viewer-boxes")
        page.get_by_label("Scale 1", exact=False).first.click()
        page.get_by_role("tab", name="Cameras").click()
        page.get_by_role("button", name="Fly there").click()
        page.get_by_label("Show the training cameras", exact=False).first.click()
        page.get_by_role("tab", name="View").click()
        page.get_by_text("Compare", exact=True).click()
        choose(page, "With", "photograph")
        settled(page)
        shot(page, "viewer-photograph")
        choose(page, "With", "nothing")
        page.get_by_text("Crop", exact=True).click()
        page.get_by_label("Show only what is in a box", exact=False).first.click()
        settled(page)
        shot(page, "viewer-crop")


def fragments(folder: Path) -> None:
    with window(folder) as page:
        explode = page.get_by_role("slider").first
        for _ in range(30):
            explode.press("ArrowRight")
        choose(page, "Fragment", "piece_4")
        page.get_by_role("button", name="Snap").click()
        page.get_by_text("settled on").wait_for(timeout=60_000)
        page.wait_for_timeout(2000)
        shot(page, "viewer-fragments")


def materials() -> None:
    """Of materials made up, and fitted."""
    from fields.neumadiff.fitting import fit
    from fields.neumadiff.made_up import made_up
    from fields.neumadiff.nbrdf import write_networks

    of = made_up(8, 3)
    networks = fit(of.materials, 8, begin="spread", iterations=600)
    names = [" ".join((*own, kind)) for own, kind in zip(of.names, of.categories, strict=True)]
    with TemporaryDirectory() as folder:
        write_networks(Path(folder, "materials.nbrdf.npz"), networks, names, {"scale": "physical"})
        with window(Path(folder, "materials.nbrdf.npz")) as page:
            page.wait_for_timeout(10_000)
            page.mouse.click(190, 190)  # one of gold
            page.get_by_text("Keep", exact=True).click()
            choose(page, "Shape", "knob")
            page.wait_for_timeout(15_000)
            # Soft shades need more than the 200 colours of the other pictures.
            Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(DOCS / "viewer-materials.png", optimize=True)


@contextmanager
def window(shown: Path) -> Iterator:
    """A page of Chromium with the viewer in it."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "fields.apps.cli", "view", str(shown), "--port", "7391"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split()[0]
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = playwright.chromium.launch(executable_path=chromium, args=SOFTWARE)
            page = browser.new_page(viewport={"width": 1100, "height": 640})
            page.goto(address)
            page.get_by_role("alert").get_by_role("button").first.click()  # a notice that this browser has no GPU
            yield page
            browser.close()
    finally:
        server.terminate()


def choose(page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).first.click()
    page.get_by_role("option", name=option, exact=True).click()


def shot(page, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(200, dither=Image.Dither.NONE).save(DOCS / f"{name}.png", optimize=True)


def settled(page) -> None:
    page.wait_for_timeout(1500)
    page.get_by_text(re.compile("· sharp$")).wait_for(timeout=60_000)
    page.wait_for_timeout(500)


if __name__ == "__main__":
    run, reassembled = map(Path, sys.argv[1:])
    for make in (held_out, example, viewer):
        make(run)
    fragments(reassembled)
    materials()
