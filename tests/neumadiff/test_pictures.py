"""Pictures of materials, and the encoder that learns from them."""

import pytest
import torch
from torch.testing import assert_close

from fields.errors import ConfigError, DataError
from fields.io.images import write_image
from fields.neumadiff.made_up import made_up
from fields.neumadiff.model import MaterialModel
from fields.neumadiff.network import ORDERS, WEIGHTS, Networks
from fields.neumadiff.picture_encoder import DIM, PictureEncoder, embedded, gathered_sight, learn
from fields.neumadiff.pictures import SIZE, Pictures, looked_at, photograph, pictures_of, random_light, square
from fields.neumadiff.preview import LitSpheres, picture, studio
from fields.neumadiff.rows import Rows, in_all_colours
from fields.neumadiff.synthesis import synthesize


def nothing(done: int, total: int) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Five networks of bases that are redder than green, and greener than blue, in six colour orders each: 30 rows."""
    torch.manual_seed(0)
    weights = 0.05 * torch.randn(5, WEIGHTS)
    weights[:, -3:] = torch.log1p(torch.tensor([0.25, 0.1, 0.03]))
    return in_all_colours(Networks(weights), ["paint"] * 5, [()] * 5, torch.arange(5)[:, None].expand(-1, 2))


@pytest.fixture(scope="module")
def pictures(rows) -> Pictures:
    return pictures_of(rows, nothing)


def test_all_lights_at_once_are_each_by_itself():
    """To rounding of float32, of radiances up to tens."""
    materials, lamp = made_up(2).materials, random_light(torch.Generator().manual_seed(3))
    both = LitSpheres(materials, lambda directions: torch.cat([studio(directions), lamp(directions)], 1), 48)
    alone = torch.cat([picture(LitSpheres(materials, light, 48), "knob", 16) for light in (studio, lamp)])
    assert_close(picture(both, "knob", 16), alone, atol=1e-4, rtol=1e-4)


def test_pictures_have_the_order_of_channels_of_their_material(rows, pictures):
    """All six orders share their pictures, and are as red, green and blue in these as they are: the light's colour is nowhere as strong."""
    assert len(pictures.images) == 5 and pictures.images.shape[1:] == (4, SIZE, SIZE, 3)
    every = torch.arange(30)
    for view in range(pictures.views):
        shown = pictures(every, torch.full_like(every, view))
        for k, order in enumerate(ORDERS):
            assert torch.equal(shown[5 * k : 5 * k + 5], shown[:5][:, list(order)])
        assert torch.equal(shown.mean((2, 3)).argsort(1), rows.statistics[:, 6:9].argsort(1))


def test_every_look_is_another(pictures):
    view = torch.zeros(30, dtype=torch.long)
    one, other, another = (looked_at(pictures(torch.arange(30), view), torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))  # fmt: skip
    assert torch.equal(one, other) and not torch.equal(one, another)
    assert one.amin() >= 0 and one.amax() <= 1


def test_the_size_of_a_picture_matters_little():
    """Two sizes of a sphere are ten times closer to each other than materials are, to an encoder that has learned nothing: pixels at edges differ."""
    torch.manual_seed(0)
    encoder, lit = PictureEncoder(), LitSpheres(made_up(6).materials, rows=48)
    with torch.no_grad():
        small, large = (encoder(picture(lit, "sphere", size, 0.2).clamp(0, 1).permute(0, 3, 1, 2)) for size in (128, 320))  # fmt: skip
    assert_close(small.norm(dim=1), torch.ones(6))
    assert (small - large).norm(dim=1).median() < 0.1 * torch.pdist(small).median()


def test_an_encoder_learns_and_is_kept(rows, pictures, tmp_path):
    """It tells from pictures what albedos are, at least twice as well as one that always says what is usual; and does so from a file."""
    usual, deviation = rows.usual
    wanted = (rows.statistics - usual) / deviation
    made = gathered_sight(rows, 120, tmp_path, nothing)
    assert made.embedded.shape == (30, 4, DIM)
    off, albedo = made.encoder.looks(made.embedded) - wanted[:, None], slice(6, 9)
    assert off[..., albedo].abs().mean() < 0.5 * wanted[:, albedo].abs().mean()
    kept = gathered_sight(rows, 120, tmp_path, lambda done, total: pytest.fail("It was there."))
    assert torch.equal(kept.embedded, made.embedded)
    # The pictures were made once more: they were the same.
    assert torch.equal(embedded(kept.encoder, pictures), made.embedded)


def test_learning_again_gives_the_same_bits(rows, pictures):
    one, other = (learn(pictures, rows.statistics, 3, nothing).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_drawn_follows_pictures_where_the_model_knows_them(rows):
    model = MaterialModel.of(rows, "cpu", "words", PictureEncoder().requires_grad_(False)).eval()
    assert model.modalities == ["category", "text", "statistics", "image"]
    same = MaterialModel(**model.constructor_arguments())
    same.load_state_dict(model.state_dict())
    image = torch.nn.functional.normalize(torch.randn(DIM), dim=0)
    told, again, untold = (
        which.draw(2, wanted, steps=3, generator=torch.Generator().manual_seed(0)).weights
        for which, wanted in ((model, {"image": image}), (same, {"image": image}), (model, {}))
    )
    assert torch.equal(told, again) and not torch.equal(told, untold)
    with pytest.raises(ConfigError, match="knows no pictures"):
        synthesize(image=torch.rand(3, SIZE, SIZE), model=MaterialModel("cpu", ["paint"]))


def test_what_is_opaque_is_the_material(tmp_path):
    """A patch in a transparent picture, or without alpha the square in the middle; beside the patch there is grey."""
    torch.manual_seed(0)
    image = torch.rand(60, 90, 4)
    image[..., 3] = 0
    image[5:45, 60:80, 3] = 1
    write_image(tmp_path / "patch.png", image)
    for found, close in ((square(image), 0.0), (photograph(tmp_path / "patch.png"), 0.5 / 255 + 1e-6)):
        assert found.shape == (3, 40, 40)
        assert_close(found[:, :, 10:30], image[5:45, 60:80, :3].permute(2, 0, 1), atol=close, rtol=0)
        assert (found[:, :, :10] == 0.5).all() and (found[:, :, 30:] == 0.5).all()
    assert torch.equal(square(image[..., :3]), image[:, 15:75, :3].permute(2, 0, 1))


def test_what_is_no_picture_of_a_material_is_said_in_a_line(tmp_path):
    with pytest.raises(DataError, match="all of it is transparent"):
        square(torch.zeros(40, 40, 4))
    with pytest.raises(DataError, match="15 pixels of material"):
        square(torch.zeros(40, 15, 3))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    for name in ("bad.png", "nowhere.jpg", "picture.txt"):
        with pytest.raises(DataError, match=name):
            photograph(tmp_path / name)
