"""Small vocabularies made here, in GGUF keys and as tokenizer.json, and slow twins that read them.

The twins do what core/tokenizer.cpp does in the plainest way: look at all neighbours, join the best
pair, again. They share no code with it but the split into words, which has tests of its own.
"""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from archs import folders

TEXT = (
    "The quick brown fox jumps over the lazy dog. It's 1234567 o'clock; they've come, we'll see. "
    "for i in range(10):\n    print(i)\n\n\nÜber den Wolken, où ça? Ночь, улица, фонарь. 你好世界 "
    "the then there these those other another weather together 🙂🙂 naïve café <b>bold</b>\t\ttabs"
)
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
LETTERS = {byte: chr(byte) for byte in PRINTABLE} | {
    byte: chr(0x100 + n)
    for n, byte in enumerate(byte for byte in range(256) if byte not in PRINTABLE)
}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def byte_pair(pre: str = "gpt-2", merges: int = 120) -> dict[str, Any]:
    """GGUF keys of a byte-pair vocabulary learned from TEXT: 256 letters, merges, four specials."""
    pairs = _learned(
        (tuple(LETTERS[byte] for byte in f" {word}".encode()) for word in TEXT.split()), merges
    )
    tokens = [*LETTERS.values(), *dict.fromkeys(left + right for left, right in pairs)]
    specials = {"<|endoftext|>": CONTROL, "<|im_end|>": CONTROL, "<tool>": USER_DEFINED}
    specials |= {"<tool><tool>": USER_DEFINED}
    types = [NORMAL] * len(tokens) + list(specials.values())
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [*tokens, *specials],
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in pairs],
        "tokenizer.ggml.bos_token_id": len(tokens),
        "tokenizer.ggml.eos_token_id": len(tokens),
    }


def _learned(spelled: Iterable[tuple[str, ...]], merges: int) -> list[tuple[str, str]]:
    """The most frequent pair of neighbours, joined, and again."""
    words = Counter(spelled)
    pairs: list[tuple[str, str]] = []
    for _ in range(merges):
        counts: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                counts[pair] += times
        best = max(counts, key=lambda pair: (counts[pair], pair))
        pairs.append(best)
        words = Counter({tuple(_joined(list(word), best)): n for word, n in words.items()})
    return pairs


def sentencepiece() -> dict[str, Any]:
    """GGUF keys of a SentencePiece vocabulary: <unk> <s> </s>, 256 bytes, pieces with scores."""
    pieces: dict[str, float] = {"▁": -3.0}
    for word in TEXT.split():
        marked = f"▁{word}"
        for start in range(len(marked)):
            for end in range(start + 1, min(len(marked), start + 6) + 1):
                piece = marked[start:end]
                # Scores have ties on purpose: the leftmost pair then goes first.
                if end - start == 1 or hash_of(piece) % 3:
                    pieces.setdefault(piece, -float(hash_of(piece) % 40) + 3 * len(piece))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)]
    scores = [0.0] * 259 + list(pieces.values())
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*tokens, "<start>", "<tool>"],
        "tokenizer.ggml.token_type": np.array([*types, CONTROL, USER_DEFINED], np.int32),
        "tokenizer.ggml.scores": np.array([*scores, 0.0, 0.0], np.float32),
    }


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    value = 7
    for byte in text.encode():
        value = (value * 31 + byte) % 1_000_003
    return value


def slow_byte_pair(keys: dict[str, Any], words: list[str]) -> list[int]:
    """The ids of these words."""
    ids = {text: id for id, text in enumerate(keys["tokenizer.ggml.tokens"])}
    ranks = {tuple(m.split(" ")): rank for rank, m in enumerate(keys["tokenizer.ggml.merges"])}
    out: list[int] = []
    for word in words:
        parts = [LETTERS[byte] for byte in word.encode()]
        while True:
            known = [pair for pair in pairwise(parts) if pair in ranks]
            if not known:
                break
            # The leftmost of the best pairs first, then its next occurrence: as if one by one.
            parts = _joined(parts, min(known, key=lambda pair: ranks[pair]))
        out += [ids[part] for part in parts]
    return out


