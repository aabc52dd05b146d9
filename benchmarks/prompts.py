"""How often what a model draws is what it was asked for: ``python -m fields.benchmarks.prompts``.

Two hundred prompts of a gloss, a colour and a kind, four materials each, 32 where kind and colour were never met together, for these are few. They are as they are drawn:
none is left out. Statistics say whether a material is what the words say (`fields.neumadiff.synthesis.agrees`), has the hue to within 30°, and is of the kind, where there is a rule for that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fields.neumadiff.made_up import UNSEEN
from fields.neumadiff.synthesis import agrees, load_model, synthesize
from fields.neumadiff.words import HUES, hue_off

KINDS = ("metal", "plastic", "rubber", "fabric", "metallic paint", "paint", "ceramic", "leather")
RULED = KINDS[:4]
OTHERS = ("gold", "copper", "silver", "polished metal", "black plastic", "white paint", "dark rubber", "mirror")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--guidance", type=float, default=1.0)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    found: dict[str, list[float]] = {}

    def count(name: str, held: torch.Tensor) -> None:
        found.setdefault(name, []).append(float(held.float().mean()))

    asked = [(gloss, colour, kind) for kind in KINDS for colour in HUES for gloss in ("", "glossy", "matte")]
    for gloss, colour, kind in [*asked, *(("", "", other) for other in OTHERS)]:
        text = " ".join((gloss, colour, kind)).strip()
        unseen = (kind, colour) in UNSEEN
        met = " of words never met together" if unseen else ""
        some = 32 if unseen else 4
        drawn = synthesize(text, some, model, guidance=arguments.guidance, check=False, seed=7).statistics
        count(f"all that the words say{met}", agrees(text, drawn, model.scale))
        if colour:
            count(f"hue{met}", hue_off(drawn.hue()[0], HUES[colour]) < 30)
        if kind in RULED:
            count("kind", agrees(kind, drawn, model.scale))
    for name, shares in found.items():
        print(f"{name}: {100 * sum(shares) / len(shares):.0f} % in {len(shares)} prompts")


if __name__ == "__main__":
    main()
