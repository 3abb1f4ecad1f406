"""Statistics over tokens, against sums written as llama-perplexity defines them."""

import math

import numpy as np
import pytest

from trit.evaluate.divergence import divergence
from trit.evaluate.perplexity import perplexity

N = 1000


def columns(seed: int = 0) -> tuple[np.ndarray, ...]:  # type: ignore[type-arg]
    random = np.random.default_rng(seed)
    base = random.exponential(2.0, N)
    surprise = base + 0.1 * random.standard_normal(N) + 0.05
    return surprise, base, random.exponential(0.02, N), (random.random(N) < 0.9).astype(float)


def mean_stderr(values: np.ndarray) -> tuple[float, float]:  # type: ignore[type-arg]
    """From the sums of values and squares, one after the other."""
    total = squares = 0.0
    for value in values.tolist():
        total += value
        squares += value * value
    mean = total / len(values)
    return mean, math.sqrt((squares / len(values) - mean * mean) / (len(values) - 1))


def test_perplexity_and_its_error() -> None:
    surprise = columns()[0]
    mean, error = mean_stderr(surprise)
    got = perplexity(surprise)
    assert got.mean == pytest.approx(math.exp(mean), rel=1e-12)
    assert got.stderr == pytest.approx(math.exp(mean) * error, rel=1e-9)


def test_ratio_and_difference_use_the_covariance() -> None:
    surprise, base, kld, same = columns()
    got = divergence(surprise, base, kld, same)
    (q, dq), (b, db) = mean_stderr(surprise), mean_stderr(base)
    covariance = (float((surprise * base).sum()) / N - q * b) / (N - 1)
    assert got.ln_ratio.mean == pytest.approx(q - b, rel=1e-9)
    error = math.sqrt(dq * dq + db * db - 2 * covariance)
    assert got.ln_ratio.stderr == pytest.approx(error, rel=1e-6)
    assert got.ratio.mean == pytest.approx(math.exp(q - b), rel=1e-9)
    assert got.ratio.stderr == pytest.approx(math.exp(q - b) * error, rel=1e-6)
    x, y = math.exp(q), math.exp(b)
    error = math.sqrt((x * dq) ** 2 + (y * db) ** 2 - 2 * x * y * covariance)
    assert got.difference.mean == pytest.approx(x - y, rel=1e-9)
    assert got.difference.stderr == pytest.approx(error, rel=1e-6)
    assert got.correlation == pytest.approx(covariance / (dq * db), rel=1e-6)


def test_distributions() -> None:
    surprise, base, kld, same = columns()
    got = divergence(surprise, base, kld, same)
    mean, error = mean_stderr(kld)
    assert (got.kld.mean, got.kld.stderr) == pytest.approx((mean, error), rel=1e-6)
    ordered = sorted(kld.tolist())
    assert (got.kld.min, got.kld.max) == (ordered[0], ordered[-1])
    for fraction, value in got.kld.quantiles.items():
        place = fraction * (N - 1)  # between the two nearest, in proportion
        low = ordered[int(place)]
        high = ordered[min(int(place) + 1, N - 1)]
        assert value == pytest.approx(low + (place - int(place)) * (high - low), rel=1e-9)
    delta = np.exp(-surprise) - np.exp(-base)
    square, square_error = mean_stderr(delta**2)
    assert got.delta_p.mean == pytest.approx(mean_stderr(delta)[0], rel=1e-9)
    assert got.delta_p_rms.mean == pytest.approx(math.sqrt(square), rel=1e-9)
    expected = 0.5 / math.sqrt(square) * square_error
    assert got.delta_p_rms.stderr == pytest.approx(expected, rel=1e-6)
    top = float(same.mean())
    assert got.same_top.mean == top
    assert got.same_top.stderr == pytest.approx(math.sqrt(top * (1 - top) / (N - 1)), rel=1e-12)


def test_a_model_against_itself() -> None:
    surprise = columns()[0]
    got = divergence(surprise, surprise, np.zeros(N), np.ones(N))
    assert got.ln_ratio.mean == got.ln_ratio.stderr == got.delta_p_rms.mean == 0
    assert got.delta_p_rms.stderr == got.same_top.stderr == 0
    assert got.ratio.mean == got.same_top.mean == 1
    assert divergence(np.ones(9), np.ones(9), np.zeros(9), np.ones(9)).correlation is None
