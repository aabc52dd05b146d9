"""The examples run, and say what they found."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def output(name: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested_and_short():
    names = {file.name for file in EXAMPLES.glob("*.py")}
    assert names == {"00_render_a_field.py", "01_train_on_a_laptop.py", "02_core_alone.py", "03_a_nerfacc_program.py",
                     "04_surfaces_and_points.py"}  # fmt: skip
    assert all(len((EXAMPLES / name).read_text().splitlines()) <= 60 for name in names)


def test_train_and_render(tmp_path):
    trained = output("01_train_on_a_laptop.py", tmp_path)
    assert float(re.search(r"PSNR ([0-9.]+) dB", trained)[1]) > 25
    output("00_render_a_field.py", tmp_path, "runs/laptop")
    assert (tmp_path / "turn.mp4").stat().st_size > 1000
    found = output("04_surfaces_and_points.py", tmp_path, "runs/laptop")
    on, above, level = map(
        float, re.search(r"density ([\d.]+) on it, ([\d.]+) a step above, level ([\d.]+)", found).groups()
    )
    assert above < on and 0.3 * level < on < 3 * level and (tmp_path / "surface.glb").stat().st_size > 10_000


def test_core_alone(tmp_path):
    found = [float(value) for value in re.findall(r"PSNR ([0-9.]+) dB", output("02_core_alone.py", tmp_path))]
    assert found[-1] > 28 and found[-1] > found[0] + 10


def test_a_nerfacc_program(tmp_path):
    found = re.search(r"PSNR ([0-9.]+) dB", output("03_a_nerfacc_program.py", tmp_path))
    assert float(found[1]) > 22  # a white image has 13


pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not beside the tests")
