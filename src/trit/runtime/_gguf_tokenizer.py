"""Reads the `tokenizer.ggml.*` keys, checks every one, and builds the compiled tokenizer.

A vocabulary comes from a file that may be hostile: whatever is inconsistent becomes an
InvalidFileError that names the key. Defaults are llama.cpp's (llama-vocab.cpp), because files
leave out what it defaults. Keys: ggml, docs/gguf.md.

Building takes up to a tenth of a second, so what is built is shared: by every open model with the
same keys (a model and its quantizations have them), and by the next one that is opened.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from trit import _core
from trit.errors import InvalidFileError, UnsupportedError
from trit.runtime._pretokenizers import PreTokenizer, pre_tokenizer
from trit.runtime._specials import find_specials, flag_marks

_PREFIX = "tokenizer.ggml."
_NO_ID = 0xFFFFFFFF  # -1, "there is none", as early converters wrote it
_ID_KEYS = (
    "bos_token_id",
    "eos_token_id",
    "eot_token_id",
    "eom_token_id",
    "unknown_token_id",
    "seperator_token_id",
    "padding_token_id",
    "mask_token_id",
    "cls_token_id",
    "fim_pre_token_id",
    "fim_suf_token_id",
    "fim_mid_token_id",
    "fim_pad_token_id",
    "fim_rep_token_id",
    "fim_sep_token_id",
    "prefix_token_id",
    "suffix_token_id",
    "middle_token_id",
)
_SPM_DEFAULTS = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
_BPE_DEFAULTS = {"bos_token_id": 11, "eos_token_id": 11}
_SPM = PreTokenizer((), add_bos=True)


@dataclass(frozen=True)
class Parts:
    """What tokenizer.Tokenizer is made of."""

    core: _core.Tokenizer
    ids: Mapping[str, int]  # special ids by GGUF name
    ends: frozenset[int]
    add_bos: bool
    add_eos: bool
    marks: Sequence[bytes] = ()  # texts of what chat templates mark turns with


_building = threading.Lock()
_built: WeakValueDictionary[bytes, Parts] = WeakValueDictionary()  # by fingerprint, while in use
_last: deque[Parts] = deque(maxlen=1)  # stays when the last model that used it is closed


def build(metadata: Mapping[str, object], path: object) -> Parts:
    """The tokenizer of these GGUF keys, built once; `path` is named in errors.

    InvalidFileError for keys that break a promise, UnsupportedError for a kind of tokenizer that
    trit does not have.
    """
    key = _fingerprint(metadata)
    with _building:
        parts = _built.get(key)
        if parts is None:
            parts = _built[key] = _Keys(metadata, path).build()
        _last.append(parts)
    return parts


def _fingerprint(metadata: Mapping[str, object]) -> bytes:
    """A hash of all that a tokenizer is built from: a file may change, what it said does not."""
    found = hashlib.sha256()
    for key in (*sorted(key for key in metadata if key.startswith(_PREFIX)), "general.name"):
        value = metadata.get(key)
        encoded = getattr(value, "encoded", None)
        if encoded:
            kind, raw = "strings", encoded()
        elif isinstance(value, np.ndarray):
            kind, raw = f"{value.dtype} {value.shape}", value.tobytes()
        else:
            kind, raw = "plain", repr(value).encode()
        found.update(f"{key!r} {kind} {len(raw)}\n".encode())
        found.update(raw)
    return found.digest()


@dataclass(frozen=True)
class _Keys:
    metadata: Mapping[str, object]
    path: object

    def fail(self, key: str, problem: str) -> InvalidFileError:
        return InvalidFileError(self.path, _PREFIX + key, problem)

    def get(self, key: str) -> object:
        return self.metadata.get(_PREFIX + key)

    def build(self) -> Parts:
        model = self.get("model")
        if model not in ("gpt2", "llama"):
            if not isinstance(model, str):
                raise self.fail("model", f"expected 'gpt2' or 'llama', got {model!r}")
            raise UnsupportedError(
                f"{self.path}: tokenizer.ggml.model is '{model}'; trit knows 'gpt2' (byte-pair) "
                "and 'llama' (SentencePiece)."
            )
        byte_pair = model == "gpt2"
        pre = pre_tokenizer(self.text("pre"), self.path) if byte_pair else _SPM
        defaults = _BPE_DEFAULTS if byte_pair else _SPM_DEFAULTS
        if not pre.bos:
            defaults = {key: token for key, token in defaults.items() if key != "bos_token_id"}
        core, types = self.core(byte_pair, pre)
        ids = self.ids(core.size, defaults)
        name = self.metadata.get("general.name")
        specials = find_specials(
            types,
            ids,
            lambda text: int(core.find(text.encode())),
            name if isinstance(name, str) else "",
        )
        marks = flag_marks(specials, core.text)
        core.set_specials(
            np.fromiter(specials.flags.keys(), np.int32, len(specials.flags)),
            np.fromiter(specials.flags.values(), np.uint8, len(specials.flags)),
        )
        return Parts(
            core,
            ids,
            frozenset(specials.ends),
            self.adds("bos", pre.add_bos, ids),
            self.adds("eos", False, ids),
            marks,
        )

    def core(self, byte_pair: bool, pre: PreTokenizer) -> tuple[_core.Tokenizer, NDArray[np.int32]]:
        tokens, count = self.strings("tokens")
        if not count:
            raise self.fail("tokens", "the vocabulary has no tokens")
        types = self.numbers("token_type", np.dtype(np.int32), count)
        merges, merge_count = self.strings("merges") if byte_pair else (None, 0)
        scores = None if byte_pair else self.numbers("scores", np.dtype(np.float32), count)
        if not byte_pair and scores is None:
            raise self.fail("scores", "missing; SentencePiece needs one score per token")
        space_prefix = not byte_pair and self.flag("add_space_prefix", True)
        try:
            core = _core.Tokenizer(
                tokens,
                count,
                types,
                scores,
                merges,
                merge_count,
                list(pre.splits),
                pre.ignore_merges,
                space_prefix,
            )
        except ValueError as error:  # "<key>: <problem>"
            key, _, problem = str(error).partition(": ")
            raise InvalidFileError(self.path, key, problem) from None
        return core, np.ones(count, np.int32) if types is None else types

    def ids(self, count: int, defaults: Mapping[str, int]) -> dict[str, int]:
        ids: dict[str, int] = {}
        for key in _ID_KEYS:
            given = self.get(key)
            if given == _NO_ID:
                continue
            if given is None:
                if key not in defaults:
                    continue
                given, origin = defaults[key], "missing, and its default"
            else:
                origin = "got"
            if not isinstance(given, int) or isinstance(given, bool):
                raise self.fail(key, f"expected a token id, got {given!r:.80}")
            if not 0 <= given < count:
                problem = f"expected an id below the {count} tokens, {origin} {given}"
                raise self.fail(key, problem)
            ids[key] = given
        return ids

    def adds(self, name: str, default: bool, ids: Mapping[str, int]) -> bool:
        adds = self.flag(f"add_{name}_token", default)
        if adds and f"{name}_token_id" not in ids:
            raise self.fail(f"{name}_token_id", "missing, but it has to be added to every text")
        return adds

    def text(self, key: str) -> str | None:
        value = self.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self.fail(key, f"expected a string, got {value!r:.80}")

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(key, f"expected a bool, got {value!r:.80}")
        return value

    def strings(self, key: str) -> tuple[NDArray[np.uint8], int]:
        """An array of strings as GGUF packs it, and how many they are."""
        value = self.get(key)
        if not isinstance(value, Sequence) or isinstance(value, str):
            got = "nothing" if value is None else type(value).__name__
            raise self.fail(key, f"expected an array of strings, got {got}")
        encoded = getattr(value, "encoded", None)  # files' StringArray has the bytes at hand
        raw = encoded() if encoded else _pack(self, key, value)
        return np.frombuffer(raw, np.uint8), len(value)

    def numbers(self, key: str, dtype: np.dtype[Any], count: int) -> NDArray[Any] | None:
        """An array of this element type, one entry per token; None if the key is missing."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value):
            kind = int if dtype.kind == "i" else float
            if all(type(each) is kind for each in value):
                value = np.array(value, dtype)
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != 1:
            got = getattr(value, "dtype", type(value).__name__)
            raise self.fail(key, f"expected an array of {dtype}, got {got}")
        if len(value) != count:
            raise self.fail(key, f"expected one entry per token, {count}, got {len(value)}")
        return np.ascontiguousarray(value)


def _pack(keys: _Keys, key: str, strings: Iterable[object]) -> bytes:
    parts: list[bytes] = []
    for index, each in enumerate(strings):
        if not isinstance(each, str):
            raise keys.fail(key, f"expected strings, got {each!r:.80} at {index}")
        raw = each.encode()
        parts += (len(raw).to_bytes(8, "little"), raw)
    return b"".join(parts)
