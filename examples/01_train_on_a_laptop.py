"""Train a small field on the embedded demo from Python, and look at one held-out view.

    python examples/01_train_on_a_laptop.py
"""

import json
from pathlib import Path

import fields

demo = Path(fields.__file__).parent / "assets" / "demo"
if not demo.exists():  # in a source tree that is installed in place
    demo = Path("assets/demo")
field = fields.train("tensorf-vm", demo, "runs/laptop", iterations=300, density_rank=8, appearance_rank=16)
results = json.loads(Path("runs/laptop/metrics.json").read_text())
print(f"PSNR {results['results']['psnr']:.2f} dB after {results['train_seconds']:.0f} s")
print("pictures in runs/laptop/renders")
