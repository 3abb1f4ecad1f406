"""Shares and differences with 95% intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.959964  # of a normal distribution, 95% on both sides


@dataclass(frozen=True)
class Interval:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def share(hits: float, count: float) -> Interval:
    """hits / count with E. B. Wilson's score interval (1927); count ≥ 1."""
    p, z2 = hits / count, Z * Z / count
    middle = (p + z2 / 2) / (1 + z2)
    reach = Z / (1 + z2) * math.sqrt(p * (1 - p) / count + z2 / (4 * count))
    return Interval(p, max(0.0, min(p, middle - reach)), min(1.0, max(p, middle + reach)))


def mean(values: NDArray[np.float64]) -> Interval:
    """Mean of samples (n,), n ≥ 1, taken as independent; no wider than a point for n = 1."""
    return _around(float(values.mean()), float(values.mean()), _variance(values))


def change(lost: float, won: float, count: float) -> Interval:
    """(won − lost) / count, of pairs of which so many changed either way.

    A. Agresti and Y. Min (2005): half an observation more in each of the four cells, so that no
    change at all is no proof that none ever happens.
    """
    return _around((won - lost) / count, *_adjusted(lost, won, count))


def difference_of_changes(a: tuple[int, int, int], b: tuple[int, int, int]) -> Interval:
    """The change of `a` less that of `b`, each (lost, won, count), of separate items."""
    (p, variance), (q, other) = _adjusted(*a), _adjusted(*b)
    value = (a[1] - a[0]) / a[2] - (b[1] - b[0]) / b[2]
    return _around(value, p - q, variance + other)


def difference_of_means(a: NDArray[np.float64], b: NDArray[np.float64]) -> Interval:
    """mean(a) − mean(b) of separate samples (n,) and (m,), both taken as independent."""
    value = float(a.mean() - b.mean())
    return _around(value, value, _variance(a) + _variance(b))


def _adjusted(lost: float, won: float, count: float) -> tuple[float, float]:
    """Agresti's and Min's estimate of the change, and its variance."""
    n = count + 2
    difference = (won - lost) / n
    return difference, ((won + lost + 1) / n - difference**2) / n


def _variance(values: NDArray[np.float64]) -> float:
    """Of the mean."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0


def _around(value: float, middle: float, variance: float) -> Interval:
    reach = Z * math.sqrt(variance)
    return Interval(value, min(value, middle - reach), max(value, middle + reach))
