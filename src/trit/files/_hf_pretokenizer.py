"""Which of llama.cpp's pre-tokenizers a tokenizer.json asks for: the value of tokenizer.ggml.pre.

The converters recognise a tokenizer by a hash of what it makes of one text; trit looks at what the
file says it does, so a renamed or retrained tokenizer of a known shape is recognised too, and names
that llama.cpp treats alike become the most common one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.errors import UnsupportedError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CL100K = _CONTRACTIONS + r"\p{N}{1,3}" + _TAIL
_QWEN2 = _CONTRACTIONS + r"\p{N}" + _TAIL

_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_CASED_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = "|".join((*_CASED, r"\p{N}")) + _CASED_TAIL
_O200K = "|".join((*(part + _ENDINGS for part in _CASED), r"\p{N}{1,3}")) + _CASED_TAIL

_BYTES = ("ByteLevel", False)
_GPT2 = ("ByteLevel", True)


def pre_name(tokenizer: Mapping[str, Any], path: object) -> str:
    """The name for tokenizer.ggml.pre. Raises UnsupportedError for a shape trit does not know."""
    steps = _steps(tokenizer.get("pre_tokenizer"))
    if steps == [("Split", _CL100K), _BYTES]:
        whole_words_first = tokenizer.get("model", {}).get("ignore_merges") is True
        return "llama-bpe" if whole_words_first else "dbrx"
    known = [
        ([("Split", _QWEN2), _BYTES], "qwen2"),
        ([("Split", _TEKKEN), _BYTES], "tekken"),
        ([("Split", _O200K), _BYTES], "gpt-4o"),
        ([("Digits", True), _GPT2], "smollm"),
        ([_GPT2], "gpt-2"),
    ]
    for shape, name in known:
        if steps == shape:
            return name
    kinds = [kind for kind, _ in steps]
    if kinds[-2:] == ["Digits", "ByteLevel"] and set(kinds[:-2]) == {"Split"}:
        if len(kinds) == 7:
            return "deepseek-llm"
        if len(kinds) == 6 and ("Split", r"\s?\p{L}+") in steps:
            return "deepseek-coder"
    raise UnsupportedError(
        f"{path}: a pre-tokenizer of the shape {', '.join(kinds) or 'none'} is not one trit knows."
    )


def _steps(part: object) -> list[tuple[str, Any]]:
    """The pre-tokenizer as (kind, what matters of it), sequences flattened."""
    if not isinstance(part, Mapping):
        return []
    kind = part.get("type")
    if kind == "Sequence":
        inner = part.get("pretokenizers")
        return [step for each in inner for step in _steps(each)] if isinstance(inner, list) else []
    if kind == "Split":
        pattern = part.get("pattern")
        text = pattern.get("Regex", pattern.get("String")) if isinstance(pattern, Mapping) else None
        return [("Split", text)]
    if kind == "Digits":
        return [("Digits", part.get("individual_digits"))]
    if kind == "ByteLevel":
        return [("ByteLevel", part.get("use_regex", True))]
    return [(str(kind), None)]
