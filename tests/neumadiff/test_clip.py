"""CLIP's text encoder, a small one with random weights in the files that its are published in."""

import json

import pytest
import torch

from fields.errors import ConfigError, DataError
from fields.neumadiff.encoders import text_encoder, width

transformers = pytest.importorskip("transformers", reason="of the optional package fields[text]")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = {w: k for k, w in enumerate([*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokens = transformers.CLIPTokenizer(words, [])
    tokens.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, projection_dim=24,
        bos_token_id=words["<|startoftext|>"], eos_token_id=words["<|endoftext|>"],
    )  # fmt: skip
    transformers.CLIPTextModelWithProjection(config).save_pretrained(tmp_path)
    monkeypatch.setenv("FIELDS_CLIP", str(tmp_path))
    text_encoder.cache_clear()
    return tmp_path


def test_texts_are_told_apart_whatever_they_come_with(folder):
    """Tolerance: sums in another order."""
    encoder = text_encoder("clip")
    texts = ["red", "dark green metal", "a"] * 30
    found = encoder.encode(texts)
    assert found.shape == (90, 24) == (90, width(encoder.id))
    assert torch.allclose(found.norm(dim=-1), torch.ones(90), atol=1e-6)
    assert torch.allclose(found[1], encoder.encode(texts[1:2])[0], atol=1e-5)
    assert (found[0] - found[1]).norm() > 0.1


def test_other_weights_are_refused(folder):
    known = text_encoder("clip").id
    assert text_encoder(known).id == known
    with pytest.raises(ConfigError, match="not the CLIP that this model was trained with"):
        text_encoder("clip:24:00000000")


def test_what_is_missing_or_broken_is_said(folder, monkeypatch):
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match="no CLIP that can be read"):
        text_encoder("clip")
    monkeypatch.delenv("FIELDS_CLIP")
    with pytest.raises(ConfigError, match="FIELDS_CLIP"):
        text_encoder("clip")
