"""Tokenizer files of an HF folder → the tokenizer.* keys of a GGUF, as llama.cpp's converter does.

Two kinds: byte-level BPE ("gpt2", from tokenizer.json) and SentencePiece BPE ("llama", from
tokenizer.model, or from a tokenizer.json that was made from one). In the last case the scores,
which decide the order of merges, are taken from the list of merges; the converter writes equal
scores there, with which a reader cannot merge as the model was trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trit.errors import InvalidFileError, UnsupportedError
from trit.files import _sentencepiece as spm
from trit.files._hf_json import Object, read_optional
from trit.files._hf_pretokenizer import pre_name
from trit.files._hf_special import check_template, special_keys

_SPACE = "\u2581"
_PAD_SCORE = -10000.0
_ADDED_SCORE = -1000.0


@dataclass(frozen=True)
class Added:
    """A token added beside the trained vocabulary."""

    id: int
    text: str
    special: bool


@dataclass
class Vocabulary:
    """Tokens by id while the files are read; ids that no file names stay [PADn], unused."""

    tokens: list[str]
    scores: list[float]
    types: list[int]

    @classmethod
    def blank(cls, size: int) -> Vocabulary:
        """`size` unused tokens."""
        names = [f"[PAD{i}]" for i in range(size)]
        return cls(names, [_PAD_SCORE] * size, [spm.UNUSED] * size)

    def put(self, id: int, text: str, type: int, score: float = _ADDED_SCORE) -> None:
        """Name a token."""
        self.tokens[id], self.types[id], self.scores[id] = text, type, score


def tokenizer_keys(folder: Path, config: Object, arch: str, rows: int) -> dict[str, Any]:
    """The tokenizer.* keys, with one token per row of the embedding; {} without tokenizer files.

    Raises InvalidFileError for ids beyond the rows or merges outside the vocabulary, and
    UnsupportedError for kinds of tokenizer that are neither of the two.
    """
    tokenizer = read_optional(folder / "tokenizer.json")
    settings = read_optional(folder / "tokenizer_config.json")
    byte_level = settings.get("tokenizer_class") == "GPT2Tokenizer"
    if (folder / "tokenizer.model").is_file() and not byte_level:
        keys = _from_sentencepiece(folder, tokenizer, settings, arch, rows)
    elif tokenizer:
        keys = _from_json(folder / "tokenizer.json", tokenizer, settings, rows)
    else:
        return {}
    if (prefix := _space_prefix(tokenizer, settings, arch, str(keys["model"]))) is not None:
        keys["add_space_prefix"] = prefix
    merges = keys.pop("merges", None)
    if merges:
        keys["merges"] = merges
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()} | special_keys(
        folder, tokenizer, settings, config, rows
    )


def _from_sentencepiece(
    folder: Path, tokenizer: Object, settings: Object, arch: str, rows: int
) -> dict[str, Any]:
    path = folder / "tokenizer.model"
    pieces = spm.read(path)
    _check_id(path, len(pieces) - 1, rows)
    vocabulary = Vocabulary.blank(rows)
    for id, piece in enumerate(pieces):
        # User-defined pieces become normal ones, as the converter has them.
        type = spm.NORMAL if piece.type == spm.USER_DEFINED else piece.type
        vocabulary.put(id, piece.text, type, piece.score)
    for text, id in read_optional(folder / "added_tokens.json").items():
        _check_id(folder / "added_tokens.json", id, rows)
        vocabulary.put(id, text, spm.USER_DEFINED)
    strict = arch == "phi3"  # its converter believes the files and guesses nothing
    added = _added_of_settings(folder / "tokenizer_config.json", settings, rows)
    if strict or not added:
        added += _added_of_json(folder / "tokenizer.json", tokenizer, rows)
    _put_added(vocabulary, added, guess=not strict)
    return _spm_keys(vocabulary)


def _from_json(path: Path, tokenizer: Object, settings: Object, rows: int) -> dict[str, Any]:
    model = tokenizer.get("model")
    if not isinstance(model, Mapping) or model.get("type") not in ("BPE", None):
        kind = model.get("type") if isinstance(model, Mapping) else None
        raise UnsupportedError(f"{path}: a tokenizer of the kind {kind!r} is not supported.")
    vocab = model.get("vocab")
    if not isinstance(vocab, Mapping) or not vocab:
        raise InvalidFileError(path, "key 'model.vocab'", "expected an object with tokens.")
    vocabulary = Vocabulary.blank(rows)
    texts: dict[int, str] = {}
    for text, id in vocab.items():
        _check_same(path, _check_id(path, id, rows), texts.setdefault(id, text), text)
        vocabulary.put(id, text, spm.NORMAL)
    added = _added_of_json(path, tokenizer, rows)
    for token in added:
        _check_same(path, token.id, texts.setdefault(token.id, token.text), token.text)
    check_template(path, tokenizer.get("post_processor"), texts)
    known = {token.id for token in added}
    settings_path = path.with_name("tokenizer_config.json")
    from_settings = _added_of_settings(settings_path, settings, rows)
    added += [token for token in from_settings if token.id not in known]
    _check_gaps(path, vocab.values(), {token.id for token in added})
    merges = _merges(path, model.get("merges"), vocab)
    if model.get("byte_fallback") is True:
        _score_by_merges(vocabulary, vocab, merges, model.get("unk_token"))
        _put_added(vocabulary, added, guess=True)
        return _spm_keys(vocabulary)
    _put_added(vocabulary, added, guess=True)
    return {
        "model": "gpt2",
        "pre": pre_name(tokenizer, path),
        "tokens": vocabulary.tokens,
        "token_type": np.array(vocabulary.types, dtype=np.int32),
        # The old file format: a space between the two parts, so one inside a part is recoded.
        "merges": [" ".join(part.replace(" ", "\u0120") for part in pair) for pair in merges],
    }


def _spm_keys(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "model": "llama",
        "pre": "default",
        "tokens": vocabulary.tokens,
        "scores": np.array(vocabulary.scores, dtype=np.float32),
        "token_type": np.array(vocabulary.types, dtype=np.int32),
    }


def _score_by_merges(
    vocabulary: Vocabulary,
    vocab: Mapping[str, int],
    merges: list[tuple[str, str]],
    unknown: object,
) -> None:
    """Score each token by the first merge that makes it, so that earlier merges win."""
    rank: dict[str, int] = {}
    for i, (left, right) in enumerate(merges):
        rank.setdefault(left + right, i)
    for text, id in vocab.items():
        type = spm.NORMAL
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            type = spm.BYTE
        elif text == unknown:
            type = spm.UNKNOWN
        vocabulary.put(id, text, type, -float(rank.get(text, len(merges))))


def _put_added(vocabulary: Vocabulary, added: Iterable[Added], guess: bool) -> None:
    for token in added:
        if token.special or (guess and _looks_special(token.text)):
            vocabulary.put(token.id, token.text, spm.CONTROL)
        else:
            text = token.text.replace(_SPACE, " ") if guess else token.text
            vocabulary.put(token.id, text, spm.USER_DEFINED)


def _looks_special(text: str) -> bool:
    """Tokens that some models should have marked special and did not."""
    if text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]"):
        return True
    ends = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return any(text.startswith(first) and text.endswith(last) for first, last in ends)


def _added_of_json(path: Path, tokenizer: Object, rows: int) -> list[Added]:
    found = tokenizer.get("added_tokens") or []
    if not isinstance(found, list):
        raise InvalidFileError(path, "key 'added_tokens'", "expected an array.")
    return [_added(path, token.get("id"), token, rows) for token in map(_as_object, found)]


def _added_of_settings(path: Path, settings: Object, rows: int) -> list[Added]:
    found = _as_object(settings.get("added_tokens_decoder"))
    return [
        _added(
            path,
            int(id) if id.isascii() and id.isdigit() and len(id) < 10 else id,
            _as_object(token),
            rows,
        )
        for id, token in found.items()
    ]


def _added(path: Path, id: object, token: Object, rows: int) -> Added:
    text = token.get("content")
    if not isinstance(text, str):
        raise InvalidFileError(path, f"added token {id}", "expected a text in 'content'.")
    return Added(_check_id(path, id, rows), text, token.get("special") is True)


def _as_object(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def _check_id(path: Path, id: object, rows: int) -> int:
    if isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < rows:
        raise InvalidFileError(
            path,
            f"token id {id!r}"[:60],
            f"expected 0 to {rows - 1}: the embedding has {rows} rows.",
        )
    return id


def _check_same(path: Path, id: int, one: str, other: str) -> None:
    if one != other:
        problem = f"expected one text, got {one!r:.60} and {other!r:.60}."
        raise InvalidFileError(path, f"token id {id}", problem)


def _check_gaps(path: Path, trained: Iterable[int], added: set[int]) -> None:
    """Ids of the trained vocabulary run on without holes, but for those of added tokens."""
    end = max(trained) + 1
    missing = end - len({id for id in (*trained, *added) if id < end})
    if missing:
        raise InvalidFileError(path, "key 'model.vocab'", f"expected no gaps, got {missing}.")


def _merges(path: Path, merges: object, vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """The merges as pairs; both spellings ("a b" and ["a", "b"]) are read."""
    if not isinstance(merges, list):
        raise InvalidFileError(path, "key 'model.merges'", "expected an array.")
    pairs = []
    for i, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        fits = isinstance(parts, list) and len(parts) == 2
        if not fits or not all(isinstance(part, str) for part in parts):
            raise InvalidFileError(path, f"merge {i}", "expected two texts.")
        left, right = parts
        if left not in vocab or right not in vocab or left + right not in vocab:
            raise InvalidFileError(
                path, f"merge {i}", "expected parts and whole in the vocabulary."
            )
        pairs.append((left, right))
    return pairs


def _space_prefix(tokenizer: Object, settings: Object, arch: str, model: str) -> bool | None:
    """Whether a text gets a space before it; None leaves the reader its default (it does)."""
    if arch in ("gemma2", "gemma3"):
        return False if model == "llama" else None
    given = settings.get("add_prefix_space")
    if arch == "llama" and isinstance(given, bool):
        return given
    if model != "llama" or not tokenizer:
        return None
    steps = [tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")]
    flat = [_as_object(step) for each in steps for step in _sequence(_as_object(each))]
    prepends = any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in flat
    )
    return None if prepends else False


def _sequence(part: Object) -> list[Any]:
    inner = part.get("normalizers", part.get("pretokenizers"))
    return inner if isinstance(inner, list) else [part]
