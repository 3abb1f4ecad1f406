"""Texts to packed tokens, and packed tokens to batches.

The last share of every text is held out: cut at the end of a document, or of a line where the text
is one document. What is left becomes one row of tokens, documents behind each other, cut into
sequences; each pass over them begins at another offset and takes them in another order. Which
sequences a step reads follows from seed and step alone, so a run that was killed needs no memory of
its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit.errors import InvalidFileError, UsageError
from trit.evaluate._text import read_text
from trit.runtime.tokenizer import Tokenizer
from trit.training import config as configs
from trit.training import tokenizer as tokenizers

Tokens = NDArray[np.uint32]
ABOUT = "data.json"
PARTS = ("train", "held_out")


@dataclass(frozen=True)
class Text:
    """A file of text: what it is called, its identity, and its two parts."""

    name: str
    bytes: int
    sha256: str
    train: str
    held_out: str


def read(config: configs.Data, base: Path) -> list[Text]:
    """The texts of a config whose paths are relative to `base`.

    InvalidFileError for a file that is missing or not UTF-8.
    """
    texts = []
    for path in config.files:
        content, about = read_text(base / path)
        cut = _cut(content, config)
        texts.append(Text(path.name, about.bytes, about.sha256, content[:cut], content[cut:]))
    return texts


def _cut(content: str, config: configs.Data) -> int:
    """Where the part that is held out begins."""
    wished = int(len(content) * (1 - config.held_out))
    end = config.separator if config.separator in content else "\n"
    before = content.rfind(end or "\n", 0, wished)
    return wished if before < 0 else before + len(end or "\n")


def documents(text: str, separator: str) -> Iterator[str]:
    """The documents of a text, without the white space around them and without empty ones."""
    for document in text.split(separator) if separator else (text,):
        if stripped := document.strip():
            yield stripped


def pack(texts: list[Text], config: configs.Data, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokens of texts, as `write` does."""
    parts = {
        part: [
            np.array(tokenizers.encode(tokenizer, document), "<u4")
            for text in texts
            for document in documents(getattr(text, part), config.separator)
        ]
        for part in PARTS
    }
    sources = [{"name": text.name, "bytes": text.bytes, "sha256": text.sha256} for text in texts]
    about = {"texts": sources, "licence": config.licence, "provenance": config.provenance}
    write(parts, tokenizer, folder, about)


def write(
    parts: Mapping[str, Sequence[NDArray[Any]]],
    tokenizer: Tokenizer,
    folder: Path,
    about: Mapping[str, Any],
) -> None:
    """Write train.bin and held_out.bin (uint32, little-endian) and what they are from.

    The tokenizer's file, if the folder has one, must stay as it is from here on.
    """
    lengths = np.array(tokenizers.byte_lengths(tokenizer), np.int64)
    facts: dict[str, Any] = {}
    if folder.joinpath(tokenizers.FILE).is_file():
        facts["tokenizer_sha256"] = _sha256(folder / tokenizers.FILE)
    for part in PARTS:
        tokens = np.concatenate([np.empty(0, "<u4"), *parts[part]]).astype("<u4")
        folder.joinpath(f"{part}.bin").write_bytes(tokens.tobytes())
        facts[part] = {
            "tokens": len(tokens),
            "bytes": int(lengths[tokens].sum()),
            "sha256": _sha256(folder / f"{part}.bin"),
        }
    text = json.dumps(facts | dict(about), indent=2) + "\n"
    folder.joinpath(ABOUT).write_text(text, encoding="utf-8")


class Packed:
    """The packed tokens of a folder, checked against what was written about them.

    train, held_out  uint32 (n,)
    lengths          bytes of each token of the vocabulary, int64
    about            data.json
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, sequence: int) -> None:
        self.about = read_about(folder)
        if "tokenizer_sha256" in self.about:
            _check(folder, tokenizers.FILE, self.about["tokenizer_sha256"])
        self.lengths = np.array(tokenizers.byte_lengths(tokenizer), np.int64)
        self.train, self.held_out = (_tokens(folder, part, self.about) for part in PARTS)
        self.sequence = sequence
        for part, tokens, spare in zip(
            PARTS, (self.train, self.held_out), (sequence, 0), strict=True
        ):
            if len(tokens) < sequence + 1 + spare:
                raise UsageError(
                    f"{folder}: the texts give {len(tokens)} tokens to {part.replace('_', ' ')}, "
                    f"expected {sequence + 1 + spare} or more. Take longer texts, a smaller "
                    "context or another share to hold out."
                )
        self._pass: tuple[int, int] | None = None  # seed and number of the one in `_order`
        self._order = np.empty(0, np.int64)

    @property
    def sequences(self) -> int:
        """Sequences of one pass over the training part."""
        return (len(self.train) - 1) // self.sequence - 1

    def batch(self, seed: int, step: int, size: int) -> NDArray[np.int64]:
        """Tokens (size, sequence + 1) of a step: inputs and, one place on, targets."""
        rows = []
        for index in range(step * size, (step + 1) * size):
            epoch, place = divmod(index, self.sequences)
            if self._pass != (seed, epoch):
                self._pass, self._order = (seed, epoch), self._starts(seed, epoch)
            start = int(self._order[place])
            rows.append(self.train[start : start + self.sequence + 1])
        return np.stack(rows).astype(np.int64)

    def windows(self, limit: int | None) -> Iterator[NDArray[np.int64]]:
        """Tokens (sequence + 1,) of the part held out, without overlap; spread over it if few."""
        count = (len(self.held_out) - 1) // self.sequence
        wanted = count if limit is None else min(limit, count)
        for place in range(wanted):
            start = (place * count // wanted) * self.sequence
            yield self.held_out[start : start + self.sequence + 1].astype(np.int64)

    def _starts(self, seed: int, epoch: int) -> NDArray[np.int64]:
        random = np.random.default_rng([seed, epoch])
        offset = int(random.integers(self.sequence))
        return random.permutation(self.sequences) * self.sequence + offset


def read_about(folder: Path) -> dict[str, Any]:
    """data.json of a folder. InvalidFileError where it is missing or damaged."""
    try:
        found = json.loads(folder.joinpath(ABOUT).read_text("utf-8"))
        hashes = [found[part]["sha256"] for part in ("train", "held_out")]
    except (OSError, ValueError, KeyError, TypeError):
        hashes = [None]
    if not all(isinstance(each, str) for each in hashes):
        raise InvalidFileError(
            folder / ABOUT, "", "is missing or damaged. Begin in a new folder."
        ) from None
    about: dict[str, Any] = found
    return about


def _tokens(folder: Path, part: str, about: dict[str, Any]) -> Tokens:
    _check(folder, f"{part}.bin", about[part]["sha256"])
    return np.fromfile(folder / f"{part}.bin", "<u4")


def _check(folder: Path, name: str, sha256: str) -> None:
    if not (folder / name).is_file() or _sha256(folder / name) != sha256:
        raise InvalidFileError(
            folder / name, "", f"is not what {ABOUT} says it is. Begin in a new folder."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
