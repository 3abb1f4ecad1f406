"""How likely a model finds each way to go on from a prompt.

ln p of a choice is the sum of ln p of its tokens: those behind the prompt's own, or from where the
texts of prompt and choice part with the prompt alone, if a tokenizer joins what meets there. A
group of items takes two passes: their prompts, each once; then the choices, each in a sequence that
shares its prompt's pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit.engine import Engine, Rows
from trit.errors import TritError
from trit.evaluate._fact_items import Fact
from trit.evaluate._opened import Opened
from trit.evaluate._rows import Scorer

Doubles = NDArray[np.float64]

GROUP = 32  # items at a time: their prompts fill a pass
SLICE_ROWS = 32  # of logits held at once


@dataclass(frozen=True)
class Asked:
    """An item in tokens: what all texts begin with, and how each goes on (one token or more)."""

    prefix: list[int]
    choices: list[list[int]]


def score(
    model: Opened, items: Sequence[Fact], on_progress: Callable[[int], None] | None = None
) -> list[Doubles]:
    """ln p in nats of the choices of each item: arrays (choices,) float64, the answer's first.

    `on_progress` is called with the number of items done. TritError for logits that are no numbers.
    """
    tokenizer = model.tokenizer()
    bos = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []

    def encode(text: str) -> list[int]:
        return bos + tokenizer.encode(text, add_special=False, parse_special=False)

    asked = [
        ask(encode(item.prompt), [encode(f"{item.prompt} {c}") for c in item.choices])
        for item in items
    ]
    found: list[Doubles] = []
    with Scorer(model.engine.vocab_size, model.engine.threads) as scorer:
        for start in range(0, len(asked), GROUP):
            found += _group(model.engine, scorer, asked[start : start + GROUP])
            if on_progress is not None:
                on_progress(len(found))
    if not np.isfinite(np.concatenate(found)).all():
        raise TritError(
            f"{model.file.path}: its logits are not numbers that make sense; its weights are "
            "damaged or were badly rounded. Make the file again from its source."
        )
    return found


def ask(prompt: list[int], texts: list[list[int]]) -> Asked:
    """Texts in tokens, as what they have in common with the prompt, and the rest of each."""
    most = min(len(prompt), *(len(text) - 1 for text in texts))
    seam = next((i for i in range(most) if any(t[i] != prompt[i] for t in texts)), most)
    return Asked(prompt[:seam], [text[seam:] for text in texts])


def _group(engine: Engine, scorer: Scorer, asked: Sequence[Asked]) -> list[Doubles]:
    """The items of one group; the engine's sequences are free before and after."""
    first = engine.hidden(*_prompts(asked))
    rows, outputs, forks = _continuations(asked)
    for source, target, count in forks:
        engine.fork(source, target, count)
    later = engine.hidden(rows, outputs) if outputs else first[:0]
    for sequence in range(len(asked) + len(forks)):
        engine.remove(sequence, 0)
    return _sums(asked, _log_probabilities(engine, scorer, asked, first, later))


def _prompts(asked: Sequence[Asked]) -> tuple[Rows, list[int]]:
    """Item i in sequence i; asked for is the last row of each."""
    ends = np.cumsum([len(item.prefix) for item in asked])
    rows = [Rows.of(item.prefix, 0, number) for number, item in enumerate(asked)]
    return _joined(rows), [int(end) - 1 for end in ends]


def _continuations(
    asked: Sequence[Asked],
) -> tuple[Rows, list[int], list[tuple[int, int, int]]]:
    """All tokens of the choices but each one's last, which nothing follows; every row is asked for.

    Also the forks that make their sequences: (source, target, positions).
    """
    rows: list[Rows] = []
    forks: list[tuple[int, int, int]] = []
    for number, item in enumerate(asked):
        for choice in item.choices:
            if len(choice) > 1:
                sequence, start = len(asked) + len(forks), len(item.prefix)
                rows.append(Rows.of(choice[:-1], start, sequence))
                forks.append((number, sequence, start))
    joined = _joined(rows)
    return joined, list(range(len(joined.tokens))), forks


def _joined(rows: Sequence[Rows]) -> Rows:
    parts = rows or [Rows.of([])]
    return Rows(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.sequences for part in parts]),
        np.concatenate([part.positions for part in parts]),
    )


def _log_probabilities(
    engine: Engine,
    scorer: Scorer,
    asked: Sequence[Asked],
    first: NDArray[np.float32],
    later: NDArray[np.float32],
) -> Doubles:
    """Of all tokens of all choices, in order: first ones from `first`, the others from `later`."""
    hidden = np.concatenate([first, later])
    wanted: list[tuple[int, int]] = []  # the row of hidden, and the token that follows it
    row = len(first)
    for number, item in enumerate(asked):
        for choice in item.choices:
            wanted.append((number, choice[0]))
            wanted += [(row + i, token) for i, token in enumerate(choice[1:])]
            row += len(choice) - 1
    out = np.empty(len(wanted))
    for start in range(0, len(hidden), SLICE_ROWS):
        logits = engine.head(hidden[start : start + SLICE_ROWS])
        sums = scorer.log_sums(logits)
        for place, (row, token) in enumerate(wanted):
            if start <= row < start + len(logits):
                out[place] = float(logits[row - start, token]) - sums[row - start]
    return out


def _sums(asked: Sequence[Asked], log_p: Doubles) -> list[Doubles]:
    """Of the tokens of each choice, by item."""
    lengths = [len(choice) for item in asked for choice in item.choices]
    starts = np.cumsum([0, *lengths[:-1]])
    sums = np.add.reduceat(log_p, starts)
    ends = np.cumsum([len(item.choices) for item in asked])
    return np.split(sums, ends[:-1])