def slow_sentencepiece(keys: dict[str, Any], text: str) -> list[int]:
    """The ids of a text without specials; spaces are escaped here, the prefix is added."""
    ids = {text: id for id, text in enumerate(keys["tokenizer.ggml.tokens"])}
    scores = keys["tokenizer.ggml.scores"]
    parts = list(f" {text}".replace(" ", "▁"))
    while True:
        joined = [left + right for left, right in pairwise(parts)]
        known = [i for i, piece in enumerate(joined) if piece in ids]
        if not known:
            break
        best = max(known, key=lambda i: (scores[ids[joined[i]]], -i))
        parts[best : best + 2] = [joined[best]]
    out: list[int] = []
    for part in parts:
        out += [ids[part]] if part in ids else [ids[f"<0x{byte:02X}>"] for byte in part.encode()]
    return out


def _joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def tokenizer_json(keys: dict[str, Any]) -> dict[str, Any]:
    """The byte-pair vocabulary as an HF tokenizer.json, GPT-2's kind, BOS put before a text."""
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    added = [
        {
            "id": id,
            "content": tokens[id],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": bool(types[id] == CONTROL),
        }
        for id in np.flatnonzero(types != NORMAL).tolist()
    ]
    bos = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    bos_id = tokens.index("<|endoftext|>")
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {
                "<|endoftext|>": {
                    "id": "<|endoftext|>",
                    "ids": [bos_id],
                    "tokens": ["<|endoftext|>"],
                }
            },
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: id for id, text in enumerate(tokens) if types[id] == NORMAL},
            "merges": [merge.split(" ") for merge in keys["tokenizer.ggml.merges"]],
        },
    }


def sentencepiece_json(merges: int = 120) -> dict[str, Any]:
    """A SentencePiece vocabulary learned from TEXT, as transformers writes it: every way to split a
    piece is a merge, earlier pieces first."""
    pairs = _learned((tuple(f"▁{word}") for word in TEXT.split()), merges)
    letters = sorted({*TEXT.replace(" ", "▁"), "▁"} - {"\n", "\t"})
    pieces = [*letters, *dict.fromkeys(left + right for left, right in pairs)]
    splits = [
        [piece[:at], piece[at:]]
        for piece in pieces
        for at in range(1, len(piece))
        if piece[:at] in pieces and piece[at:] in pieces
    ]
    first = ["<unk>", "<|endoftext|>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    document = tokenizer_json(byte_pair())
    for token, text in zip(document["added_tokens"], first, strict=False):
        token.update(id=first.index(text), content=text, special=True)
    del document["added_tokens"][3:]
    document["post_processor"]["special_tokens"]["<|endoftext|>"]["ids"] = [1]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Prepend", "prepend": "▁"}
    document["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}
    document["pre_tokenizer"] = document["decoder"] = None
    vocab = {text: id for id, text in enumerate([*first, *pieces])}
    document["model"].update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    document["model"].update(vocab=vocab, merges=splits)
    return document


def write_hf_folder(folder: Path, document: dict[str, Any], rows: int | None = None) -> Path:
    """A small model with this tokenizer.json; as many rows in its embedding as there are tokens."""
    if rows is None:
        added = {token["id"] for token in document["added_tokens"]}
        rows = len(added | set(document["model"]["vocab"].values()))
    tensors = folders.weights()
    tensors["model.embed_tokens.weight"] = np.zeros((rows, folders.WIDTH), np.float32)
    folders.write(folder, folders.CONFIG | {"vocab_size": rows}, tensors)
    (folder / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    settings = {"bos_token": "<|endoftext|>", "eos_token": {"content": "<|im_end|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder
