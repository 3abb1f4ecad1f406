"""A tokenizer of any size that every reader accepts: bytes, one merge, and words nobody writes.

Byte-pair models need 256 byte tokens and at least one merge; the rest of a vocabulary exists only
so that the head of a model has its real number of rows. Any text encodes, to a token per byte.
"""

from __future__ import annotations

import numpy as np

from trit.files.gguf import Plain, Value, ValueType

_WORD = "Ġw"  # the result of the only merge; Ġ is a space
_MARKS = ("<|begin_of_text|>", "<|end_of_text|>")
_NORMAL, _CONTROL = 1, 3  # values of tokenizer.ggml.token_type
SMALLEST = 256 + 1 + len(_MARKS)


def keys(count: int) -> dict[str, Plain | Value]:
    """The `tokenizer.ggml.*` keys of a vocabulary of `count` tokens, at least SMALLEST."""
    assert count >= SMALLEST, count
    fillers = [f"{_WORD}{i}" for i in range(count - SMALLEST)]
    tokens = [*_byte_tokens(), _WORD, *fillers, *_MARKS]
    types = np.full(count, _NORMAL, dtype=np.int32)
    types[-len(_MARKS) :] = _CONTROL
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": ["Ġ w"],
        "tokenizer.ggml.bos_token_id": Value(ValueType.UINT32, count - 2),
        "tokenizer.ggml.eos_token_id": Value(ValueType.UINT32, count - 1),
        "tokenizer.ggml.add_bos_token": True,
    }


def _byte_tokens() -> list[str]:
    """The character that stands for each byte in GPT-2's vocabularies.

    Bytes that print in Latin-1 stand for themselves, the others for the characters from U+0100 on.
    """
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printed else chr(next(others)) for byte in range(256)]
