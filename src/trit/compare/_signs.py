"""Can people tell? Tests of votes that name a winner, against "each side wins half of the time".

`sign_flip` is for a number of votes that was fixed before any was seen. Votes on one prompt are
about the same two texts and go together, so a prompt counts as a whole: its wins less its losses
are as likely to be the negative if the models do not differ. Summed over all prompts and all ways
to flip the signs, exactly; with one vote for each prompt that is the sign test.

`always` may be looked at after every vote. It bets on the first vote about each prompt: the
likelihood of the wins with any share in (0, 1), all alike, over that with a half, a martingale if
the models do not differ (J. Ville 1939; J. ter Schure and P. Grünwald 2019 on such studies).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

ALPHA = 0.05
POWER = 0.8
MOST_VOTES = 20_000  # beyond, no one votes
_FIGURES = 12  # of a probability, so that a sum in another order is the same


def sign_flip(sums: Iterable[int]) -> float:
    """p, two-sided, of wins less losses of each prompt."""
    given = [each for each in sums if each]
    sizes, observed = [abs(each) for each in given], abs(sum(given))
    chances = np.ones(1)  # of the sums −reach … reach, in steps of one
    for size in sizes:
        wider = np.zeros(len(chances) + 2 * size)
        wider[: len(chances)] += chances / 2
        wider[2 * size :] += chances / 2
        chances = wider
    reach = sum(sizes)
    distance = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, round(float(chances[distance >= observed].sum()), _FIGURES))


def always(firsts: Sequence[bool]) -> float:
    """p that holds whenever it is looked at, of the first vote on each prompt: True is a win."""
    if not firsts:
        return 1.0
    wins = np.cumsum(np.array(firsts, dtype=np.int64))
    best = float(_evidence(wins, np.arange(1, len(wins) + 1)).max())
    return round(math.exp(-max(0.0, best)), _FIGURES)


def more_votes(wins: int, losses: int, share: float) -> int | None:
    """How many more winners, each for the first with a chance `share`, until `always` falls below
    ALPHA with a chance of POWER; None beyond MOST_VOTES, and for a share of a half."""
    if share < 0.5:
        return more_votes(losses, wins, 1 - share)
    if share == 0.5:
        return None
    more = 1
    while not _powerful(wins, losses, more, share):
        more *= 2
        if more > MOST_VOTES:
            return None
    low, high = more // 2, more  # not enough, enough
    while high - low > 1:
        middle = (low + high) // 2
        enough = _powerful(wins, losses, middle, share)
        low, high = (low, middle) if enough else (middle, high)
    return high


def _powerful(wins: int, losses: int, more: int, share: float) -> bool:
    """Whether so many more would do, looked at after the last of them, with a chance of POWER."""
    count = wins + losses + more
    won = np.arange(more + 1)
    majority = 2 * (wins + won) > count
    settled = majority & (_evidence(wins + won, np.full(more + 1, count)) >= -math.log(ALPHA))
    return float(_binomial(more, share)[settled].sum()) >= POWER


def _evidence(wins: Ints, count: Ints) -> Doubles:
    """ln of the bet's worth: 2^n · wins! losses! / (n + 1)!"""
    logs = _log_factorials(_size(int(count.max()) + 2))
    worth: Doubles = count * math.log(2) + logs[wins] + logs[count - wins] - logs[count + 1]
    return worth


def _binomial(count: int, share: float) -> Doubles:
    """Chances of 0 … count wins."""
    wins = np.arange(count + 1)
    chances: Doubles
    if share >= 1.0:
        chances = (wins == count).astype(np.float64)
        return chances
    logs = _log_factorials(_size(count + 1))
    ways = logs[count] - logs[wins] - logs[count - wins]
    chances = np.exp(ways + wins * math.log(share) + (count - wins) * math.log1p(-share))
    return chances


def _size(least: int) -> int:
    """The power of two from `least` on: few tables are made."""
    return 1 << (least - 1).bit_length()


@cache
def _log_factorials(size: int) -> Doubles:
    """ln 0! … ln (size − 1)!"""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size)))])
