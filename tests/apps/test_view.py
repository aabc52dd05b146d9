"""`fields view` as people use it: a browser, a mouse, several windows, and visitors who mean no good."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from fields.apps import cli
from safetensors.torch import load_file
from websockets.exceptions import WebSocketException


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("view") / "slim-demo"
    small = ["--density-rank", 4, "--appearance-rank", 8, "--voxels", 24**3, 36**3, "--density-shift", -4]
    arguments = ["--out", out, "--iterations", 60, "--downscale", 4, "--device", "cpu", *small]
    assert cli.main([str(a) for a in ("train", "slimmerf", *arguments)]) == 0
    return out


@pytest.fixture(scope="module")
def url(run):
    """Of the real command, in a process of its own."""
    command = [sys.executable, "-m", "fields.apps.cli", "view", str(run), "--port", "7190", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line + process.stdout.read()
        yield line.split()[0]
        assert process.poll() is None  # it survived all of this
    finally:
        process.terminate()
        assert "Traceback" not in process.stdout.read()


@pytest.fixture
def page(chromium, url):
    page = chromium.new_page(viewport={"width": 1000, "height": 640})
    page.goto(url)
    yield sharp(page)
    page.close()


def sharp(page):
    page.get_by_text(re.compile("· sharp$")).wait_for(timeout=60_000)
    return page


def picture(page) -> np.ndarray:
    """The left two thirds of the window, without the notices of the browser at the top left."""
    return iio.imread(page.screenshot(clip={"x": 0, "y": 160, "width": 640, "height": 480}))[..., :3].astype(float)


def differs(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


def orbit(page, dx=150, dy=-20):
    page.mouse.move(300, 400)
    page.mouse.down()
    page.mouse.move(300 + dx, 400 + dy, steps=10)
    page.mouse.up()
    time.sleep(1)  # the camera comes to rest softly


def choose(page, label, option):
    page.get_by_label(label, exact=True).first.click()
    page.get_by_role("option", name=option, exact=True).click()


def test_the_field_is_there_turns_and_shows_its_other_sides(page):
    first = picture(page)
    assert first.std() > 20 and first[-1, 0].min() > 240  # something on white
    orbit(page)
    turned = picture(sharp(page))
    assert differs(first, turned) > 5
    choose(page, "Show", "distance")
    time.sleep(0.5)
    assert differs(turned, picture(sharp(page))) > 5
    choose(page, "Background", "black")
    time.sleep(0.5)
    assert picture(sharp(page))[-1, 0].max() < 16
    choose(page, "Background", "white")
    choose(page, "Show", "rgb")


def test_the_size_slider_says_how_large_the_file_would_be(page):
    whole = picture(page)
    page.get_by_role("tab", name="Size").click()
    slider = page.locator("[role=slider]:visible").last
    slider.focus()
    before = float(re.search(r"([\d.]+) MB", page.inner_text("body"))[1])
    slider.press("Home")
    page.get_by_text(re.compile("MB, not measured")).wait_for()
    time.sleep(0.5)
    after = float(re.search(r"([\d.]+) MB", page.inner_text("body"))[1])
    assert after < before and differs(whole, picture(sharp(page))) > 0.5
    slider.press("End")


@pytest.mark.timeout(600)
def test_a_path_becomes_a_film_and_survives_its_browser(page, url, tmp_path):
    page.get_by_role("tab", name="Path").click()
    page.get_by_role("button", name="Add key frame").click()
    page.get_by_text("1 key frames").wait_for()
    orbit(page)
    sharp(page)
    page.get_by_role("button", name="Add key frame").click()
    page.get_by_text("2 key frames.").wait_for()
    page.get_by_label("Seconds", exact=True).first.fill("0.5")
    page.get_by_label("Seconds", exact=True).first.press("Enter")
    with page.expect_download(timeout=300_000) as download:
        page.get_by_role("button", name="Render MP4").click()
    film = tmp_path / "film.mp4"
    download.value.save_as(film)
    frames = np.stack(list(iio.imiter(film)))
    assert frames.shape == (12, 480, 640, 3) and differs(frames[0].astype(float), frames[-1].astype(float)) > 3
    with page.expect_download() as download:
        page.get_by_role("button", name="Save path").click()
    saved = json.loads(Path(download.value.path()).read_text())
    assert len(saved["keyframes"]) == 2 and len(saved["camera_path"]) == 12
    page.reload()  # another connection finds what this one has left
    sharp(page)
    page.get_by_role("tab", name="Path").click()
    page.get_by_text("12 images").wait_for()
    page.get_by_role("button", name="Remove all").click()
    page.get_by_text("0 key frames").wait_for()
    (tmp_path / "path.json").write_text(json.dumps(saved))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Load path").click()
    chooser.value.set_files(tmp_path / "path.json")
    page.get_by_text("2 key frames of path.json").wait_for()


def test_three_windows_at_once_each_have_their_own_camera(chromium, url):
    pages = [chromium.new_page(viewport={"width": 700, "height": 500}) for _ in range(3)]
    for page in pages:
        page.goto(url)
    for page in pages:
        sharp(page)
    before = pages[1].screenshot(clip={"x": 0, "y": 160, "width": 350, "height": 340})
    orbit(pages[0], dx=100)
    for page in pages:
        sharp(page)
    after = pages[1].screenshot(clip={"x": 0, "y": 160, "width": 350, "height": 340})
    assert differs(iio.imread(before).astype(float), iio.imread(after).astype(float)) < 1
    for page in pages:
        page.close()


# ---------------------------------------------------------------------------------------- who means no good


@pytest.mark.parametrize(
    "path", ["/../../../../etc/passwd", "/%2e%2e/%2e%2e/pyproject.toml", "/..%5c..%5csecret", "//etc/passwd"]
)
def test_nothing_outside_is_served(url, path):
    request = urllib.request.Request(url + path)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 404


def test_a_thousand_malformed_messages_hurt_nobody(url):
    import viser
    from websockets.sync.client import connect

    generator = np.random.default_rng(0)
    protocol, sent = [f"viser-v{viser.__version__}"], 0
    while sent < 1000:
        try:
            with connect(url.replace("http", "ws"), subprotocols=protocol, max_size=None, close_timeout=0.2) as socket:
                for _ in range(50):
                    size = int(generator.integers(0, 200))
                    sent += 1
                    socket.send(generator.bytes(size) if sent % 3 else "{" * size)
        except (WebSocketException, OSError):  # it hangs up on us
            pass
    assert urllib.request.urlopen(url, timeout=10).status == 200


def test_runs_that_are_none_are_refused_in_a_line(tmp_path, capsys):
    assert cli.main(["view", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    assert cli.main(["view", str(tmp_path), "--fps", "0"]) == 2


@pytest.mark.parametrize("where", [("--host", "203.0.113.7"), ("--host", "no such host"), ("--port", "99999")])
def test_an_address_that_is_none_is_refused_at_once(run, capsys, where):
    assert cli.main(["view", str(run), *where]) == 2
    assert where[0] in capsys.readouterr().err


def test_a_training_that_is_watched_comes_to_the_same_bits(tmp_path):
    """A browser's messages, as the browser sends them; its pictures, as it gets them."""
    import viser
    from fields.benchmarks.viewer import camera, received
    from websockets.sync.client import connect

    short = ["--iterations", 60, "--downscale", 4, "--device", "cpu"]
    alone = [str(a) for a in ("train", "tensorf-vm", "--out", tmp_path / "alone", *short)]
    watched = [
        str(a) for a in ("train", "tensorf-vm", "--out", tmp_path / "watched", *short, "--viewer", "--port", 7290)
    ]
    assert cli.main(alone) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "fields.apps.cli", *watched], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    address = next(line.split()[0] for line in process.stdout if line.startswith("http://"))
    pictures, turn = [], 0
    join = connect(address.replace("http", "ws"), subprotocols=[f"viser-v{viser.__version__}"], max_size=None)
    with join as socket, suppress(WebSocketException):  # the server goes when the training ends
        while True:
            turn += 1
            socket.send(camera(0.1 * turn, 4.0))
            pictures += received(socket, time.monotonic() + 0.2)
    process.stdout.read()
    assert process.wait() == 0 and len(pictures) > 1
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "watched"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
