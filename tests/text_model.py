"""A small random llama that reads bytes, as a GGUF file, and a text to measure it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import small_model
from trit.files.gguf import Plain, Value

TEXT = "The quick brown fox jumps over the lazy dog; a second sentence, with 12 numbers. " * 6


def write(
    path: Path,
    seed: int = 0,
    matrices: str = "f16",
    add_bos: bool = True,
    change: Callable[[dict[str, NDArray[np.float32]]], None] = lambda weights: None,
) -> Path:
    """Write a model of 258 tokens: <s>, </s> and one for each byte. `change` may spoil weights."""
    tokens = ["<s>", "</s>", *_byte_letters()]
    weights = small_model.arrays(seed=seed)
    random = np.random.default_rng(seed)
    embedding = random.standard_normal((len(tokens), small_model.EMBED)) / 2
    weights["token_embd.weight"] = embedding.astype(np.float32)
    change(weights)
    for array in weights.values():
        if array.ndim == 1:
            array += 1.0
    keys: dict[str, Plain | Value] = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, *[1] * 256],
        "tokenizer.ggml.merges": ["t h"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": add_bos,
    }
    keys["tokenizer.ggml.tokens"] = [*tokens[:-1], "th"]  # the last byte is in no text
    return small_model.write(path, weights, matrices, keys)


def _byte_letters() -> list[str]:
    """One printable character per byte, as GPT-2 maps them."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
