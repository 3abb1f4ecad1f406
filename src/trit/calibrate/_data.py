"""The text that statistics are measured on, as pieces of a fixed number of tokens.

Without a file: the passages that come with trit, then text that the model itself writes, which is
near to what it will be used on. Pieces are cut as llama.cpp's tools cut them: one after the other,
what is left over is not used, the first token of each is BOS where the model wants one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit.calibrate._model import Model, chunk_tokens
from trit.calibrate._sampled import sample
from trit.errors import UsageError
from trit.evaluate._evaluation import Text
from trit.evaluate._text import read_text
from trit.runtime.tokenizer import Tokenizer

PASSAGES = Path(__file__).parent / "passages.txt"

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Data:
    """Text to measure on.

    tokens  int32 (chunks, ctx): sequences that do not see each other
    texts   where they come from
    notes   what was not as one may expect, in words
    """

    tokens: NDArray[np.int32]
    texts: tuple[Text, ...]
    notes: tuple[str, ...] = ()


def data(
    model: Model,
    text: str | os.PathLike[str] | None = None,
    ctx: int | None = None,
    chunks: int | None = None,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Data:
    """The tokens of a text for a model.

    text         a str is the text itself, a path object names a UTF-8 file; None: trit's passages
                 and text that the model writes, always the same on one instruction set
    ctx          tokens of a chunk, None: 512, or the model's own context if that is less; a text
                 that is shorter makes one chunk of its own length
    chunks       the first ones; None: all
    on_progress  called with (what, done, total) while the model writes
    Errors: UsageError (no text, no sense), InvalidFileError (a file that is not there or no UTF-8;
    a model without a tokenizer), UnsupportedError (a tokenizer trit does not know).
    """
    for name, value in (("--ctx", ctx), ("--chunks", chunks)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: at least one is needed.")
    ctx = chunk_tokens(model, ctx)
    tokenizer = Tokenizer.from_gguf(model.metadata, name=model.path)
    notes: list[str] = []
    if text is not None:
        content, about = read_text(text)
        texts = [about]
        tokens = tokenizer.encode(content, parse_special=False) if content.strip() else []
    else:
        parts, about = passages()
        texts = [about]
        tokens = tokenizer.encode("\n\n".join(parts), parse_special=False)
        if chunks is None or chunks * ctx > len(tokens):
            written = sample(model, openings(parts), threads, on_progress)
            tokens += written.tokens
            texts += written.texts
            notes += written.notes
    if not tokens:
        raise UsageError(f"{texts[0].name}: the text is empty: there is nothing to measure.")
    if len(tokens) < ctx:
        notes.append(
            f"the text has {len(tokens)} tokens, less than a chunk of {ctx}: statistics of so few "
            "are poor"
        )
        ctx = len(tokens)
    count = min(len(tokens) // ctx, chunks or len(tokens))
    table = np.array(tokens[: count * ctx], np.int32).reshape(count, ctx)
    if tokenizer.add_bos and tokenizer.bos_id is not None:
        table[:, 0] = tokenizer.bos_id
    return Data(table, tuple(texts), tuple(notes))


def passages() -> tuple[list[str], Text]:
    """The parts of the text that comes with trit; what stands before the first says where from."""
    content, about = read_text(PASSAGES)
    parts = [part.partition("\n")[2].strip() for part in f"\n{content}".split("\n%% ")[1:]]
    return parts, Text("trit's passages", about.bytes, about.sha256)


def openings(parts: list[str]) -> list[str]:
    """A few words of each part, for the model to go on from."""
    return [part[:60].rpartition(" ")[0] or part[:20] for part in parts]
