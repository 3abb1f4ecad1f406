"""Intervals: known values, and coverage on drawn samples."""

import numpy as np
import pytest

from trit.evaluate._interval import (
    Interval,
    change,
    difference_of_changes,
    difference_of_means,
    mean,
    share,
)


def test_a_share_by_wilson() -> None:
    got = share(81, 263)  # Newcombe (1998), table I
    assert (got.low, got.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    none, whole = share(0, 20), share(20, 20)
    assert none.low == 0 and none.high == pytest.approx(0.1611, abs=5e-5)
    assert (whole.low, whole.high) == (pytest.approx(1 - none.high), 1)


def test_no_change_is_no_proof_of_none() -> None:
    got = change(0, 0, 100)
    assert got.value == 0 and got.low == pytest.approx(-got.high) and got.high > 0.01
    assert not got.shown
    assert change(30, 2, 100).high < 0 and Interval(-0.2, -0.3, -0.1).shown


def test_a_mean_of_one() -> None:
    assert mean(np.array([3.0])) == Interval(3.0, 3.0, 3.0)


@pytest.mark.parametrize("n", [40, 120])
def test_the_intervals_cover(n: int) -> None:
    """In 95 of 100 draws, give or take: the least of 2000 that chance allows is 93.5%."""
    random = np.random.default_rng(5)
    lose, win, true = 0.12, 0.05, 0.05 - 0.12
    hits = np.zeros(4)
    for _ in range(2000):
        kinds = random.choice(3, size=(2, n), p=[lose, win, 1 - lose - win])
        moves = [(int((k == 0).sum()), int((k == 1).sum()), n) for k in kinds]
        a, b = random.standard_normal((2, n)) + 1
        cases = [
            (change(*moves[0]), true),
            (difference_of_changes(*moves), 0.0),
            (mean(a), 1.0),
            (difference_of_means(a, b), 0.0),
        ]
        hits += [found.low <= value <= found.high for found, value in cases]
    assert (hits / 2000 >= 0.93).all() and (hits / 2000 <= 0.985).all()
