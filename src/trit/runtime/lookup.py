"""Guesses the next tokens from what the text has already: prompt look-up, no second model.

Where the last tokens stood before, what followed them there is likely to follow again: in an edited
function, a quote, a name. The guess is run in one small batch with the token it goes on from, and
counts as far as it is what plain decoding chooses, so it costs time or saves it, and changes no
text. (Saxena, Prompt Lookup Decoding, 2023; Leviathan et al., arXiv:2211.17192, for the gain.)

How much to guess is decided anew each time: the longer the match, the likelier the next token, by a
table learnt on the way; what n rows cost is measured by who runs them. The length that gives most
tokens per second may be none; then a short guess is tried now and then to see whether that changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

LEAST = 2  # tokens of a match
LONGEST = 16  # looked at; longer ones are all alike
PLACES = 32  # where the last pair of tokens stood before, the last ones, that are compared
# How likely the next token is right behind a match of so many tokens, before anything is known of
# this text, and how many tokens that counts for.
CHANCES = {2: 0.3, 3: 0.4, 4: 0.5, 6: 0.65, 9: 0.85, 13: 0.97}
WEIGHT = 4.0
FORGET = 0.95  # weight of what was learnt, with each token that is
RETRY = 32  # matches that are not used before one is tried all the same
TRIED = 3  # tokens then
SLOPE = 0.15  # of what one row costs, for each further row: until it was measured
SAMPLES = 8  # of what so many rows cost; the least is taken: other programs only add
STALE = 512  # steps after which a sample counts no more


class Costs:
    """What a step of so many rows takes, in seconds; measured, or guessed from what was."""

    def __init__(self) -> None:
        self._samples: dict[int, deque[tuple[int, float]]] = {}
        self._known: dict[int, float] = {}
        self._steps = 0

    def note(self, rows: int, seconds: float) -> None:
        """A step of `rows`, one or more for each sequence, took so long."""
        self._steps += 1
        samples = self._samples.setdefault(rows, deque(maxlen=SAMPLES))
        samples.append((self._steps, seconds))
        self._known[rows] = min(one for _, one in samples)
        if self._steps % (STALE // 8) == 0:
            self._forget()

    def seconds(self, rows: int) -> float:
        """Of a step of `rows`; only ratios mean anything before the first note."""
        if not self._known:
            return _slope(rows)
        if rows in self._known:
            return self._known[rows]
        below = max((n for n in self._known if n < rows), default=None)
        above = min((n for n in self._known if n > rows), default=None)
        if below is None or above is None:
            near = above if below is None else below
            assert near is not None
            return self._known[near] * _slope(rows) / _slope(near)
        part = (rows - below) / (above - below)
        return self._known[below] * (1 - part) + self._known[above] * part

    def _forget(self) -> None:
        for rows, samples in list(self._samples.items()):
            while samples and samples[0][0] <= self._steps - STALE:
                samples.popleft()
            if samples:
                self._known[rows] = min(one for _, one in samples)
            else:
                del self._samples[rows], self._known[rows]


def _slope(rows: int) -> float:
    return 1 + SLOPE * (rows - 1)


class Lookup:
    """Guesses for one sequence; `tokens` is its list, which grows."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._behind: dict[tuple[int, int], list[int]] = {}  # pair of tokens -> places behind it
        self._indexed = LEAST  # the first place that is not in there
        self._length = self._drafted = self._unused = 0  # of the last guess
        self._bins = [max(n for n in CHANCES if n <= max(length, LEAST)) for length in _LENGTHS]
        self._right = {n: chance * WEIGHT for n, chance in CHANCES.items()}
        self._tested = dict.fromkeys(CHANCES, WEIGHT)

    def guess(self, room: int, costs: Costs, rows: int, tokens: float) -> tuple[list[int], float]:
        """What may follow, at most `room` tokens, and how many of them are expected to be right.

        The batch has `rows` besides, which bring `tokens`: what is guessed has to bring more tokens
        per second than that.
        """
        self._drafted = 0
        place, self._length = self._match() if room > 0 else (0, 0)
        if self._length == 0:
            return [], 0.0
        count, expected, best = 0, 0.0, tokens / costs.seconds(rows)
        right, all_right = 0.0, 1.0
        for n in range(1, room + 1):
            all_right *= self._chance(self._length + n - 1)
            right += all_right
            speed = (tokens + right) / costs.seconds(rows + n)
            if speed > best:
                count, expected, best = n, right, speed
        if count == 0:
            self._unused += 1
            count = min(TRIED, room) if self._unused % RETRY == 0 else 0
        draft: list[int] = []
        for at in range(place, place + count):  # may run into what is being guessed
            known = at < len(self._tokens)
            draft.append(self._tokens[at] if known else draft[at - len(self._tokens)])
        self._drafted = count
        return draft, expected

    def learn(self, accepted: int) -> None:
        """So many tokens of the last guess were right."""
        for n in range(min(accepted + 1, self._drafted)):
            one = self._bin(self._length + n)
            self._right[one] = self._right[one] * FORGET + (n < accepted)
            self._tested[one] = self._tested[one] * FORGET + 1

    def _bin(self, length: int) -> int:
        return self._bins[min(length, LONGEST)]

    def _chance(self, length: int) -> float:
        one = self._bin(length)
        return self._right[one] / self._tested[one]

    def _match(self) -> tuple[int, int]:
        """The place behind the longest match of the last tokens, and its length; 0: none."""
        tokens, end = self._tokens, len(self._tokens)
        for place in range(self._indexed, end):
            self._behind.setdefault((tokens[place - 2], tokens[place - 1]), []).append(place)
        self._indexed = max(self._indexed, end)
        best, most = 0, 0
        if end < LEAST:
            return best, most
        for place in reversed(self._behind.get((tokens[-2], tokens[-1]), [])[-PLACES:]):
            length = LEAST
            while (
                length < min(LONGEST, place) and tokens[place - 1 - length] == tokens[-1 - length]
            ):
                length += 1
            if length > most:
                best, most = place, length
        return best, most


_LENGTHS = range(LONGEST + 1)
