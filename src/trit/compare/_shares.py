"""Shares of votes with 95% intervals, where votes on one prompt go together.

With one vote for each prompt these are Wilson's interval, and Agresti's and Min's for a score with
ties. Several votes on a prompt say less than as many on prompts of their own: the counts are
divided by how much wider the spread between prompts is than votes alone would make it (L. Kish's
design effect 1965; never below 1), and for few prompts by the square of Student's quantile over
the normal one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trit.evaluate import _interval
from trit.evaluate._interval import Interval, Z

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


def share(hits: NDArray[np.bool_], prompts: Ints) -> Interval | None:
    """The share of `hits` (n,), each about a prompt (n,); None without any."""
    if not len(hits):
        return None
    worth = len(hits) / _effect(hits.astype(np.float64), prompts)
    return _interval.share(float(hits.mean()) * worth, worth)


def score(values: Doubles, prompts: Ints) -> Interval | None:
    """Mean of values (n,) of 1 (won), ½ (tie) and 0 (lost); None without any."""
    if not len(values):
        return None
    worth = 1 / _effect(values, prompts)
    if len(values) > 1 and worth == 1.0:  # 20 votes without a tie: 92.6% without it
        worth /= (student(len(values) - 1) / Z) ** 2
    won, lost = (float((values == end).sum()) * worth for end in (1.0, 0.0))
    change = _interval.change(lost, won, len(values) * worth)
    low, high = (min(1.0, max(0.0, (1 + end) / 2)) for end in (change.low, change.high))
    return Interval((1 + change.value) / 2, low, high)


def difference(first: Doubles, second: Doubles, prompts: Ints) -> Interval | None:
    """Mean of second − first (n,), both in [0, 1], of the same items; None below two prompts."""
    sums, counts = _by_prompt(second - first, prompts)
    if len(sums) < 2:
        return None
    value = float(sums.sum() / counts.sum())
    reach = student(len(sums) - 1) * float(np.sqrt(_variance(sums, counts)))
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach))


def student(freedom: int) -> float:
    """The 97.5% quantile of Student's t: Cornish's and Fisher's series (Hill 1970), good to 1%
    from three degrees of freedom on, and the exact 12.71 and 4.30 of one and two."""
    if freedom < 3:
        return {1: 12.7062, 2: 4.3027}[freedom]
    z, n = Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )


def _effect(values: Doubles, prompts: Ints) -> float:
    """How many votes are worth one."""
    sums, counts = _by_prompt(values, prompts)
    n, groups = len(values), len(sums)
    if groups == n:
        return 1.0
    if groups < 2:
        return float(n)  # one prompt is one observation
    alone = float(values.var(ddof=1)) / n
    wider = _variance(sums, counts) / alone if alone > 0 else 1.0
    return max(1.0, wider) * (student(groups - 1) / Z) ** 2


def _by_prompt(values: Doubles, prompts: Ints) -> tuple[Doubles, Doubles]:
    """Sums and counts of each prompt that has any."""
    _, places = np.unique(prompts, return_inverse=True)
    return np.bincount(places, values).astype(np.float64), np.bincount(places).astype(np.float64)


def _variance(sums: Doubles, counts: Doubles) -> float:
    """Of the mean, the prompts taken as drawn at random: that of a ratio of two sums."""
    groups, n = len(sums), counts.sum()
    off = sums - counts * (sums.sum() / n)
    return float(groups / (groups - 1) * (off**2).sum() / n**2)
