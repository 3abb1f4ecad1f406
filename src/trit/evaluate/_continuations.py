"""How likely a model finds each way to go on, of many texts at a time.

What the texts of an item begin with is read once, and each of them goes on in a sequence that
shares those pages. A group of items takes two passes: what each begins with; then all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit.engine import Engine, Rows
from trit.errors import TritError
from trit.evaluate._rows import Scorer

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

GROUP_TOKENS = 1024  # read for a group of items, one item at least
SLICE_ROWS = 32  # of logits held at once


@dataclass(frozen=True)
class Continuation:
    """A text in tokens, of which those from `start` (1 or more) are scored."""

    tokens: list[int]
    start: int


@dataclass(frozen=True)
class Likelihoods:
    """Of the continuations of an item, in order.

    log_p    (n,) nats: the sums of ln p of the scored tokens
    greedy   (n,) whether each scored token is the likeliest one
    """

    log_p: Doubles
    greedy: Bools


@dataclass(frozen=True)
class _Item:
    """What all begin with, how each goes on, and how many tokens of that are read unscored."""

    prefix: list[int]
    rest: list[list[int]]
    unscored: list[int]

    @property
    def tokens(self) -> int:
        return len(self.prefix) + sum(len(rest) for rest in self.rest)


@dataclass
class _Passes:
    """The rows of both passes of a group, and which of them are asked for.

    wanted   for each scored token: the row of the hidden states it follows, and the token
    """

    first: list[Rows]
    first_asked: list[int]
    later: list[Rows]
    later_asked: list[int]
    forks: list[tuple[int, int, int]]  # source, target, positions
    wanted: list[tuple[int, int]]
    sequences: range


def likelihoods(
    engine: Engine,
    items: Sequence[Sequence[Continuation]],
    name: object = "the model",
    on_progress: Callable[[int], None] | None = None,
    first: int = 0,
) -> list[Likelihoods]:
    """Score items, each of one continuation or more, none longer than the engine's context.

    name          stands for the model in errors: TritError for logits that are no numbers
    on_progress   called with the number of items done
    first         sequences of the engine from this one on are used, free before and after
    """
    found: list[Likelihoods] = []
    with Scorer(engine.vocab_size, engine.threads) as scorer:
        for group in _groups([_together(item) for item in items]):
            found += _score(engine, scorer, group, first)
            if not all(np.isfinite(each.log_p).all() for each in found[-len(group) :]):
                raise TritError(
                    f"{name}: its logits are not numbers that make sense; its weights "
                    "are damaged or were badly rounded. Make the file again from its source."
                )
            if on_progress is not None:
                on_progress(len(found))
    return found


def _together(item: Sequence[Continuation]) -> _Item:
    most = min(text.start for text in item)
    first = item[0].tokens
    same = (i for i in range(most) if any(text.tokens[i] != first[i] for text in item))
    shared = next(same, most)
    return _Item(
        first[:shared],
        [text.tokens[shared:] for text in item],
        [text.start - shared for text in item],
    )


def _groups(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    group: list[_Item] = []
    for item in items:
        if group and sum(each.tokens for each in group) + item.tokens > GROUP_TOKENS:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _score(engine: Engine, scorer: Scorer, group: Sequence[_Item], first: int) -> list[Likelihoods]:
    """The items of one group."""
    passes = _passes(group, first)
    hidden = [np.empty((0, engine.plan.width), np.float32)]
    if passes.first:
        hidden.append(engine.hidden(_joined(passes.first), passes.first_asked))
    for source, target, count in passes.forks:
        engine.fork(source, target, count)
    if passes.later:
        hidden.append(engine.hidden(_joined(passes.later), passes.later_asked))
    for sequence in passes.sequences:
        engine.remove(sequence, 0)
    log_p, greedy = _each_token(engine, scorer, np.concatenate(hidden), passes.wanted)
    return _by_item(group, log_p, greedy)


def _passes(group: Sequence[_Item], first: int) -> _Passes:
    made = _Passes([], [], [], [], [], [], range(first, first))
    ends = {}  # of each item's prefix, the row of hidden states
    read = 0
    for number, item in enumerate(group):
        if item.prefix:
            made.first.append(Rows.of(item.prefix, 0, first + number))
            read += len(item.prefix)
            ends[number] = len(made.first_asked)
            made.first_asked.append(read - 1)
    read, sequence = 0, first + len(group)
    for number, item in enumerate(group):
        for rest, unscored in zip(item.rest, item.unscored, strict=True):
            if unscored == 0:
                made.wanted.append((ends[number], rest[0]))
            if len(rest) == 1:
                continue
            skipped = max(unscored - 1, 0)  # rows of `rest` that are not asked for
            row = len(made.first_asked) + len(made.later_asked)
            made.wanted += [(row + i, token) for i, token in enumerate(rest[skipped + 1 :])]
            made.later_asked += range(read + skipped, read + len(rest) - 1)
            made.later.append(Rows.of(rest[:-1], len(item.prefix), sequence))
            read += len(rest) - 1
            if item.prefix:
                made.forks.append((first + number, sequence, len(item.prefix)))
            sequence += 1
    made.sequences = range(first, sequence)
    return made


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.sequences for part in parts]),
        np.concatenate([part.positions for part in parts]),
    )


def _each_token(
    engine: Engine,
    scorer: Scorer,
    hidden: NDArray[np.float32],
    wanted: Sequence[tuple[int, int]],
) -> tuple[Doubles, Bools]:
    """ln p of each wanted token, and whether it is the likeliest, a slice of rows at a time."""
    rows, tokens = np.array(wanted, dtype=np.int64).T
    log_p, greedy = np.empty(len(rows)), np.empty(len(rows), dtype=bool)
    for start in range(0, len(hidden), SLICE_ROWS):
        logits = engine.head(hidden[start : start + SLICE_ROWS])
        here = (start <= rows) & (rows < start + len(logits))
        row, token = rows[here] - start, tokens[here]
        log_p[here] = logits[row, token].astype(np.float64) - scorer.log_sums(logits)[row]
        greedy[here] = logits.argmax(axis=1)[row] == token
    return log_p, greedy


def _by_item(group: Sequence[_Item], log_p: Doubles, greedy: Bools) -> list[Likelihoods]:
    """Sums over the tokens of each continuation."""
    counts = [
        len(rest) - unscored
        for item in group
        for rest, unscored in zip(item.rest, item.unscored, strict=True)
    ]
    starts = np.cumsum([0, *counts[:-1]])
    sums = np.add.reduceat(log_p, starts)
    all_greedy = np.logical_and.reduceat(greedy, starts)
    ends = np.cumsum([len(item.rest) for item in group])[:-1]
    parts = zip(np.split(sums, ends), np.split(all_greedy, ends), strict=True)
    return [Likelihoods(*part) for part in parts]
