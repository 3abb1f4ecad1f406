"""Texts as vectors: the mean of a text's last hidden states, of length one.

    reading = Reading(scheduler, tokens)
    while not reading.read(): ...            # a pass at a time: others get their turns between
    reading.vector

Every token counts the same, the BOS too. That is what generative models are commonly asked for; a
model that was trained for embeddings may want another pooling, which its card tells.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trit.engine import Rows
from trit.errors import UsageError
from trit.runtime.scheduler import APART, Scheduler

_sequences = itertools.count()  # of all engines; next() is atomic
_MOST = 1 << 29


class Reading:
    """A text on its way to a vector. Of one thread at a time."""

    def __init__(self, scheduler: Scheduler, tokens: Sequence[int]) -> None:
        """`tokens`: one or more, all in the vocabulary, not more than the context."""
        vocab = scheduler.engine.plan.vocab_size
        if not tokens or not all(0 <= token < vocab for token in tokens):
            raise UsageError(f"a text to embed has one token or more, of ids below {vocab}.")
        self._scheduler, self._tokens = scheduler, tokens
        self._sequence = APART + next(_sequences) % _MOST
        self._done = 0
        self._sum = np.zeros(scheduler.engine.plan.width)

    def read(self) -> bool:
        """Read the next tokens, between two steps; True once all are read."""
        self._scheduler.alone(self._pass)
        return self._done == len(self._tokens)

    def drop(self) -> None:
        """Empty the cache of a text that is not read to its end."""
        self._scheduler.alone(lambda: self._scheduler.engine.remove(self._sequence))

    @property
    def vector(self) -> NDArray[np.float32]:
        """(width,) float32, of length one. No bit depends on what else was computed."""
        assert self._done == len(self._tokens)
        return (self._sum / max(float(np.linalg.norm(self._sum)), 1e-30)).astype(np.float32)

    def _pass(self) -> None:
        engine = self._scheduler.engine
        piece = self._tokens[self._done : self._done + self._scheduler.pass_rows]
        try:
            hidden = engine.hidden(Rows.of(piece, self._done, self._sequence))
        except BaseException:
            engine.remove(self._sequence)
            raise
        for row in engine.normed(hidden):  # one by one: sums do not depend on the passes
            self._sum += row
        self._done += len(piece)
        if self._done == len(self._tokens):
            engine.remove(self._sequence)
