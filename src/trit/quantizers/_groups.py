"""Integer grids with a float scale and an integer zero per group of columns: how to choose them.

weight[r, c] ≈ (code[r, c] - zero[r, g]) · scale[r, g],  codes and zeros in 0 … 2^bits - 1
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from trit import formats
from trit.errors import UnsupportedError, UsageError
from trit.files.quantized import Grid
from trit.machine.processors import default_threads

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
# Weights (groups, columns) and what they weigh -> codes (groups, columns), zeros, scales (groups,)
Chooser = Callable[[Floats, Floats | None], tuple[Codes, Floats, Floats]]

SMALLEST = np.float32(2.0**-24)  # the least float16 above zero
_SHRINKS = (1.04, 1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.78, 0.74, 0.7, 0.64, 0.58)
_ROUNDS = 4
_CHUNK = 1 << 18  # weights tried at a time: what is needed stays in the cache


def by_group(
    weights: Floats,
    bits: int,
    group: int,
    importance: Floats | None,
    threads: int | None,
    choose: Chooser,
) -> Grid:
    """Let `choose` work on the groups of a matrix, some rows at a time and those side by side.

    weights (rows, cols); `importance` (cols,) or (rows, cols). UsageError for groups that do not
    fill a row or an importance of another shape; UnsupportedError for scales beyond float16.
    """
    rows, cols = weights.shape
    if not 1 <= bits <= 8:
        raise UsageError(f"{bits} bits: a grid has 1 to 8.")
    if group < 1 or cols % group:
        fitting = [size for size in (256, 128, 96, 64, 48, 32, 16) if cols % size == 0]
        hint = f" --group-size {fitting[0]} does." if fitting else ""
        raise UsageError(f"groups of {group} do not divide {cols} columns.{hint}")
    if importance is not None and importance.shape not in ((cols,), (rows, cols)):
        raise UsageError(
            f"importance has shape {importance.shape}; expected ({cols},) or {weights.shape}."
        )
    groups = cols // group
    codes = np.empty((rows, cols), np.uint8)
    zeros, scales = np.empty((2, rows, groups), np.float32)
    step = max(1, _CHUNK // cols)

    def work(first: int) -> None:
        part = slice(first, min(first + step, rows))
        given = np.ascontiguousarray(weights[part], np.float32).reshape(-1, group)
        weighing = None
        if importance is not None:
            whole = np.broadcast_to(importance, weights.shape)[part]
            weighing = np.ascontiguousarray(whole, np.float32).reshape(-1, group)
        found, zero, scale = choose(given, weighing)
        codes[part] = found.reshape(-1, cols)
        zeros[part] = zero.reshape(-1, groups)
        scales[part] = scale.reshape(-1, groups)

    with ThreadPoolExecutor(threads or default_threads()) as pool:
        list(pool.map(work, range(0, rows, step)))
    if not np.isfinite(scales).all():
        raise UnsupportedError("weights so large that their scales do not fit float16.")
    whole = (zeros == np.rint(zeros)).all()
    return Grid(codes, zeros.astype(np.int16) if whole else zeros, scales, group)


def min_max(bits: int) -> Chooser:
    """From the lowest weight (or 0) to the highest: what others call round to nearest."""
    top = np.float32((1 << bits) - 1)

    def choose(w: Floats, _: Floats | None) -> tuple[Codes, Floats, Floats]:
        low, span = span_of(w, top)
        scale = rounded(span, "f16")
        zero = np.clip(np.rint(-low / scale), 0, top)
        codes = np.clip(np.rint(w / scale[:, None]) + zero[:, None], 0, top)
        return codes.astype(np.uint8), zero, scale

    return choose


def least_squares(bits: int, scale_type: str, symmetric: bool = False) -> Chooser:
    """Search scale and zero for the least Σ importance · (weight - value)².

    Errors are those of the scale as it is stored, in `scale_type`. `symmetric`: every zero is half
    the range.
    """
    top = np.float32((1 << bits) - 1)

    def choose(w: Floats, h: Floats | None) -> tuple[Codes, Floats, Floats]:
        best = Best(w, _weights(w, h), top)
        search(best, scale_type, symmetric)
        return best.codes(), best.zero, best.scale

    return choose


def search(best: Best, scale_type: str, symmetric: bool = False) -> None:
    """Offer scales and zeros until nothing is better.

    Ranges from a little more than the whole down to 58% of it are tried; of the best, scale (the
    exact solution for its codes) and zero (its neighbours) are improved in turn.
    """
    w, top = best.w, best.top
    half = np.float32((int(top) + 1) // 2)
    if symmetric:
        largest = np.abs(w).max(axis=1)
        largest = np.where(largest > 0, largest, 1).astype(np.float32)
        zero = np.full(len(w), half, np.float32)
        for shrink in (top / 2 / half, *_SHRINKS):
            best.offer(rounded(largest * np.float32(2 * shrink) / top, scale_type), zero)
        for _ in range(_ROUNDS):
            best.offer(rounded(best.refit(), scale_type), zero)
        return
    low, span = span_of(w, top)
    for shrink in _SHRINKS:
        scale = rounded(span * np.float32(shrink), scale_type)
        middle = np.rint(-low * np.float32(shrink) / scale)
        for change in (-1, 0, 1):
            best.offer(scale, np.clip(middle + np.float32(change), 0, top))
    for _ in range(_ROUNDS):
        settled = best.error.copy()
        best.offer(rounded(best.refit(), scale_type), best.zero)
        for change in (-1, 1):
            zero = np.clip(best.zero + np.float32(change), 0, top)
            best.offer(best.scale, zero)
            best.offer(rounded(best.refit(zero), scale_type), zero)
        if (best.error == settled).all():
            break


class Best:
    """The best scale and zero so far of groups w (n, columns), with weights h like them."""

    def __init__(self, w: Floats, h: Floats, top: np.float32) -> None:
        self.w, self.h, self.top = w, h, top
        self.error = np.full(len(w), np.inf, np.float32)
        self.scale = np.ones(len(w), np.float32)
        self.zero = np.zeros(len(w), np.float32)

    def offer(self, scale: Floats, zero: Floats) -> None:
        """Take these where they are better."""
        difference = self._placed(scale, zero)
        difference -= zero[:, None]
        difference *= scale[:, None]
        difference -= self.w
        error = self.measure(difference)
        better = error < self.error
        self.error = np.where(better, error, self.error)
        self.scale = np.where(better, scale, self.scale)
        self.zero = np.where(better, zero, self.zero)

    def measure(self, difference: Floats) -> Floats:
        """The error (n,) of groups that are off by `difference` (n, columns)."""
        error: Floats = np.einsum("ij,ij,ij->i", difference, difference, self.h)
        return error

    def refit(self, zero: Floats | None = None) -> Floats:
        """The scale with the least error for the codes that the best scale gives."""
        zero = self.zero if zero is None else zero
        levels = self._placed(self.scale, zero)
        levels -= zero[:, None]
        above = np.einsum("ij,ij,ij->i", levels, self.w, self.h)
        below = np.einsum("ij,ij,ij->i", levels, levels, self.h)
        good = (above > 0) & (below > 0)
        return np.where(good, above / np.where(good, below, 1), self.scale).astype(np.float32)

    def codes(self) -> Codes:
        """The codes of the best."""
        return self._placed(self.scale, self.zero).astype(np.uint8)

    def _placed(self, scale: Floats, zero: Floats) -> Floats:
        levels = self.w / scale[:, None]
        np.rint(levels, out=levels)
        levels += zero[:, None]
        np.clip(levels, 0, self.top, out=levels)
        return levels


def span_of(w: Floats, top: np.float32) -> tuple[Floats, Floats]:
    """The lowest weight of each group or 0, and the step that reaches the highest one or 0."""
    low = np.minimum(w.min(axis=1), 0)
    span = (np.maximum(w.max(axis=1), 0) - low) / top
    return low, np.where(span > 0, span, 1).astype(np.float32)


def rounded(scale: Floats, scale_type: str) -> Floats:
    """Scales as they are stored, never 0."""
    return scale if scale_type == "f32" else np.maximum(stored(scale, scale_type), SMALLEST)


def stored(numbers: Floats, kind: str) -> Floats:
    """Numbers (n,) as a float format holds them."""
    format = formats.get(kind)
    assert format.encode is not None
    with np.errstate(over="ignore"):
        return format.decode(format.encode(numbers))


def _weights(w: Floats, h: Floats | None) -> Floats:
    """What each weight's error counts; all alike in a group where none counts."""
    if h is None:
        return np.ones_like(w)
    return np.where((h > 0).any(axis=1, keepdims=True), h, np.float32(1)).astype(np.float32)
