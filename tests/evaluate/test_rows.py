"""Scores of rows of logits against a plain calculation in float64."""

import numpy as np
import pytest
from numpy.typing import NDArray

from trit.evaluate._rows import Scorer

Doubles = NDArray[np.float64]
EPS = float(np.finfo(np.float32).eps)
VOCAB = 3001  # no multiple of any register


def rows(
    seed: int, count: int = 20, spread: float = 3.0, shift: float = 0.0
) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, VOCAB)) * spread + shift).astype(np.float32)


def log_softmax(logits: NDArray[np.float32]) -> Doubles:
    x = logits.astype(np.float64)
    x = x - x.max(axis=1, keepdims=True)
    found: Doubles = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return found


def slow(logits: NDArray[np.float32], base: NDArray[np.float32], tokens: Doubles) -> Doubles:
    """The four columns of `compare`, straight from their definitions."""
    q, p = log_softmax(logits), log_softmax(base)
    each = np.arange(len(tokens))
    same = logits.argmax(axis=1) == base.argmax(axis=1)
    return np.stack([-q[each, tokens], -p[each, tokens], (np.exp(p) * (p - q)).sum(1), same], 1)


@pytest.mark.parametrize(("spread", "shift"), [(3.0, 0.0), (0.1, 50.0), (30.0, -200.0)])
def test_compare_against_float64(spread: float, shift: float) -> None:
    base = rows(0, spread=spread)
    logits = base + rows(1, spread=spread / 10, shift=shift)
    tokens = np.random.default_rng(2).integers(VOCAB, size=len(base))
    with Scorer(VOCAB, 1) as scorer:
        got = scorer.compare(logits, base, tokens.astype(np.int32))
        alone = scorer.surprise(logits, tokens.astype(np.int32))
    expected = slow(logits, base, tokens)
    # A term is off by roundings of x − max and of e^x (3 ulp of it), each of the size of the
    # difference of logits it multiplies; a shift common to both rows is such a difference.
    largest = np.abs(logits).max() + np.abs(base).max()
    np.testing.assert_allclose(got, expected, rtol=8 * EPS, atol=8 * EPS * largest)
    np.testing.assert_array_equal(got[:, :1], alone)


def test_equal_rows_do_not_diverge_at_all() -> None:
    logits = rows(3, spread=8.0)
    with Scorer(VOCAB, 2) as scorer:
        got = scorer.compare(logits, logits.copy(), np.zeros(len(logits), dtype=np.int32))
    assert (got[:, 2] == 0).all() and (got[:, 3] == 1).all()
    np.testing.assert_array_equal(got[:, 0], got[:, 1])


def test_threads_change_no_bit() -> None:
    logits, base = rows(4), rows(5)
    tokens = np.arange(len(base), dtype=np.int32)
    found = []
    for threads in (1, 2, 5):
        with Scorer(VOCAB, threads) as scorer:
            found.append(scorer.compare(logits, base, tokens).tobytes())
    assert len(set(found)) == 1


def test_a_tie_goes_to_the_first() -> None:
    logits = np.zeros((1, VOCAB), dtype=np.float32)
    base = logits.copy()
    base[0, 0] = 1e-3
    with Scorer(VOCAB, 1) as scorer:
        assert scorer.compare(logits, base, np.zeros(1, dtype=np.int32))[0, 3] == 1
        base[0, 7] = 1.0
        assert scorer.compare(logits, base, np.zeros(1, dtype=np.int32))[0, 3] == 0
