"""The tokenizer of an HF folder: tokenizer.json run by the `tokenizers` library.

The library trusts its file: it panics or makes up ids where one is broken. So tokenizer.json is
checked here first, and whatever is inconsistent becomes an InvalidFileError.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trit.errors import InvalidFileError, UnsupportedError
from trit.runtime._specials import CONTROL, USER_DEFINED, find_specials

if TYPE_CHECKING:
    import tokenizers

_MAX_FILE_BYTES = 256 << 20
_MAX_TOKEN_BYTES = 65536
_Object = dict[str, Any]


@dataclass(frozen=True)
class Parts:
    """What tokenizer.Tokenizer is made of."""

    backend: "Library"
    size: int
    ids: Mapping[str, int]
    ends: frozenset[int]
    add_bos: bool
    add_eos: bool


def load(folder: str | os.PathLike[str]) -> Parts:
    """Read and check tokenizer.json, tokenizer_config.json and generation_config.json."""
    path = Path(folder) / "tokenizer.json"
    text, document = _read(path)
    texts, special = check(document, path)
    backend = Library(_build(text, path), document, texts, special)
    ids = _named_ids(Path(folder), {each: token for token, each in texts.items()})
    types = np.ones(len(texts), np.int32)
    for token, is_special in special.items():
        types[token] = CONTROL if is_special else USER_DEFINED
    by_text = {each: token for token, each in texts.items()}
    found = find_specials(types, ids, lambda each: by_text.get(each, -1), "")
    ends = found.ends | _generation_ends(Path(folder), len(texts))
    around = backend.encode("", True, False)
    bos, eos = ids.get("bos_token_id"), ids.get("eos_token_id")
    add_bos = bool(around) and around[0] == bos
    add_eos = bool(around) and around[-1] == eos and (len(around) > 1 or eos != bos)
    return Parts(backend, len(texts), ids, frozenset(ends), add_bos, add_eos)


class Library:
    """tokenizer.Backend over the `tokenizers` library."""

    def __init__(
        self,
        library: "tokenizers.Tokenizer",
        document: _Object,
        texts: Mapping[int, str],
        special: Mapping[int, bool],
    ) -> None:
        self._library = library
        self._lock = threading.Lock()  # how special tokens are read is a property of the library's
        self._texts = texts
        self._special = special
        kinds = {kind for kind, _ in _steps(document)}
        self._bytes = _letter_bytes() if "ByteLevel" in kinds else None
        self._prefix = "Prepend" in kinds or any(
            kind == "Metaspace" and step.get("prepend_scheme", "always") != "never"
            for kind, step in _steps(document)
        )

    def encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        with self._lock:
            self._library.encode_special_tokens = not parse_special
            ids: list[int] = self._library.encode(text, add_special_tokens=add_special).ids
        return ids

    def decode(self, ids: list[int], skip_special: bool, strip_prefix: bool) -> bytes:
        out = bytearray()
        after_special = True
        for token in ids:
            added = token in self._special
            if not (skip_special and self._special.get(token, False)):
                piece = self._piece(token, added)
                strip = strip_prefix and self._prefix and after_special and not added
                out += piece[1:] if strip and piece.startswith(b" ") else piece
            after_special = added
        return bytes(out)

    def _piece(self, token: int, added: bool) -> bytes:
        text = self._texts[token]
        if added:
            return text.encode()
        if self._bytes is not None:
            return b"".join(self._bytes.get(each, each.encode()) for each in text)
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            try:
                return bytes([int(text[3:5], 16)])
            except ValueError:
                pass
        return text.replace("▁", " ").encode()


def check(document: _Object, path: Path) -> tuple[dict[int, str], dict[int, bool]]:
    """The texts of all ids, and of the added ones whether each is special.

    InvalidFileError unless ids are 0 … n - 1 without gaps, merges stay within the vocabulary and
    the template names tokens there are.
    """
    model = _object(document.get("model"), path, "model")
    texts = _vocabulary(model, path)
    special: dict[int, bool] = {}
    for each in _list(document.get("added_tokens", []), path, "added_tokens"):
        token = _object(each, path, "added_tokens")
        id, text = token.get("id"), token.get("content")
        if not isinstance(text, str) or not text:
            raise InvalidFileError(path, "added_tokens", f"expected a text, got {text!r:.80}")
        number = _id(id, path, f"added_tokens, {text!r:.80}")
        if texts.get(number, text) != text:
            problem = f"id {number} is both {texts[number]!r:.80} and {text!r:.80}"
            raise InvalidFileError(path, "added_tokens", problem)
        texts[number] = text
        special[number] = token.get("special") is True
    if not texts:
        raise InvalidFileError(path, "model.vocab", "the vocabulary has no tokens")
    if max(texts) != len(texts) - 1:
        missing = next(id for id in range(len(texts)) if id not in texts)
        problem = f"expected ids without gaps, got {max(texts)} but not {missing}"
        raise InvalidFileError(path, "model.vocab", problem)
    longest = max(len(text.encode("utf-8", "surrogatepass")) for text in texts.values())
    if longest > _MAX_TOKEN_BYTES:
        problem = f"a token has {longest} bytes; at most {_MAX_TOKEN_BYTES} are allowed"
        raise InvalidFileError(path, "model.vocab", problem)
    _check_merges(model, set(texts.values()), path)
    _check_template(document.get("post_processor"), len(texts), path)
    return texts, special


def _vocabulary(model: _Object, path: Path) -> dict[int, str]:
    kind, vocabulary = model.get("type", "BPE"), model.get("vocab")
    texts: dict[int, str] = {}
    if kind == "Unigram":
        for id, entry in enumerate(_list(vocabulary, path, "model.vocab")):
            match entry:
                case [str(text), int() | float()] if not isinstance(entry[1], bool):
                    texts[id] = text
                case _:
                    problem = f"expected [text, score], got {entry!r:.80}"
                    raise InvalidFileError(path, f"model.vocab[{id}]", problem)
        return texts
    if kind != "BPE":
        raise UnsupportedError(f"{path}: trit has no tokenizer of the type {kind!r:.80}.")
    for text, given in _object(vocabulary, path, "model.vocab").items():
        id = _id(given, path, f"model.vocab, {text!r:.80}")
        if id in texts:
            problem = f"{texts[id]!r:.80} and {text!r:.80} have the same id {id}"
            raise InvalidFileError(path, "model.vocab", problem)
        texts[id] = text
    return texts


def _check_merges(model: _Object, texts: set[str], path: Path) -> None:
    for index, merge in enumerate(_list(model.get("merges", []), path, "model.merges")):
        match merge:
            case [str(left), str(right)]:
                pass
            case str() if merge.count(" ") == 1:
                left, right = merge.split(" ")
            case _:
                problem = f"expected two tokens, got {merge!r:.80}"
                raise InvalidFileError(path, f"model.merges[{index}]", problem)
        if left not in texts or right not in texts or left + right not in texts:
            problem = f"{merge!r:.80} names a token that is not in the vocabulary"
            raise InvalidFileError(path, f"model.merges[{index}]", problem)


def _check_template(part: object, size: int, path: Path) -> None:
    """Every special token that a TemplateProcessing step puts in must be declared, with ids."""
    if not isinstance(part, dict):
        return
    for inner in part.get("processors") or []:
        _check_template(inner, size, path)
    if part.get("type") != "TemplateProcessing":
        return
    declared = _object(part.get("special_tokens", {}), path, "post_processor.special_tokens")
    for side in ("single", "pair"):
        for entry in _list(part.get(side, []), path, f"post_processor.{side}"):
            token = entry.get("SpecialToken") if isinstance(entry, dict) else None
            name = token.get("id") if isinstance(token, dict) else None
            if token is not None and name not in declared:
                problem = f"names the special token {name!r:.80}, which is not declared"
                raise InvalidFileError(path, f"post_processor.{side}", problem)
    for name, token in declared.items():
        where = f"post_processor.special_tokens, {name!r:.80}"
        for id in _list(_object(token, path, where).get("ids"), path, where):
            if _id(id, path, where) >= size:
                raise InvalidFileError(path, where, f"expected an id below {size}, got {id}")


def _read(path: Path) -> tuple[str, _Object]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InvalidFileError(path, "", f"more than {_MAX_FILE_BYTES} bytes")
        text = path.read_text("utf-8")
        return text, _object(json.loads(text), path, "")
    except FileNotFoundError:
        raise InvalidFileError(path, "", "there is no such file") from None
    except (ValueError, RecursionError) as error:
        raise InvalidFileError(path, "", f"expected JSON: {error}") from None


def _build(text: str, path: Path) -> "tokenizers.Tokenizer":
    import tokenizers

    try:
        library = tokenizers.Tokenizer.from_str(text)
        library.no_truncation()
        library.no_padding()
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # a panic of the library's is not an Exception
        raise InvalidFileError(path, "", f"the tokenizers library refuses it: {error}") from None
    return library


def _named_ids(folder: Path, by_text: Mapping[str, int]) -> dict[str, int]:
    settings = _optional(folder / "tokenizer_config.json")
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "sep": "seperator"}
    ids: dict[str, int] = {}
    for theirs, ours in names.items():
        given = settings.get(f"{theirs}_token")
        text = given.get("content") if isinstance(given, dict) else given
        if not isinstance(text, str):
            continue
        if text not in by_text:
            problem = f"{text!r:.80} is not in the vocabulary"
            raise InvalidFileError(folder / "tokenizer_config.json", f"{theirs}_token", problem)
        ids[f"{ours}_token_id"] = by_text[text]
    return ids


def _generation_ends(folder: Path, size: int) -> set[int]:
    path = folder / "generation_config.json"
    given = _optional(path).get("eos_token_id", [])
    ends = {_id(id, path, "eos_token_id") for id in (given if isinstance(given, list) else [given])}
    if ends and max(ends) >= size:
        problem = f"expected ids below {size}, got {max(ends)}"
        raise InvalidFileError(path, "eos_token_id", problem)
    return ends


def _optional(path: Path) -> _Object:
    return _read(path)[1] if path.exists() else {}


def _steps(document: _Object) -> Iterator[tuple[str, _Object]]:
    """Type and content of every normalizer, pre-tokenizer and decoder, sequences flattened."""
    waiting = [document.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")]
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict):
            yield str(step.get("type")), step
            for name in ("normalizers", "pretokenizers", "decoders"):
                waiting += step.get(name) or []


def _letter_bytes() -> dict[str, bytes]:
    """GPT-2's alphabet: printable Latin-1 is itself, other bytes are U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): bytes([byte]) for byte in printable}
    return letters | {chr(0x100 + n): bytes([byte]) for n, byte in enumerate(others)}


def _object(value: object, path: Path, where: str) -> _Object:
    if not isinstance(value, dict):
        raise InvalidFileError(path, where, f"expected an object, got {type(value).__name__}")
    return cast(_Object, value)


def _list(value: object, path: Path, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidFileError(path, where, f"expected a list, got {type(value).__name__}")
    return value


def _id(value: object, path: Path, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise InvalidFileError(path, where, f"expected an id from 0 to 2^31 - 1, got {value!r:.80}")
    return value
