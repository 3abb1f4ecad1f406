"""Text to token ids and back, with ids equal to llama.cpp's.

    tokenizer = Tokenizer.from_gguf("model.gguf")
    ids = tokenizer.encode("Hello")
    tokenizer.decode(ids)

One source: the `tokenizer.ggml.*` keys, of a GGUF file or made from an HF folder's files just as
`convert` writes them, run by core/tokenizer.cpp. The `tokenizers` library is the tests' oracle:
building 150,000 merges takes it a second, and it is not exact for SentencePiece scores.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from trit.errors import UsageError

if TYPE_CHECKING:
    from trit.runtime._gguf_tokenizer import Parts


class Tokenizer:
    """A model's tokenizer.

    bos_id, eos_id    ids, or None where the model has none
    eos_ids           every id that ends an answer, as llama.cpp finds them (its EOG tokens)
    special_ids       by GGUF name, such as "padding_token_id"
    vocab_size        ids are below it
    add_bos, add_eos  what `encode` puts around a text where add_special
    """

    def __init__(
        self,
        backend: _Compiled,
        vocab_size: int,
        special_ids: Mapping[str, int],
        eos_ids: frozenset[int],
        add_bos: bool,
        add_eos: bool,
    ) -> None:
        self._backend = backend
        self.vocab_size = vocab_size
        self.special_ids = dict(special_ids)
        self.bos_id = special_ids.get("bos_token_id")
        self.eos_id = special_ids.get("eos_token_id")
        self.eos_ids = eos_ids
        self.add_bos = add_bos
        self.add_eos = add_eos

    @classmethod
    def from_gguf(
        cls, source: str | os.PathLike[str] | Mapping[str, object], name: object = "metadata"
    ) -> Tokenizer:
        """From a GGUF file, or from its metadata (`name` then stands for the file in errors).

        InvalidFileError for a vocabulary that breaks a promise of the format, UnsupportedError for
        a kind of tokenizer or pre-tokenizer trit does not know.
        """
        from trit.runtime._gguf_tokenizer import build

        if not isinstance(source, Mapping):
            from trit.files import gguf

            with gguf.open(source) as file:
                return cls.from_gguf(file.metadata, name=source)
        parts = build(source, name)
        backend = _Compiled(parts)
        size = int(parts.core.size)
        return cls(backend, size, parts.ids, parts.ends, parts.add_bos, parts.add_eos)

    @classmethod
    def from_hf(cls, folder: str | os.PathLike[str]) -> Tokenizer:
        """From the files of an HF folder (config.json, weights and tokenizer files).

        Errors as for `from_gguf`, and those of a folder that is no model.
        """
        from trit.files import checkpoint

        with checkpoint.open(folder) as model:
            return cls.from_gguf(model.metadata, name=folder)

    def encode(
        self,
        text: str,
        add_special: bool = True,
        parse_special: bool = True,
        breaks: Sequence[int] = (),
    ) -> list[int]:
        """The ids of `text`.

        add_special: with the BOS and EOS the model wants. parse_special: the texts of control
        tokens in `text` become those tokens; False for text that is not ours to trust. breaks:
        ascending byte offsets that no special token may lie across. A lone surrogate becomes
        U+FFFD.
        """
        return self._backend.encode(valid(text), add_special, parse_special, breaks)

    def mark_starts(self, raw: bytes) -> list[int]:
        """Byte offsets in UTF-8 text at which one of `marks` begins."""
        return self._backend.mark_starts(raw)

    @property
    def marks(self) -> Sequence[bytes]:
        """The texts of what chat templates mark turns with: control tokens and their like."""
        return self._backend.marks

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD.

        A space that `encode` put before a text (SentencePiece) is taken back. skip_special leaves
        out control tokens. UsageError for an id beyond the vocabulary.
        """
        return self._bytes(list(ids), skip_special, True).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for, or a special token's text. UsageError if unknown."""
        return self._bytes([token], False, False)

    def is_control(self, token: int) -> bool:
        """Whether `skip_special` leaves it out."""
        return not self._bytes([token], True, False) and bool(self.token_bytes(token))

    def stream(
        self, skip_special: bool = True, shown: frozenset[int] = frozenset()
    ) -> StreamDecoder:
        """A decoder for tokens that come one by one, as the continuation of a text. `shown`: ids
        that are text even if they are control tokens."""
        return StreamDecoder(self, skip_special, shown)

    def _bytes(self, ids: Sequence[int], skip_special: bool, strip_prefix: bool) -> bytes:
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise UsageError(
                    f"Token {token} is not in the vocabulary; ids are below {self.vocab_size}."
                )
        return self._backend.decode(list(ids), skip_special, strip_prefix)


class StreamDecoder:
    """Turns tokens into text one by one; a character comes when its last byte has come."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool, shown: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._skip_special, self._shown = skip_special, shown
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that `token` completes; may be empty."""
        skip = self._skip_special and token not in self._shown
        raw = self._tokenizer._bytes([token], skip, False)
        return self._decoder.decode(raw)

    def finish(self) -> str:
        """What is left of an incomplete character: U+FFFD, or nothing."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


class _Compiled:
    """core/tokenizer.cpp between the BOS and EOS a model wants."""

    def __init__(self, parts: Parts) -> None:
        self.marks = parts.marks
        self._parts = parts  # kept whole: while one lives, its vocabulary is not built again
        self._core = parts.core
        self._before = [parts.ids["bos_token_id"]] if parts.add_bos else []
        self._after = [parts.ids["eos_token_id"]] if parts.add_eos else []

    def encode(
        self, text: str, add_special: bool, parse_special: bool, breaks: Sequence[int]
    ) -> list[int]:
        ids: list[int] = self._core.encode(text.encode(), parse_special, list(breaks))
        return [*self._before, *ids, *self._after] if add_special else ids

    def mark_starts(self, raw: bytes) -> list[int]:
        starts: list[int] = self._core.mark_starts(raw)
        return starts

    def decode(self, ids: list[int], skip_special: bool, strip_prefix: bool) -> bytes:
        raw: bytes = self._core.decode(ids, skip_special, strip_prefix)
        return raw


def valid(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 cannot carry (two that pair are a character)."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
