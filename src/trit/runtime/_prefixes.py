"""Which sequences of an engine's cache hold which tokens, so that no prefix is read twice.

A prompt that begins like what a sequence holds goes on from there: it takes an idle sequence over,
or shares the pages of one that somebody uses. The engine promises logits that do not depend on how
the cache came about, so this changes no answer. Idle sequences are kept, the last used the longest,
up to a number of positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from trit.engine import PAGE, Engine


@dataclass(frozen=True, eq=False)
class Held:
    """A sequence of the cache and the tokens it holds, from position 0 on."""

    sequence: int
    tokens: Sequence[int]

    @property
    def pages(self) -> int:
        return -(-len(self.tokens) // PAGE)


class Prefixes:
    """Gives out the sequences of one engine and takes them back. For one thread at a time."""

    def __init__(self, engine: Engine, idle_positions: int) -> None:
        self._engine = engine
        self._most_pages = -(-idle_positions // PAGE)
        self._idle: list[Held] = []  # the last used at the end
        self._given: set[int] = set()

    def longest(self, prompt: Sequence[int], used: Iterable[Held]) -> tuple[Held | None, int]:
        """Who holds most of the beginning of `prompt`, and how many tokens of it.

        `used`: what sequences in use hold. Never all of the prompt: its last token has to be run
        for its logits.
        """
        best, most = None, 0
        for held in (*self._idle, *used):
            count = min(shared(held.tokens, prompt), len(prompt) - 1)
            if count > most and count >= self._engine.keeps_from(held.sequence):
                best, most = held, count
        return best, most

    def give(self, prompt: Sequence[int], used: Iterable[Held]) -> tuple[int, int]:
        """A sequence for `prompt`, and how many of its tokens that holds already."""
        source, count = self.longest(prompt, used)
        if source in self._idle:
            self._idle.remove(source)
            if count == len(source.tokens):
                self._given.add(source.sequence)
                return source.sequence, count
            self._idle.append(source)
        sequence = self._unused()
        if source is not None:
            self._engine.fork(source.sequence, sequence, count)
        self._given.add(sequence)
        return sequence, count

    def adopt(self, tokens: Sequence[int], fill: Callable[[int], None]) -> None:
        """Keep a new sequence that `fill` makes hold `tokens`; nothing is kept if it raises."""
        while sum(one.pages for one in self._idle) + -(-len(tokens) // PAGE) > self._most_pages:
            if not self.evict():
                break
        sequence = self._unused()
        fill(sequence)
        self._idle.append(Held(sequence, list(tokens)))

    def take(self, held: Held) -> None:
        """Keep a sequence that nobody uses any more."""
        # Also what an interrupted pass has written, which `tokens` does not know of.
        self._engine.remove(held.sequence, len(held.tokens))
        self._given.remove(held.sequence)
        if held.tokens:
            self._idle.append(held)
        while sum(one.pages for one in self._idle) > self._most_pages:
            self.evict()

    def _unused(self) -> int:
        busy = self._given | {held.sequence for held in self._idle}
        return next(n for n in range(len(busy) + 1) if n not in busy)

    def evict(self) -> bool:
        """Empty the idle sequence that was used the longest ago; False if there is none."""
        if not self._idle:
            return False
        self._engine.remove(self._idle[0].sequence)
        del self._idle[0]
        return True

    def clear(self) -> None:
        """Empty all that are idle."""
        while self.evict():
            pass


def shared(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with. Lists are quickest: slices of them are compared in C."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
