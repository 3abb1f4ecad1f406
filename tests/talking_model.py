"""A small GGUF that can talk: random weights, a byte vocabulary, a chat template. No real model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

import small_model
from archs.tiny import _byte_letters
from trit.files.gguf import Plain, Value

BOS, EOS, START, END = 256, 257, 258, 259  # after the 256 bytes
SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
MERGES = ("t h", "th e", "a n", "Ġ the")
CONTEXT = 256
CONTROL, NORMAL = 3, 1
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def keys() -> dict[str, Plain | Value]:
    """The tokenizer and the context on top of small_model's keys."""
    tokens = [*_byte_letters(), *SPECIALS, *(merge.replace(" ", "") for merge in MERGES)]
    types = [CONTROL if token in SPECIALS else NORMAL for token in tokens]
    return {
        "llama.context_length": CONTEXT,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def write(path: Path, extra: Mapping[str, Plain | Value] | None = None) -> Path:
    """Write the model; `extra` keys come on top. An empty chat template is none."""
    given = {**keys(), **(extra or {})}
    count = BOS + len(SPECIALS) + len(MERGES)
    random = np.random.default_rng(1)
    weights = small_model.arrays()
    embedding = random.standard_normal((count, small_model.EMBED)).astype(np.float32) / 4
    weights["token_embd.weight"] = embedding
    return small_model.write(path, weights, extra=given)
