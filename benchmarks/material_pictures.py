"""What a model makes of pictures of materials that it never learned from: ``python -m fields.benchmarks.material_pictures --model RUN``.

Made-up materials of another seed are on spheres and knobs, in lights of another seed too, and before anything. Does the encoder say what their statistics are, and find a
material in another light? And are materials that are drawn of a picture, none of them left out, nearer to its material than what is drawn of nothing?
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from fields.errors import ConfigError
from fields.io.images import contact_sheet, write_image
from fields.neumadiff.made_up import made_up
from fields.neumadiff.network import Networks
from fields.neumadiff.pictures import SIZE, looked_at, random_light, taken
from fields.neumadiff.preview import preview
from fields.neumadiff.statistics import NAMES, SCALES, seen_of, statistics
from fields.neumadiff.synthesis import load_model, synthesize
from fields.neumadiff.words import GREY, hue_and_chroma, hue_off, lab
from fields.relighting.develop import develop

_COUNT, _AT_ONCE, _EACH = 50, 5, 4
"""Materials, how many are in the same two lights, and how many are drawn of a picture."""
_SEED = 1
"""Of materials and lights; models learn from those of 0."""
_WIDTH = NAMES.index("half width")


def agreement(found: Tensor, true: Tensor) -> str:
    """Of statistics (M, 16) with true ones: what eyes see of it."""
    (hue, _), (true_hue, chroma) = (hue_and_chroma(seen_of(one).clamp(min=0)) for one in (found, true))
    hues = hue_off(hue, true_hue)[chroma > 2 * GREY]
    lightness = (lab(seen_of(found).clamp(min=0)) - lab(seen_of(true)))[:, 0].abs()
    width = (found - true)[:, _WIDTH].abs()
    return (
        f"hue of what has one off by {hues.median():.0f}° in the median, within 30° {100 * (hues < 30).float().mean():.0f} %; lightness off by "
        f"{lightness.median():.0f} of 100; highlight wider or narrower by a factor of {10 ** width.median():.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("material_pictures.png"))
    arguments = parser.parse_args()
    model, known = load_model(arguments.model), made_up(_COUNT, _SEED).materials
    if model.picture_encoder is None or model.scale != "physical":
        raise ConfigError("This needs a model that knows pictures, and has learned from made-up materials.")
    generator = torch.Generator().manual_seed(_SEED)
    shown = torch.cat(
        [taken(known[some], [random_light(generator) for _ in range(2)], generator) for some in torch.arange(_COUNT).split(_AT_ONCE)]
    )  # fmt: skip
    first, second = (looked_at(view.permute(0, 3, 1, 2), generator) for view in shown.unbind(1))
    true, usual, deviation = statistics(known).vector, model.usual, model.usual_deviation
    with torch.no_grad():
        one, other = model.picture_encoder(first), model.picture_encoder(second)
        said = usual + deviation * model.picture_encoder.looks(one)
    nearest = (one @ other.T).argsort(1, descending=True) == torch.arange(_COUNT)[:, None]
    print(f"the encoder: {agreement(said, true)}")
    print(
        f"the same material in another light is the nearest of {_COUNT}: {100 * nearest[:, 0].float().mean():.0f} %, among "
        f"the nearest five: {100 * nearest[:, :5].any(1).float().mean():.0f} %"
    )

    def off(vectors: Tensor, k: int) -> Tensor:
        """(N,) mean deviations by which statistics (N, 16) are not those of a material."""
        return ((vectors - true[k]) / deviation).abs().mean(1)

    anything = synthesize("", _EACH * _COUNT, model, check=False).statistics.vector
    drawn = [synthesize("", _EACH, model, image=image, check=False) for image in first]
    vectors = torch.stack([one.statistics.vector for one in drawn])
    with_picture = torch.stack([off(vectors[k], k) for k in range(_COUNT)])
    without = torch.stack([off(anything, k) for k in range(_COUNT)])
    nearer = (with_picture[:, :, None] < without[:, None]).float().mean()
    print(f"drawn of the picture: {agreement(vectors.flatten(0, 1), true.repeat_interleave(_EACH, 0))}")
    print(f"drawn of nothing: {agreement(anything, true.repeat(_EACH, 1))}")
    print(
        f"statistics of what is drawn of the picture are off by {with_picture.mean():.2f} deviations, of nothing by {without.mean():.2f}; nearer "
        f"in {100 * nearer:.0f} % of pairs"
    )
    balls = preview(
        Networks(torch.cat([one.networks.weights for one in drawn]), model.dialect), size=SIZE, backdrop=0.05
    )
    # As bright as the studio is for MERL's materials.
    balls = develop(balls / SCALES[model.scale]).unflatten(0, (_COUNT, _EACH))
    every = torch.cat([first.permute(0, 2, 3, 1)[:, None], balls], 1).flatten(0, 1)
    write_image(arguments.out, contact_sheet(every, [""] * len(every), columns=3 * (1 + _EACH), gap=2))
    print(f"{arguments.out}: pictures, and to the right of each what was drawn of it")


if __name__ == "__main__":
    main()
