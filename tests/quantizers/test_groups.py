"""Grids with a scale and a zero per group, against slow searches written from the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trit.errors import UsageError
from trit.quantizers import hqq, rtn

pytestmark = pytest.mark.unsanitized

GROUP = 16


def matrix(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    """With a few weights far off, as real ones have."""
    return np.random.default_rng(seed).standard_t(4, (rows, cols)).astype(np.float32)


def least_error(weights: np.ndarray, importance: np.ndarray, bits: int) -> float:
    """Of one group: every zero, and many scales, each to its own codes. No rounding of scales."""
    top, best = (1 << bits) - 1, math.inf
    span = float(weights.max() - weights.min())
    for zero in range(top + 1):
        for scale in np.linspace(0.3, 1.3, 400) * span / top:
            codes = np.clip(np.rint(weights / scale) + zero, 0, top)
            error = float((importance * ((codes - zero) * scale - weights) ** 2).sum())
            best = min(best, error)
    return best


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_near_the_least_error_there_is(bits: int, weighted: bool) -> None:
    weights = matrix(12, 2 * GROUP, bits)
    importance = np.random.default_rng(9).random(2 * GROUP).astype(np.float32) ** 3
    given = importance if weighted else None
    counted = importance if weighted else np.ones_like(importance)
    grid = rtn.quantize_groups(weights, bits, GROUP, given)
    error = (counted * (grid.weights() - weights) ** 2).reshape(12, 2, GROUP).sum(axis=2)
    least = np.array(
        [
            [least_error(row[part], counted[part], bits) for part in (slice(0, 16), slice(16, 32))]
            for row in weights
        ]
    )
    assert error.sum() < 1.12 * least.sum()


def test_symmetric_grids_have_their_zero_in_the_middle() -> None:
    weights = matrix(8, 64)
    grid = rtn.quantize_groups(weights, 4, 32, symmetric=True)
    assert (grid.zeros == 8).all()
    free = rtn.quantize_groups(weights, 4, 32)
    largest = np.abs(weights).reshape(8, 2, 32).max(axis=2) / 7.5
    plain = np.clip(np.rint(weights.reshape(8, 2, 32) / largest[:, :, None]), -8, 7)
    plain_error = ((plain * largest[:, :, None] - weights.reshape(8, 2, 32)) ** 2).sum()
    error = ((grid.weights() - weights) ** 2).sum()
    assert ((free.weights() - weights) ** 2).sum() < error < plain_error


@pytest.mark.parametrize("scale_type", ["f16", "bf16"])
def test_scales_are_what_is_stored(scale_type: str) -> None:
    grid = rtn.quantize_groups(matrix(8, 64), 4, 32, scale_type=scale_type)
    bits = grid.scales.view(np.uint32)
    if scale_type == "bf16":
        assert (bits & 0xFFFF == 0).all()
    else:
        assert np.array_equal(grid.scales.astype(np.float16).astype(np.float32), grid.scales)


def test_groups_of_zeros_and_of_one_sign() -> None:
    weights = np.zeros((3, 32), np.float32)
    weights[1], weights[2] = 5.0, -3.0
    for grid in (rtn.quantize_groups(weights, 4, 32), hqq.quantize_groups(weights, 4, 32)):
        assert np.allclose(grid.weights(), weights, rtol=1e-3)
        assert grid.codes.max() <= 15 and grid.zeros.min() >= 0 and grid.zeros.max() <= 15


def test_the_same_for_any_number_of_threads() -> None:
    weights = matrix(700, 512)
    one, two = (rtn.quantize_groups(weights, 3, 128, threads=n) for n in (1, 2))
    assert np.array_equal(one.codes, two.codes) and np.array_equal(one.scales, two.scales)


def test_what_makes_no_sense() -> None:
    with pytest.raises(UsageError, match=r"groups of 128 do not divide 96 columns\. --group-size"):
        rtn.quantize_groups(matrix(2, 96), 4, 128)
    with pytest.raises(UsageError, match="9 bits"):
        rtn.quantize_groups(matrix(2, 96), 9, 32)
    with pytest.raises(UsageError, match="importance has shape"):
        rtn.quantize_groups(matrix(2, 96), 4, 32, np.ones(95, np.float32))
    with pytest.raises(UsageError, match="axis 2"):
        hqq.quantize_groups(matrix(2, 96), 4, 32, axis=2)


def half_quadratic(
    weights: np.ndarray, bits: int, whole: bool
) -> tuple[list[int], float, float, float]:
    """One group as the definition goes, in float64: codes, zero, scale, Σ |error|^0.7."""
    top, p, beta = (1 << bits) - 1, 0.7, 10.0
    low, high = min(0.0, float(weights.min())), max(0.0, float(weights.max()))
    scale = float(np.float16((high - low) / top))
    zero = -low / scale
    best: tuple[list[int], float, float, float] = ([], 0.0, 0.0, math.inf)
    for _ in range(20):
        tried = float(min(max(round(zero), 0), top)) if whole else zero
        codes = [min(max(round(float(w) / scale + tried), 0), top) for w in weights]
        errors = [float(w) - (q - tried) * scale for w, q in zip(weights, codes, strict=True)]
        loss = sum(abs(e) ** p for e in errors)
        if loss < best[3]:
            best = (codes, tried, scale, loss)
        sparse = [
            math.copysign(max(abs(e) - abs(e) ** (p - 1) / beta, 0.0), e) if e else 0.0
            for e in errors
        ]
        smooth = [float(w) - s for w, s in zip(weights, sparse, strict=True)]
        pairs = list(zip(codes, smooth, strict=True))
        zero = sum(q - w / scale for q, w in pairs) / len(pairs)
        if whole:
            above = sum((q - tried) * w for q, w in pairs)
            below = sum((q - tried) ** 2 for q, _ in pairs)
            scale = float(np.float16(above / below)) if above > 0 and below > 0 else scale
        beta *= 1.01
    return best


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("whole", [True, False])
def test_half_quadratic_steps_are_those_of_the_definition(bits: int, whole: bool) -> None:
    weights = matrix(40, GROUP, 3)
    grid = hqq.quantize_groups(weights, bits, GROUP, whole_zeros=whole)
    same = 0
    for row, given in enumerate(weights):
        codes, zero, _, loss = half_quadratic(given, bits, whole)
        found = float((np.abs(grid.weights()[row] - given) ** 0.7).sum())
        assert found == pytest.approx(loss, rel=0.02)  # a code on an edge may fall either way
        same += grid.codes[row].tolist() == codes and math.isclose(
            float(grid.zeros[row, 0]), zero, abs_tol=1e-3
        )
    assert same >= 36


def test_the_best_step_is_kept_and_beats_the_range() -> None:
    weights = matrix(64, 256, 5)

    def loss(steps: int, whole: bool, axis: int = 1) -> float:
        grid = hqq.quantize_groups(weights, 3, 64, whole_zeros=whole, steps=steps, axis=axis)
        values = grid.weights() if axis == 1 else grid.weights().T
        return float((np.abs(values - weights) ** 0.7).sum())

    for whole in (True, False):
        losses = [loss(steps, whole) for steps in (1, 2, 5, 20)]
        assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert loss(20, True, axis=0) < loss(1, True, axis=0)


def test_whole_zeros_lose_nothing_where_rounded_ones_do() -> None:
    weights = matrix(64, 256, 6)
    free = hqq.quantize_groups(weights, 3, 64, whole_zeros=False)
    whole = hqq.quantize_groups(weights, 3, 64)
    assert whole.zeros.dtype == np.int16 and free.zeros.dtype == np.float32
    rounded = (free.codes - np.repeat(np.rint(free.zeros), 64, 1)) * np.repeat(free.scales, 64, 1)
    error = [float(np.square(x - weights).sum()) for x in (whole.weights(), rounded)]
    assert error[0] < error[1]
