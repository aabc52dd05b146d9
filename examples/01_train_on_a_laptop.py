"""Train a small field on the embedded demo from Python: settings are keywords.

python examples/01_train_on_a_laptop.py
"""

import json
from pathlib import Path

import fields

field = fields.train("tensorf-vm", out="runs/laptop", iterations=300, density_rank=8, appearance_rank=16)
metrics = json.loads(Path("runs/laptop/metrics.json").read_text())
print(f"PSNR {metrics['results']['psnr']:.2f} dB after {metrics['train_seconds']:.0f} s")
print(f"{sum(p.numel() for p in field.parameters()):,} parameters; pictures in runs/laptop/renders")
