"""Activation-aware quantization: channels that carry much are scaled up before rounding.

One factor s per input channel of a module: W·s is rounded, the inputs are divided by s, which is
folded into what comes before. Candidates are mean|x|^r and mean|x|^r / mean|W|^(1-r) for twenty r
from 0 on, and no scaling at all; the one with the least squared error of the module's *output* on a
sample of its inputs wins. Then scale and zero of each group (how far its range is clipped) are
searched on the output too.
After Lin et al., "AWQ: Activation-aware Weight Quantization", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit.files.quantized import Grid
from trit.machine.processors import default_threads
from trit.quantizers import _groups

Floats = NDArray[np.float32]

RATIOS = 20
ROWS = 512  # of a module on which factors are tried, spread over it
_LEAST = 1e-4  # of a factor, before factors are balanced around 1


@dataclass(frozen=True)
class Scaling:
    """The factors of a module's input channels, and what they gain.

    factors  float32 (cols,); ones where no scaling was better
    error    squared error of the output on the sample, of what it would be with ones: at most 1
    """

    factors: Floats
    error: float


def scaling(
    weights: Sequence[Floats], inputs: Floats, bits: int, group: int, threads: int | None = None
) -> Scaling:
    """Search the factors of linears (rows, cols) that share their inputs, float32 (tokens, cols).

    UsageError for groups that do not fill a row.
    """
    whole = np.concatenate(weights) if len(weights) > 1 else weights[0]
    whole = whole[:: max(1, len(whole) // ROWS)]
    energy = np.abs(inputs).mean(axis=0)
    size = np.abs(whole).mean(axis=0) + np.float32(1e-8)
    ones = np.ones(whole.shape[1], np.float32)
    ratios = [i / RATIOS for i in range(RATIOS)]
    candidates = [ones, *(balanced(energy**r) for r in ratios[1:])]
    candidates += [balanced(energy**r / size ** (1 - r)) for r in ratios]
    errors = [_error(whole, inputs, factors, bits, group, threads) for factors in candidates]
    best = int(np.argmin(errors))
    return Scaling(candidates[best], errors[best] / errors[0] if errors[0] > 0 else 1.0)


def balanced(factors: Floats) -> Floats:
    """Factors whose largest is as far above 1 as their least is below."""
    factors = np.maximum(factors, np.float32(_LEAST)).astype(np.float32)
    middle = np.sqrt(factors.max() * factors.min())
    return np.asarray(factors / middle, np.float32)


def grams(inputs: Floats, group: int) -> Floats:
    """Σ x xᵀ of each group of columns, float32 (groups, group, group), of inputs (tokens, cols)."""
    by_group = inputs.reshape(len(inputs), -1, group).transpose(1, 0, 2)
    return np.asarray(np.matmul(by_group.transpose(0, 2, 1), by_group), np.float32)


def quantize_groups(
    weights: Floats,
    bits: int,
    grams: Floats,
    threads: int | None = None,
    scale_type: str = "f16",
) -> Grid:
    """Round weights (rows, cols) for inputs whose `grams` (groups, group, group) are known.

    Scale and zero of a group are those with the least squared error of what it adds to the output.
    """
    rows, cols = weights.shape
    groups, group, _ = grams.shape
    top = np.float32((1 << bits) - 1)
    codes = np.empty((rows, cols), np.uint8)
    zeros, scales = np.empty((2, rows, groups), np.float32)

    def work(index: int) -> None:
        part = slice(index * group, (index + 1) * group)
        best = _ByOutput(np.ascontiguousarray(weights[:, part]), grams[index], top)
        _groups.search(best, scale_type)
        codes[:, part] = best.codes()
        zeros[:, index], scales[:, index] = best.zero, best.scale

    with ThreadPoolExecutor(threads or default_threads()) as pool:
        list(pool.map(work, range(groups)))
    return Grid(codes, zeros.astype(np.int16), scales, group)


class _ByOutput(_groups.Best):
    """The error is that of the output: d G dᵀ."""

    def __init__(self, w: Floats, gram: Floats, top: np.float32) -> None:
        diagonal = np.diagonal(gram)
        diagonal = diagonal if (diagonal > 0).any() else np.ones_like(diagonal)
        super().__init__(w, np.broadcast_to(diagonal, w.shape), top)
        # A channel that never fired still has to be rounded to something near.
        self.gram = gram + np.diag(np.full(len(gram), 1e-6 * float(diagonal.mean()), np.float32))

    def measure(self, difference: Floats) -> Floats:
        """See Best."""
        error: Floats = np.einsum("ij,ij->i", difference @ self.gram, difference)
        return error


def _error(
    weights: Floats, inputs: Floats, factors: Floats, bits: int, group: int, threads: int | None
) -> float:
    """Of the output of weights rounded to their range's grid under these factors."""
    scaled = weights * factors
    values = _groups.by_group(scaled, bits, group, None, threads, _groups.min_max(bits)).weights()
    values /= factors
    values -= weights
    return float(np.square(values @ inputs.T, dtype=np.float32).sum(dtype=np.float64))
