"""The sequences of an engine's cache: which tokens each holds, and who uses it now.

A prompt that begins like what a sequence holds goes on from there, so a chat reads only what is new
of each turn. The engine promises logits that do not depend on how the cache came about, so keeping
it never changes an answer.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trit.engine import Engine, Rows

# Rows per pass of a prompt, as quick as more of them; Ctrl-C is heard between passes.
PASS_ROWS = 64
_IDLE_KEPT = 1  # sequences that keep their tokens when nobody uses them


@dataclass(eq=False)
class Held:
    """A sequence in use; `tokens` are those the cache holds, from position 0 on."""

    id: int
    tokens: list[int] = field(default_factory=list)


class Sequences:
    """Lends the sequences of one engine. Several generations may be under way, in any thread."""

    def __init__(self, engine: Engine, pass_rows: int = PASS_ROWS) -> None:
        """`pass_rows`: most rows that generation hands to `forward` of a prompt at once."""
        self.engine = engine
        self.pass_rows = pass_rows
        self._lock = threading.Lock()
        self._idle: list[Held] = []
        self._used: set[int] = set()

    def take(self, prompt: Sequence[int]) -> Held:
        """A sequence that holds as much of the beginning of `prompt` as there is.

        Never all of it: the last token has to be run for its logits.
        """
        with self._lock:
            held = max(self._idle, key=lambda one: _shared(one.tokens, prompt), default=None)
            if held is None:
                held = Held(next(n for n in range(len(self._used) + 1) if n not in self._used))
                self._used.add(held.id)
            else:
                self._idle.remove(held)
            self._cut(held, min(_shared(held.tokens, prompt), len(prompt) - 1))
            return held

    def give(self, held: Held) -> None:
        """Take a sequence back; the last ones keep what they hold."""
        with self._lock:
            self._idle.append(held)
            while len(self._idle) > _IDLE_KEPT:
                oldest = self._idle.pop(0)
                self._cut(oldest, 0)
                self._used.discard(oldest.id)

    def forget(self) -> None:
        """Empty every sequence that nobody uses."""
        with self._lock:
            for held in self._idle:
                self._cut(held, 0)

    def forward(
        self, rows: Sequence[tuple[Held, int]], outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        """Run one token per row at the end of its sequence; logits (k, vocab) of `outputs`.

        Rows of one sequence follow one another.
        """
        with self._lock:
            positions: list[int] = []
            lengths: dict[int, int] = {}
            for held, _ in rows:
                position = lengths.get(held.id, len(held.tokens))
                positions.append(position)
                lengths[held.id] = position + 1
            batch = Rows(
                np.array([token for _, token in rows], np.int32),
                np.array([held.id for held, _ in rows], np.int32),
                np.array(positions, np.int64),
            )
            logits = self.engine.forward(batch, outputs)
            for held, token in rows:
                held.tokens.append(token)
            return logits

    def _cut(self, held: Held, length: int) -> None:
        # Also what an interrupted pass has written, which `tokens` does not know of.
        del held.tokens[length:]
        self.engine.remove(held.id, length)


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count
